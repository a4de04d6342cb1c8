package groups

import (
	"cmp"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// Series are kinds of series, as bits: which a group, one of its partitions, or a partition of a topic has.
type Series uint16

// The kinds of a group. Every group has those of GroupSeries.
const (
	GroupSeries Series = 1 << iota // status, total lag, incidents
	IncidentDurationSeries
	MaxLagSeries
	MaxTimeLagSeries
	CompleteSeries
	PartitionCountSeries
	NotificationSeries // last notification
	LastCommitSeries
	AheadSeries
	MaxUnreadSeries // oldest unread timestamp of the group

	lastGroupSeries = MaxUnreadSeries
)

// The kinds of a partition. Every partition of a group has that of PartitionSeries; a partition of a topic
// has only that of HeadSeries.
const (
	PartitionSeries Series = 1 << iota // lag
	PartitionStatusSeries
	CommitSeries // committed offset, last commit timestamp
	PartitionCompleteSeries
	TimeLagSeries
	HeadSeries
	UnreadSeries // oldest unread timestamp

	lastPartitionSeries = UnreadSeries
)

// SeriesSet is a set of series of one group or of one topic.
type SeriesSet struct {
	// Group are the kinds of the group; 0 for a topic.
	Group Series
	// Partitions are ordered by topic and number, each at most once and with at least one kind.
	Partitions []PartitionKinds
	// Owners are the series of burrow.partition.owner, ordered. They are followed only if Limits.Owners is set.
	Owners []Owner
}

// PartitionKinds are the kinds of series that one partition has.
type PartitionKinds struct {
	Topic     string
	Partition int32
	Kinds     Series
}

// Owner is a series of burrow.partition.owner: another owner is another series.
type Owner struct {
	Topic           string
	Partition       int32
	Owner, ClientID string
}

// Empty says whether the set has no series.
func (s *SeriesSet) Empty() bool { return s.Group == 0 && len(s.Partitions) == 0 && len(s.Owners) == 0 }

// size is what the set holds, in entries of its lists.
func (s *SeriesSet) size() int { return len(s.Partitions) + len(s.Owners) }

func comparePlace(topic string, partition int32, otherTopic string, otherPartition int32) int {
	return cmp.Or(cmp.Compare(topic, otherTopic), cmp.Compare(partition, otherPartition))
}

func comparePartitionKinds(a, b *PartitionKinds) int {
	return comparePlace(a.Topic, a.Partition, b.Topic, b.Partition)
}

func compareOwners(a, b *Owner) int {
	return cmp.Or(comparePlace(a.Topic, a.Partition, b.Topic, b.Partition), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.ClientID, b.ClientID))
}

// union returns the series that are in s or in other.
func (s *SeriesSet) union(other *SeriesSet) SeriesSet {
	if s.Empty() {
		return *other
	}
	if other.Empty() {
		return *s
	}
	return SeriesSet{
		Group: s.Group | other.Group,
		Partitions: merge(s.Partitions, other.Partitions, comparePartitionKinds, func(a, b *PartitionKinds) (PartitionKinds, bool) {
			switch {
			case a == nil:
				return *b, true
			case b == nil:
				return *a, true
			}
			return PartitionKinds{a.Topic, a.Partition, a.Kinds | b.Kinds}, true
		}),
		Owners: merge(s.Owners, other.Owners, compareOwners, func(a, b *Owner) (Owner, bool) {
			if a == nil {
				return *b, true
			}
			return *a, true
		}),
	}
}

// minus returns the series that are in s and not in other.
func (s *SeriesSet) minus(other *SeriesSet) SeriesSet {
	return SeriesSet{
		Group: s.Group &^ other.Group,
		Partitions: merge(s.Partitions, other.Partitions, comparePartitionKinds, func(a, b *PartitionKinds) (PartitionKinds, bool) {
			switch {
			case a == nil:
				return PartitionKinds{}, false
			case b == nil:
				return *a, true
			}
			return PartitionKinds{a.Topic, a.Partition, a.Kinds &^ b.Kinds}, a.Kinds&^b.Kinds != 0
		}),
		Owners: merge(s.Owners, other.Owners, compareOwners, func(a, b *Owner) (Owner, bool) {
			if a == nil || b != nil {
				return Owner{}, false
			}
			return *a, true
		}),
	}
}

// merge walks two ordered lists. combine gets what stands at one place of the order, nil for the list that has nothing
// there, and says what stands there in the result, if anything.
func merge[T any](a, b []T, compare func(a, b *T) int, combine func(a, b *T) (T, bool)) []T {
	var merged []T
	for len(a) > 0 || len(b) > 0 {
		var x, y *T
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = compare(&a[0], &b[0])
		}
		if order <= 0 {
			x, a = &a[0], a[1:]
		}
		if order >= 0 {
			y, b = &b[0], b[1:]
		}
		if item, ok := combine(x, y); ok {
			merged = append(merged, item)
		}
	}
	return merged
}

// Series are the kinds of series that the group itself has.
func (s *State) Series() Series {
	kinds := GroupSeries
	add := func(has bool, kind Series) {
		if has {
			kinds |= kind
		}
	}
	_, lasts := s.IncidentDuration()
	add(lasts, IncidentDurationSeries)
	add(s.Group.MaxLag != nil, MaxLagSeries)
	add(s.MaxTimeLag != burrow.Unknown, MaxTimeLagSeries)
	add(s.Group.Complete != burrow.Unknown, CompleteSeries)
	add(s.countable(), PartitionCountSeries)
	add(!s.Notified.IsZero(), NotificationSeries)
	add(s.LastCommit > 0, LastCommitSeries)
	add(s.Ahead != burrow.Unknown, AheadSeries)
	add(!s.OldestUnreadOfAll().IsZero(), MaxUnreadSeries)
	return kinds
}

// PartitionSeries are the kinds of series that partition i has.
func (s *State) PartitionSeries(i int) Series {
	p := &s.Group.Partitions[i]
	kinds := PartitionSeries
	add := func(has bool, kind Series) {
		if has {
			kinds |= kind
		}
	}
	add(p.Status != burrow.StatusUnknown, PartitionStatusSeries)
	add(p.End.Known(), CommitSeries)
	add(p.Complete != burrow.Unknown, PartitionCompleteSeries)
	add(s.TimeLag(i) != burrow.Unknown, TimeLagSeries)
	add(s.TimeLag(i) > 0, UnreadSeries)
	return kinds
}

// countable says whether the partitions can be counted by status: Burrow told how many there are, and each listed one has a
// status that partitions have.
func (s *State) countable() bool {
	if s.Group.PartitionCount == burrow.Unknown {
		return false
	}
	for i := range s.Group.Partitions {
		switch s.Group.Partitions[i].Status {
		case burrow.StatusOK, burrow.StatusWarn, burrow.StatusStop, burrow.StatusStall, burrow.StatusRewind:
		case burrow.StatusNotFound, burrow.StatusErr, burrow.StatusUnknown:
			return false
		}
	}
	return true
}

// HasOwner says whether the partition has a series of burrow.partition.owner.
func HasOwner(p *burrow.PartitionStatus) bool { return p.Owner != "" || p.ClientID != "" }

// seriesOfGroup is the set of a group's series, empty for nil.
func seriesOfGroup(s *State, owners bool) (set SeriesSet) {
	if s == nil {
		return set
	}
	set.Group = s.Series()
	if len(s.Group.Partitions) > 0 {
		set.Partitions = make([]PartitionKinds, len(s.Group.Partitions))
	}
	for i := range s.Group.Partitions {
		p := &s.Group.Partitions[i]
		set.Partitions[i] = PartitionKinds{p.Topic, p.Partition, s.PartitionSeries(i)}
		if owners && HasOwner(p) {
			set.Owners = append(set.Owners, Owner{p.Topic, p.Partition, p.Owner, p.ClientID})
		}
	}
	return set
}

// seriesOfTopic is the set of a topic's series, empty for nil.
func seriesOfTopic(s *Topic) (set SeriesSet) {
	if s == nil {
		return set
	}
	for number, offset := range s.Offsets {
		if offset != burrow.Unknown {
			set.Partitions = append(set.Partitions, PartitionKinds{s.Name, int32(number), HeadSeries})
		}
	}
	return set
}
