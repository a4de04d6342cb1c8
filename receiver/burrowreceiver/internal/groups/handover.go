package groups

import (
	"cmp"
	"slices"
	"time"
)

// The way out. One consumer stands for several pipelines, and an error of it says only that one of them has not taken
// everything. So a hand-over is no transaction. For each group and topic the table knows the series that some
// pipeline may have: those of every state whose hand-over was begun, up to one that succeeded. What is in this set and
// does not hold any more is ended with each hand-over: to end a series that a pipeline never had is harmless, not
// to end one that it has leaves it there for a day.
//
//	fresh, refused := table.Due()         // what was never handed over, what was refused
//	change := table.Begin(ref)            // from here on, some pipeline may have the state
//	...
//	table.Finish(changes, taken)          // true: every pipeline has it, and the ends too

// keepEnds is how long the end of a group is kept for pipelines that refuse it. No backend shows a series longer that gets no
// points: Prometheus 5 minutes, the Prometheus exporter 24 hours as config/karrot.yaml sets it.
const keepEnds = 24 * time.Hour

// entry is what the table has of a group or a topic. It is never deleted while some pipeline may have a series of it.
type entry[S any] struct {
	outgoing
	// current is the newest state; nil if it has ended.
	current *S
	// past are the incidents of a group that is gone, for the case that it comes back; nil otherwise.
	past *Incidents
	// absent is when a list of Burrow's API lacked the name first; zero if the last one had it.
	absent time.Time
}

// outgoing is what is known of an entry's hand-overs.
type outgoing struct {
	key
	// places are those of a group; 0 for a topic, whose heads are counted.
	places int
	// ended is when the current state became nil.
	ended time.Time
	// fresh says that the current state, or the end, was never handed over.
	fresh bool
	// underway says that a hand-over was begun and is not finished.
	underway bool
	// begun says that some pipeline may have the current state.
	begun bool
	// replaced are the series that some pipeline may have of states before the current one.
	replaced SeriesSet
	// refused says that the hand-over that was finished last was not taken by all; attempt is its number.
	refused bool
	attempt int64
	// series is the number of series of the state that was taken last.
	series int
	// at is the moment, in unix nanoseconds, of what was handed over last; 0 if nothing was.
	at int64
	// deleted says that the table does not have the entry any more, though a Ref of it may still be there.
	deleted bool
}

// set makes s, nil for the end, the current state. seriesOf gives the series of a state.
func (e *entry[S]) set(t *Table, s *S, seriesOf func(*S) SeriesSet) {
	if e.begun {
		had := seriesOf(e.current)
		t.replace(&e.outgoing, e.replaced.union(&had))
	}
	e.begun, e.current, e.fresh = false, s, true
	e.absent, e.past = time.Time{}, nil
}

// boundReplaced gives up ends while too many have gathered, which they do only with a pipeline that refuses for long, while ever other
// groups or partitions come and go: first those of what ended first, then those of the entry that has just changed.
func (t *Table) boundReplaced(changed *outgoing, now time.Time) {
	for t.replaced > t.limits.MaxPartitions {
		group := firstEnded(t.groups, func(e *entry[State]) bool { return !e.replaced.Empty() })
		topic := firstEnded(t.topics, func(e *entry[Topic]) bool { return !e.replaced.Empty() })
		switch {
		case group != nil && (topic == nil || !topic.ended.Before(group.ended)):
			giveUp(t, t.groups, group, now)
		case topic != nil:
			giveUp(t, t.topics, topic, now)
		default:
			if changed.replaced.size() > 0 {
				t.dropEnds(changed)
			}
			return
		}
	}
}

// firstEnded is the entry that ended first, of those that are not being handed over and that fit; nil if there is none.
func firstEnded[S any](entries map[key]*entry[S], fits func(*entry[S]) bool) (first *entry[S]) {
	for _, e := range entries {
		if e.current == nil && !e.underway && (first == nil || e.ended.Before(first.ended)) && fits(e) {
			first = e
		}
	}
	return first
}

// giveUp drops the ends of an entry that has ended, and forgets it unless its incidents may still be asked for.
func giveUp[S any](t *Table, entries map[key]*entry[S], e *entry[S], now time.Time) {
	if !e.replaced.Empty() {
		t.dropEnds(&e.outgoing)
	}
	forget(t, entries, e, now)
}

func (t *Table) setGroup(e *entry[State], s *State) { e.set(t, s, t.seriesOfGroup) }

func (t *Table) setTopic(e *entry[Topic], s *Topic) { e.set(t, s, seriesOfTopic) }

func (t *Table) seriesOfGroup(s *State) SeriesSet { return seriesOfGroup(s, t.limits.Owners) }

func (t *Table) replace(o *outgoing, set SeriesSet) {
	t.replaced += set.size() - o.replaced.size()
	o.replaced = set
}

func (t *Table) setRefused(o *outgoing, refused bool) {
	if refused != o.refused {
		o.refused = refused
		if refused {
			t.pending++
		} else {
			t.pending--
		}
	}
}

// dropEnds gives up the ends that some pipeline may not have.
func (t *Table) dropEnds(o *outgoing) {
	t.endsDropped += int64(max(o.replaced.size(), 1))
	t.replace(o, SeriesSet{})
}

// forget deletes an entry that has ended, as soon as nothing of it is needed any more.
func forget[S any](t *Table, entries map[key]*entry[S], e *entry[S], now time.Time) {
	if e.deleted || e.underway || e.past != nil && now.Sub(e.ended) < t.limits.ExpireAfter {
		return
	}
	if !e.replaced.Empty() {
		if now.Sub(e.ended) < keepEnds {
			return
		}
		t.dropEnds(&e.outgoing)
	}
	t.series -= e.series
	t.setRefused(&e.outgoing, false)
	e.deleted = true
	t.groupPlaces -= e.places
	delete(entries, e.key)
}

// makeRoom says whether one more group may be held. If it takes that, those that ended first are forgotten.
func (t *Table) makeRoom(k key, now time.Time) bool {
	for t.groupPlaces+k.places() > t.limits.MaxGroups {
		if t.groupsHeld == len(t.groups) {
			return false
		}
		first := firstEnded(t.groups, func(*entry[State]) bool { return true })
		if first == nil {
			return false
		}
		first.past = nil
		giveUp(t, t.groups, first, now)
	}
	return true
}

// Ref names a group or a topic that is to be handed over.
type Ref struct {
	*outgoing
	// One of the two is set.
	group *entry[State]
	topic *entry[Topic]
}

// Due returns what is to be handed over. Fresh is what was never handed over, ordered by cluster and name, groups
// before topics. Refused was handed over, not taken by all, and has not changed since, what has waited longest first.
func (t *Table) Due() (fresh, refused []Ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh, refused = due(t.groups, fresh, refused, func(e *entry[State]) Ref { return Ref{outgoing: &e.outgoing, group: e} })
	groups := len(fresh)
	fresh, refused = due(t.topics, fresh, refused, func(e *entry[Topic]) Ref { return Ref{outgoing: &e.outgoing, topic: e} })
	byName := func(a, b Ref) int { return cmp.Or(cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.name, b.name)) }
	slices.SortFunc(fresh[:groups], byName)
	slices.SortFunc(fresh[groups:], byName)
	slices.SortFunc(refused, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.attempt, b.attempt), byName(a, b)) })
	return fresh, refused
}

func due[S any](entries map[key]*entry[S], fresh, refused []Ref, ref func(*entry[S]) Ref) (moreFresh, moreRefused []Ref) {
	for _, e := range entries {
		switch {
		case e.current == nil && e.replaced.Empty(): // it ended before it was handed over
		case e.fresh:
			fresh = append(fresh, ref(e))
		case e.refused:
			refused = append(refused, ref(e))
		}
	}
	return fresh, refused
}

// Change is what is handed over of a group or a topic.
type Change struct {
	ref Ref
	// Cluster, and Name of the group or topic.
	Cluster, Name string
	// Group or Topic is the newest state; both are nil at the end.
	Group *State
	Topic *Topic
	// Ended are the series that some pipeline may have and that do not hold any more.
	Ended SeriesSet
	// At is the moment of the newest state, or that of the end; somewhat more than that of the hand-over before, if the clock was put back since.
	At time.Time
	// Series is the number of series that the state was turned into. Who hands over sets it.
	Series int
}

// Begin returns the newest state of a group or topic. From now on some pipeline may have it. Finish must follow.
func (t *Table) Begin(r Ref) Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	c := Change{ref: r, Cluster: r.cluster, Name: r.name, At: r.ended}
	isNew := r.fresh
	switch {
	case r.deleted: // since Due
		return c
	case r.topic != nil:
		c.Topic, c.Ended = begin(r.topic, t.attempts, seriesOfTopic)
		if c.Topic != nil {
			c.At = c.Topic.Received
		}
	default:
		c.Group, c.Ended = begin(r.group, t.attempts, t.seriesOfGroup)
		if c.Group != nil {
			c.At = c.Group.Received
		}
	}
	c.At = r.goOn(c.At, isNew)
	return c
}

// goOn makes the moment of what is new later than that of what was handed over before: where the clock was put back, backends would drop it, and
// go on to show what was. The difference is the smallest that they know.
func (o *outgoing) goOn(at time.Time, isNew bool) time.Time {
	switch {
	case !isNew:
		return time.Unix(0, o.at)
	case at.UnixNano() <= o.at:
		at = time.Unix(0, o.at+int64(time.Millisecond))
	}
	o.at = at.UnixNano()
	return at
}

func begin[S any](e *entry[S], attempt int64, seriesOf func(*S) SeriesSet) (current *S, ended SeriesSet) {
	e.fresh, e.underway, e.begun, e.attempt = false, true, e.current != nil, attempt
	if !e.replaced.Empty() {
		holds := seriesOf(e.current)
		ended = e.replaced.minus(&holds)
	}
	return e.current, ended
}

// Finish records how the hand-over of the changes ended: whether every pipeline has taken them. What arrived since Begin
// is handed over next.
func (t *Table) Finish(changes []Change, taken bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		if c.ref.topic != nil {
			finish(t, t.topics, c.ref.topic, c.Topic, seriesOfTopic, c.Series, taken, now)
			continue
		}
		finish(t, t.groups, c.ref.group, c.Group, t.seriesOfGroup, c.Series, taken, now)
	}
}

func finish[S any](t *Table, entries map[key]*entry[S], e *entry[S], state *S, seriesOf func(*S) SeriesSet, series int, taken bool, now time.Time) {
	if e.deleted {
		return
	}
	e.underway = false
	t.setRefused(&e.outgoing, !taken)
	if taken {
		t.series += series - e.series
		e.series = series
		if e.current == state {
			t.replace(&e.outgoing, SeriesSet{})
		} else {
			t.replace(&e.outgoing, seriesOf(state))
			t.boundReplaced(&e.outgoing, now)
		}
	}
	if e.current == nil {
		forget(t, entries, e, now)
	}
}
