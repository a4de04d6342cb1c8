package groups

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// Incidents is what is known of a group's incidents. An incident is the time in which the group's verdict is not OK, whoever
// tells it. Burrow's notifier gives it an ID and a start when it first sees the group bad, and repeats both until the group
// is OK again; its API tells of neither.
type Incidents struct {
	// Open says that an incident is open.
	Open bool
	// ID that Burrow gave the open incident; empty until a notification brings it.
	ID string
	// Start of the open incident: as Burrow first told it, or when Karrot first knew.
	Start time.Time
	// Seen counts incidents, each once, since Since.
	Seen int64
	// Since is when the group was first known.
	Since time.Time

	// recent are hashes of the latest IDs, so that a notification that was overtaken by the close is
	// not taken for a new incident.
	recent recentIDs
	// last is the latest incident that ended, if no notification brought its ID: one of it may still come.
	last struct{ start, end time.Time }
	// late marks an incident that had already ended when such a notification opened it again, at reopened.
	late     bool
	reopened time.Time
}

// lateFor is more than the time by which a notification is overtaken. A group that is told to be bad under an old ID for longer
// than this is bad.
const lateFor = 30 * time.Second

// IncidentID is the ID of the open incident: Burrow's, or one of Karrot's own as long as no notification has brought that.
func (s *State) IncidentID() string { return s.Incidents.id(&s.Group) }

// id makes Karrot's own ID of what is kept of an incident, so that a restart does not change it.
func (i *Incidents) id(g *burrow.GroupStatus) string {
	if i.ID != "" {
		return i.ID
	}
	return fmt.Sprintf("%016x-karrot", hashID(fmt.Sprintf("%q %q %d", g.Cluster, g.Group, i.Start.UnixNano())))
}

type recentIDs [4]uint64

func hashID(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum64()
}

func (r *recentIDs) has(id string) bool {
	hash := hashID(id)
	for _, known := range r {
		if known == hash {
			return true
		}
	}
	return false
}

func (r *recentIDs) add(id string) {
	if id == "" || r.has(id) {
		return
	}
	copy(r[1:], r[:len(r)-1])
	r[0] = hashID(id)
}

// EventKind says what happened to an incident.
type EventKind int

// An incident opens, may change its severity, and ends.
const (
	Opened EventKind = iota
	Changed
	Ended
)

// EndedBy says how the end of an incident became known.
type EndedBy string

// A close is a notification of an OK group with the ID of its incident. If that is lost, the next OK says the same. An answer
// of Burrow's API can come before both. Of a group that was deleted, only the API's lists say so. A
// group from before a restart may be left out by filters now.
const (
	EndedByClose  EndedBy = "close"
	EndedByOK     EndedBy = "ok"
	EndedByPoll   EndedBy = "poll"
	EndedByExpiry EndedBy = "expiry"
	EndedByGone   EndedBy = "gone"
	EndedByFilter EndedBy = "filter"
)

// Event is what happened to an incident of a group.
type Event struct {
	Kind EventKind
	// EndedBy is set for Ended.
	EndedBy EndedBy
	// ID of the incident: Burrow's, or one of Karrot's own as long as no notification has brought that.
	ID string
	// Start of the incident; zero if not known.
	Start time.Time
	// At is when Karrot came to know.
	At time.Time
	// Previous is the status before; StatusUnknown if the group was not known.
	Previous burrow.Status
	// The state that the event is about: the new one, or the last there was before an expiry.
	Cluster, Group string
	Status         burrow.Status
	TotalLag       int64
	// Listed is the number of partitions that are not OK, Worst are those with the highest lag.
	Listed int
	Worst  []burrow.PartitionStatus
}

// Duration is how long the incident had lasted, never below 0. It is only good if Start is known.
func (e *Event) Duration() time.Duration { return max(e.At.Sub(e.Start), 0) }

// maxWorst bounds the partitions that an event names.
const maxWorst = 10

// about fills in the state.
func (e *Event) about(g *burrow.GroupStatus) {
	worst := slices.Clone(g.Partitions)
	// The API lists the others, too.
	worst = slices.DeleteFunc(worst, func(p burrow.PartitionStatus) bool { return p.Status == burrow.StatusOK })
	e.Cluster, e.Group, e.Status, e.TotalLag, e.Listed = g.Cluster, g.Group, g.Status, g.TotalLag, len(worst)
	slices.SortStableFunc(worst, func(a, b burrow.PartitionStatus) int { return cmp.Compare(b.CurrentLag, a.CurrentLag) })
	e.Worst = slices.Clone(worst[:min(len(worst), maxWorst)])
	for i := range e.Worst {
		e.Worst[i].Owner, e.Worst[i].ClientID = "", "" // nobody is told of them
	}
}

// next is the state of the group's incidents after s; before is the status until then, StatusUnknown if there was none.
// The event's Kind is only good if happened is true. Each opening has one end, and each end had an opening.
//
// Some things can't be known. A Burrow that takes over from another, or restarts, gives a running incident a
// new ID and a new start. So an ID that changes without an OK between is taken for the same incident:
// it is not counted again, and keeps its first start. If the group was in fact OK for a time of which all
// notifications were lost, two incidents are counted as one. The close of an incident that was never
// seen to be open (below the notifier's threshold, or before Karrot started) is none.
func (i Incidents) next(s *State, before burrow.Status) (after Incidents, event Event, happened bool) {
	n, at := &s.Notification, s.Received
	event = Event{At: at, Previous: before}
	switch bad := n.Group.Status > burrow.StatusOK; {
	case bad && !i.Open:
		i.Open, i.ID, i.Start = true, n.ID, n.Start
		if i.late = i.hasEnded(n); i.late {
			i.reopened = at
			break
		}
		if i.Start.IsZero() {
			i.Start = at
		}
		i.recent.add(n.ID)
		i.Seen++
		event.Kind, happened = Opened, true
	case bad && i.late && i.confirms(s):
		i.late, i.Start = false, i.reopened
		if n.ID != "" {
			i.ID = n.ID
			i.recent.add(n.ID)
		}
		i.Seen++
		event.Kind, event.Previous, happened = Opened, burrow.StatusOK, true
	case bad:
		i.adopt(n)
		event.Kind, happened = Changed, !i.late && n.Group.Status != before
	case i.Open:
		i.adopt(n)
		event.Kind, event.EndedBy, happened = Ended, endedBy(s), !i.late
		event.ID, event.Start = i.id(&n.Group), i.Start
		i.recent.add(n.ID)
		return *i.ended(at), event, happened
	}
	if happened {
		event.ID, event.Start = i.id(&n.Group), i.Start
	}
	return i, event, happened
}

// hasEnded says whether a bad evaluation is of an incident that has already ended: the notification was overtaken by
// another one, or by an answer of the API.
func (i *Incidents) hasEnded(n *burrow.Notification) bool {
	return n.ID != "" && (i.recent.has(n.ID) || i.inLast(n.Start))
}

// confirms says whether the group is bad indeed, that a late notification told to be so: a notification under an ID that has not ended, an
// answer of the API that was asked for later, or the old ID for long.
func (i *Incidents) confirms(s *State) bool {
	return s.ID != "" && !i.hasEnded(&s.Notification) || !s.Polled.IsZero() && s.Polled.After(i.reopened) || s.Received.Sub(i.reopened) >= lateFor
}

// inLast says whether Burrow can have seen the latest incident begin at start. It may have seen it somewhat before the API told of it.
func (i *Incidents) inLast(start time.Time) bool {
	return !i.last.end.IsZero() && !start.After(i.last.end) && start.After(i.last.start.Add(-maxEvaluationAge))
}

// adopt takes the ID and the start that Burrow gave the open incident. The start stays when the ID changes.
func (i *Incidents) adopt(n *burrow.Notification) {
	if n.ID == "" || n.ID == i.ID || i.recent.has(n.ID) {
		return
	}
	if i.ID == "" && !n.Start.IsZero() && !i.inLast(n.Start) {
		i.Start = n.Start
	}
	i.ID = n.ID
	i.recent.add(n.ID)
}

// ended is the same without the open incident.
func (i *Incidents) ended(at time.Time) *Incidents {
	after := &Incidents{Seen: i.Seen, Since: i.Since, recent: i.recent}
	if i.Open && i.ID == "" {
		after.last.start, after.last.end = i.Start, at
	}
	return after
}

func endedBy(s *State) EndedBy {
	switch {
	case s.ID != "":
		return EndedByClose
	case !s.Polled.IsZero():
		return EndedByPoll
	}
	return EndedByOK
}

// KeepEvents makes the table keep events of incidents from now on, at most so many that were not taken. One that names much counts as
// several.
func (t *Table) KeepEvents(limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = NewEventQueue(limit)
}

// TakeEvents returns the oldest events of incidents, and forgets them. One that names much counts as several of so many.
func (t *Table) TakeEvents(most int) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events.Take(most)
}

// DropEvents counts events that were taken and that no pipeline will get.
func (t *Table) DropEvents(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eventsDropped += int64(n)
}
