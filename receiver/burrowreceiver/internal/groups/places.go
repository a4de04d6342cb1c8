package groups

import (
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// What counts against the limits are places. Something whose names have ordinary length takes one. Names stand in every
// series that carries them, so longer ones make a group, or a partition, cost as much as several (`make bench-limits`).
const (
	// ordinaryNames is how many bytes names have together, at the most, that take no further place. Kafka's own limit of a
	// topic is 249.
	ordinaryNames = 512
	// namesPerPlace is how many bytes of names cost as much, on the page for Prometheus, as a group or a partition with
	// ordinary names.
	namesPerPlace = 1536
)

// places is how many are taken by what has names of so many bytes.
func places(names int) int {
	return 1 + (max(names-ordinaryNames, 0)+namesPerPlace-1)/namesPerPlace
}

// places are those of a group without its partitions.
func (k key) places() int { return places(len(k.cluster) + len(k.name)) }

// partitionPlaces are those of one listed partition.
func partitionPlaces(g *burrow.GroupStatus, p *burrow.PartitionStatus) int {
	return places(len(g.Cluster) + len(g.Group) + len(p.Topic) + len(p.Owner) + len(p.ClientID))
}

// listedPlaces are those of all listed partitions.
func listedPlaces(g *burrow.GroupStatus) (taken int) {
	for i := range g.Partitions {
		taken += partitionPlaces(g, &g.Partitions[i])
	}
	return taken
}

// places are those of the heads. A topic without partitions takes one too.
func (t *Topic) places() int { return max(len(t.Offsets), 1) * places(len(t.Cluster)+len(t.Name)) }

// Places are what counts against the limits.
type Places struct {
	// Groups counts against MaxGroups, Partitions and Heads against MaxPartitions, each for itself.
	Groups, Partitions, Heads int
	// LeftOut counts the listed partitions of known groups that had no place.
	LeftOut int64
}

// Places returns the present counts.
func (t *Table) Places() Places {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Places{Groups: t.groupPlaces, Partitions: t.partitionPlaces, Heads: t.headPlaces, LeftOut: t.leftOut}
}

// addGroup makes an entry for which there is room.
func (t *Table) addGroup(k key) *entry[State] {
	e := &entry[State]{outgoing: outgoing{key: k, places: k.places()}}
	t.groups[k] = e
	t.groupPlaces += e.places
	return e
}

// hold counts a current state, or one that is none any more with -1. nil counts nothing.
func (t *Table) hold(s *State, times int) {
	if s == nil {
		return
	}
	t.groupsHeld += times
	t.partitions += times * len(s.Group.Partitions)
	t.partitionPlaces += times * s.places
}

// hasPlaces says whether the partitions of a group may take so many. They may always take as many as those before.
func (t *Table) hasPlaces(before *State, wanted int) bool {
	held := 0
	if before != nil {
		held = before.places
	}
	return wanted <= held || t.partitionPlaces-held+wanted <= t.limits.MaxPartitions
}

// leaveOutPartitions makes it a state that lists none, so that the partitions can't be counted by status either. What was
// found out from them about the group stays.
func (s *State) leaveOutPartitions() {
	s.Group.Partitions, s.Group.PartitionCount = nil, burrow.Unknown
	s.TimeLags, s.bounds, s.Polled, s.places = nil, nil, time.Time{}, 0
}
