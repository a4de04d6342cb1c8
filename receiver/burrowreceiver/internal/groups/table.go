// Package groups is the table between the two halves of the receiver: the last known state of every
// consumer group and topic, and which series of it the pipelines may have.
//
// It has no clock, no goroutine, no HTTP and no OpenTelemetry: every moment is an argument. The methods that bring
// states in or end them (Update, UpdateFromAPI, UpdateTopic, the lists of absence.go, Expire, Restore) are called from any
// number of goroutines. The way out (Due, Begin, Finish) is that of one goroutine; handover.go describes it. Another one
// takes the events of incidents.
package groups

import (
	"errors"
	"maps"
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
	// MaxGroups bounds the places of the groups held, including those that ended but whose end is not handed over yet.
	// The latter make room for new ones. A group takes one place, with long names more (places.go).
	MaxGroups int
	// MaxPartitions bounds the places of the partitions of all current states together, those of the heads of topics, the
	// number of partitions whose head is followed, and the series sets of states that were replaced before all pipelines took them.
	MaxPartitions int
	// ExpireAfter is how long a group is kept after its last notification or answer of Burrow's API.
	ExpireAfter time.Duration
	// Owners says that the series of burrow.partition.owner are handed over, so that their ends have to be known.
	Owners bool
}

// State is what is known of a group. It does not change any more once the table has it.
type State struct {
	burrow.Notification
	// Received is when the notification arrived, or when Burrow's API was asked.
	Received time.Time
	// Polled is when Burrow's API last told of all partitions; zero if Group.Partitions are only those that a
	// notification listed. A partition that the newest notification did not list is OK, with the values of then.
	Polled time.Time
	// FromAPI says that Burrow's API has told of the group at some time, so that it can say that the group is gone.
	FromAPI bool
	// Incidents are those up to this state.
	Incidents Incidents
	// History is what is remembered for people; no metric is made of it.
	History History
	// TimeLags are the time lags of Group.Partitions in seconds, burrow.Unknown where it is not known; nil if none is.
	TimeLags []float64
	// MaxTimeLag is the largest known time lag of all partitions and MaxLag, or burrow.Unknown. AtLeast says that it is a lower bound.
	MaxTimeLag float64
	AtLeast    bool
	// Ahead is the number of partitions whose newest commit lies above the head that Burrow has read since; burrow.Unknown if no
	// head is known.
	Ahead int64
	// Notified is when the last notification about the group arrived; zero if none has.
	Notified time.Time
	// LastCommit is the time of the newest commit of all partitions that are known, in unix milliseconds; 0 if none is.
	LastCommit int64

	// answered is when Burrow's API last told of the group, also if its partitions had no place; zero if it has not for ExpireAfter.
	answered time.Time
	// answer is what it told then.
	answer answer
	// held says that MaxTimeLag is that of the answer.
	held bool
	// bounds says of which partitions the time lag is a lower bound; nil if of none.
	bounds []bool
	// places are those that Group.Partitions take in the table that has the state.
	places int
}

// TimeLag is the time lag of the listed partition i, in seconds, or burrow.Unknown.
func (s *State) TimeLag(i int) float64 {
	if s.TimeLags == nil {
		return burrow.Unknown
	}
	return s.TimeLags[i]
}

// setTimeLag sets the time lag of partition i. All are set in one pass.
func (s *State) setTimeLag(i int, lag timeLag) {
	if lag.seconds == burrow.Unknown {
		return
	}
	if s.TimeLags == nil {
		s.TimeLags = slices.Repeat([]float64{burrow.Unknown}, len(s.Group.Partitions))
	}
	s.TimeLags[i] = lag.seconds
	if lag.bound {
		if s.bounds == nil {
			s.bounds = make([]bool, len(s.Group.Partitions))
		}
		s.bounds[i] = true
	}
	s.atLeast(lag)
}

// timeLag is the time lag of partition i, and whether it is a lower bound.
func (s *State) timeLag(i int) timeLag {
	return timeLag{seconds: s.TimeLag(i), bound: s.bounds != nil && s.bounds[i]}
}

// atLeast raises MaxTimeLag to that of one more partition.
func (s *State) atLeast(lag timeLag) {
	if lag.seconds > s.MaxTimeLag {
		s.MaxTimeLag, s.AtLeast = lag.seconds, lag.bound
	}
}

// told is the moment of which partition i is told: the last poll's, if the newest notification does not tell of it.
func (s *State) told(i int) time.Time {
	p, m := &s.Group.Partitions[i], s.Group.MaxLag
	switch {
	case s.Polled.IsZero(), p.Status != burrow.StatusOK:
		return s.Received
	case m != nil && (burrow.ComparePartition(m, p) == 0 || p.CurrentLag > m.CurrentLag):
		// It is named, or was further behind than the one that is, and so has moved.
		return s.Received
	}
	return s.Polled
}

// OldestUnread is when the oldest message of partition i was written that is not committed; zero if there is none, or it is not known.
func (s *State) OldestUnread(i int) time.Time {
	return before(s.told(i), s.TimeLag(i))
}

// OldestUnreadOfAll is the same of the partition with the largest time lag.
func (s *State) OldestUnreadOfAll() time.Time {
	if s.held {
		return before(s.answered, s.MaxTimeLag)
	}
	for i, lag := range s.TimeLags {
		if lag == s.MaxTimeLag {
			return s.OldestUnread(i)
		}
	}
	return before(s.Received, s.MaxTimeLag)
}

func before(moment time.Time, seconds float64) time.Time {
	if seconds <= 0 {
		return time.Time{}
	}
	return moment.Add(-time.Duration(seconds * float64(time.Second)))
}

// lastCommit finds LastCommit.
func (s *State) lastCommit() (last int64) {
	for i := range s.Group.Partitions {
		last = max(last, s.Group.Partitions[i].End.Timestamp)
	}
	if m := s.Group.MaxLag; m != nil {
		last = max(last, m.End.Timestamp)
	}
	return last
}

// IncidentDuration is how long the open incident has lasted at the time of the state, never below 0;
// known is false if none is open or its start is not known.
func (s *State) IncidentDuration() (duration time.Duration, known bool) {
	if !s.Incidents.Open || s.Incidents.Start.IsZero() {
		return 0, false
	}
	return max(s.Received.Sub(s.Incidents.Start), 0), true
}

// Stats says how much the table holds and has let go.
type Stats struct {
	Groups, Topics, Partitions int
	// Pending counts the groups and topics whose newest state or end was refused, so that a pipeline may lack it.
	Pending int
	// Series is what the hand-overs that succeeded add up to.
	Series int
	// Expired counts the groups that were forgotten because nothing was received of them.
	Expired int64
	// EndsDropped counts the series whose end was given up, because it was refused for too long or too many had gathered.
	EndsDropped int64
	// EventsDropped counts the events of incidents that the pipelines did not take.
	EventsDropped int64
}

// Table holds the last known state of every group and topic. Use New.
type Table struct {
	limits Limits

	mu         sync.Mutex
	groups     map[key]*entry[State]
	topics     map[key]*entry[Topic]
	heads      heads
	groupsHeld int // groups that have not ended
	topicsHeld int
	partitions int // of all current states of groups
	// groupPlaces are those of all groups, ended ones too; partitionPlaces and headPlaces those of all current states.
	groupPlaces, partitionPlaces, headPlaces int
	leftOut                                  int64
	// replaced is the size of all series sets of states that were replaced.
	replaced    int
	attempts    int64 // that were begun
	pending     int   // groups and topics that were refused
	series      int
	expired     int64
	endsDropped int64
	events      EventQueue
	// eventsDropped counts those that no pipeline gets.
	eventsDropped int64
	news          news
	// moved is what LastMoved returned last.
	moved map[string]time.Time
}

// key names a group or a topic.
type key struct{ cluster, name string }

// New makes an empty table.
func New(limits Limits) *Table {
	return &Table{
		limits: limits, heads: newHeads(limits),
		groups: map[key]*entry[State]{}, topics: map[key]*entry[Topic]{},
	}
}

// Update makes n, received at the given moment, the current state of its group, unless a newer one is known: answers
// overlap, and Burrow keeps evaluations for a while. The table keeps n. The error is ErrTooManyGroups or
// ErrTooManyPartitions, and then nothing has changed. A group that is known is never refused: if its partitions have no
// place they are left out, and what is told of the group itself is true all the same.
func (t *Table) Update(n *burrow.Notification, received time.Time) error {
	return t.update(&State{Notification: *n, Received: received, Notified: received})
}

// UpdateFromAPI does the same with an answer of Burrow's API, which was asked for at the given moment and has all partitions.
func (t *Table) UpdateFromAPI(g *burrow.GroupStatus, asked time.Time) error {
	return t.update(&State{Notification: burrow.Notification{Group: *g}, Received: asked, Polled: asked, FromAPI: true, answered: asked})
}

func (t *Table) update(s *State) error {
	k := key{s.Group.Cluster, s.Group.Group}

	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.groups[k]
	if e == nil && !t.makeRoom(k, s.Received) {
		return ErrTooManyGroups
	}
	incidents, status := Incidents{Since: s.Received}, burrow.StatusUnknown
	s.answer = noAnswer
	var before *State
	switch {
	case e != nil && e.current != nil:
		before = e.current
		incidents, status = before.Incidents, before.Group.Status
		if s.Received.Before(before.Received) {
			return nil
		}
		if s.olderEvaluation(before, min(maxEvaluationAge, t.limits.ExpireAfter/2)) {
			adopt(e, s)
			return nil
		}
		if s.Notified.IsZero() {
			s.Notified = before.Notified
		}
	case e != nil && e.past != nil:
		incidents = *e.past
	}
	unlisted, complete := t.unlisted(before, s)
	s.places = listedPlaces(&s.Group)
	for _, i := range unlisted {
		s.places += partitionPlaces(&before.Group, &before.Group.Partitions[i])
	}
	full := !t.hasPlaces(before, s.places)
	if full && before == nil {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = t.addGroup(k)
	}
	incidents, event, happened := incidents.next(s, status)
	if happened {
		t.tell(event, &s.Group)
	}
	s.Incidents = incidents
	if t.heads.full(s.Received) {
		t.heads.reclaim(func(yield func(*State) bool) {
			if yield(s) {
				t.currentGroups(yield)
			}
		}, s.Received)
	}
	if before != nil {
		s.History = before.History
	}
	var ended *Event
	if happened && event.Kind == Ended {
		ended = &event
	}
	s.History = s.History.next(before, s, ended)
	maxLagTime := t.heads.observe(s)
	s.FromAPI = s.FromAPI || before != nil && before.FromAPI
	s.LastCommit = s.lastCommit()
	switch {
	case full:
		t.leftOut += int64(len(s.Group.Partitions))
		s.leaveOutPartitions()
	case complete:
		s.keepUnlisted(before, unlisted, maxLagTime, &t.heads)
		s.places = listedPlaces(&s.Group) // one of the partitions can be MaxLag now
		s.LastCommit = s.lastCommit()
	}
	switch {
	case !s.answered.IsZero():
		s.answer = answer{timeLag{s.MaxTimeLag, s.AtLeast}, s.Ahead}
	case before != nil && s.Received.Sub(before.answered) < t.limits.ExpireAfter:
		s.answered, s.answer = before.answered, before.answer
		if full || !complete {
			// The newest commit can be that of a partition that is not named.
			s.LastCommit = max(s.LastCommit, before.LastCommit)
			s.holdAnswer()
		}
	}
	t.hold(before, -1)
	t.hold(s, 1)
	t.setGroup(e, s)
	t.boundReplaced(&e.outgoing, s.Received)
	return nil
}

// Histories counts the partitions whose head is followed, for time lags. They outlive what they belong to while there is
// room, so that they are not a part of Stats.
func (t *Table) Histories() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heads.count
}

// currentGroups goes through the states of all groups that have not ended.
func (t *Table) currentGroups(yield func(*State) bool) {
	for _, e := range t.groups {
		if e.current != nil && !yield(e.current) {
			return
		}
	}
}

// adopt takes what an evaluation that is too old to count tells: that it came, and of the open incident. It goes out with the next state: a
// second point of the same moment would be refused by some backends.
func adopt(e *entry[State], old *State) {
	s := *e.current
	if !s.Notified.IsZero() && !old.Notified.IsZero() {
		s.Notified = old.Notified
	}
	if old.Group.Status > burrow.StatusOK && s.Incidents.Open {
		s.Incidents.adopt(&old.Notification)
	}
	if s.Notified != e.current.Notified || s.Incidents != e.current.Incidents {
		e.current = &s
	}
}

// Expire ends the groups and topics of which nothing was received for ExpireAfter.
func (t *Table) Expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads.expire(now)
	for _, e := range t.groups {
		switch {
		case e.current == nil:
			forget(t, t.groups, e, now)
		case now.Sub(e.current.Received) >= t.limits.ExpireAfter:
			t.expired++
			t.endGroup(e, EndedByExpiry, now)
		}
	}
	for _, e := range t.topics {
		switch {
		case e.current == nil:
			forget(t, t.topics, e, now)
		case now.Sub(e.current.Received) >= t.limits.ExpireAfter:
			t.endTopic(e, now)
		}
	}
}

// EndLeftOut ends a group that the filters leave out.
func (t *Table) EndLeftOut(cluster, group string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.groups[key{cluster, group}]; e != nil && e.current != nil {
		t.endGroup(e, EndedByFilter, now)
	}
}

// endGroup forgets a group. Its series end with the next hand-over.
func (t *Table) endGroup(e *entry[State], by EndedBy, now time.Time) {
	t.news.left(e.key, by)
	t.endIncident(e.current, by, now)
	t.hold(e.current, -1)
	var past *Incidents
	if by == EndedByGone {
		// Burrow may know the group again soon.
		past = e.current.Incidents.ended(now)
	}
	t.setGroup(e, nil)
	e.ended, e.past = now, past
	forget(t, t.groups, e, now)
	t.boundReplaced(&e.outgoing, now)
}

// endIncident makes the event of an incident that was open when the group was last known.
func (t *Table) endIncident(last *State, by EndedBy, now time.Time) {
	open := last.Incidents
	if !open.Open || open.late {
		return
	}
	t.tell(Event{
		Kind: Ended, EndedBy: by, ID: open.id(&last.Group), Start: open.Start, At: now, Previous: last.Group.Status,
	}, &last.Group)
}

func (t *Table) endTopic(e *entry[Topic], now time.Time) {
	t.headPlaces -= e.current.places()
	t.topicsHeld--
	t.setTopic(e, nil)
	e.ended = now
	forget(t, t.topics, e, now)
	t.boundReplaced(&e.outgoing, now)
}

// Each calls visit with the current state of every group. It must not call the table.
func (t *Table) Each(visit func(*State)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.currentGroups {
		visit(s)
	}
}

// LastMoved says of each cluster when anything in it was last seen to move: the newest commit of a group, or a head that became another
// one. It does not go back because a group or topic leaves, as long as another one is there. A cluster in which nothing was seen to move is not there.
func (t *Table) LastMoved() map[string]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, received := map[string]time.Time{}, map[string]time.Time{}
	later := func(moments map[string]time.Time, cluster string, at time.Time) {
		if at.After(moments[cluster]) {
			moments[cluster] = at
		}
	}
	for s := range t.currentGroups {
		later(received, s.Group.Cluster, s.Received)
		if s.LastCommit > 0 {
			// The clock of a broker can be ahead.
			later(last, s.Group.Cluster, time.UnixMilli(min(s.LastCommit, s.Received.UnixMilli())))
		}
	}
	for k, e := range t.topics {
		if e.current != nil {
			later(received, k.cluster, e.current.Received)
			later(last, k.cluster, e.current.Moved)
		}
	}
	for cluster, at := range received {
		// If it is much later than all that was received, the clock was put back.
		if moved := t.moved[cluster]; moved.Sub(at) <= maxHeadAge {
			later(last, cluster, moved)
		}
	}
	t.moved = last
	return maps.Clone(last)
}

// Stats returns the present counts.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Groups: t.groupsHeld, Topics: t.topicsHeld, Partitions: t.partitions, Pending: t.pending, Series: t.series,
		Expired: t.expired, EndsDropped: t.endsDropped, EventsDropped: t.eventsDropped,
	}
}
