package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/store"
)

const (
	// storageWait is how long a start waits for storage that can't be opened: in a rolling restart the process before
	// holds its lock until it has handed over everything.
	storageWait    = 25 * time.Second
	storageRetries = 500 * time.Millisecond
	// reopenInterval is how often it is tried again after the start.
	reopenInterval = 10 * time.Second
)

// keeper saves the table in a storage extension, every interval.
type keeper struct {
	store     *store.Store // nil while the storage can't be opened, and after damage
	reopen    func(context.Context) (*store.Store, error)
	reopenAt  time.Time
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption
	logger    *zap.Logger
	outage    outage
}

// openKeeper finds the storage extension and reads the table from it. The error is of a configuration that can't
// work. Whatever the storage holds, and if it can't be opened, it is no reason not to start: then nothing is kept until it can.
func openKeeper(ctx context.Context, host component.Host, r *burrowReceiver, now func() time.Time) (*keeper, error) {
	id := *r.cfg.Storage
	extension, found := host.GetExtensions()[id]
	if !found {
		return nil, fmt.Errorf("storage: %s must be listed in service.extensions", id)
	}
	source, ok := extension.(storage.Extension)
	if !ok {
		return nil, fmt.Errorf("storage: %s must be a storage extension, such as file_storage", id)
	}
	k := &keeper{telemetry: r.telemetry, own: r.own, logger: r.set.Logger.With(zap.Stringer("storage", id))}
	k.reopen = func(ctx context.Context) (*store.Store, error) {
		return withClient(ctx, func() (storage.Client, error) { return getClient(ctx, source, r.set.ID) },
			func(client storage.Client) (*store.Store, error) { return store.Begin(ctx, client, r.table) })
	}
	var err error
	k.store, err = withClient(ctx, func() (storage.Client, error) { return openClient(ctx, source, r.set.ID, k.logger) },
		func(client storage.Client) (*store.Store, error) {
			return k.load(ctx, client, r.table, &r.filters, now())
		})
	switch {
	case errors.Is(err, errDamaged):
		k.logger.Error("The storage can't be opened: nothing is kept over a restart.", zap.Error(err))
	case err != nil:
		k.logger.Error("The storage can't be opened: nothing is kept over a restart until it can. It is tried again. The error \"timeout\" means that another process holds its lock. If it says that the database is invalid, remove the file.",
			zap.Error(err), zap.Duration("every", reopenInterval))
	}
	if err != nil {
		k.notOpened(ctx, now(), err)
	}
	return k, nil
}

// notOpened counts an attempt that has failed. After one that found damage there are none, though they count: each leaves mapped memory behind.
func (k *keeper) notOpened(ctx context.Context, now time.Time, err error) {
	k.telemetry.ReceiverBurrowStorageFailures.Add(ctx, 1, k.own)
	k.reopenAt = now.Add(reopenInterval)
	if errors.Is(err, errDamaged) {
		k.reopen = func(context.Context) (*store.Store, error) { return nil, err }
	}
}

// withClient makes a store of a client, which is closed if that fails.
func withClient(ctx context.Context, open func() (storage.Client, error), use func(storage.Client) (*store.Store, error)) (*store.Store, error) {
	client, err := open()
	if err != nil {
		return nil, err
	}
	s, err := use(client)
	if err != nil {
		if closing := client.Close(ctx); !errors.Is(closing, errDamaged) {
			err = errors.Join(err, closing)
		}
		return nil, err
	}
	return s, nil
}

// load brings what the storage holds into the table, and ends what the filters leave out, which may be others than before.
func (k *keeper) load(ctx context.Context, client storage.Client, table *groups.Table, f *filters, now time.Time) (*store.Store, error) {
	s, loaded, err := store.Load(ctx, client, table, f.takesGroup, now)
	switch {
	case errors.Is(err, store.ErrForeign):
		k.logger.Warn("The storage's table of contents can't be read, and is begun anew. Groups come back with their next notification.", zap.Error(err))
	case err != nil:
		return nil, err
	}
	if loaded.LeftOut > 0 {
		k.logger.Warn("Some groups in the storage can't be used. They come back with their next notification.", zap.Int("groups", loaded.LeftOut), zap.Error(loaded.FirstErr))
	}
	k.logger.Info("Read the groups that were known before the restart", zap.Int("groups", loaded.Groups), zap.Int("expired", loaded.Expired), zap.Int("filtered", loaded.Filtered))
	return s, nil
}

// openClient waits for a lock until storageWait is over: it is let go at the end of the process that holds it. The storage
// interface has no error for that; the text is that of file_storage's database.
func openClient(ctx context.Context, source storage.Extension, receiver component.ID, logger *zap.Logger) (storage.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, storageWait)
	defer cancel()
	for attempt := 0; ; attempt++ {
		client, err := getClient(ctx, source, receiver)
		if err == nil || err.Error() != "timeout" {
			return client, err
		}
		if attempt == 0 {
			logger.Warn("The storage can't be opened yet: another process holds its lock, as the one before does until it has ended. It is tried again.", zap.Duration("for", storageWait), zap.Error(err))
		}
		select {
		case <-time.After(storageRetries):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// errDamaged means that the database's library can't read its file.
var errDamaged = errors.New("the database is damaged, remove its file and restart")

func getClient(ctx context.Context, source storage.Extension, receiver component.ID) (storage.Client, error) {
	g := &guardedClient{}
	err := g.guard(func() (err error) {
		g.client, err = source.GetClient(ctx, component.KindReceiver, receiver, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// guardedClient makes an error of what the database's library does not take for one. It panics on damage, which file_storage catches while it
// opens the file, if recreate is set. And it maps the file into memory: where that has become shorter, or the disk does not give a page, reading is
// a fault, which ends the process unless the goroutine asks for a panic. After damage nothing is asked any more: the library may hold a lock of
// its own for ever. One goroutine uses it.
type guardedClient struct {
	client  storage.Client
	damaged error
}

func (g *guardedClient) guard(do func() error) (err error) {
	if g.damaged != nil {
		return g.damaged
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if problem := recover(); problem != nil {
			g.damaged = fmt.Errorf("%w: %v", errDamaged, problem)
			err = g.damaged
		}
	}()
	return do()
}

func (g *guardedClient) Get(ctx context.Context, key string) (value []byte, err error) {
	err = g.guard(func() (err error) { value, err = g.client.Get(ctx, key); return err })
	return value, err
}

func (g *guardedClient) Set(ctx context.Context, key string, value []byte) error {
	return g.guard(func() error { return g.client.Set(ctx, key, value) })
}

func (g *guardedClient) Delete(ctx context.Context, key string) error {
	return g.guard(func() error { return g.client.Delete(ctx, key) })
}

func (g *guardedClient) Batch(ctx context.Context, operations ...*storage.Operation) error {
	return g.guard(func() error { return g.client.Batch(ctx, operations...) })
}

func (g *guardedClient) Close(ctx context.Context) error {
	return g.guard(func() error { return g.client.Close(ctx) })
}

// save writes what has changed since the last time. It counts failures, and logs when they begin and when they end.
func (k *keeper) save(ctx context.Context, now time.Time, last bool) (done bool) {
	if k.store == nil && !k.opens(ctx, now, last) {
		return true
	}
	_, err := k.store.Save(ctx)
	if err == nil {
		if k.outage.end() {
			k.logger.Info("The storage can be written again.")
		}
		return true
	}
	if errors.Is(err, errDamaged) {
		// It is not asked any more: every interval all that has changed since would be prepared for it in vain.
		k.logger.Error("The storage can't be written: nothing is kept over a restart.", zap.Error(err))
		k.store = nil
		k.notOpened(ctx, now, err)
		return true
	}
	k.telemetry.ReceiverBurrowStorageFailures.Add(ctx, 1, k.own)
	if untold, tell := k.outage.fail(now); tell {
		k.logger.Error("The storage can't be written. It is tried again every interval.", zap.Error(err), zap.Int("outages_since_last_line", untold))
	}
	return true
}

// opens tries to open a storage that could not be opened at the start, now and then and at the end. What it holds is not read: the table has
// gone on meanwhile, and would get back what has ended.
func (k *keeper) opens(ctx context.Context, now time.Time, last bool) bool {
	if now.Before(k.reopenAt) && !last {
		return false
	}
	opened, err := k.reopen(ctx)
	if err != nil {
		k.notOpened(ctx, now, err)
		return false
	}
	k.logger.Info("The storage can be opened now, and keeps the groups from here on.")
	k.store = opened
	return true
}
