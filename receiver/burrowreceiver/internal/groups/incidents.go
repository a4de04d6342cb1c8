package groups

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// Incidents is what is known of a group's incidents. Burrow gives an incident an ID and a start when a group
// is first seen bad, and repeats both until the group is OK again.
type Incidents struct {
	// ID of the incident that is open; empty if none is.
	ID string
	// Start of the open incident as Burrow first told it; zero if that is not known.
	Start time.Time
	// Seen counts incidents, each once, since Since.
	Seen int64
	// Since is when the first notification of the group arrived.
	Since time.Time

	// recent are hashes of the latest IDs, so that a notification that was overtaken by the close is
	// not taken for a new incident.
	recent recentIDs
	// late marks an incident that had already ended when such a notification opened it again.
	late bool
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
	if r.has(id) {
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

// A close is a notification of an OK group with the ID of its incident. If that is lost, the next OK says the same.
// Of a group that was deleted, nothing says so, but that Burrow's API lists it no longer.
const (
	EndedByClose  EndedBy = "close"
	EndedByOK     EndedBy = "ok"
	EndedByExpiry EndedBy = "expiry"
	EndedByGone   EndedBy = "gone"
)

// Event is what happened to an incident of a group.
type Event struct {
	Kind EventKind
	// EndedBy is set for Ended.
	EndedBy EndedBy
	ID      string
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
}

// next is the state of the group's incidents after a notification; before is the status until then,
// StatusUnknown if there was none. The event's Kind is only good if happened is true.
//
// Some things can't be known. A Burrow that takes over from another, or restarts, gives a running incident a
// new ID and a new start. So an ID that changes without an OK between is taken for the same incident:
// it is not counted again, and keeps its first start. If the group was in fact OK for a time of which all
// notifications were lost, two incidents are counted as one. A body without ID (a bare Result) tells
// nothing of incidents, but that an OK ends one.
func (i Incidents) next(n *burrow.Notification, at time.Time, before burrow.Status) (after Incidents, event Event, happened bool) {
	event = Event{ID: n.ID, Start: n.Start, At: at, Previous: before}
	open := i.ID != ""
	switch bad := n.Group.Status > burrow.StatusOK; {
	case bad && !open && n.ID == "":
		// Bad, but nothing names an incident.
	case bad && !open:
		i.late = i.recent.has(n.ID)
		if !i.late {
			i.Seen++
		}
		i.ID, i.Start = n.ID, n.Start
		i.recent.add(n.ID)
		event.Kind, happened = Opened, !i.late
	case bad:
		if n.ID != "" && n.ID != i.ID {
			i.ID = n.ID
			i.recent.add(n.ID)
		}
		if i.Start.IsZero() {
			i.Start = n.Start
		}
		event.ID, event.Start = i.ID, i.Start
		event.Kind, happened = Changed, !i.late && n.Group.Status != before
	case open:
		event.ID, event.Start = i.ID, i.Start
		event.Kind, event.EndedBy, happened = Ended, endedBy(n), !i.late
		if n.ID != "" {
			i.recent.add(n.ID)
		}
		i.ID, i.Start, i.late = "", time.Time{}, false
	case n.ID != "" && !i.recent.has(n.ID):
		// The close of an incident that was not heard of: below the notifier's threshold, or before Karrot started.
		i.Seen++
		i.recent.add(n.ID)
		event.Kind, event.EndedBy, happened = Ended, EndedByClose, true
	}
	return i, event, happened
}

func endedBy(n *burrow.Notification) EndedBy {
	if n.ID != "" {
		return EndedByClose
	}
	return EndedByOK
}

// eventQueue keeps events until the pipelines have them, the newest if there are too many.
type eventQueue struct {
	limit   int
	first   int64 // number of events[0]
	events  []Event
	dropped int64
}

// add appends an event about a group.
func (q *eventQueue) add(e Event, g *burrow.GroupStatus) {
	if q.limit == 0 {
		return
	}
	e.about(g)
	if len(q.events) >= q.limit {
		q.dropped++
		q.remove(q.first + 1)
	}
	q.events = append(q.events, e)
}

// remove forgets the events before number end.
func (q *eventQueue) remove(end int64) {
	n := min(max(end-q.first, 0), int64(len(q.events)))
	clear(q.events[:n])
	q.events = q.events[n:]
	q.first += n
}
