package groups

import "slices"

// EventQueue keeps events of incidents in their order, the newest if there are too many. It is bounded by places, as the table is: an
// event with names of ordinary length takes one. The zero queue keeps none.
type EventQueue struct {
	limit, places int
	events        []Event
}

// NewEventQueue makes a queue of so many places.
func NewEventQueue(limit int) EventQueue { return EventQueue{limit: limit} }

// Len is how many events there are.
func (q *EventQueue) Len() int { return len(q.events) }

// Add appends events, and says how many of the oldest were dropped for them.
func (q *EventQueue) Add(events ...Event) (dropped int) {
	if q.limit == 0 {
		return 0
	}
	for i := range events {
		q.events = append(q.events, events[i])
		q.places += events[i].places()
	}
	for q.places > q.limit && len(q.events) > 1 {
		q.forget(1)
		dropped++
	}
	return dropped
}

// Take returns the oldest events, of so many places at the most but never none, and forgets them.
func (q *EventQueue) Take(most int) []Event {
	n := 0
	for ; n < len(q.events); n++ {
		most -= q.events[n].places()
		if most < 0 && n > 0 {
			break
		}
	}
	taken := slices.Clone(q.events[:n])
	q.forget(n)
	return taken
}

func (q *EventQueue) forget(n int) {
	for i := range q.events[:n] {
		q.places -= q.events[i].places()
	}
	clear(q.events[:n])
	q.events = q.events[n:]
}

// places are what the names of an event take.
func (e *Event) places() int {
	names := len(e.Cluster) + len(e.Group) + len(e.ID)
	for i := range e.Worst {
		names += len(e.Worst[i].Topic)
	}
	return places(names)
}
