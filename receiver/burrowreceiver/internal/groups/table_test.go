package groups

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

var (
	start  = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	limits = Limits{MaxGroups: 3, MaxPartitions: 10, ExpireAfter: time.Minute}
)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func notification(group string, lag int64, partitions ...int32) *burrow.Notification {
	n := &burrow.Notification{Group: burrow.GroupStatus{Cluster: "c", Group: group, Status: burrow.StatusOK, TotalLag: lag}}
	for _, p := range partitions {
		n.Group.Partitions = append(n.Group.Partitions, burrow.PartitionStatus{Topic: "t", Partition: p, End: burrow.Commit{Offset: burrow.Unknown}})
	}
	return n
}

// collect is what the pipelines' side does at a moment.
func collect(table *Table, now time.Time) []Change[State] {
	table.Expire(now)
	return table.Collect()
}

// short is a change in a form that can be read: group:sent lag>current lag@second.
func short(changes []Change[State]) []string {
	lag := func(s *State) string {
		if s == nil {
			return "-"
		}
		return strconv.FormatInt(s.Group.TotalLag, 10)
	}
	var out []string
	for _, c := range changes {
		out = append(out, fmt.Sprintf("%s:%s>%s@%d", c.Last().Group.Group, lag(c.Sent), lag(c.Current), int(c.At.Sub(start).Seconds())))
	}
	return out
}

func TestCollectAndCommit(t *testing.T) {
	table := New(limits)
	assert.Empty(t, collect(table, at(0)))

	require.NoError(t, table.Update(notification("b", 1), at(0)))
	require.NoError(t, table.Update(notification("a", 2), at(1)))
	changes := collect(table, at(2))
	assert.Equal(t, []string{"a:->2@1", "b:->1@0"}, short(changes), "in order, nothing sent yet")
	table.Commit(changes)
	assert.Empty(t, collect(table, at(3)), "nothing new")

	// The newest state wins, and what comes between Collect and Commit is not lost.
	require.NoError(t, table.Update(notification("a", 3), at(4)))
	require.NoError(t, table.Update(notification("a", 4), at(5)))
	changes = collect(table, at(6))
	assert.Equal(t, []string{"a:2>4@5"}, short(changes))
	require.NoError(t, table.Update(notification("a", 5), at(7)))
	table.Commit(changes)
	changes = collect(table, at(8))
	assert.Equal(t, []string{"a:4>5@7"}, short(changes))

	// Not committed: the pipelines still have 4.
	require.NoError(t, table.Update(notification("a", 6), at(9)))
	assert.Equal(t, []string{"a:4>6@9"}, short(collect(table, at(10))))
}

func TestOlderNotificationIsDropped(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 2, 0), at(5)))
	require.NoError(t, table.Update(notification("a", 1, 0, 1), at(4)), "overtaken by a newer one")
	assert.Equal(t, []string{"a:->2@5"}, short(collect(table, at(6))))
	require.NoError(t, table.Update(notification("a", 3), at(5)), "the same moment: the last one counts")
	assert.Equal(t, []string{"a:->3@5"}, short(collect(table, at(6))))
	assert.Equal(t, Stats{Groups: 1}, table.Stats())
}

func TestExpiry(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0, 1), at(0)))
	require.NoError(t, table.Update(notification("b", 2), at(30)))
	table.Commit(collect(table, at(59)))
	assert.Equal(t, Stats{Groups: 2, Partitions: 2}, table.Stats())

	changes := collect(table, at(60))
	assert.Equal(t, []string{"a:1>-@60"}, short(changes))
	assert.Equal(t, []string{"a:1>-@60"}, short(collect(table, at(61))), "until it is committed, with the moment of its end")
	assert.Equal(t, Stats{Groups: 2, Expired: 1}, table.Stats())
	table.Commit(changes)
	assert.Empty(t, collect(table, at(62)))
	assert.Equal(t, Stats{Groups: 1, Expired: 1}, table.Stats())
}

func TestGroupThatComesBack(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0), at(0)))
	table.Commit(collect(table, at(1)))
	expired := collect(table, at(60))
	require.NoError(t, table.Update(notification("a", 2, 1), at(61)))
	assert.Equal(t, []string{"a:1>2@61"}, short(collect(table, at(61))), "its end was not committed, so partition 0 must still be ended")
	table.Commit(expired)
	assert.Equal(t, []string{"a:->2@61"}, short(collect(table, at(62))), "its end was committed")
}

func TestExpiredBeforeItWasSent(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0), at(0)))
	assert.Len(t, collect(table, at(1)), 1)
	assert.Empty(t, collect(table, at(60)), "the pipelines never had it")
	assert.Equal(t, Stats{Expired: 1}, table.Stats())
}

func TestLimits(t *testing.T) {
	table := New(limits)
	for i, group := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(group, 1), at(i)))
	}
	require.ErrorIs(t, table.Update(notification("d", 1), at(4)), ErrTooManyGroups)
	require.NoError(t, table.Update(notification("a", 2, 0, 1, 2, 3, 4, 5, 6, 7), at(5)), "a known group has its place")
	require.ErrorIs(t, table.Update(notification("b", 2, 0, 1, 2), at(6)), ErrTooManyPartitions)
	require.NoError(t, table.Update(notification("b", 3, 0, 1), at(7)), "exactly full")
	require.NoError(t, table.Update(notification("a", 3, 0, 1, 2, 3, 4, 5, 6, 8), at(8)), "no growth")
	assert.Equal(t, Stats{Groups: 3, Partitions: 10}, table.Stats())
	assert.Equal(t, []string{"a:->3@8", "b:->3@7", "c:->1@2"}, short(collect(table, at(9))), "a refused notification changed nothing")

	collect(table, at(70))
	assert.Equal(t, Stats{Expired: 3}, table.Stats())
	require.NoError(t, table.Update(notification("d", 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), at(71)))
	require.ErrorIs(t, table.Update(notification("e", 1, 0), at(72)), ErrTooManyPartitions)
	assert.Equal(t, Stats{Groups: 1, Partitions: 10, Expired: 3}, table.Stats(), "a refused group takes no place")
}

// Whatever the order of updates, hand-overs that fail and hand-overs that succeed, what was committed
// adds up to what the newest notifications say.
func TestCommittedStateFollowsTheNewest(t *testing.T) {
	// told is the part of a state that the notification brought.
	told := func(s *State) *State {
		if s == nil {
			return nil
		}
		return &State{Notification: s.Notification, Received: s.Received, TimeLags: s.TimeLags, MaxTimeLag: s.MaxTimeLag}
	}
	random := rand.New(rand.NewPCG(1, 2))
	table := New(Limits{MaxGroups: 50, MaxPartitions: 1000, ExpireAfter: 20 * time.Second})
	newest := map[string]*State{}
	pipelines := map[string]*State{}
	for second := range 5000 {
		now := at(second)
		for range random.IntN(4) {
			n := notification(strconv.Itoa(random.IntN(40)), int64(second), 1)
			require.NoError(t, table.Update(n, now))
			newest[n.Group.Group] = &State{Notification: *n, Received: now, MaxTimeLag: burrow.Unknown}
		}
		changes := collect(table, now)
		if random.IntN(3) == 0 {
			continue // refused
		}
		for _, c := range changes {
			group := c.Last().Group.Group
			require.Equal(t, pipelines[group], told(c.Sent), "a change starts from what the pipelines have")
			if c.Current == nil {
				delete(pipelines, group)
			} else {
				pipelines[group] = told(c.Current)
			}
		}
		table.Commit(changes)
		for group, state := range newest {
			if now.Sub(state.Received) >= 20*time.Second {
				delete(newest, group)
			}
		}
		require.Equal(t, newest, pipelines)
	}
	assert.Positive(t, table.Stats().Expired)
}

func TestConcurrentUse(t *testing.T) {
	table := New(Limits{MaxGroups: 100, MaxPartitions: 1000, ExpireAfter: time.Hour})
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for i := range 500 {
				assert.NoError(t, table.Update(notification(strconv.Itoa(i%20), int64(i), int32(sender)), at(i)))
			}
		})
	}
	done := make(chan struct{})
	go func() { senders.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			runtime.Gosched()
		}
		table.Commit(collect(table, at(499)))
	}
	assert.Equal(t, Stats{Groups: 20, Partitions: 20}, table.Stats())
	assert.Empty(t, collect(table, at(500)))
}
