package burrowreceiver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const (
	// A storage client can't list its keys, so each group has a numbered slot, and one record says how many there are.
	slotsKey   = "slots"
	slotPrefix = "group/"
	// maxSlots is far above any number of groups; a record with more is not ours.
	maxSlots = 10_000_000
	// slotsPerRead bounds what is read at once.
	slotsPerRead = 1000
)

// storageNames are tried in turn: a file that can't be opened stays where it is, and the next one is used,
// now and after the next start.
var storageNames = []string{"", "second", "third"}

// store keeps the table in a storage extension. It is used by one goroutine.
type store struct {
	client    storage.Client
	table     *groups.Table
	telemetry *metadata.TelemetryBuilder
	logger    *zap.Logger

	kept    map[groupName]*keptGroup
	free    []int
	slots   int // the number of slots ever used
	round   int
	failing bool
}

type groupName struct{ cluster, group string }

// keptGroup is what the storage has of a group.
type keptGroup struct {
	slot  int
	state *groups.State
	round int // in which the group was last seen in the table
}

// slotCount is the record under slotsKey.
type slotCount struct {
	Slots int `json:"slots"`
}

// openStore finds the storage extension and reads the table from it. The error is of a configuration that can't
// work. Whatever the storage holds, it is no reason not to start: without a store, nothing is kept.
func openStore(ctx context.Context, host component.Host, r *burrowReceiver, now time.Time) (*store, error) {
	id := *r.cfg.Storage
	extension, found := host.GetExtensions()[id]
	if !found {
		return nil, fmt.Errorf("storage: %s must be listed in service.extensions", id)
	}
	source, ok := extension.(storage.Extension)
	if !ok {
		return nil, fmt.Errorf("storage: %s must be a storage extension, such as file_storage", id)
	}
	for _, name := range storageNames {
		s := &store{table: r.table, telemetry: r.telemetry, logger: r.set.Logger, kept: map[groupName]*keptGroup{}}
		err := s.open(ctx, source, r.set.ID, name, now)
		if err == nil {
			return s, nil
		}
		r.set.Logger.Error("The storage can't be read; another one is tried. Remove the damaged file.",
			zap.Stringer("storage", id), zap.String("name", name), zap.Error(err))
	}
	r.set.Logger.Error("Nothing is kept over a restart.", zap.Stringer("storage", id))
	return nil, nil
}

// open gets a client and reads the table. A damaged database can make its library panic, or fault where
// the file is shorter than it says.
func (s *store) open(ctx context.Context, source storage.Extension, receiver component.ID, name string, now time.Time) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("damaged: %v", problem)
		}
	}()
	if s.client, err = source.GetClient(ctx, component.KindReceiver, receiver, name); err != nil {
		return err
	}
	if err = s.load(ctx, now); err != nil {
		return errors.Join(err, s.client.Close(ctx))
	}
	return nil
}

// load brings every group that has not expired into the table.
func (s *store) load(ctx context.Context, now time.Time) error {
	value, err := s.client.Get(ctx, slotsKey)
	if err != nil || value == nil {
		return err
	}
	slots, ok := countSlots(value)
	if !ok {
		// The slots of a foreign or damaged record are overwritten one by one.
		s.logger.Warn("The storage's table of contents can't be read. Its groups come back with their next notification.", zap.ByteString("record", value[:min(len(value), 64)]))
		return nil
	}
	var firstBad error
	restored, bad := 0, 0
	for first := 0; first < slots; first += slotsPerRead {
		var reads []*storage.Operation
		for slot := first; slot < min(first+slotsPerRead, slots); slot++ {
			reads = append(reads, storage.GetOperation(slotKey(slot)))
		}
		if err := s.client.Batch(ctx, reads...); err != nil {
			return err
		}
		for i, read := range reads {
			taken, err := s.loadSlot(first+i, read.Value, now)
			if taken {
				restored++
			}
			if err != nil {
				bad++
				firstBad = cmp.Or(firstBad, err)
			}
		}
	}
	s.slots = slots
	if bad > 0 {
		s.logger.Warn("Some groups in the storage can't be used. They come back with their next notification.", zap.Int("groups", bad), zap.Error(firstBad))
	}
	s.logger.Info("Read the groups that were known before the restart", zap.Int("groups", restored))
	return nil
}

func countSlots(record []byte) (slots int, ok bool) {
	var count slotCount
	err := json.Unmarshal(record, &count)
	return count.Slots, err == nil && count.Slots >= 0 && count.Slots <= maxSlots
}

// loadSlot returns whether the group of the slot is in the table now.
func (s *store) loadSlot(slot int, value []byte, now time.Time) (taken bool, err error) {
	if value == nil {
		s.free = append(s.free, slot)
		return false, nil
	}
	state, err := s.table.Restore(value, now)
	if state == nil {
		s.free = append(s.free, slot)
		return false, err
	}
	// One that has expired is not in the table, so the next save removes it.
	s.kept[groupName{state.Group.Cluster, state.Group.Group}] = &keptGroup{slot: slot, state: state}
	return err == nil, nil
}

func slotKey(slot int) string { return slotPrefix + strconv.Itoa(slot) }

// save writes the groups that have changed since the last time, and removes those that are gone, all in one
// transaction. It always returns true: what could not be written is written the next time.
func (s *store) save(ctx context.Context, _ time.Time) bool {
	changed, gone := s.compare()
	if len(changed)+len(gone) == 0 {
		return true
	}
	slots, free := s.slots, s.free
	var operations []*storage.Operation
	taken := make([]int, len(changed))
	for i, state := range changed {
		if kept := s.kept[nameOf(state)]; kept != nil {
			taken[i] = kept.slot
		} else if n := len(free); n > 0 {
			taken[i], free = free[n-1], free[:n-1]
		} else {
			taken[i] = slots
			slots++
		}
		record, err := s.table.Record(state)
		if err != nil {
			s.observe(ctx, err)
			return true
		}
		operations = append(operations, storage.SetOperation(slotKey(taken[i]), record))
	}
	for _, name := range gone {
		operations = append(operations, storage.DeleteOperation(slotKey(s.kept[name].slot)))
	}
	if slots != s.slots {
		count, err := json.Marshal(slotCount{slots})
		if err != nil {
			s.observe(ctx, err)
			return true
		}
		operations = append(operations, storage.SetOperation(slotsKey, count))
	}
	err := s.client.Batch(ctx, operations...)
	s.observe(ctx, err)
	if err != nil {
		return true
	}
	s.slots, s.free = slots, free
	for i, state := range changed {
		s.kept[nameOf(state)] = &keptGroup{slot: taken[i], state: state, round: s.round}
	}
	for _, name := range gone {
		s.free = append(s.free, s.kept[name].slot)
		delete(s.kept, name)
	}
	return true
}

// compare finds the difference between the table and the storage.
func (s *store) compare() (changed []*groups.State, gone []groupName) {
	s.round++
	s.table.Each(func(state *groups.State) {
		kept := s.kept[nameOf(state)]
		if kept != nil {
			kept.round = s.round
		}
		if kept == nil || kept.state != state {
			changed = append(changed, state)
		}
	})
	for name, kept := range s.kept {
		if kept.round != s.round {
			gone = append(gone, name)
		}
	}
	return changed, gone
}

func nameOf(s *groups.State) groupName { return groupName{s.Group.Cluster, s.Group.Group} }

// observe counts failures, and logs when they begin and when they end.
func (s *store) observe(ctx context.Context, err error) {
	if err != nil {
		s.telemetry.ReceiverBurrowStorageFailures.Add(ctx, 1)
		if !s.failing {
			s.logger.Error("The storage can't be written. It is tried again every interval.", zap.Error(err))
		}
	} else if s.failing {
		s.logger.Info("The storage can be written again.")
	}
	s.failing = err != nil
}
