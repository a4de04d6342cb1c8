package groups

import "github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"

// News is what has happened since it was last taken, for a log. It is bounded: numbers are of all, names of the first ones.
type News struct {
	// Expired and Gone count the groups that have ended; Left are the first of them.
	Expired, Gone int
	Left          []Departure
	// Opened, Changed and Ended count what has happened to incidents; Events are the first of it.
	Opened, Changed, Ended int
	Events                 []Event
}

// Departure is the end of a group.
type Departure struct {
	Cluster, Group string
	// By is EndedByExpiry or EndedByGone.
	By EndedBy
}

// news gathers News.
type news struct {
	News
	maxLeft, maxEvents int
}

// KeepNews makes the table keep the names of so many groups that have ended, and so many events, until they are taken.
func (t *Table) KeepNews(left, events int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.news.maxLeft, t.news.maxEvents = left, events
}

// TakeNews returns what has happened since the last call.
func (t *Table) TakeNews() News {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.news.News
	t.news.News = News{}
	return taken
}

func (n *news) left(k key, by EndedBy) {
	switch by {
	case EndedByGone:
		n.Gone++
	case EndedByExpiry:
		n.Expired++
	default: // it was not Burrow's doing
		return
	}
	if len(n.Left) < n.maxLeft {
		n.Left = append(n.Left, Departure{Cluster: k.cluster, Group: k.name, By: by})
	}
}

// tell keeps an event about a group for those who take events.
func (t *Table) tell(e Event, g *burrow.GroupStatus) {
	e.about(g)
	t.eventsDropped += int64(t.events.Add(e))
	t.news.happened(&e)
}

func (n *news) happened(e *Event) {
	switch e.Kind {
	case Opened:
		n.Opened++
	case Changed:
		n.Changed++
	case Ended:
		n.Ended++
	}
	if len(n.Events) < n.maxEvents {
		n.Events = append(n.Events, *e)
	}
}
