package groups

import "time"

// List is what a complete list of Burrow's API says of a cluster. A Burrow that has just started answers with
// empty lists until its modules have read something. So what a list lacks is gone only when the next one, at least Interval
// later, lacks it too; and a list that lacks all, or more than half, of what is known says nothing: what is
// gone then ends by expiry.
type List struct {
	Cluster string
	Names   []string
	// Asked is when the poll began, so not after the list was asked for.
	Asked time.Time
	// Interval is the least time between two polls.
	Interval time.Duration
}

// ListGroups ends the groups that the API has told of and does not list any more.
func (t *Table) ListGroups(l List, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range l.gone(knownGroups(t, l.Cluster)) {
		t.endGroup(t.groups[e.key], EndedByGone, now)
	}
}

// ListTopics does the same with topics, and with what is known of their heads.
func (t *Table) ListTopics(l List, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range l.gone(knownTopics(t, l.Cluster)) {
		t.endTopic(t.topics[e.key], now)
		t.heads.forgetTopic(e.key)
	}
}

// EndCluster ends what the API has told of in a cluster that is gone, unless something was received since the API was asked.
func (t *Table) EndCluster(cluster string, asked, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range knownGroups(t, cluster) {
		if e.received.Before(asked) {
			t.endGroup(t.groups[e.key], EndedByGone, now)
		}
	}
	for _, e := range knownTopics(t, cluster) {
		if e.received.Before(asked) {
			t.endTopic(t.topics[e.key], now)
		}
	}
}

// GroupsNotListed says that the list of groups could not be had: the lists before and after it are not two in a row.
func (t *Table) GroupsNotListed(cluster string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range knownGroups(t, cluster) {
		*e.absent = time.Time{}
	}
}

// TopicsNotListed says the same of the list of topics.
func (t *Table) TopicsNotListed(cluster string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range knownTopics(t, cluster) {
		*e.absent = time.Time{}
	}
}

// NothingListed says both of all clusters.
func (t *Table) NothingListed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.groups {
		e.absent = time.Time{}
	}
	for _, e := range t.topics {
		e.absent = time.Time{}
	}
}

// known is a group or topic of which the API has told.
type known struct {
	key
	received time.Time
	absent   *time.Time
}

func knownGroups(t *Table, cluster string) (list []known) {
	for _, e := range t.groups {
		if e.cluster == cluster && e.current != nil && e.current.FromAPI {
			list = append(list, known{e.key, e.current.Received, &e.absent})
		}
	}
	return list
}

func knownTopics(t *Table, cluster string) (list []known) {
	for _, e := range t.topics {
		if e.cluster == cluster && e.current != nil {
			list = append(list, known{e.key, e.current.Received, &e.absent})
		}
	}
	return list
}

// gone returns what is gone by this list, and notes what it lacks.
func (l *List) gone(all []known) (gone []known) {
	listed := make(map[string]bool, len(l.Names))
	for _, name := range l.Names {
		listed[name] = true
	}
	var lacking []known
	for _, e := range all {
		if listed[e.name] || !e.received.Before(l.Asked) {
			*e.absent = time.Time{}
			continue
		}
		lacking = append(lacking, e)
	}
	absent := make([]*time.Time, len(lacking))
	for i, e := range lacking {
		absent[i] = e.absent
	}
	for _, i := range l.Judge(absent, len(all)) {
		gone = append(gone, lacking[i])
	}
	return gone
}

// Judge is told of the names that the list lacks, of so many that are known: for each since when lists lack it, zero if the last
// one had it. It brings that up to date, and returns the places of those that are gone.
func (l *List) Judge(absent []*time.Time, known int) (gone []int) {
	evidence := len(l.Names) > 0 && 2*len(absent) <= known
	for i, since := range absent {
		switch {
		case !evidence:
			*since = time.Time{}
		case since.IsZero():
			*since = l.Asked
		case l.Asked.Sub(*since) >= l.Interval:
			gone = append(gone, i)
		}
	}
	return gone
}
