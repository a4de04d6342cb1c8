package groups

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
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

// collect begins to hand over what is due at a moment, repeats too.
func collect(table *Table, now time.Time) []Change {
	table.Expire(now)
	fresh, refused := table.Due()
	var changes []Change
	for _, ref := range append(fresh, refused...) {
		changes = append(changes, table.Begin(ref))
	}
	return changes
}

// short is a change in a form that can be read: group>lag@second, with what ends behind a minus.
func short(changes []Change) []string {
	var out []string
	for _, c := range changes {
		lag := "-"
		if c.Group != nil {
			lag = strconv.FormatInt(c.Group.Group.TotalLag, 10)
		}
		parts := []string{fmt.Sprintf("%s>%s@%d", c.Name, lag, int(c.At.Sub(start).Seconds()))}
		if c.Ended.Group&GroupSeries != 0 {
			parts = append(parts, "-group")
		}
		for _, p := range c.Ended.Partitions {
			parts = append(parts, fmt.Sprintf("-%s/%d", p.Topic, p.Partition))
		}
		out = append(out, strings.Join(parts, " "))
	}
	return out
}

func TestHandOver(t *testing.T) {
	table := New(limits)
	assert.Empty(t, collect(table, at(0)))

	require.NoError(t, table.Update(notification("b", 1), at(0)))
	require.NoError(t, table.Update(notification("a", 2, 7), at(1)))
	changes := collect(table, at(2))
	assert.Equal(t, []string{"a>2@1", "b>1@0"}, short(changes), "in order, nothing has ended")
	table.Finish(changes, true, at(2))
	assert.Empty(t, collect(table, at(3)), "nothing new")

	// The newest state wins, and what comes while a hand-over is under way is not lost.
	require.NoError(t, table.Update(notification("a", 3), at(4)))
	require.NoError(t, table.Update(notification("a", 4, 8), at(5)))
	changes = collect(table, at(6))
	assert.Equal(t, []string{"a>4@5 -t/7"}, short(changes))
	require.NoError(t, table.Update(notification("a", 5), at(7)))
	table.Finish(changes, true, at(7))
	changes = collect(table, at(8))
	assert.Equal(t, []string{"a>5@7 -t/8"}, short(changes))

	// Some pipeline refused it, and another may have it: the end is due again, with that of the series of this state.
	table.Finish(changes, false, at(8))
	fresh, refused := table.Due()
	assert.Empty(t, fresh)
	assert.Len(t, refused, 1)
	assert.Equal(t, 1, table.Stats().Pending)
	require.NoError(t, table.Update(notification("a", 6, 9), at(9)))
	fresh, refused = table.Due()
	assert.Len(t, fresh, 1, "it is new")
	assert.Empty(t, refused)
	changes = collect(table, at(10))
	assert.Equal(t, []string{"a>6@9 -t/8"}, short(changes))
	table.Finish(changes, false, at(10))
	require.NoError(t, table.Update(notification("a", 7), at(11)))
	changes = collect(table, at(12))
	assert.Equal(t, []string{"a>7@11 -t/8 -t/9"}, short(changes), "what any pipeline may have")
	table.Finish(changes, true, at(12))
	assert.Empty(t, collect(table, at(13)))
	assert.Zero(t, table.Stats().Pending)
	assert.Zero(t, table.replaced)
}

// What is refused longest comes first, so that one group that a backend never takes does not keep the others from it.
func TestRepeatsTakeTurns(t *testing.T) {
	table := New(limits)
	for _, group := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(group, 1), at(0)))
	}
	table.Finish(collect(table, at(1)), false, at(1))
	_, refused := table.Due()
	require.Equal(t, "a", refused[0].name)
	table.Finish([]Change{table.Begin(refused[0])}, false, at(2))
	_, refused = table.Due()
	assert.Equal(t, []string{"b", "c", "a"}, []string{refused[0].name, refused[1].name, refused[2].name})
}

func TestOlderNotificationIsDropped(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 2, 0), at(5)))
	require.NoError(t, table.Update(notification("a", 1, 0, 1), at(4)), "overtaken by a newer one")
	assert.Equal(t, []string{"a>2@5"}, short(collect(table, at(6))))
	require.NoError(t, table.Update(notification("a", 3), at(5)), "the same moment: the last one counts")
	assert.Equal(t, []string{"a>3@5 -t/0"}, short(collect(table, at(6))))
	assert.Equal(t, Stats{Groups: 1}, table.Stats())
}

func TestExpiry(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0, 1), at(0)))
	require.NoError(t, table.Update(notification("b", 2), at(30)))
	table.Finish(collect(table, at(59)), true, at(59))
	assert.Equal(t, Stats{Groups: 2, Partitions: 2}, table.Stats())

	changes := collect(table, at(60))
	assert.Equal(t, []string{"a>-@60 -group -t/0 -t/1"}, short(changes))
	table.Finish(changes, false, at(60))
	changes = collect(table, at(61))
	assert.Equal(t, []string{"a>-@60 -group -t/0 -t/1"}, short(changes), "until it is taken, with the moment of its end")
	assert.Equal(t, Stats{Groups: 1, Pending: 1, Expired: 1}, table.Stats())
	table.Finish(changes, true, at(61))
	assert.Empty(t, collect(table, at(62)))
	assert.Equal(t, Stats{Groups: 1, Expired: 1}, table.Stats())
	assert.Len(t, table.groups, 1)
}

func TestEndThatIsRefusedForADay(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0, 1), at(0)))
	table.Finish(collect(table, at(1)), false, at(1))
	table.Finish(collect(table, at(60)), false, at(60))
	table.Expire(at(60).Add(keepEnds - time.Second))
	assert.Len(t, table.groups, 1)
	table.Expire(at(60).Add(keepEnds))
	assert.Empty(t, table.groups, "no backend shows it any more")
	assert.Equal(t, Stats{Expired: 1, EndsDropped: 2}, table.Stats())
}

func TestGroupThatComesBack(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0), at(0)))
	table.Finish(collect(table, at(1)), true, at(1))
	expired := collect(table, at(60))
	require.NoError(t, table.Update(notification("a", 2, 1), at(61)))
	table.Finish(expired, false, at(61))
	changes := collect(table, at(61))
	assert.Equal(t, []string{"a>2@61 -t/0"}, short(changes), "its end was not taken, so partition 0 must still be ended")
	table.Finish(changes, true, at(62))
	assert.Empty(t, collect(table, at(63)))
}

// The first hand-over of a group is under way while another goroutine ends the group.
func TestEndedWhileItIsHandedOver(t *testing.T) {
	for name, end := range map[string]func(*Table){
		"expiry":  func(table *Table) { table.Expire(at(60)) },
		"cluster": func(table *Table) { table.EndCluster("c", at(60), at(60)) },
	} {
		for _, taken := range []bool{true, false} {
			t.Run(fmt.Sprint(name, taken), func(t *testing.T) {
				table := New(polledLimits)
				require.NoError(t, table.UpdateFromAPI(evaluation(0, burrow.StatusOK), at(0)))
				require.NoError(t, table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{1}, Received: at(0)}))
				first := collect(table, at(1))
				require.Len(t, first, 2)
				end(table)
				table.Finish(first, taken, at(61))
				changes := collect(table, at(61))
				assert.Equal(t, []string{"g>-@60 -group -t/0", "t>-@60 -t/0"}, short(changes), "a pipeline may have it")
				table.Finish(changes, true, at(61))
				assert.Empty(t, table.topics)
				table.Expire(at(200))
				assert.Empty(t, table.groups)
			})
		}
	}
}

func TestExpiredBeforeItWasHandedOver(t *testing.T) {
	table := New(limits)
	require.NoError(t, table.Update(notification("a", 1, 0), at(0)))
	table.Expire(at(60))
	assert.Empty(t, collect(table, at(60)), "no pipeline has it")
	assert.Equal(t, Stats{Expired: 1}, table.Stats())
	assert.Empty(t, table.groups)
}

// Groups whose end a pipeline refuses take no place away.
func TestEndedGroupsMakeRoom(t *testing.T) {
	table := New(limits)
	for i, group := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(group, 1), at(i)))
	}
	table.Finish(collect(table, at(3)), false, at(3))
	require.ErrorIs(t, table.Update(notification("d", 1), at(4)), ErrTooManyGroups)
	table.Expire(at(60)) // a
	table.Expire(at(61)) // b
	require.NoError(t, table.Update(notification("d", 1), at(61)))
	assert.Equal(t, []string{"b>-@61 -group", "d>1@61", "c>1@2"}, short(collect(table, at(61))))
	assert.EqualValues(t, 1, table.Stats().EndsDropped, "that of a")
	assert.Len(t, table.groups, 3)
}

// A pipeline that refuses while ever other partitions come and go does not make the table grow without bound.
func TestReplacedSeriesAreBounded(t *testing.T) {
	table := New(limits)
	for second := range 1000 {
		require.NoError(t, table.Update(notification("a", 1, int32(second), int32(second+1), int32(second+2)), at(second)))
		table.Finish(collect(table, at(second)), false, at(second))
		require.LessOrEqual(t, table.replaced, limits.MaxPartitions)
	}
	assert.Positive(t, table.Stats().EndsDropped)
	changes := collect(table, at(1000))
	table.Finish(changes, true, at(1000))
	assert.Zero(t, table.replaced)
}

func TestLimits(t *testing.T) {
	table := New(limits)
	for i, group := range []string{"a", "b", "c"} {
		require.NoError(t, table.Update(notification(group, 1), at(i)))
	}
	require.ErrorIs(t, table.Update(notification("d", 1), at(4)), ErrTooManyGroups)
	require.NoError(t, table.Update(notification("a", 2, 0, 1, 2, 3, 4, 5, 6, 7), at(5)), "a known group has its place")
	require.NoError(t, table.Update(notification("b", 2, 0, 1, 2), at(6)))
	assert.Equal(t, Stats{Groups: 3, Partitions: 8}, table.Stats(), "its partitions have none")
	require.NoError(t, table.Update(notification("b", 3, 0, 1), at(7)), "exactly full")
	require.NoError(t, table.Update(notification("a", 3, 0, 1, 2, 3, 4, 5, 6, 8), at(8)), "no growth")
	assert.Equal(t, Stats{Groups: 3, Partitions: 10}, table.Stats())
	changes := collect(table, at(9))
	assert.Equal(t, []string{"a>3@8", "b>3@7", "c>1@2"}, short(changes), "a refused notification changed nothing")
	table.Finish(changes, true, at(9))

	table.Finish(collect(table, at(70)), true, at(70))
	assert.Equal(t, Stats{Expired: 3}, table.Stats())
	require.NoError(t, table.Update(notification("d", 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), at(71)))
	require.ErrorIs(t, table.Update(notification("e", 1, 0), at(72)), ErrTooManyPartitions)
	assert.Equal(t, Stats{Groups: 1, Partitions: 10, Expired: 3}, table.Stats(), "a refused group takes no place")
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
		table.Finish(collect(table, at(499)), true, at(499))
	}
	assert.Equal(t, Stats{Groups: 20, Partitions: 20}, table.Stats())
	assert.Empty(t, collect(table, at(500)))
}
