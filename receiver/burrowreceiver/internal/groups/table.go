// Package groups is the table between the two halves of the receiver: the last known state of every
// consumer group, and what of it the pipelines already have.
//
// It has no clock, no goroutine, no HTTP and no OpenTelemetry: every moment is an argument. One side
// calls Update, from any number of goroutines; the other side, a single goroutine, calls Collect and,
// once the pipelines have taken the changes, Commit. A refusing pipeline therefore costs freshness,
// never state: what was not committed is part of the next Collect, in its newest form.
package groups

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// Update fails with one of these when the table holds as much as it may.
var (
	ErrTooManyGroups     = errors.New("the table holds max_groups groups")
	ErrTooManyPartitions = errors.New("the table holds max_partitions partitions")
)

// Limits bound the table.
type Limits struct {
	// MaxGroups bounds the groups held, including those that ended but whose end is not committed yet.
	MaxGroups int
	// MaxPartitions bounds the listed partitions of all current states together. While a hand-over is
	// under way, the states it replaces are held beside them.
	MaxPartitions int
	// ExpireAfter is how long a group is kept after its last notification.
	ExpireAfter time.Duration
}

// State is what is known of a group. It does not change any more once the table has it.
type State struct {
	burrow.Notification
	// Received is when the notification arrived.
	Received time.Time
}

// Change is the difference between what the pipelines have of a group and what they should have.
type Change struct {
	// Sent is the state that was committed last; nil if the pipelines have nothing of the group.
	Sent *State
	// Current is the newest state; nil if the group has ended.
	Current *State
	// At is when the change happened: receipt of the current state, or the moment of expiry.
	At time.Time
	// Series is the number of series that Current was turned into. The caller of Commit sets it.
	Series int
}

// GroupStatus is the group's evaluation, the current one or the last there was.
func (c *Change) GroupStatus() *burrow.GroupStatus {
	if c.Current != nil {
		return &c.Current.Group
	}
	return &c.Sent.Group
}

// Stats says how much the table holds and has let go.
type Stats struct {
	Groups, Partitions int
	// Series is what the committed changes add up to.
	Series int
	// Expired counts the groups that were forgotten because nothing was heard of them.
	Expired int64
}

// Table holds the last known state of every group. Use New.
type Table struct {
	limits Limits

	mu         sync.Mutex
	groups     map[key]*entry
	partitions int
	series     int
	expired    int64
}

type key struct{ cluster, group string }

// entry is changed as long as current and sent differ.
type entry struct {
	current, sent *State
	series        int       // of sent
	ended         time.Time // when current became nil
}

// New makes an empty table.
func New(limits Limits) *Table {
	return &Table{limits: limits, groups: map[key]*entry{}}
}

// Update makes n, received at the given moment, the current state of its group. A notification that
// was received before the current one is dropped: answers overlap, and the newest one counts.
// The table keeps n. The error is ErrTooManyGroups or ErrTooManyPartitions, and then nothing has changed.
func (t *Table) Update(n *burrow.Notification, received time.Time) error {
	k := key{n.Group.Cluster, n.Group.Group}
	listed := len(n.Group.Partitions)

	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.groups[k]
	if e == nil && len(t.groups) >= t.limits.MaxGroups {
		return ErrTooManyGroups
	}
	before := 0
	if e != nil && e.current != nil {
		if received.Before(e.current.Received) {
			return nil
		}
		before = len(e.current.Group.Partitions)
	}
	if listed > before && t.partitions-before+listed > t.limits.MaxPartitions {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = &entry{}
		t.groups[k] = e
	}
	t.partitions += listed - before
	e.current = &State{Notification: *n, Received: received}
	return nil
}

// Collect ends the groups of which nothing was heard for ExpireAfter and returns every group whose
// current state the pipelines do not have yet, ordered by cluster and group.
func (t *Table) Collect(now time.Time) []Change {
	changes := t.collect(now)
	slices.SortFunc(changes, func(a, b Change) int {
		x, y := a.GroupStatus(), b.GroupStatus()
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Group, y.Group))
	})
	return changes
}

func (t *Table) collect(now time.Time) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changes []Change
	for k, e := range t.groups {
		if e.current != nil && now.Sub(e.current.Received) >= t.limits.ExpireAfter {
			t.partitions -= len(e.current.Group.Partitions)
			t.expired++
			e.current, e.ended = nil, now
		}
		switch {
		case e.current != e.sent && e.current != nil:
			changes = append(changes, Change{Sent: e.sent, Current: e.current, At: e.current.Received})
		case e.current != e.sent:
			changes = append(changes, Change{Sent: e.sent, At: e.ended})
		case e.current == nil:
			delete(t.groups, k) // expired before anything of it was sent
		}
	}
	return changes
}

// Commit records that the pipelines have taken the changes. What arrived since they were collected
// stays a change.
func (t *Table) Commit(changes []Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		g := c.GroupStatus()
		k := key{g.Cluster, g.Group}
		e := t.groups[k]
		t.series += c.Series - e.series
		e.sent, e.series = c.Current, c.Series
		if e.sent == nil && e.current == nil {
			delete(t.groups, k)
		}
	}
}

// Stats returns the present counts.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Groups: len(t.groups), Partitions: t.partitions, Series: t.series, Expired: t.expired}
}
