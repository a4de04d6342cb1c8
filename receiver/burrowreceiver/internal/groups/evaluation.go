package groups

import (
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// maxEvaluationAge is more than the age that an evaluation has when Burrow sends it: its evaluator keeps them for
// expire-cache, 10 s by default. Commits that are older by more than this, or that arrive later than this, are of a group that was
// reset or of a broker whose clock was put back, and count.
const maxEvaluationAge = time.Minute

// olderEvaluation says whether s was made by Burrow before the state that is known, although it arrived later: a commit of
// it is older than the one known of the same partition, or a partition has recovered with the very commit with which it was bad, and none is
// newer. No rule of Burrow makes a verdict better without a commit: it was told of an older head, or by a Burrow that knows less. Notifications among themselves come in order: Burrow
// waits for the answer to one before it sends the next one of the group. oldest is the age up to which one is taken for old.
func (s *State) olderEvaluation(known *State, oldest time.Duration) bool {
	if s.answered.IsZero() && known.answered.IsZero() || s.Received.Sub(known.Received) >= oldest {
		return false
	}
	older := false
	compare := func(p, other *burrow.PartitionStatus) (newer bool) {
		if !p.End.Known() || !other.End.Known() {
			return false
		}
		by := other.End.Timestamp - p.End.Timestamp
		recovered := s.Group.Status == burrow.StatusOK && other.Status > burrow.StatusOK && by == 0 && p.End.Offset == other.End.Offset
		older = older || by > 0 && by <= oldest.Milliseconds() || recovered
		return by < 0
	}
	others := known.Group.Partitions
	for i := range s.Group.Partitions {
		p := &s.Group.Partitions[i]
		for len(others) > 0 && burrow.ComparePartition(&others[0], p) < 0 {
			others = others[1:]
		}
		if len(others) > 0 && burrow.ComparePartition(&others[0], p) == 0 && compare(p, &others[0]) {
			return false
		}
	}
	if m := s.Group.MaxLag; m != nil {
		if other := known.partition(m); other != nil && compare(m, other) {
			return false
		}
	}
	return older
}

// partition finds what the state tells of a partition, nil if nothing.
func (s *State) partition(p *burrow.PartitionStatus) *burrow.PartitionStatus {
	i, found := slices.BinarySearchFunc(s.Group.Partitions, p, func(a burrow.PartitionStatus, b *burrow.PartitionStatus) int {
		return burrow.ComparePartition(&a, b)
	})
	if found {
		return &s.Group.Partitions[i]
	}
	if m := s.Group.MaxLag; m != nil && burrow.ComparePartition(m, p) == 0 {
		return m
	}
	return nil
}

// unlisted are the places, in before, of the partitions that stay though s does not list them. A notification lists the
// partitions that are not OK, so those that the API has told of are OK from that moment. They stay unless the API has not
// told of them for ExpireAfter, or the group has fewer partitions now, and there is no telling which are left: then
// the state is not complete.
func (t *Table) unlisted(before, s *State) (places []int, complete bool) {
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
			places = append(places, i)
		}
	}
	if count := s.Group.PartitionCount; count != burrow.Unknown && int64(len(places)+len(s.Group.Partitions)) > count {
		return nil, false
	}
	return places, true
}

// keepUnlisted adds partitions of before, as OK, to those that s lists. maxLagTime is the time lag of s.Group.MaxLag.
func (s *State) keepUnlisted(before *State, places []int, maxLagTime timeLag, h *heads) {
	s.Polled = before.Polled
	if len(places) == 0 {
		return
	}
	type partition struct {
		burrow.PartitionStatus
		timeLag
	}
	all := make([]partition, 0, len(s.Group.Partitions)+len(places))
	for i, p := range s.Group.Partitions {
		all = append(all, partition{p, s.timeLag(i)})
	}
	for _, i := range places {
		p := partition{before.Group.Partitions[i], before.timeLag(i)}
		m := s.Group.MaxLag
		switch {
		case m != nil && burrow.ComparePartition(m, &p.PartitionStatus) == 0:
			// The partition with the highest lag is named with all its values, and is counted already if it is ahead.
			p = partition{*m, maxLagTime}
		case h.isAhead(s, &p.PartitionStatus):
			p.timeLag = noTimeLag
		case s.Group.TotalLag == 0:
			p.CurrentLag = 0
			if p.timeLag = noTimeLag; p.End.Known() {
				p.timeLag = timeLag{}
			}
		case p.Status != burrow.StatusOK:
			// It has moved since, and its lag is not told.
			p.timeLag = noTimeLag
		case m != nil && p.CurrentLag > m.CurrentLag:
			// It has moved since: it is not further behind than the one with the highest lag.
			p.timeLag = h.notFurtherBehind(s, &p.PartitionStatus, p.timeLag)
		}
		p.Status = burrow.StatusOK
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b partition) int { return burrow.ComparePartition(&a.PartitionStatus, &b.PartitionStatus) })
	s.Group.Partitions, s.TimeLags, s.bounds = make([]burrow.PartitionStatus, len(all)), make([]float64, len(all)), nil
	for i := range all {
		s.Group.Partitions[i], s.TimeLags[i] = all[i].PartitionStatus, burrow.Unknown
		s.setTimeLag(i, all[i].timeLag)
	}
}

// isAhead says whether the commit of a partition that s does not list is ahead of the head, and counts it then.
func (h *heads) isAhead(s *State, p *burrow.PartitionStatus) bool {
	packed, topic := h.find(s.Group.Cluster, p), h.topics[key{s.Group.Cluster, p.Topic}]
	if packed == nil {
		return false
	}
	packed.open(&h.working)
	return h.working.isFollowed(topic, s.Received.UnixMilli()) && h.working.countAhead(s, p, topic)
}

// notFurtherBehind is the time lag of a partition whose lag is at most that of s.Group.MaxLag now; lag is what it was.
func (h *heads) notFurtherBehind(s *State, p *burrow.PartitionStatus, lag timeLag) timeLag {
	packed := h.find(s.Group.Cluster, p)
	if lag.seconds <= 0 || packed == nil || packed.length == 0 {
		return lag
	}
	history := &h.working
	packed.open(history)
	newest, now := history.newest(), s.Received.UnixMilli()
	committed := max(p.End.Offset, newest.offset-s.Group.MaxLag.CurrentLag)
	if committed >= newest.offset {
		return timeLag{}
	}
	at, _, _ := history.passed(committed, newest)
	if seconds := float64(max(0, now-at)) / 1000; seconds < lag.seconds {
		return timeLag{seconds: seconds}
	}
	return lag
}

// answer is what Burrow's API told last of all partitions together, also if they had no place.
type answer struct {
	timeLag timeLag
	ahead   int64
}

var noAnswer = answer{noTimeLag, burrow.Unknown}

// holdAnswer keeps what the API told of all partitions where s names a few, and nothing is known of the others one by one: they can be further
// behind than those, and as far as they were. Only a group that has read everything is known to be behind in none.
func (s *State) holdAnswer() {
	s.Ahead = max(s.Ahead, s.answer.ahead)
	told := s.answer.timeLag
	if s.Group.TotalLag == 0 && told.seconds > 0 {
		told = timeLag{}
	}
	s.held = told.seconds > max(s.MaxTimeLag, 0)
	s.atLeast(told)
}
