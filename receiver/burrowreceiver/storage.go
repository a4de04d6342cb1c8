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

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/store"
)

const (
	// storageWait is how long a start waits for storage that can't be opened: in a rolling restart the process before
	// holds its lock until it has handed over everything.
	storageWait    = 25 * time.Second
	storageRetries = 500 * time.Millisecond
)

// keeper saves the table in a storage extension, every interval.
type keeper struct {
	store     *store.Store
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption
	logger    *zap.Logger
	outage    outage
}

// openKeeper finds the storage extension and reads the table from it. The error is of a configuration that can't
// work. Whatever the storage holds, and if it can't be opened, it is no reason not to start: then nothing is kept, and the
// keeper is nil.
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
	logger := r.set.Logger.With(zap.Stringer("storage", id))
	client, err := openClient(ctx, source, r.set.ID, logger)
	if err != nil {
		logger.Error("The storage can't be opened: nothing is kept over a restart. The error \"timeout\" means that another process holds its lock. If it says that the database is invalid or damaged, remove the file.", zap.Error(err))
		return nil, nil
	}
	s, loaded, err := store.Load(ctx, client, r.table, now())
	switch {
	case errors.Is(err, store.ErrForeign):
		logger.Warn("The storage's table of contents can't be read, and is begun anew. Groups come back with their next notification.", zap.Error(err))
	case err != nil:
		logger.Error("The storage can't be read: nothing is kept over a restart.", zap.Error(errors.Join(err, client.Close(ctx))))
		return nil, nil
	}
	if loaded.LeftOut > 0 {
		logger.Warn("Some groups in the storage can't be used. They come back with their next notification.", zap.Int("groups", loaded.LeftOut), zap.Error(loaded.FirstErr))
	}
	logger.Info("Read the groups that were known before the restart", zap.Int("groups", loaded.Groups), zap.Int("expired", loaded.Expired))
	return &keeper{store: s, telemetry: r.telemetry, own: r.own, logger: r.set.Logger}, nil
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

// getClient makes the error of a damaged database an error. The database's library panics on it, which file_storage catches if recreate is
// set. A file that is shorter than it says makes it read behind the end, which is a panic only with SetPanicOnFault; without, the
// process would end at this start and at each one after it.
func getClient(ctx context.Context, source storage.Extension, receiver component.ID) (client storage.Client, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if problem := recover(); problem != nil {
			client, err = nil, fmt.Errorf("damaged: %v", problem)
		}
	}()
	return source.GetClient(ctx, component.KindReceiver, receiver, "")
}

// save writes what has changed since the last time. It counts failures, and logs when they begin and when they end.
func (k *keeper) save(ctx context.Context, now time.Time, _ bool) (done bool) {
	_, err := k.store.Save(ctx)
	if err == nil {
		if k.outage.end() {
			k.logger.Info("The storage can be written again.")
		}
		return true
	}
	k.telemetry.ReceiverBurrowStorageFailures.Add(ctx, 1, k.own)
	if untold, tell := k.outage.fail(now); tell {
		k.logger.Error("The storage can't be written. It is tried again every interval.", zap.Error(err), zap.Int("outages_since_last_line", untold))
	}
	return true
}
