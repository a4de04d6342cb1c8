package groups

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

func TestPlaces(t *testing.T) {
	for names, want := range map[int]int{0: 1, 512: 1, 513: 2, 2048: 2, 2049: 3, 3*1024 + 2*255: 3} {
		assert.Equal(t, want, places(names), "%d bytes", names)
	}
}

// Long names count as what they cost.
func TestLongNamesTakeMorePlaces(t *testing.T) {
	long := strings.Repeat("x", 600)
	table := New(limits) // 3 groups, 10 partitions
	require.NoError(t, table.Update(notification(long, 1), at(0)))
	require.NoError(t, table.Update(notification("b", 1), at(1)))
	require.ErrorIs(t, table.Update(notification("c", 1), at(2)), ErrTooManyGroups)
	require.NoError(t, table.Update(notification(long, 2), at(3)), "a known group has its place")
	assert.Equal(t, Places{Groups: 3}, table.Places())

	listed := notification("b", 1, 0, 1, 2, 3, 4)
	for i := range listed.Group.Partitions {
		listed.Group.Partitions[i].Topic = long
	}
	require.NoError(t, table.Update(listed, at(4)))
	assert.Equal(t, Places{Groups: 3, Partitions: 10}, table.Places(), "exactly full")
	require.NoError(t, table.Update(notification(long, 1, 0), at(5)))
	assert.Equal(t, Places{Groups: 3, Partitions: 10, LeftOut: 1}, table.Places())

	table.Finish(collect(table, at(5)), true, at(5))
	table.Finish(collect(table, at(70)), true, at(70))
	assert.Equal(t, Places{LeftOut: 1}, table.Places(), "all have expired")
}

// A group that ended makes room for a longer name only together with another one.
func TestEndedGroupsMakeRoomForLongNames(t *testing.T) {
	table := New(limits)
	for i, group := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(group, 1), at(i)))
	}
	table.Finish(collect(table, at(3)), false, at(3))
	table.Expire(at(61)) // a, b
	require.NoError(t, table.Update(notification(strings.Repeat("x", 600), 1), at(61)))
	assert.Equal(t, Places{Groups: 3}, table.Places())
	assert.EqualValues(t, 2, table.Stats().EndsDropped)
}

// Whoever fills the table with partitions does not keep what is told of a known group from being known: before, its old verdict
// stood until it expired.
func TestKnownGroupStaysTrueWithoutPlacesForItsPartitions(t *testing.T) {
	table := New(limits)
	table.KeepEvents(10)
	honest := func(status burrow.Status, second int, partitions ...int32) {
		t.Helper()
		n := notification("honest", 7, partitions...)
		n.Group.Status, n.Group.PartitionCount = status, 5
		for i := range n.Group.Partitions {
			n.Group.Partitions[i].Status, n.Group.Partitions[i].CurrentLag = burrow.StatusStop, 7
		}
		require.NoError(t, table.Update(n, at(second)))
	}
	honest(burrow.StatusOK, 0)
	require.NoError(t, table.Update(notification("stranger", 1, 0, 1, 2, 3, 4, 5, 6, 7, 8), at(1)))
	honest(burrow.StatusErr, 2, 3, 4)

	s := states(table)["honest"]
	assert.Equal(t, burrow.StatusErr, s.Group.Status)
	assert.EqualValues(t, 7, s.Group.TotalLag)
	assert.Empty(t, s.Group.Partitions)
	assert.EqualValues(t, burrow.Unknown, s.Group.PartitionCount, "they can't be counted")
	assert.EqualValues(t, 2, table.Places().LeftOut)
	events := table.TakeEvents(10)
	require.Len(t, events, 1)
	assert.Equal(t, Opened, events[0].Kind)
	assert.Equal(t, 2, events[0].Listed, "the event names them")

	honest(burrow.StatusErr, 3, 3)
	assert.Len(t, states(table)["honest"].Group.Partitions, 1, "there is one place")
	honest(burrow.StatusErr, 4, 3, 4)
	table.Finish(collect(table, at(5)), true, at(5))
	honest(burrow.StatusErr, 6, 3)
	table.Finish(collect(table, at(6)), true, at(6))
	honest(burrow.StatusErr, 7, 3, 4)
	changes := collect(table, at(7))
	require.Len(t, changes, 1)
	assert.Equal(t, "honest>7@7 -t/3", short(changes)[0], "their series end")
}

func TestPolledGroupWithoutPlacesForItsPartitions(t *testing.T) {
	table := New(Limits{MaxGroups: 5, MaxPartitions: 2, ExpireAfter: time.Minute})
	ok := burrow.StatusOK
	require.NoError(t, table.UpdateFromAPI(evaluation(0, ok, ok), at(0)))
	require.NoError(t, table.UpdateFromAPI(evaluation(1, ok, ok, ok), at(1)))
	s := current(t, table)
	assert.Empty(t, s.Group.Partitions)
	assert.True(t, s.Polled.IsZero(), "nothing is known of those that a notification does not list")
	assert.True(t, s.FromAPI, "it can still be gone")
	require.NoError(t, table.UpdateFromAPI(evaluation(2, ok, ok), at(2)))
	assert.Len(t, current(t, table).Group.Partitions, 2)
}

// Topics without partitions are not free: a broken Burrow can list any number of them.
func TestTopicsWithoutPartitionsAreBounded(t *testing.T) {
	table := New(limits)
	for i := range 10 {
		require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: strconv.Itoa(i), Received: at(0)}))
	}
	require.ErrorIs(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "10", Received: at(0)}), ErrTooManyPartitions)
	require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "9", Offsets: []int64{1}, Received: at(1)}), "its first partition has the place")
	assert.Equal(t, Places{Heads: 10}, table.Places())
	table.Expire(at(61))
	assert.Zero(t, table.Places())
	assert.Empty(t, table.topics)
}

func states(table *Table) map[string]*State {
	all := map[string]*State{}
	table.Each(func(s *State) { all[s.Group.Group] = s })
	return all
}

// recount is what should be counted.
func recount(table *Table) (all Places, groups, partitions int) {
	for k, e := range table.groups {
		all.Groups += k.places()
		if e.current != nil {
			groups++
			partitions += len(e.current.Group.Partitions)
			all.Partitions += listedPlaces(&e.current.Group)
		}
	}
	for _, e := range table.topics {
		if e.current != nil {
			all.Heads += e.current.places()
		}
	}
	all.LeftOut = table.leftOut
	return all, groups, partitions
}

// Whatever comes in, ends, restarts or is refused in a table that is full of long names: what is counted is what is held, and within the
// limits.
func TestCountedIsHeld(t *testing.T) {
	tight := Limits{MaxGroups: 7, MaxPartitions: 25, ExpireAfter: 30 * time.Second, Owners: true}
	var refused, leftOut int64
	for seed := range uint64(10) {
		w := &world{
			t: t, random: rand.New(rand.NewPCG(seed, 11)), limits: tight, table: New(tight), now: start, full: true,
			healthy: page{}, other: page{}, open: map[string]bool{}, opened: map[string]int64{},
		}
		w.table.KeepEvents(1000)
		for range 4000 {
			w.step()
			switch {
			case w.underway != nil && w.random.IntN(3) == 0:
				w.finish()
			case w.underway == nil && w.random.IntN(3) == 0:
				w.begin()
			}
			counted := w.table.Places()
			held, groups, partitions := recount(w.table)
			require.Equal(t, held, counted)
			require.Equal(t, groups, w.table.groupsHeld)
			require.Equal(t, partitions, w.table.partitions)
			require.LessOrEqual(t, counted.Groups, tight.MaxGroups)
			require.LessOrEqual(t, counted.Heads, tight.MaxPartitions)
			// A partition that a notification left out can have got the names of its MaxLag.
			require.LessOrEqual(t, counted.Partitions, tight.MaxPartitions+counted.Groups)
			if w.refusing {
				refused++
			}
		}
		leftOut += w.table.leftOut
		w.table.Expire(w.now.Add(48 * time.Hour))
		if w.underway != nil {
			w.finish()
		}
		w.table.Expire(w.now.Add(96 * time.Hour))
		require.Equal(t, Places{LeftOut: w.table.leftOut}, w.table.Places())
	}
	require.Positive(t, refused)
	require.Positive(t, leftOut)
}

// Events wait for their hand-over, and what they cost is bounded whatever they name: before, 10,000 of them could hold 140 MB of names.
func TestWaitingEventsAreBoundedByWhatTheyName(t *testing.T) {
	const limit, told = 100, 300
	long := func(i, length int) string { return strings.Repeat("x", length-8) + fmt.Sprintf("%08d", i) }
	for name, c := range map[string]struct {
		event func(i int) *burrow.Notification
		held  int // events that wait
		taken int // of them, by one who takes 10 at most
	}{
		"ordinary names": {func(i int) *burrow.Notification { return notification("g"+strconv.Itoa(i), 1, 0) }, limit, 10},
		"the longest names": {func(i int) *burrow.Notification {
			n := notification(long(i, 1024), 1)
			n.ID, n.Group.Cluster = long(i, 255), long(0, 1024)
			for p := range maxWorst {
				n.Group.Partitions = append(n.Group.Partitions, burrow.PartitionStatus{
					Topic: long(p, 1024), Owner: long(p, 255), ClientID: long(p, 255), CurrentLag: 1, Status: burrow.StatusStop,
				})
			}
			return n
		}, limit / 9, 1},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 100 * told, MaxPartitions: 100 * told, ExpireAfter: time.Minute})
			table.KeepEvents(limit)
			for i := range told {
				n := c.event(i)
				n.Group.Status = burrow.StatusErr
				require.NoError(t, table.Update(n, at(0)))
			}
			assert.EqualValues(t, told-c.held, table.Stats().EventsDropped, "counted")
			events := table.TakeEvents(10)
			assert.Len(t, events, c.taken, "one hand-over is bounded too")
			assert.Equal(t, c.event(told-c.held).Group.Group, events[0].Group, "the oldest were dropped")
			events = append(events, table.TakeEvents(100*told)...)
			require.Len(t, events, c.held)
			bytes := 0
			for i := range events {
				e := &events[i]
				bytes += len(e.ID) + len(e.Cluster) + len(e.Group)
				for _, p := range e.Worst {
					bytes += len(p.Topic) + len(p.Owner) + len(p.ClientID)
				}
			}
			assert.Less(t, bytes, limit*namesPerPlace)
			assert.Empty(t, table.TakeEvents(1))
		})
	}
}
