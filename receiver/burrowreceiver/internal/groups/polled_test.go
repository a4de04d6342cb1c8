package groups

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

var polledLimits = Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Minute}

// evaluation is a group with partitions 0, 1, ... of these statuses; the lag of each is its number plus add.
func evaluation(add int64, statuses ...burrow.Status) *burrow.GroupStatus {
	g := &burrow.GroupStatus{Cluster: "c", Group: "g", Status: burrow.StatusOK, TotalLag: add, PartitionCount: int64(len(statuses))}
	for i, s := range statuses {
		g.Partitions = append(g.Partitions, burrow.PartitionStatus{
			Topic: "t", Partition: int32(i), Status: s, CurrentLag: int64(i) + add,
			Start: burrow.Commit{Offset: burrow.Unknown}, End: burrow.Commit{Offset: 100, Timestamp: 1, Lag: 1},
		})
		if s != burrow.StatusOK {
			g.Status = burrow.StatusErr
		}
	}
	return g
}

// told is a notification about the same group, which lists only the bad ones.
func notified(g *burrow.GroupStatus) *burrow.Notification {
	n := &burrow.Notification{Group: *g}
	n.Group.Partitions = nil
	for _, p := range g.Partitions {
		if p.Status != burrow.StatusOK {
			n.Group.Partitions = append(n.Group.Partitions, p)
		}
	}
	return n
}

func current(t *testing.T, table *Table) *State {
	t.Helper()
	changes := table.Collect()
	require.Len(t, changes, 1)
	return changes[0].Current
}

func partitions(s *State) (list []string) {
	for _, p := range s.Group.Partitions {
		list = append(list, fmt.Sprintf("%s/%d %s %d", p.Topic, p.Partition, p.Status, p.CurrentLag))
	}
	return list
}

func TestNotificationBetweenPolls(t *testing.T) {
	const ok, stop = burrow.StatusOK, burrow.StatusStop
	table := New(polledLimits)
	require.NoError(t, table.UpdateFromAPI(evaluation(0, stop, ok, ok), at(0)))
	assert.Equal(t, []string{"t/0 STOP 0", "t/1 OK 1", "t/2 OK 2"}, partitions(current(t, table)))

	require.NoError(t, table.Update(notified(evaluation(10, ok, stop, ok)), at(10)))
	s := current(t, table)
	assert.Equal(t, []string{"t/0 OK 0", "t/1 STOP 11", "t/2 OK 2"}, partitions(s), "what is not listed is OK from that moment, with the values of the poll")
	assert.Equal(t, at(0), s.Polled)
	assert.Equal(t, at(10), s.Received)
	assert.EqualValues(t, 10, s.Group.TotalLag)
	assert.Len(t, s.TimeLags, 3)
	assert.Equal(t, 3, table.Stats().Partitions)

	healthy := notified(evaluation(20, ok, ok, ok))
	healthy.Group.MaxLag = &evaluation(20, ok, ok, ok).Partitions[2]
	require.NoError(t, table.Update(healthy, at(20)))
	assert.Equal(t, []string{"t/0 OK 0", "t/1 OK 11", "t/2 OK 22"}, partitions(current(t, table)), "the one with the highest lag is told with its values")

	require.NoError(t, table.UpdateFromAPI(evaluation(30, ok, stop), at(30)))
	assert.Equal(t, []string{"t/0 OK 30", "t/1 STOP 31"}, partitions(current(t, table)), "the API has all")
	require.NoError(t, table.Update(notified(evaluation(40, stop)), at(40)))
	assert.Equal(t, []string{"t/0 STOP 40"}, partitions(current(t, table)), "one partition is gone, and nobody says which")
	require.NoError(t, table.Update(notified(evaluation(50, stop, ok)), at(50)))
	assert.Equal(t, []string{"t/0 STOP 50"}, partitions(current(t, table)), "the poll is forgotten")
}

func TestPartitionsOfAnOldPollAreForgotten(t *testing.T) {
	const ok, stop = burrow.StatusOK, burrow.StatusStop
	table := New(polledLimits)
	require.NoError(t, table.UpdateFromAPI(evaluation(0, stop, ok), at(0)))
	for second := 20; second < 60; second += 20 {
		require.NoError(t, table.Update(notified(evaluation(1, stop, ok)), at(second)))
		assert.Len(t, current(t, table).Group.Partitions, 2)
	}
	require.NoError(t, table.Update(notified(evaluation(1, stop, ok)), at(60)))
	assert.Len(t, current(t, table).Group.Partitions, 1)
}

func TestPolledPartitionsCount(t *testing.T) {
	const ok = burrow.StatusOK
	table := New(Limits{MaxGroups: 5, MaxPartitions: 3, ExpireAfter: time.Minute})
	require.ErrorIs(t, table.UpdateFromAPI(evaluation(0, ok, ok, ok, ok), at(0)), ErrTooManyPartitions)
	require.NoError(t, table.UpdateFromAPI(evaluation(0, ok, ok, ok), at(0)))
	require.ErrorIs(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{1, 2, 3, 4}, Received: at(0)}), ErrTooManyPartitions)
	require.NoError(t, table.Update(notified(evaluation(0, ok, ok, ok)), at(1)))
	assert.Equal(t, Stats{Groups: 1, Partitions: 3}, table.Stats())
	table.Expire(at(61))
	assert.Equal(t, Stats{Expired: 1}, table.Stats())
}

func TestGroupsThatAreGone(t *testing.T) {
	const ok, stop = burrow.StatusOK, burrow.StatusStop
	table := New(polledLimits)
	table.KeepEvents(10)
	polled := func(name string, second int) {
		g := evaluation(0, ok)
		g.Group = name
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
	}
	polled("stays", 0)
	polled("goes", 0)
	polled("heard of since", 0)
	pushed := notified(evaluation(0, stop))
	pushed.Group.Group = "only notified"
	require.NoError(t, table.Update(pushed, at(0)))
	bad := notified(evaluation(0, stop))
	bad.Group.Group, bad.ID, bad.Start = "goes", "a", at(-5)
	require.NoError(t, table.Update(bad, at(1)))
	table.Commit(table.Collect())

	polled("heard of since", 11)
	table.EndMissing("c", []string{"stays"}, nil, at(10), at(12))
	table.EndMissing("other", nil, nil, at(10), at(12))
	var ended []string
	for _, c := range table.Collect() {
		if c.Current == nil {
			ended = append(ended, c.Last().Group.Group)
		}
	}
	assert.Equal(t, []string{"goes"}, ended)
	events, _ := table.Events()
	require.Len(t, events, 2)
	assert.Equal(t, "ended by gone a since -5 at 12: ERR to ERR", describe(events[1]))

	table.End("c", "stays", at(20))
	table.End("c", "only notified", at(20))
	table.End("c", "unknown", at(20))
	table.Commit(table.Collect())
	assert.Equal(t, 2, table.Stats().Groups)
	assert.Zero(t, table.Stats().Expired, "to be gone is not to expire")
}

func TestTopics(t *testing.T) {
	table := New(polledLimits)
	update := func(name string, second int, offsets ...int64) {
		require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: name, Offsets: offsets, Received: at(second)}))
	}
	take := func() (list []string) {
		changes := table.CollectTopics()
		for i := range changes {
			c := &changes[i]
			offsets := "ended"
			if c.Current != nil {
				c.Series = len(c.Current.Offsets)
				offsets = fmt.Sprint(c.Current.Offsets)
			}
			list = append(list, fmt.Sprintf("%s %s @%d", c.Last().Name, offsets, int(c.At.Sub(at(0)).Seconds())))
		}
		table.CommitTopics(changes)
		return list
	}
	update("b", 0, 1, 2)
	update("a", 1, 3)
	assert.Equal(t, []string{"a [3] @1", "b [1 2] @0"}, take())
	assert.Equal(t, Stats{Topics: 2, Series: 3}, table.Stats())
	assert.Empty(t, take())
	update("b", 10, 5, 6, 7)
	table.EndMissing("c", nil, []string{"b"}, at(20), at(21))
	assert.Equal(t, []string{"a ended @21", "b [5 6 7] @10"}, take())
	assert.Equal(t, Stats{Topics: 1, Series: 3}, table.Stats())
	table.Expire(at(70))
	assert.Equal(t, []string{"b ended @70"}, take())
	assert.Equal(t, Stats{}, table.Stats())
	update("never sent", 80, 1)
	table.Expire(at(140))
	assert.Empty(t, take())
	assert.Equal(t, Stats{}, table.Stats())
}

// The head that the API tells is a point of the history, for partitions whose groups are followed.
func TestHeadsOfTopicsHelpTheTimeLag(t *testing.T) {
	table := New(polledLimits)
	g := evaluation(0, burrow.StatusStop)
	g.Partitions[0].CurrentLag = 50
	require.NoError(t, table.UpdateFromAPI(g, at(0)))
	require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{175, 9}, Received: at(10)}))
	history := table.heads.topics[headTopic{"c", "t"}]
	require.Len(t, history, 1, "nobody asks for the other partition")
	points := history[0].points
	assert.Equal(t, headPoint{175, at(10).UnixMilli()}, points[len(points)-1])
}
