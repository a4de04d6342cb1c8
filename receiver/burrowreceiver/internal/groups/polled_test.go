package groups

import (
	"fmt"
	"slices"
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

// current is the state of the only group.
func current(t *testing.T, table *Table) *State {
	t.Helper()
	var states []*State
	table.Each(func(s *State) { states = append(states, s) })
	require.Len(t, states, 1)
	return states[0]
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
	require.ErrorIs(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{200, 200, 200, 200}, Received: at(0)}), ErrTooManyPartitions)
	require.NoError(t, table.Update(notified(evaluation(0, ok, ok, ok)), at(1)))
	assert.Equal(t, Stats{Groups: 1, Partitions: 3}, table.Stats())
	table.Expire(at(61))
	assert.Equal(t, Stats{Expired: 1}, table.Stats())
}

// listed makes a list of a poll that began at a second; polls are 10 s apart.
func listed(second int, names ...string) List {
	return List{Cluster: "c", Names: names, Asked: at(second), Interval: 10 * time.Second}
}

func polled(t *testing.T, table *Table, second int, names ...string) {
	t.Helper()
	for _, name := range names {
		g := evaluation(0, burrow.StatusOK)
		g.Group = name
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
	}
}

func names(table *Table) (list []string) {
	table.Each(func(s *State) { list = append(list, s.Group.Group) })
	slices.Sort(list)
	return list
}

func TestGroupsThatAreGone(t *testing.T) {
	table := New(polledLimits)
	table.KeepEvents(10)
	polled(t, table, 0, "stays", "goes", "received since")
	pushed := notified(evaluation(0, burrow.StatusStop))
	pushed.Group.Group = "only notified"
	require.NoError(t, table.Update(pushed, at(0)))
	bad := notified(evaluation(5, burrow.StatusStop))
	bad.Group.Group, bad.ID, bad.Start = "goes", "a", at(-5)
	require.NoError(t, table.Update(bad, at(1)))
	table.Finish(collect(table, at(2)), true, at(2))
	_ = table.TakeEvents(10)

	table.ListGroups(List{Cluster: "other", Names: []string{"x"}, Asked: at(10)}, at(12))
	polled(t, table, 11, "received since")
	table.ListGroups(listed(10, "stays", "x"), at(12))
	assert.Len(t, names(table), 4, "one list is no evidence")
	table.ListGroups(listed(19, "stays", "received since"), at(19))
	assert.Len(t, names(table), 4, "the next one comes too soon")
	table.ListGroups(listed(20, "stays", "received since"), at(22))
	assert.Equal(t, []string{"only notified", "received since", "stays"}, names(table))
	events := table.TakeEvents(10)
	require.Len(t, events, 1)
	assert.Equal(t, "ended by gone a since -5 at 22: ERR to ERR", describe(events[0]))
	assert.Zero(t, table.Stats().Expired, "to be gone is not to expire")

	table.EndCluster("c", at(11), at(30))
	assert.Equal(t, []string{"only notified", "received since"}, names(table), "received since it was asked")
	table.EndCluster("c", at(12), at(30))
	assert.Equal(t, []string{"only notified"}, names(table))
}

// A Burrow that has just started lists nothing, and then ever more.
func TestListsThatSayNothing(t *testing.T) {
	all := []string{"a", "b", "c", "d"}
	for name, lists := range map[string][][]string{
		"empty":                          {{}, {}, {}},
		"less than half":                 {{"a"}, {"a"}, {"a"}},
		"in turns":                       {{"a", "b"}, {"c", "d"}, {"a", "b"}, {"c", "d"}},
		"an empty one between":           {{"a", "b", "c"}, {}, {"a", "b", "c"}},
		"back at the second":             {{"a", "b", "c"}, all, {"a", "b", "c"}},
		"others instead, more than half": {{"w", "x", "y", "z"}, {"w", "x", "y", "z"}},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
			polled(t, table, 0, all...)
			for _, topic := range all {
				require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: topic, Offsets: []int64{1}, Received: at(0)}))
			}
			for i, list := range lists {
				table.ListGroups(listed(10*i+10, list...), at(10*i+11))
				table.ListTopics(listed(10*i+10, list...), at(10*i+11))
			}
			assert.Equal(t, all, names(table))
			assert.Equal(t, 4, table.Stats().Topics)
		})
	}
	table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
	polled(t, table, 0, all...)
	table.ListGroups(listed(10, "a", "b"), at(11))
	table.ListGroups(listed(20, "a", "b"), at(21))
	assert.Equal(t, []string{"a", "b"}, names(table), "half of them, twice")
}

// A group that is gone and comes back goes on counting its incidents.
func TestGroupComesBackAfterItWasGone(t *testing.T) {
	table := New(polledLimits)
	table.KeepEvents(10)
	bad := evaluation(0, burrow.StatusStop)
	require.NoError(t, table.UpdateFromAPI(bad, at(0)))
	table.Finish(collect(table, at(1)), true, at(1))
	polled(t, table, 1, "other")
	table.ListGroups(listed(10, "other"), at(11))
	table.ListGroups(listed(20, "other"), at(21))
	assert.Equal(t, []string{"other"}, names(table))
	table.Finish(collect(table, at(22)), true, at(22))
	table.Expire(at(22))
	require.NoError(t, table.UpdateFromAPI(bad, at(30)))
	table.EndCluster("other", at(31), at(31))
	var seen []int64
	table.Each(func(s *State) {
		if s.Group.Group == "g" {
			seen = append(seen, s.Incidents.Seen)
			assert.Equal(t, at(0), s.Incidents.Since)
		}
	})
	assert.Equal(t, []int64{2}, seen)
	var events []string
	for _, e := range table.TakeEvents(10) {
		events = append(events, describe(e))
	}
	assert.Equal(t, []string{
		"opened ccbb621aab0e373b-karrot since 0 at 0: unknown to ERR",
		"ended by gone ccbb621aab0e373b-karrot since 0 at 21: ERR to ERR",
		"opened df671c69f7051386-karrot since 30 at 30: unknown to ERR",
	}, events)
}

func TestTopics(t *testing.T) {
	table := New(polledLimits)
	update := func(name string, second int, offsets ...int64) {
		require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: name, Offsets: offsets, Received: at(second)}))
	}
	take := func() (list []string) {
		fresh, _ := table.Due()
		var changes []Change
		for _, ref := range fresh {
			c := table.Begin(ref)
			offsets := "ended"
			if c.Topic != nil {
				c.Series = len(c.Topic.Offsets)
				offsets = fmt.Sprint(c.Topic.Offsets)
			}
			list = append(list, fmt.Sprintf("%s %s @%d", c.Name, offsets, int(c.At.Sub(at(0)).Seconds())))
			changes = append(changes, c)
		}
		table.Finish(changes, true, at(0))
		return list
	}
	update("b", 0, 1, 2)
	update("a", 1, 3)
	assert.Equal(t, []string{"a [3] @1", "b [1 2] @0"}, take())
	assert.Equal(t, Stats{Topics: 2, Series: 3}, table.Stats())
	assert.Empty(t, take())
	update("b", 10, 5, 6, 7)
	table.ListTopics(listed(20, "b"), at(21))
	table.ListTopics(listed(30, "b"), at(31))
	assert.Equal(t, []string{"a ended @31", "b [5 6 7] @10"}, take())
	assert.Equal(t, Stats{Topics: 1, Series: 3}, table.Stats())
	table.Expire(at(70))
	assert.Equal(t, []string{"b ended @70"}, take())
	assert.Equal(t, Stats{}, table.Stats())
	update("never sent", 80, 1)
	table.Expire(at(140))
	assert.Empty(t, take())
	assert.Equal(t, Stats{}, table.Stats())
	assert.Empty(t, table.topics)
}

// Burrow leaves out the partitions whose head it has never read, and those behind them move up.
func TestOffsetsOfOtherPartitions(t *testing.T) {
	topic := func(second int, offsets ...int64) *Topic {
		return &Topic{Cluster: "c", Name: "t", Offsets: offsets, Received: at(second)}
	}
	behind := func(second int, lag int64) *burrow.Notification {
		g := evaluation(0, burrow.StatusStop)
		g.Partitions[0].CurrentLag, g.Partitions[0].Partition, g.PartitionCount = lag, 2, 3
		g.Partitions[0].End.Timestamp = at(second).UnixMilli()
		return &burrow.Notification{Group: *g}
	}
	t.Run("a notification read a higher one, a minute ago", func(t *testing.T) {
		table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: 5 * time.Minute})
		require.NoError(t, table.Update(behind(0, 7), at(0)))
		require.ErrorIs(t, table.UpdateTopic(topic(60, 10, 107)), ErrUnmatched)
		require.NoError(t, table.UpdateTopic(topic(60, 10, 20, 107)))
	})
	t.Run("the answer before was longer", func(t *testing.T) {
		table := New(polledLimits)
		require.NoError(t, table.UpdateTopic(topic(0, 1, 2, 3)))
		require.ErrorIs(t, table.UpdateTopic(topic(30, 1, 3)), ErrUnmatched)
		table.Expire(at(60))
		require.NoError(t, table.UpdateTopic(topic(60, 1, 3)), "recreated with fewer partitions")
	})
	t.Run("below a commit and its lag", func(t *testing.T) {
		table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: 10 * time.Minute})
		require.NoError(t, table.Update(behind(0, 7), at(0)))
		require.ErrorIs(t, table.UpdateTopic(topic(10, 10, 20, 106)), ErrUnmatched)
		require.NoError(t, table.UpdateTopic(topic(121, 10, 20, 106)), "recreated: what was told is old")
	})
	t.Run("below a commit without lag", func(t *testing.T) {
		table := New(polledLimits)
		require.NoError(t, table.Update(behind(0, 0), at(0)))
		require.NoError(t, table.UpdateTopic(topic(10, 10, 20, 90)), "Burrow's head can be older than the commit")
	})
	t.Run("asked before the newest", func(t *testing.T) {
		table := New(polledLimits)
		require.NoError(t, table.UpdateTopic(topic(10, 5)))
		require.NoError(t, table.UpdateTopic(topic(9, 4)))
		assert.Equal(t, []int64{5}, collect(table, at(10))[0].Topic.Offsets)
	})
}

func TestTimeLagOfUnlistedPartitions(t *testing.T) {
	const ok, stop = burrow.StatusOK, burrow.StatusStop
	table := New(polledLimits)
	// The heads are seen to grow, so that the time lags of 0 and 1 are known; 2 has no lag.
	poll := func(second int, add int64, statuses ...burrow.Status) {
		g := evaluation(add, statuses...)
		g.Partitions[2].CurrentLag = 0
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
	}
	poll(0, 10, stop, ok, ok)
	poll(10, 20, stop, ok, ok)
	lags := func() (known []bool) {
		s := current(t, table)
		for i := range s.Group.Partitions {
			known = append(known, s.TimeLag(i) != burrow.Unknown)
		}
		return known
	}
	require.Equal(t, []bool{true, true, true}, lags())

	n := notified(evaluation(25, ok, ok, ok))
	n.Group.MaxLag = &evaluation(25, ok, ok, ok).Partitions[1]
	require.NoError(t, table.Update(n, at(20)))
	assert.Equal(t, []bool{false, true, true}, lags(), "0 has recovered, and nobody says how far it is; 1 was just computed; 2 was OK and is")

	poll(30, 50, ok, ok, ok)
	n = notified(evaluation(3, ok, ok, ok))
	n.Group.MaxLag = &evaluation(3, ok, ok, ok).Partitions[1]
	require.NoError(t, table.Update(n, at(31)))
	assert.Equal(t, []bool{true, true, true}, lags(), "0 was further behind than any is now, so it has moved")
	s := current(t, table)
	assert.LessOrEqual(t, s.TimeLag(0), s.TimeLag(1), "and is not further behind than the one with the highest lag")

	poll(40, 60, stop, ok, ok)
	caughtUp := notified(evaluation(0, ok, ok, ok))
	require.NoError(t, table.Update(caughtUp, at(41)))
	s = current(t, table)
	assert.Equal(t, []float64{0, 0, 0}, s.TimeLags, "there is no lag at all")
	assert.Equal(t, []string{"t/0 OK 0", "t/1 OK 0", "t/2 OK 0"}, partitions(s))
}

// Burrow keeps evaluations for some seconds, so that an old one can arrive last.
func TestNewestEvaluationWins(t *testing.T) {
	const ok, stop = burrow.StatusOK, burrow.StatusStop
	committed := func(g *burrow.GroupStatus, seconds ...int) *burrow.GroupStatus {
		for i, second := range seconds {
			g.Partitions[i].End.Timestamp = at(second).UnixMilli()
		}
		return g
	}
	for name, tc := range map[string]struct {
		known    *burrow.GroupStatus
		at       int
		then     *burrow.GroupStatus
		asPolled bool
		wins     bool
	}{
		"older commit":                {committed(evaluation(1, ok, ok), 9, 9), 15, committed(evaluation(2, stop, ok), 5, 9), false, false},
		"older commit, polled":        {committed(evaluation(1, ok, ok), 9, 9), 15, committed(evaluation(2, stop, ok), 5, 9), true, false},
		"the same commits":            {committed(evaluation(1, ok, ok), 9, 9), 15, committed(evaluation(2, stop, ok), 9, 9), false, true},
		"one older, one newer":        {committed(evaluation(1, ok, ok), 9, 5), 15, committed(evaluation(2, ok, ok), 5, 9), true, true},
		"another partition":           {committed(evaluation(1, ok), 9), 15, committed(evaluation(2, ok, stop), 9, 1), false, true},
		"much older commit":           {committed(evaluation(1, ok, ok), 9, 9), 15, committed(evaluation(2, stop, ok), -200, 9), false, true},
		"older commit after a minute": {committed(evaluation(1, ok, ok), 9, 9), 70, committed(evaluation(2, stop, ok), 5, 9), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
			require.NoError(t, table.UpdateFromAPI(tc.known, at(10)))
			if tc.asPolled {
				require.NoError(t, table.UpdateFromAPI(tc.then, at(tc.at)))
			} else {
				require.NoError(t, table.Update(notified(tc.then), at(tc.at)))
			}
			want := tc.known.TotalLag
			if tc.wins {
				want = tc.then.TotalLag
			}
			assert.Equal(t, want, current(t, table).Group.TotalLag)
		})
	}

	table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
	require.NoError(t, table.Update(notified(committed(evaluation(1, stop), 9)), at(9)))
	require.NoError(t, table.Update(notified(committed(evaluation(2, stop), 8)), at(10)))
	assert.EqualValues(t, 2, current(t, table).Group.TotalLag, "without polls the newest arrival counts")

	table = New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
	require.NoError(t, table.UpdateFromAPI(committed(evaluation(1, stop), 9), at(10)))
	old := notified(committed(evaluation(2, stop), 5))
	old.ID, old.Start = "a", at(4)
	require.NoError(t, table.Update(old, at(11)))
	s := current(t, table)
	assert.EqualValues(t, 1, s.Group.TotalLag)
	assert.Equal(t, "a", s.Incidents.ID, "what it tells of the incident is true all the same")
	assert.Equal(t, at(4), s.Incidents.Start)
}

// A partition does not recover without a commit. A notification that says so was made before the poll that it follows, or by a Burrow whose
// heads are older: the incident goes on, and is one.
func TestNoRecoveryWithoutACommit(t *testing.T) {
	const ok, warn, stop = burrow.StatusOK, burrow.StatusWarn, burrow.StatusStop
	group := func(status burrow.Status, lag int64, committed int) *burrow.GroupStatus {
		g := read(burrow.StatusOK, committed, []int64{100, 100}, lag, 0)
		if g.Partitions[0].Status = status; status != ok {
			g.Status = burrow.StatusErr
		}
		g.MaxLag = &g.Partitions[0]
		return g
	}
	for name, tc := range map[string]struct {
		before burrow.Status
		then   *burrow.GroupStatus
		second int
		polled bool
		want   burrow.Status
	}{
		"the same commit":                            {stop, group(ok, 50, 0), 1, false, burrow.StatusErr},
		"the same commit, with an older head":        {stop, group(ok, 0, 0), 1, false, burrow.StatusErr},
		"the same commit, polled":                    {stop, group(ok, 50, 0), 1, true, burrow.StatusErr},
		"the same commit, and the group was slow":    {warn, group(ok, 50, 0), 1, false, burrow.StatusErr},
		"a newer commit":                             {stop, group(ok, 20, 1), 1, false, ok},
		"the same commit, and it is bad":             {stop, group(stop, 60, 0), 1, false, burrow.StatusErr},
		"the same commit, and it was good":           {ok, group(stop, 60, 0), 1, false, burrow.StatusErr},
		"another partition is named":                 {stop, &burrow.GroupStatus{Cluster: "c", Group: "g", Status: ok, MaxLag: &group(ok, 0, 0).Partitions[1]}, 1, false, ok},
		"none is named":                              {stop, &burrow.GroupStatus{Cluster: "c", Group: "g", Status: ok}, 1, false, ok},
		"the same commit, told for more than minute": {stop, group(ok, 50, 0), 61, false, ok},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})
			table.KeepEvents(10)
			require.NoError(t, table.UpdateFromAPI(group(tc.before, 50, 0), at(5)))
			if tc.polled {
				require.NoError(t, table.UpdateFromAPI(tc.then, at(5+tc.second)))
			} else {
				require.NoError(t, table.Update(notified(tc.then), at(5+tc.second)))
			}
			assert.Equal(t, tc.want, current(t, table).Group.Status)
			if tc.want != ok && tc.before != ok {
				assert.Len(t, table.TakeEvents(10), 1, "it has only begun")
				require.NoError(t, table.UpdateFromAPI(group(stop, 90, 0), at(35)))
				assert.Empty(t, table.TakeEvents(10), "it goes on")
				require.NoError(t, table.UpdateFromAPI(group(ok, 1, 60), at(65)))
				assert.Len(t, table.TakeEvents(10), 1, "it has ended")
			}
		})
	}
}

// The head that the API tells is a point of the history, for partitions whose groups are followed.
func TestHeadsOfTopicsHelpTheTimeLag(t *testing.T) {
	table := New(polledLimits)
	g := evaluation(0, burrow.StatusStop)
	g.Partitions[0].CurrentLag = 50
	require.NoError(t, table.UpdateFromAPI(g, at(0)))
	require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{175, 9}, Received: at(10)}))
	history := table.heads.topics[key{"c", "t"}].partitions
	require.Len(t, history, 1, "nobody asks for the other partition")
	points := pointsOf(&history[0])
	assert.Equal(t, headPoint{175, at(10).UnixMilli()}, points[len(points)-1])
}

// So it is when the partitions of the group have no place.
func TestNewestEvaluationWinsInAFullTable(t *testing.T) {
	for name, tc := range map[string]struct {
		places   int
		between  bool // a notification comes between the poll and the old evaluation
		received int
		want     burrow.Status
	}{
		"with places":                    {10, false, 62, burrow.StatusOK},
		"without":                        {2, false, 62, burrow.StatusOK},
		"without, after a notification":  {2, true, 62, burrow.StatusOK},
		"without, more than a minute on": {2, false, 121, burrow.StatusErr},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 5, MaxPartitions: tc.places, ExpireAfter: time.Hour})
			table.KeepEvents(10)
			named := func(g *burrow.GroupStatus, status burrow.Status) *burrow.GroupStatus {
				if status != burrow.StatusOK {
					g.Status, g.Partitions[0].Status = burrow.StatusErr, status
				}
				g.MaxLag = &g.Partitions[0]
				return g
			}
			require.NoError(t, table.UpdateFromAPI(read(burrow.StatusOK, 0, []int64{1, 1}, 0, 0), at(0)))
			fresh := named(read(burrow.StatusOK, 58, []int64{200, 200, 200}, 1, 0, 0), burrow.StatusOK)
			require.NoError(t, table.UpdateFromAPI(fresh, at(60)))
			if tc.between {
				require.NoError(t, table.Update(notified(fresh), at(61)))
			}
			old := notified(named(read(burrow.StatusOK, 50, []int64{100, 100, 100}, 9, 0, 0), burrow.StatusStop))
			old.ID, old.Start = "x", at(40)
			require.NoError(t, table.Update(old, at(tc.received)))
			assert.Equal(t, tc.want, current(t, table).Group.Status)
			if tc.want == burrow.StatusOK {
				assert.Empty(t, table.TakeEvents(10))
			}
		})
	}
}

// When anything was last seen to move does not go back because a group or topic leaves, as long as the cluster has another one.
func TestLastMovedDoesNotGoBack(t *testing.T) {
	group := func(name string, committed int) *burrow.GroupStatus {
		g := read(burrow.StatusOK, committed, []int64{1}, 0)
		g.Group = name
		return g
	}
	moved := func(table *Table) int { return int(table.LastMoved()["c"].Sub(at(0)).Seconds()) }
	table := New(polledLimits)
	assert.Empty(t, table.LastMoved())
	require.NoError(t, table.UpdateFromAPI(group("newest", 50), at(55)))
	require.NoError(t, table.UpdateFromAPI(group("g", 40), at(60)))
	require.Equal(t, 50, moved(table))
	table.ListGroups(listed(70, "g"), at(71))
	table.ListGroups(listed(80, "g"), at(81))
	require.Equal(t, []string{"g"}, names(table))
	assert.Equal(t, 50, moved(table), "that of a group that is gone")

	require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{1}, Received: at(90)}))
	table.Expire(at(120))
	require.Empty(t, names(table))
	assert.Equal(t, 50, moved(table), "a topic is left")
	table.Expire(at(150))
	assert.Empty(t, table.LastMoved(), "nothing is left of the cluster")
	require.NoError(t, table.UpdateFromAPI(group("g", 45), at(160)))
	assert.Equal(t, 45, moved(table), "nor remembered")
}

// The clock was put back: what was seen to move long after all that was received does not count, or it would hide that nothing moves.
func TestLastMovedAfterTheClockWasPutBack(t *testing.T) {
	table := New(polledLimits)
	require.NoError(t, table.UpdateFromAPI(read(burrow.StatusOK, 600, []int64{1}, 0), at(605)))
	require.Equal(t, at(600), table.LastMoved()["c"].UTC())
	table.EndCluster("c", at(606), at(606))
	require.NoError(t, table.UpdateFromAPI(read(burrow.StatusOK, 5, []int64{1}, 0), at(10)))
	assert.Equal(t, at(5), table.LastMoved()["c"].UTC())
}
