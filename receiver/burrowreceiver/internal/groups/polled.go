package groups

import (
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// carried are the places, in before, of the partitions that stay though s does not list them. A notification lists the
// partitions that are not OK, so those that the API has told of are OK from that moment. They stay unless the API has not
// told of them for ExpireAfter, or the group has fewer partitions now, and there is no telling which are left: then
// the state is not complete.
func (t *Table) carried(before, s *State) (stay []int, complete bool) {
	if before == nil || before.Polled.IsZero() || !s.Polled.IsZero() || s.Received.Sub(before.Polled) >= t.limits.ExpireAfter {
		return nil, false
	}
	listed := s.Group.Partitions
	for i := range before.Group.Partitions {
		p := &before.Group.Partitions[i]
		for len(listed) > 0 && burrow.ComparePartition(&listed[0], p) < 0 {
			listed = listed[1:]
		}
		if len(listed) == 0 || burrow.ComparePartition(&listed[0], p) != 0 {
			stay = append(stay, i)
		}
	}
	if count := s.Group.PartitionCount; count != burrow.Unknown && int64(len(stay)+len(s.Group.Partitions)) > count {
		return nil, false
	}
	return stay, true
}

// carry adds partitions of before, as OK, to those that s lists.
func (s *State) carry(before *State, places []int) {
	s.Polled = before.Polled
	if len(places) == 0 {
		return
	}
	type partition struct {
		burrow.PartitionStatus
		lag float64
	}
	var all []partition
	for i, p := range s.Group.Partitions {
		all = append(all, partition{p, s.TimeLag(i)})
	}
	for _, i := range places {
		p := partition{before.Group.Partitions[i], before.TimeLag(i)}
		// The partition with the highest lag is named with all its values.
		if m := s.Group.MaxLag; m != nil && burrow.ComparePartition(m, &p.PartitionStatus) == 0 {
			p.PartitionStatus, p.lag = *m, burrow.Unknown
		}
		p.Status = burrow.StatusOK
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b partition) int { return burrow.ComparePartition(&a.PartitionStatus, &b.PartitionStatus) })
	s.Group.Partitions = make([]burrow.PartitionStatus, len(all))
	s.TimeLags = make([]float64, len(all))
	for i := range all {
		s.Group.Partitions[i], s.TimeLags[i] = all[i].PartitionStatus, all[i].lag
	}
}

// End forgets a group that Burrow says it does not know.
func (t *Table) End(cluster, group string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{cluster, group}
	if e := t.groups[k]; e != nil && e.current != nil && e.current.InAPI {
		t.end(k, e, EndedByGone, now)
	}
}

// EndMissing forgets the groups and topics of a cluster that the API has told of, does not list any more, and
// of which nothing was heard since the time at which it was asked.
func (t *Table) EndMissing(cluster string, groups, topics []string, asked, now time.Time) {
	listed := func(names []string) map[string]bool {
		set := make(map[string]bool, len(names))
		for _, name := range names {
			set[name] = true
		}
		return set
	}
	knownGroups, knownTopics := listed(groups), listed(topics)
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.groups {
		if k.cluster == cluster && !knownGroups[k.group] && e.current != nil && e.current.InAPI && e.current.Received.Before(asked) {
			t.end(k, e, EndedByGone, now)
		}
	}
	for k, e := range t.topics {
		if k.cluster == cluster && !knownTopics[k.topic] && e.current != nil && e.current.Received.Before(asked) {
			t.endTopic(k, e, now)
		}
	}
}

// Topic is what the API tells of a topic. It does not change any more once the table has it.
type Topic struct {
	Cluster, Name string
	// Offsets are the head offsets by partition number; burrow.Unknown is one that is not known.
	Offsets  []int64
	Received time.Time
}

// UpdateTopic makes offsets the current heads of a topic. Partitions whose groups are followed use them
// for their time lag. The error is ErrTooManyPartitions: head offsets count like partitions of groups.
func (t *Table) UpdateTopic(topic *Topic) error {
	k := headTopic{topic.Cluster, topic.Name}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.topics[k]
	held := 0
	if e != nil && e.current != nil {
		held = len(e.current.Offsets)
	}
	if now := len(topic.Offsets); now > held && t.offsets-held+now > t.limits.MaxPartitions {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = &entry[Topic]{}
		t.topics[k] = e
	}
	t.offsets += len(topic.Offsets) - held
	e.current = topic
	for number, offset := range topic.Offsets {
		if history := t.heads.topics[k][int32(number)]; history != nil && offset != burrow.Unknown {
			history.head(offset, 0, topic.Received.UnixMilli())
		}
	}
	return nil
}

func (t *Table) endTopic(k headTopic, e *entry[Topic], now time.Time) {
	t.offsets -= len(e.current.Offsets)
	e.current, e.ended = nil, now
	if e.sent == nil {
		delete(t.topics, k)
	}
}
