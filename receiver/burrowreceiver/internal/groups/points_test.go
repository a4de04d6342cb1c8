package groups

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// On a topic with a message a minute, an evaluation that Burrow has kept for some seconds says that the head still stands, after another
// one has told of the next message. The standstill ends where the head was first seen higher.
func TestStandstillEndsWhereTheHeadWasFirstSeenHigher(t *testing.T) {
	millis := func(seconds float64) int64 { return at(0).UnixMilli() + int64(1000*seconds) }
	for name, told := range map[string][]headPoint{
		"kept evaluation first":    {{4, millis(234.5)}, {4, millis(260.945)}, {4, millis(293.4)}, {5, millis(291.5)}, {6, millis(321.6)}},
		"kept evaluation later":    {{4, millis(234.5)}, {4, millis(260.945)}, {5, millis(291.5)}, {4, millis(293.4)}, {6, millis(321.6)}},
		"the next head in between": {{4, millis(234.5)}, {6, millis(321.6)}, {4, millis(293.4)}, {5, millis(291.5)}, {4, millis(260.945)}},
	} {
		t.Run(name, func(t *testing.T) {
			h := new(headHistory)
			for _, p := range told {
				h.add(p)
			}
			now := millis(323.49)
			p := burrow.PartitionStatus{
				Status: burrow.StatusStop, Start: none, CurrentLag: 2,
				End: burrow.Commit{Offset: 4, Timestamp: millis(260.945), ObservedAt: millis(260), Lag: 0},
			}
			lag := h.observe(&p, now)
			assert.InDelta(t, 32, lag.seconds, 0.1, "%v", h.points)
		})
	}
}

// A notification does not list what is OK. That ends no time lag.
func TestNotificationDoesNotEndTimeLags(t *testing.T) {
	const ok = burrow.StatusOK
	table := New(polledLimits)
	known := func() (list []bool) {
		s := current(t, table)
		for i := range s.Group.Partitions {
			list = append(list, s.TimeLag(i) != burrow.Unknown)
		}
		return list
	}
	for second := 0; second <= 60; second += 30 {
		g := evaluation(int64(50+second), ok, ok, ok)
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
	}
	require.Equal(t, []bool{true, true, true}, known())
	// The group reads on, so that the highest lag is below what each partition had.
	n := notified(evaluation(5, ok, ok, ok))
	n.Group.MaxLag = &evaluation(5, ok, ok, ok).Partitions[2]
	require.NoError(t, table.Update(n, at(70)))
	assert.Equal(t, []bool{true, true, true}, known())
}

// A group's time lag is that of its partition, also where that one is listed and has the highest lag.
func TestGroupOfOnePartition(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 3))
	table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
	committed, head := int64(1000), int64(2000)
	for second := 10; second < 3000; second += 1 + random.IntN(60) {
		committed, head = committed+random.Int64N(50), head+random.Int64N(100)
		p := burrow.PartitionStatus{
			Topic: "t", Status: burrow.StatusWarn, CurrentLag: head - committed,
			Start: commit(committed-10, second-9, head-committed), End: commit(committed, second-1, head-committed),
		}
		other := p
		n := &burrow.Notification{Group: burrow.GroupStatus{Cluster: "c", Group: "g", PartitionCount: 1, Partitions: []burrow.PartitionStatus{p}, MaxLag: &other}}
		if random.IntN(2) == 0 {
			require.NoError(t, table.Update(n, at(second)))
		} else {
			require.NoError(t, table.UpdateFromAPI(&n.Group, at(second)))
		}
		s := current(t, table)
		require.InDelta(t, s.TimeLag(0), s.MaxTimeLag, 0)
	}
}
