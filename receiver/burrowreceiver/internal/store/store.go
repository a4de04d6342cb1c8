// Package store keeps the states of a table in a storage client, so that they survive a restart.
//
// Of OpenTelemetry it knows the storage interface alone. It has no clock, no goroutine and no log: who calls it says what
// becomes of an error.
package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/extension/xextension/storage"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

const (
	// A storage client can't list its keys, so each group has a numbered slot, and one record says how many there are.
	slotsKey    = "slots"
	slotPrefix  = "group/"
	timesPrefix = "times/"
	// maxSlots is far above any number of groups; a record with more is not ours.
	maxSlots = 10_000_000
	// slotsPerRead bounds what is read at once, maxWrite what is written in one transaction, in bytes.
	slotsPerRead = 100
	maxWrite     = 1 << 20
	// slotsPerTimes is how many slots share a record of their times: small, because one notification writes it whole.
	slotsPerTimes = 64
)

// ErrForeign means that the storage holds something else.
var ErrForeign = errors.New("the storage does not hold groups")

// Store is used by one goroutine.
type Store struct {
	client storage.Client
	table  *groups.Table
	seed   maphash.Seed

	kept  map[name]*slot
	free  []int
	stale []int // slots with records that were left out: the next Save deletes them
	slots int   // the number of slots ever used
	// times are those of the slots, in blocks; dirty are the blocks that are not written yet.
	times map[int][]groups.Times
	dirty map[int]bool
	round int
}

type name struct{ cluster, group string }

// slot is what the storage has of a group.
type slot struct {
	number int
	// state is the newest whose digest is that of the record.
	state  *groups.State
	digest uint64
	// received is that of the record, in unix nanoseconds.
	received int64
	round    int // in which the group was last seen in the table
}

// slotCount is the record under slotsKey.
type slotCount struct {
	Slots int `json:"slots"`
}

// Loaded says what was found.
type Loaded struct {
	// Groups are in the table now; Expired were too old; Filtered are not taken any more; LeftOut could not be used, and FirstErr says why
	// the first one.
	Groups, Expired, Filtered, LeftOut int
	FirstErr                           error
}

// open reads how many slots there are. The error is ErrForeign, with which the store is as good as a new one, or one of the client.
func open(ctx context.Context, client storage.Client, table *groups.Table) (*Store, error) {
	s := &Store{
		client: client, table: table, seed: maphash.MakeSeed(),
		kept: map[name]*slot{}, times: map[int][]groups.Times{}, dirty: map[int]bool{},
	}
	value, err := client.Get(ctx, slotsKey)
	if err != nil || value == nil {
		return s, err
	}
	var count slotCount
	if err := json.Unmarshal(value, &count); err != nil || count.Slots < 0 || count.Slots > maxSlots {
		return s, fmt.Errorf("%w: %.50q under %q", ErrForeign, value, slotsKey)
	}
	s.slots = count.Slots
	return s, nil
}

// Begin keeps a table whose groups are newer than all that the storage holds. The first Save removes that.
func Begin(ctx context.Context, client storage.Client, table *groups.Table) (*Store, error) {
	s, err := open(ctx, client, table)
	if err != nil && !errors.Is(err, ErrForeign) {
		return nil, err
	}
	for number := range s.slots {
		s.stale = append(s.stale, number)
	}
	return s, nil
}

// Load brings every group that has not expired into the table. Those that takes leaves out end there at once, so that they have no place that
// another one needs. The error is ErrForeign, or one of the client.
func Load(ctx context.Context, client storage.Client, table *groups.Table, takes func(cluster, group string) bool, now time.Time) (*Store, Loaded, error) {
	var loaded Loaded
	s, err := open(ctx, client, table)
	if err != nil {
		return s, loaded, err
	}
	for first := 0; first < s.slots; first += slotsPerTimes {
		if err := s.loadTimes(ctx, first/slotsPerTimes); err != nil {
			return s, loaded, err
		}
	}
	// Two records of one group can be there after a process was killed: the newest one counts.
	newest := map[name]int{}
	records := map[int]found{}
	if err := s.each(ctx, func(number int, value []byte) {
		cluster, group, received, ok := groups.RecordName(value)
		if !ok {
			return
		}
		records[number] = found{name{cluster, group}, received}
		if known, there := newest[name{cluster, group}]; !there || received > records[known].received {
			newest[name{cluster, group}] = number
		}
	}); err != nil {
		return s, loaded, err
	}
	err = s.each(ctx, func(number int, value []byte) {
		record, named := records[number]
		if named && newest[record.name] != number {
			s.leaveOut(number, fmt.Errorf("group %q of cluster %q has a newer record", record.group, record.cluster), &loaded)
			return
		}
		s.restore(number, value, record.received, takes, now, &loaded)
	})
	return s, loaded, err
}

// found is the group of a record, and when its state was received, in unix nanoseconds.
type found struct {
	name
	received int64
}

// each reads all slots, some at a time.
func (s *Store) each(ctx context.Context, visit func(number int, value []byte)) error {
	for first := 0; first < s.slots; first += slotsPerRead {
		var operations []*storage.Operation
		for number := first; number < min(first+slotsPerRead, s.slots); number++ {
			operations = append(operations, storage.GetOperation(slotKey(number)))
		}
		if err := s.client.Batch(ctx, operations...); err != nil {
			return err
		}
		for i, operation := range operations {
			visit(first+i, operation.Value)
		}
	}
	return nil
}

func (s *Store) loadTimes(ctx context.Context, block int) error {
	value, err := s.client.Get(ctx, timesKey(block))
	times := make([]groups.Times, slotsPerTimes)
	older := make([]timesBefore, slotsPerTimes)
	switch len(value) {
	case binary.Size(times):
		_, err = binary.Decode(value, binary.LittleEndian, times)
	case binary.Size(older):
		_, err = binary.Decode(value, binary.LittleEndian, older)
		for i, t := range older {
			times[i] = groups.Times{Record: t.Record, Received: t.Received, Polled: t.Polled}
		}
	}
	s.times[block] = times
	return err
}

// timesBefore are the times as versions wrote them that did not keep when a group was notified.
type timesBefore struct{ Record, Received, Polled int64 }

// restore brings the group of a slot into the table. received is that of its record.
func (s *Store) restore(number int, value []byte, received int64, takes func(cluster, group string) bool, now time.Time, loaded *Loaded) {
	if value == nil {
		s.free = append(s.free, number)
		return
	}
	state, err := s.table.Restore(value, *s.timesOf(number), now)
	if state == nil {
		s.leaveOut(number, err, loaded)
		return
	}
	// The next Save removes what has ended.
	switch cluster, group := state.Group.Cluster, state.Group.Group; {
	case err != nil:
		loaded.Expired++
	case !takes(cluster, group):
		s.table.EndLeftOut(cluster, group, now)
		loaded.Filtered++
	default:
		loaded.Groups++
	}
	s.kept[nameOf(state)] = &slot{number: number, state: state, digest: state.Digest(s.seed), received: received}
}

// leaveOut notes a record that can't be used.
func (s *Store) leaveOut(number int, err error, loaded *Loaded) {
	s.stale = append(s.stale, number)
	loaded.LeftOut++
	if loaded.FirstErr == nil {
		loaded.FirstErr = err
	}
}

func (s *Store) timesOf(number int) *groups.Times {
	block := number / slotsPerTimes
	if s.times[block] == nil {
		s.times[block] = make([]groups.Times, slotsPerTimes)
	}
	return &s.times[block][number%slotsPerTimes]
}

func slotKey(number int) string { return slotPrefix + strconv.Itoa(number) }

func timesKey(block int) string { return timesPrefix + strconv.Itoa(block) }

func nameOf(s *groups.State) name { return name{s.Group.Cluster, s.Group.Group} }

// Close closes the client.
func (s *Store) Close(ctx context.Context) error { return s.client.Close(ctx) }

// Saved says what Save has written.
type Saved struct {
	// Groups are those whose record was written, Bytes of all records.
	Groups, Bytes int
}

// Save writes the groups that have changed since the last time, and removes those that are gone. Where only the times have
// changed, only these are written. A group that can't be written does not keep the others from it; the error is of all that
// failed. What failed is written the next time.
func (s *Store) Save(ctx context.Context) (Saved, error) {
	changed, gone := s.compare()
	w := writer{store: s}
	var errs []error
	for _, number := range s.stale {
		errs = append(errs, w.add(ctx, storage.DeleteOperation(slotKey(number)), func() { s.free = append(s.free, number) }))
	}
	// Before anything else, so that no older record is met first when this process is killed.
	if err := w.flush(ctx); err != nil {
		return w.saved, err
	}
	s.stale = nil
	for _, state := range changed {
		kept, digest, times := s.kept[nameOf(state)], state.Digest(s.seed), state.Times()
		if kept != nil && kept.digest == digest {
			kept.state = state
			times.Record = kept.received
			if held := s.timesOf(kept.number); *held != times {
				*held = times
				s.dirty[kept.number/slotsPerTimes] = true
			}
			continue
		}
		record, err := s.table.Record(state)
		if err != nil {
			errs = append(errs, fmt.Errorf("group %q of cluster %q: %w", state.Group.Group, state.Group.Cluster, err))
			continue
		}
		errs = append(errs, w.write(ctx, state, digest, record))
	}
	errs = append(errs, w.flush(ctx))
	for _, group := range gone {
		errs = append(errs, w.remove(ctx, group))
	}
	for block := range s.dirty {
		errs = append(errs, w.writeTimes(ctx, block))
	}
	errs = append(errs, w.flush(ctx))
	return w.saved, errors.Join(errs...)
}

// compare finds the states that are new to the store, and the groups that are not in the table any more.
func (s *Store) compare() (changed []*groups.State, gone []name) {
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
	for group, kept := range s.kept {
		if kept.round != s.round {
			gone = append(gone, group)
		}
	}
	return changed, gone
}

// writer gathers operations into transactions of some maxWrite bytes.
type writer struct {
	store      *Store
	saved      Saved
	operations []*storage.Operation
	bytes      int
	// done are what the store knows once the operations are written.
	done []func()
	// taken are the slots that the operations use: of the free ones the last so many, then new ones.
	takenFree, takenNew int
}

func (w *writer) add(ctx context.Context, operation *storage.Operation, done func()) error {
	w.operations = append(w.operations, operation)
	w.bytes += len(operation.Key) + len(operation.Value)
	w.done = append(w.done, done)
	if w.bytes < maxWrite {
		return nil
	}
	return w.flush(ctx)
}

func (w *writer) write(ctx context.Context, state *groups.State, digest uint64, record []byte) error {
	s := w.store
	number := 0
	if kept := s.kept[nameOf(state)]; kept != nil {
		number = kept.number
	} else if free := len(s.free) - w.takenFree; free > 0 {
		number = s.free[free-1]
		w.takenFree++
	} else {
		number = s.slots + w.takenNew
		w.takenNew++
	}
	return w.add(ctx, storage.SetOperation(slotKey(number), record), func() {
		s.kept[nameOf(state)] = &slot{number: number, state: state, digest: digest, received: state.Received.UnixNano(), round: s.round}
		*s.timesOf(number) = state.Times()
		w.saved.Groups++
	})
}

func (w *writer) remove(ctx context.Context, group name) error {
	s := w.store
	number := s.kept[group].number
	return w.add(ctx, storage.DeleteOperation(slotKey(number)), func() {
		s.free = append(s.free, number)
		delete(s.kept, group)
	})
}

func (w *writer) writeTimes(ctx context.Context, block int) error {
	s := w.store
	value, err := binary.Append(nil, binary.LittleEndian, s.times[block])
	if err != nil {
		return err
	}
	return w.add(ctx, storage.SetOperation(timesKey(block), value), func() { delete(s.dirty, block) })
}

func (w *writer) flush(ctx context.Context) error {
	s := w.store
	operations, done, bytes, slots := w.operations, w.done, w.bytes, s.slots+w.takenNew
	takenFree := w.takenFree
	w.operations, w.done, w.bytes, w.takenFree, w.takenNew = nil, nil, 0, 0, 0
	if len(operations) == 0 {
		return nil
	}
	if slots != s.slots {
		count, err := json.Marshal(slotCount{slots})
		if err != nil {
			return err
		}
		operations = append(operations, storage.SetOperation(slotsKey, count))
		bytes += len(slotsKey) + len(count)
	}
	if err := s.client.Batch(ctx, operations...); err != nil {
		return err
	}
	s.slots, s.free = slots, s.free[:len(s.free)-takenFree]
	w.saved.Bytes += bytes
	for _, note := range done {
		note()
	}
	return nil
}
