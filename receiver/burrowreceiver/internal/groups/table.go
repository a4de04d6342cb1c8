// Package groups is the table between the two halves of the receiver: the last known state of every
// consumer group, and what of it the pipelines already have.
//
// It has no clock, no goroutine, no HTTP and no OpenTelemetry: every moment is an argument. One side
// calls Update, from any number of goroutines; the other side, a single goroutine, calls Expire and Collect and,
// once the pipelines have taken the changes, Commit. A refusing pipeline therefore costs freshness,
// never state: what was not committed is part of the next Collect, in its newest form. Another goroutine
// may do the same with Events and CommitEvents.
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
	// MaxPartitions bounds the listed partitions of all current states together, and the partitions whose
	// head is followed. While a hand-over is under way, the states it replaces are held beside them.
	MaxPartitions int
	// ExpireAfter is how long a group is kept after its last notification.
	ExpireAfter time.Duration
}

// State is what is known of a group. It does not change any more once the table has it.
type State struct {
	burrow.Notification
	// Received is when the notification, or the answer of Burrow's API, arrived.
	Received time.Time
	// Polled is when Burrow's API last told of all partitions; zero if Group.Partitions are only those that a
	// notification listed. A partition that the newest notification did not list is OK, with the values of then.
	Polled time.Time
	// InAPI says that Burrow's API has told of the group at some time, so that it can say that the group is gone.
	InAPI bool
	// Incidents are those up to this notification.
	Incidents Incidents
	// TimeLags are the time lags of Group.Partitions in seconds, burrow.Unknown where it is not known; nil if none is.
	TimeLags []float64
	// MaxTimeLag is the largest known time lag of the listed partitions and MaxLag, or burrow.Unknown.
	MaxTimeLag float64
}

// TimeLag is the time lag of the listed partition i, in seconds, or burrow.Unknown.
func (s *State) TimeLag(i int) float64 {
	if s.TimeLags == nil {
		return burrow.Unknown
	}
	return s.TimeLags[i]
}

// IncidentDuration is how long the open incident has lasted at the time of the notification, never below 0;
// known is false if none is open or its start is not known.
func (s *State) IncidentDuration() (duration time.Duration, known bool) {
	if s.Incidents.ID == "" || s.Incidents.Start.IsZero() {
		return 0, false
	}
	return max(s.Received.Sub(s.Incidents.Start), 0), true
}

// Change is the difference between what the pipelines have of a group or a topic and what they should have.
type Change[S State | Topic] struct {
	// Sent is the state that was committed last; nil if the pipelines have nothing of it.
	Sent *S
	// Current is the newest state; nil if the group or topic has ended.
	Current *S
	// At is when the change happened: the moment of the current state, or that of the end.
	At time.Time
	// Series is the number of series that Current was turned into. Who commits the change sets it.
	Series int
}

// Last is the current state, or the last there was.
func (c *Change[S]) Last() *S {
	if c.Current != nil {
		return c.Current
	}
	return c.Sent
}

// Stats says how much the table holds and has let go.
type Stats struct {
	Groups, Topics, Partitions int
	// Series is what the committed changes add up to.
	Series int
	// Expired counts the groups that were forgotten because nothing was heard of them.
	Expired int64
	// EventsDropped counts the events of incidents that the pipelines did not take in time.
	EventsDropped int64
}

// Table holds the last known state of every group. Use New.
type Table struct {
	limits Limits

	mu         sync.Mutex
	groups     map[key]*entry[State]
	topics     map[headTopic]*entry[Topic]
	heads      heads
	partitions int
	offsets    int // of all topics
	series     int
	expired    int64
	events     eventQueue
}

type key struct{ cluster, group string }

// entry is changed as long as current and sent differ.
type entry[S any] struct {
	current, sent *S
	series        int       // of sent
	ended         time.Time // when current became nil
}

// New makes an empty table.
func New(limits Limits) *Table {
	return &Table{
		limits: limits, heads: newHeads(limits),
		groups: map[key]*entry[State]{}, topics: map[headTopic]*entry[Topic]{},
	}
}

// KeepEvents makes the table keep events of incidents from now on, at most so many that were not committed.
func (t *Table) KeepEvents(limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events.limit = limit
}

// Update makes n, received at the given moment, the current state of its group. A notification that
// was received before the current one is dropped: answers overlap, and the newest one counts.
// The table keeps n. The error is ErrTooManyGroups or ErrTooManyPartitions, and then nothing has changed.
func (t *Table) Update(n *burrow.Notification, received time.Time) error {
	return t.update(&State{Notification: *n, Received: received})
}

// UpdateFromAPI does the same with an answer of Burrow's API, which has all partitions and tells nothing of incidents.
func (t *Table) UpdateFromAPI(g *burrow.GroupStatus, received time.Time) error {
	return t.update(&State{Notification: burrow.Notification{Group: *g}, Received: received, Polled: received, InAPI: true})
}

func (t *Table) update(s *State) error {
	k := key{s.Group.Cluster, s.Group.Group}

	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.groups[k]
	if e == nil && len(t.groups) >= t.limits.MaxGroups {
		return ErrTooManyGroups
	}
	held, incidents, status := 0, Incidents{Since: s.Received}, burrow.StatusUnknown
	var before *State
	if e != nil && e.current != nil {
		before = e.current
		if s.Received.Before(before.Received) {
			return nil
		}
		held, incidents, status = len(before.Group.Partitions), before.Incidents, before.Group.Status
	}
	listed := s.Group.Partitions
	carried, complete := t.carried(before, s)
	if now := len(listed) + len(carried); now > held && t.partitions-held+now > t.limits.MaxPartitions {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = &entry[State]{}
		t.groups[k] = e
	}
	incidents, event, happened := incidents.next(&s.Notification, s.Received, status)
	if happened {
		t.events.add(event, &s.Group)
	}
	s.Incidents = incidents
	s.TimeLags, s.MaxTimeLag = t.heads.observe(&s.Group, s.Received)
	s.InAPI = s.InAPI || before != nil && before.InAPI
	if complete {
		s.carry(before, carried)
	}
	t.partitions += len(s.Group.Partitions) - held
	e.current = s
	return nil
}

// Expire ends the groups of which nothing was heard for ExpireAfter.
func (t *Table) Expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads.expire(now)
	for k, e := range t.groups {
		if e.current != nil && now.Sub(e.current.Received) >= t.limits.ExpireAfter {
			t.expired++
			t.end(k, e, EndedByExpiry, now)
		}
	}
	for k, e := range t.topics {
		if e.current != nil && now.Sub(e.current.Received) >= t.limits.ExpireAfter {
			t.endTopic(k, e, now)
		}
	}
}

// end forgets a group. Its series end with the next hand-over.
func (t *Table) end(k key, e *entry[State], by EndedBy, now time.Time) {
	t.endIncident(e.current, by, now)
	t.partitions -= len(e.current.Group.Partitions)
	e.current, e.ended = nil, now
	if e.sent == nil { // the pipelines never had it
		delete(t.groups, k)
	}
}

// endIncident makes the event of an incident that was open when the group was last heard of.
func (t *Table) endIncident(last *State, by EndedBy, now time.Time) {
	open := last.Incidents
	if open.ID == "" || open.late {
		return
	}
	t.events.add(Event{
		Kind: Ended, EndedBy: by, ID: open.ID, Start: open.Start, At: now, Previous: last.Group.Status,
	}, &last.Group)
}

// Collect returns every group whose current state the pipelines do not have yet, ordered by cluster and group.
func (t *Table) Collect() []Change[State] {
	changes := changesOf(t, t.groups, func(s *State) time.Time { return s.Received })
	slices.SortFunc(changes, func(a, b Change[State]) int {
		x, y := &a.Last().Group, &b.Last().Group
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Group, y.Group))
	})
	return changes
}

// CollectTopics returns every topic whose heads the pipelines do not have yet, ordered by cluster and name.
func (t *Table) CollectTopics() []Change[Topic] {
	changes := changesOf(t, t.topics, func(s *Topic) time.Time { return s.Received })
	slices.SortFunc(changes, func(a, b Change[Topic]) int {
		x, y := a.Last(), b.Last()
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Name, y.Name))
	})
	return changes
}

func changesOf[K comparable, S State | Topic](t *Table, entries map[K]*entry[S], received func(*S) time.Time) []Change[S] {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changes []Change[S]
	for _, e := range entries {
		if e.current == e.sent {
			continue
		}
		c := Change[S]{Sent: e.sent, Current: e.current, At: e.ended}
		if e.current != nil {
			c.At = received(e.current)
		}
		changes = append(changes, c)
	}
	return changes
}

// Commit records that the pipelines have taken the changes. What arrived since they were collected
// stays a change.
func (t *Table) Commit(changes []Change[State]) {
	commitTo(t, t.groups, changes, func(s *State) key { return key{s.Group.Cluster, s.Group.Group} })
}

// CommitTopics does the same for topics.
func (t *Table) CommitTopics(changes []Change[Topic]) {
	commitTo(t, t.topics, changes, func(s *Topic) headTopic { return headTopic{s.Cluster, s.Name} })
}

func commitTo[K comparable, S State | Topic](t *Table, entries map[K]*entry[S], changes []Change[S], keyOf func(*S) K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		k := keyOf(c.Last())
		e := entries[k]
		t.series += c.Series - e.series
		e.sent, e.series = c.Current, c.Series
		if e.sent == nil && e.current == nil {
			delete(entries, k)
		}
	}
}

// Events returns the events of incidents that the pipelines do not have yet, oldest first, and what
// CommitEvents must be given once they have them.
func (t *Table) Events() (events []Event, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.events.events), t.events.first + int64(len(t.events.events))
}

// CommitEvents records that the pipelines have the events up to end.
func (t *Table) CommitEvents(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events.remove(end)
}

// Stats returns the present counts.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Groups: len(t.groups), Topics: len(t.topics), Partitions: t.partitions, Series: t.series, Expired: t.expired, EventsDropped: t.events.dropped}
}
