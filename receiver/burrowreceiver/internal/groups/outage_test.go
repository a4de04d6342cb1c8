package groups

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

func TestPendingWhenDeletedBetweenDueAndBegin(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1), at(0)))
	require.NoError(t, table.Update(notification("b", 1), at(30)))
	fresh, _ := table.Due()
	table.Expire(at(60)) // the logs emitter: a is forgotten
	var changes []Change
	for _, r := range fresh {
		changes = append(changes, table.Begin(r))
	}
	table.Finish(changes, false, at(61))
	for range 3 {
		fresh, refused := table.Due()
		changes = nil
		for _, r := range append(fresh, refused...) {
			changes = append(changes, table.Begin(r))
		}
		table.Finish(changes, true, at(62))
	}
	assert.Zero(t, table.Stats().Pending)
	table.Finish(collect(table, at(600)), true, at(600))
	table.Expire(at(700))
	assert.Empty(t, table.groups)
	assert.Zero(t, table.Stats().Pending)
}

func TestSeriesWhenDeletedBetweenDueAndBegin(t *testing.T) {
	table := New(limits)
	for i, g := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(g, 1), at(i)))
	}
	changes := collect(table, at(3))
	for i := range changes {
		changes[i].Series = 4
	}
	table.Finish(changes, true, at(3))
	require.Equal(t, 12, table.Stats().Series)
	table.Expire(at(60))
	fresh, _ := table.Due()
	require.Len(t, fresh, 1) // the end of a
	require.NoError(t, table.Update(notification("d", 1), at(60)))
	c := table.Begin(fresh[0])
	table.Finish([]Change{c}, true, at(61))
	assert.Equal(t, 8, table.Stats().Series)
}

func TestEndsOfGroupsThatComeAndGoAreBounded(t *testing.T) {
	table := New(Limits{MaxGroups: 50, MaxPartitions: 10, ExpireAfter: time.Minute})
	for i := range 50 {
		require.NoError(t, table.Update(notification(fmt.Sprint("g", i), 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), at(100*i)))
		table.Finish(collect(table, at(100*i)), false, at(100*i))
		table.Expire(at(100*i + 60))
	}
	assert.LessOrEqual(t, table.replaced, 10)
}

func TestEndsOfTopicsThatComeAndGoAreBounded(t *testing.T) {
	table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Minute})
	for i := range 1000 {
		_ = table.UpdateTopic(&Topic{Cluster: "c", Name: fmt.Sprint("t", i), Offsets: []int64{1}, Received: at(100 * i)})
		table.Finish(collect(table, at(100*i)), false, at(100*i))
		table.Expire(at(100*i + 60))
	}
	assert.LessOrEqual(t, len(table.topics), 20)
	assert.LessOrEqual(t, table.replaced, 10)
}

func TestPolledGroupStaysWhenAClockGoesBack(t *testing.T) {
	table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: 30 * time.Second})
	table.KeepEvents(10)
	for second := 0; second <= 40; second += 10 {
		g := evaluation(5, burrow.StatusStop)
		back := 0
		if second > 0 {
			back = 50
		}
		g.Partitions[0].End.Timestamp = at(second - back).UnixMilli()
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
		table.Expire(at(second))
	}
	assert.Zero(t, table.Stats().Expired)
}

// committing is a group whose only partition has committed at a moment.
func committing(second int, add int64, status burrow.Status) *burrow.GroupStatus {
	g := evaluation(add, status)
	g.Partitions[0].End.Timestamp = at(second).UnixMilli()
	return g
}

func TestAnotherIncidentAfterALateNotification(t *testing.T) {
	table := New(polledLimits)
	table.KeepEvents(100)
	bad := func(id string, second int) {
		n := notified(committing(second, 5, burrow.StatusStop))
		n.ID, n.Start = id, at(second)
		require.NoError(t, table.Update(n, at(second)))
	}
	bad("X", 0)
	require.NoError(t, table.UpdateFromAPI(committing(20, 0, burrow.StatusOK), at(20)))
	bad("X", 21) // overtaken
	bad("Y", 30) // another one
	ok := notified(committing(45, 0, burrow.StatusOK))
	ok.ID = "Y"
	require.NoError(t, table.Update(ok, at(45)))
	ids := map[string]int{}
	for _, e := range table.TakeEvents(100) {
		if e.Kind == Opened {
			ids[e.ID]++
		}
	}
	assert.Equal(t, 1, ids["Y"])
	assert.EqualValues(t, 2, current(t, table).Incidents.Seen)
}

func TestPollConfirmsALateNotification(t *testing.T) {
	table := New(polledLimits)
	table.KeepEvents(100)
	n := notified(committing(0, 5, burrow.StatusStop))
	n.ID, n.Start = "X", at(0)
	require.NoError(t, table.Update(n, at(0)))
	require.NoError(t, table.UpdateFromAPI(committing(20, 0, burrow.StatusOK), at(20)))
	n2 := notified(committing(60, 5, burrow.StatusStop))
	n2.ID, n2.Start = "X", at(0)
	require.NoError(t, table.Update(n2, at(60))) // Burrow never saw the OK: the same incident goes on for it
	require.NoError(t, table.UpdateFromAPI(committing(60, 5, burrow.StatusStop), at(80)))
	require.NoError(t, table.UpdateFromAPI(committing(110, 0, burrow.StatusOK), at(110)))
	opened := 0
	for _, e := range table.TakeEvents(100) {
		if e.Kind == Opened {
			opened++
		}
	}
	assert.Equal(t, 2, opened, "bad from 60 to 110, as both sources say")
}

func TestExpiredRecordsTakeNoPlaces(t *testing.T) {
	old := New(Limits{MaxGroups: 3, MaxPartitions: 10, ExpireAfter: time.Hour})
	var records [][]byte
	for i, g := range []string{"a", "b", "c"} {
		n := notification(g, 1, 0, 1, 2)
		n.Group.PartitionCount = 3
		require.NoError(t, old.Update(n, at(i*100)))
	}
	old.Each(func(s *State) {
		old.mu.Unlock()
		data, err := old.Record(s)
		old.mu.Lock()
		require.NoError(t, err)
		records = append(records, data)
	})
	table := New(Limits{MaxGroups: 1, MaxPartitions: 3, ExpireAfter: time.Minute})
	// only c, at 200, has not expired
	live := 0
	for _, r := range records {
		if _, err := table.Restore(r, Times{}, at(210)); err == nil {
			live++
		}
	}
	assert.Equal(t, 1, live)
}

func TestListsAcrossAGapAreNotInARow(t *testing.T) {
	table := New(Limits{MaxGroups: 20, MaxPartitions: 100, ExpireAfter: time.Hour})
	for _, n := range []string{"a", "b", "d"} {
		g := evaluation(1, burrow.StatusOK)
		g.Group = n
		require.NoError(t, table.UpdateFromAPI(g, at(0)))
	}
	l := func(s int, names ...string) {
		table.ListGroups(List{Cluster: "c", Names: names, Asked: at(s), Interval: 30 * time.Second}, at(s))
	}
	l(30, "a", "b")
	// The list of the next polls can't be had for ten minutes; then one list lacks it again (a Burrow that has just started, half full).
	table.GroupsNotListed("c")
	l(660, "a", "b")
	assert.Equal(t, 3, table.Stats().Groups, "one list before the gap, and one after it")
}

// What an evaluation that is too old to count tells of an incident goes out with the next state: one moment has one value.
func TestAdoptedIncidentWaitsForTheNextState(t *testing.T) {
	table := New(polledLimits)
	committed := func(second int) *burrow.GroupStatus {
		g := evaluation(5, burrow.StatusStop)
		g.Partitions[0].End.Timestamp = at(second).UnixMilli()
		return g
	}
	require.NoError(t, table.UpdateFromAPI(committed(9), at(10)))
	table.Finish(collect(table, at(10)), true, at(10))
	old := notified(committed(3))
	old.ID, old.Start = "X", at(4)
	require.NoError(t, table.Update(old, at(11)))
	assert.Empty(t, collect(table, at(11)))
	assert.Equal(t, "X", current(t, table).Incidents.ID)
	require.NoError(t, table.UpdateFromAPI(committed(9), at(20)))
	changes := collect(table, at(20))
	require.Len(t, changes, 1)
	duration, _ := changes[0].Group.IncidentDuration()
	assert.Equal(t, 16*time.Second, duration)
	table.Finish(changes, true, at(20))
	assert.Zero(t, table.replaced)
}
