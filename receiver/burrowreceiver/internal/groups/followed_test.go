package groups

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// followed is a group that reads a topic whose heads the API tells.
type followed struct {
	*testing.T
	table *Table
}

func follow(t *testing.T) *followed {
	t.Helper()
	return &followed{t, New(Limits{MaxGroups: 5, MaxPartitions: 10, ExpireAfter: time.Hour})}
}

func (f *followed) heads(second int, offsets ...int64) {
	f.Helper()
	require.NoError(f, f.table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: offsets, Received: at(second)}))
}

// read makes a group that has committed so much in each partition, and of which Burrow tells the lags.
func read(status burrow.Status, committed int, offsets []int64, lags ...int64) *burrow.GroupStatus {
	g := &burrow.GroupStatus{Cluster: "c", Group: "g", Status: status, PartitionCount: int64(len(offsets)), Complete: burrow.Unknown}
	for i, offset := range offsets {
		g.Partitions = append(g.Partitions, burrow.PartitionStatus{
			Topic: "t", Partition: int32(i), Status: status, CurrentLag: lags[i], Complete: 1, Start: none, End: commit(offset, committed, lags[i]),
		})
		g.TotalLag += lags[i]
	}
	return g
}

func (f *followed) poll(second int, g *burrow.GroupStatus) *State {
	f.Helper()
	require.NoError(f, f.table.UpdateFromAPI(g, at(second)))
	return current(f.T, f.table)
}

// Heads that the API tells are exact in time. What evaluations tell of the same heads comes later, and adds nothing.
func TestHeadsOfTheAPIDecide(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusStop, 0, []int64{100, 100}, 0, 0))
	f.heads(1, 100, 100)
	f.heads(11, 200, 110)
	// Burrow's heads are of second 11. It tells of them until it reads them again.
	s := f.poll(20, read(burrow.StatusStop, 0, []int64{150, 105}, 50, 5))
	assert.Equal(t, []float64{13.95, 13.5}, s.TimeLags, "in the middle between 1 and 11")
	assert.InDelta(t, 13.95, s.MaxTimeLag, 0)
	f.heads(21, 300, 110)
	s = f.poll(30, read(burrow.StatusStop, 0, []int64{200, 110}, 100, 0))
	assert.Equal(t, []float64{18.95, 0}, s.TimeLags)
	// One that has been told higher than all known was written since.
	s = f.poll(35, read(burrow.StatusStop, 0, []int64{300, 110}, 70, 1))
	assert.Equal(t, []float64{13.9, 7}, s.TimeLags)
	f.heads(36, 400, 111)
	s = f.poll(40, read(burrow.StatusStop, 0, []int64{300, 110}, 100, 1))
	assert.Equal(t, []float64{18.925, 11.5}, s.TimeLags, "the second partition stood still until 21 and was seen higher at 36")
}

// That a head is the same says that it stands still only when Burrow has read it again.
func TestTheSameHeadAgain(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusStop, 0, []int64{100, 100}, 0, 0))
	f.heads(0, 100, 100)
	f.heads(10, 100, 100)
	f.heads(20, 100, 100)
	points := pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[0])
	assert.Len(t, points, 1, "Burrow may not have read it since: %v", points)
	f.heads(70, 100, 100)
	f.heads(75, 160, 100)
	s := f.poll(80, read(burrow.StatusStop, 0, []int64{130, 100}, 30, 1))
	assert.InDelta(t, 7.459, s.TimeLag(0), 0.001, "for so long it does not go without reading")
	f.heads(85, 170, 101)
	f.heads(95, 180, 111)
	s = f.poll(100, read(burrow.StatusStop, 0, []int64{160, 105}, 20, 5))
	assert.InDelta(t, 10.5, s.TimeLag(1), 0.001)
	history := pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[1])
	assert.Equal(t, headPoint{100, at(75).UnixMilli()}, history[len(history)-3], "the other one has moved, so Burrow has read both")
}

// Without answers for some time, evaluations are all there is.
func TestHeadsAreNotToldAnyMore(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusStop, 0, []int64{100}, 0))
	f.heads(1, 100)
	f.heads(11, 200)
	s := f.poll(140, read(burrow.StatusStop, 0, []int64{300}, 500))
	require.Len(t, s.TimeLags, 1)
	history := &f.table.heads.topics[key{"c", "t"}].partitions[0]
	assert.False(t, history.followed)
	points := pointsOf(history)
	assert.Equal(t, headPoint{800, at(140).UnixMilli()}, points[len(points)-1])
	f.heads(150, 900)
	assert.True(t, history.followed)
}

// A topic is made again with as many partitions: the group's commits lie above its heads, and what is known of the old topic does not count.
func TestRecreatedTopic(t *testing.T) {
	f := follow(t)
	all := []int64{6811, 50}
	for second := 0; second <= 300; second += 10 {
		head := int64(6511 + second)
		f.heads(second, head, 50)
		s := f.poll(second, read(burrow.StatusOK, second, []int64{head, 50}, 0, 0))
		require.Equal(t, []float64{0, 0}, s.TimeLags)
		if second > 0 {
			require.Zero(t, s.Ahead)
		}
	}
	f.heads(310, 20, 10)
	f.heads(320, 40, 20)
	s := f.poll(325, read(burrow.StatusOK, 300, all, 0, 0))
	assert.EqualValues(t, 2, s.Ahead)
	assert.InDelta(t, burrow.Unknown, s.MaxTimeLag, 0, "OK and without lag is not what it is")
	assert.Nil(t, s.TimeLags)
	// The group reads the new topic. Burrow compares its commit with the head of the old one for a while.
	f.heads(330, 60, 30)
	s = f.poll(331, read(burrow.StatusOK, 331, []int64{30, 30}, 6781, 0))
	assert.Zero(t, s.Ahead)
	assert.Equal(t, []float64{15.75, 0}, s.TimeLags)
}

// readSince are heads that Burrow has read since a second, as the leading topic tells.
func (f *followed) readSince(second, since int, offsets ...int64) error {
	return f.table.SeeHeads(&Topic{Cluster: "c", Name: "t", Offsets: offsets, Received: at(second)}, Read{Since: at(since), Seen: true})
}

// A topic is recreated a minute after Karrot has first heard of it. Nothing of the old one is in the time lags from the moment at which
// Karrot knows that Burrow has read the new heads.
func TestRecreatedYoungTopic(t *testing.T) {
	f := follow(t)
	for second := 0; second <= 60; second += 5 {
		head := int64(100 * second)
		f.poll(second, read(burrow.StatusOK, second, []int64{head, head}, 0, 0))
		require.NoError(t, f.readSince(second, second-1, head, head))
	}
	require.NoError(t, f.readSince(65, 64, 40, 3))
	s := f.poll(66, read(burrow.StatusWarn, 65, []int64{10, 3}, 30, 0))
	assert.Equal(t, []float64{1, 0}, s.TimeLags)
	assert.True(t, s.AtLeast)
	require.NoError(t, f.readSince(70, 69, 90, 5))
	s = f.poll(71, read(burrow.StatusWarn, 70, []int64{50, 3}, 40, 2))
	assert.Equal(t, []float64{4.95, 4.75}, s.TimeLags)
	assert.False(t, s.AtLeast)
	// Of the old topic nothing comes back.
	n := notification("late", 1)
	n.Group.Partitions = []burrow.PartitionStatus{{Topic: "t", Start: commit(4900, 40, 0), End: commit(5900, 59, 0), Status: burrow.StatusWarn}}
	require.NoError(t, f.table.Update(n, at(72)))
	assert.Equal(t, []headPoint{{40, at(65).UnixMilli()}, {90, at(70).UnixMilli()}}, pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[0]))
}

// A group goes on to commit offsets of the topic that is no more, which lie above the heads of the new one. That they have no lag says nothing of
// the head.
func TestCommitsOfTheOldTopicAreNotItsHead(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{460}, 0))
	for second := 1; second < 61; second += 10 {
		f.heads(second, int64(50+5*second))
		g := read(burrow.StatusOK, second, []int64{460}, 0)
		g.Partitions[0].Start = commit(460, 0, 0)
		s := f.poll(second+2, g)
		if second > 11 {
			assert.EqualValues(t, 1, s.Ahead, "second %d", second)
			assert.InDelta(t, burrow.Unknown, s.MaxTimeLag, 0)
		}
	}
	// It reads the new topic.
	g := read(burrow.StatusRewind, 59, []int64{300}, 5)
	g.Partitions[0].Start = commit(460, 0, 0)
	assert.Zero(t, f.poll(60, g).Ahead)
	f.heads(61, 480)
	s := f.poll(63, read(burrow.StatusOK, 61, []int64{460}, 20))
	assert.Zero(t, s.Ahead)
	assert.InDelta(t, 3.115, s.MaxTimeLag, 0.001)
}

// What another group's window has of the old topic is no part of the new one.
func TestHeadsOfTheOldTopicDoNotComeBack(t *testing.T) {
	table := New(limits)
	send := func(group string, second int, start, end burrow.Commit, lag int64) *State {
		n := &burrow.Notification{Group: burrow.GroupStatus{Cluster: "c", Group: group, Partitions: []burrow.PartitionStatus{
			{Topic: "t", Status: burrow.StatusWarn, Start: start, End: end, CurrentLag: lag},
		}}}
		require.NoError(t, table.Update(n, at(second)))
		return table.groups[key{"c", group}].current
	}
	send("a", 62, none, commit(4900, 60, 100), 100)
	send("a", 125, none, commit(30, 120, 20), 25)
	s := send("b", 130, commit(5, 20, 10), commit(40, 121, 12), 20)
	assert.Equal(t, []float64{10}, s.TimeLags)
	assert.True(t, s.AtLeast)
}

// Heads are below what is known twice in a row, and each time it is another partition, of which a commit has proved more than Burrow has read.
func TestAProvedHeadIsNotAFall(t *testing.T) {
	f := follow(t)
	prove := func(partition int32, offset int64, second int) {
		n := notification("other", 1)
		n.Group.Partitions = []burrow.PartitionStatus{{Topic: "t", Partition: partition, Status: burrow.StatusWarn, Start: none, End: commit(offset, second, 0)}}
		require.NoError(t, f.table.Update(n, at(second+1)))
	}
	prove(0, 6000, 62)
	f.heads(65, 5990, 850)
	prove(1, 900, 67)
	f.heads(70, 6100, 880)
	partitions := f.table.heads.topics[key{"c", "t"}].partitions
	assert.Equal(t, []headPoint{{900, at(67).UnixMilli()}, {900, at(68).UnixMilli()}}, pointsOf(&partitions[1]))
	assert.Zero(t, f.table.heads.topics[key{"c", "t"}].fell)
}

// With min-distance Burrow gives a commit the time of an earlier one. When it saw it is true.
func TestACommitWithAnOldTimeIsNotAhead(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{100}, 0))
	for second := 1; second < 31; second += 5 {
		require.NoError(t, f.readSince(second, second-1, int64(100+10*second)))
	}
	g := read(burrow.StatusOK, 18, []int64{370}, 0)
	g.Partitions[0].End.ObservedAt = at(28).UnixMilli()
	assert.Zero(t, f.poll(28, g).Ahead)
}

// Two Burrows answer in turn. One is behind the other by what was written between two readings.
func TestHeadsOfTwoBurrowsAreNotAFall(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{0}, 0))
	for second := 1; second <= 100; second++ {
		// Each reads every ten seconds, and they are asked by chance.
		readAt := second / 10 * 10
		if second%3 == 0 {
			readAt = (second+5)/10*10 - 5
		}
		require.NoError(t, f.readSince(second, second-1, int64(1000+10*readAt)))
	}
	points := pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[0])
	assert.Equal(t, at(0).UnixMilli(), points[0].at, "%v", points)
}

// Burrow notices that a topic is gone. What comes with its name later is another one, also with fewer partitions.
func TestTopicIsGoneAndComesBack(t *testing.T) {
	for name, lists := range map[string]int{"two lists lacked it": 2, "one list lacked it": 1} {
		t.Run(name, func(t *testing.T) {
			f := follow(t)
			for second := 0; second <= 60; second += 10 {
				head := int64(100 * second)
				f.poll(second, read(burrow.StatusOK, second, []int64{head, head, head}, 0, 0, 0))
				f.heads(second, head, head, head)
				f.table.ListTopics(listed(second, "t", "u"), at(second))
				require.NoError(t, f.table.UpdateTopic(&Topic{Cluster: "c", Name: "u", Offsets: []int64{1}, Received: at(second)}))
			}
			for i := range lists {
				f.table.ListTopics(listed(70+10*i, "u"), at(71+10*i))
			}
			f.heads(90, 50)
			s := f.poll(92, read(burrow.StatusWarn, 91, []int64{20}, 30))
			assert.Equal(t, []float64{1}, s.TimeLags)
			assert.True(t, s.AtLeast)
			assert.Equal(t, []int64{50}, f.table.topics[key{"c", "t"}].current.Offsets)
			assert.Equal(t, 1, f.table.Histories())
		})
	}
}

// Karrot has seen nothing of it that a topic was gone. The groups have no partition any more that the heads lack.
func TestTopicHasFewerPartitions(t *testing.T) {
	f := follow(t)
	three, one := []int64{6000, 6000, 6000}, []int64{20}
	f.poll(0, read(burrow.StatusOK, 0, three, 0, 0, 0))
	f.heads(0, three...)
	topic := func(second int) error {
		return f.table.UpdateTopic(&Topic{Cluster: "c", Name: "t", Offsets: []int64{int64(50 + second)}, Received: at(second)})
	}
	for second := 10; second <= 120; second += 10 {
		f.poll(second, read(burrow.StatusOK, second, one, 30))
		require.ErrorIs(t, topic(second), ErrUnmatched, "second %d", second)
	}
	f.poll(130, read(burrow.StatusOK, 130, one, 30))
	require.NoError(t, topic(130))
	assert.Equal(t, []int64{180}, f.table.topics[key{"c", "t"}].current.Offsets)
	// Burrow has not read all heads: the groups still have the partitions.
	f = follow(t)
	for second := 0; second <= 300; second += 10 {
		f.poll(second, read(burrow.StatusOK, second, three, 0, 0, 0))
		if second == 0 {
			f.heads(0, three...)
			continue
		}
		require.ErrorIs(t, topic(second), ErrUnmatched)
	}
}

// Burrow's heads are up to one offset-refresh old, so that a commit above the head is usual.
func TestACommitAboveAnOldHeadIsNotAhead(t *testing.T) {
	f := follow(t)
	f.heads(0, 100)
	f.poll(1, read(burrow.StatusOK, 0, []int64{100}, 0))
	f.heads(10, 100)
	s := f.poll(11, read(burrow.StatusOK, 9, []int64{150}, 0))
	assert.EqualValues(t, 0, s.Ahead)
	assert.Equal(t, []float64{0}, s.TimeLags)
	f.heads(20, 130) // was read after 10
	s = f.poll(21, read(burrow.StatusOK, 9, []int64{150}, 0))
	assert.EqualValues(t, 0, s.Ahead, "by clocks that may differ")
	f.heads(30, 131)
	s = f.poll(31, read(burrow.StatusOK, 9, []int64{150}, 0))
	assert.EqualValues(t, 1, s.Ahead)
	g := read(burrow.StatusOK, 9, []int64{150}, 0)
	g.Partitions[0].End.Timestamp = math.MaxInt64
	assert.EqualValues(t, 0, f.poll(41, g).Ahead, "a commit from the end of all time")
}

func TestAheadIsAbsentWithoutHeads(t *testing.T) {
	f := follow(t)
	assert.EqualValues(t, burrow.Unknown, f.poll(0, read(burrow.StatusOK, 0, []int64{100}, 0)).Ahead)
}

// An evaluation that Burrow has kept for some seconds is not of now. A group that goes on is then about where it was between two commits.
func TestAsOf(t *testing.T) {
	p := func(status burrow.Status, complete float64) *burrow.PartitionStatus {
		return &burrow.PartitionStatus{Status: status, Complete: complete, Start: commit(0, 0, 5), End: commit(90, 45, 5)}
	}
	for name, tc := range map[string]struct {
		p    *burrow.PartitionStatus
		now  int
		want float64
	}{
		"fresh":                  {p(burrow.StatusOK, 1), 49, 49},
		"kept":                   {p(burrow.StatusOK, 1), 57, 47.5},
		"kept, half a window":    {p(burrow.StatusWarn, 0.5), 57, 50.625},
		"no share":               {p(burrow.StatusRewind, burrow.Unknown), 57, 47.5},
		"commits have ceased":    {p(burrow.StatusOK, 1), 63, 63},
		"stopped":                {p(burrow.StatusStop, 1), 57, 57},
		"stalled":                {p(burrow.StatusStall, 1), 57, 57},
		"commits of the future":  {p(burrow.StatusOK, 1), 30, 30},
		"one commit":             {&burrow.PartitionStatus{Status: burrow.StatusOK, Complete: 0.1, Start: commit(9, 45, 5), End: commit(9, 45, 5)}, 57, 57},
		"the same offset always": {&burrow.PartitionStatus{Status: burrow.StatusOK, Complete: 1, Start: commit(9, 0, 5), End: commit(9, 45, 5)}, 57, 57},
	} {
		assert.InDelta(t, tc.want, float64(asOf(tc.p, at(tc.now).UnixMilli())-at(0).UnixMilli())/1000, 0.001, name)
	}
}

// The group's time lag is the largest of all partitions that are known, listed or not.
func TestMaxOverAllPartitions(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{100, 100, 100}, 0, 0, 0))
	f.heads(0, 100, 100, 100)
	f.heads(10, 200, 1000, 100)
	s := f.poll(20, read(burrow.StatusOK, 0, []int64{110, 900, 100}, 90, 100, 0))
	require.Equal(t, []float64{18.95, 11.106, 0}, s.TimeLags)
	require.InDelta(t, 18.95, s.MaxTimeLag, 0)
	n := notified(read(burrow.StatusOK, 0, []int64{110, 900, 100}, 90, 100, 0))
	n.Group.MaxLag = &s.Group.Partitions[1]
	require.NoError(t, f.table.Update(n, at(21)))
	s = current(t, f.table)
	assert.Equal(t, []float64{18.95, 12.106, 0}, s.TimeLags)
	assert.InDelta(t, 18.95, s.MaxTimeLag, 0, "the partition with the most messages is not the one with the oldest")
	assert.Equal(t, at(20).Add(-18950*time.Millisecond), s.OldestUnread(0), "as of the poll")
	assert.Equal(t, s.OldestUnread(0), s.OldestUnreadOfAll())
	assert.Equal(t, at(21).Add(-12106*time.Millisecond), s.OldestUnread(1))
	assert.Zero(t, s.OldestUnread(2))
}

// A lower bound is known as such, and stays so with a notification.
func TestLowerBound(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusStop, 0, []int64{100}, 50))
	s := f.poll(60, read(burrow.StatusStop, 0, []int64{100}, 90))
	assert.InDelta(t, 60, s.MaxTimeLag, 0)
	assert.True(t, s.AtLeast)
	f.heads(61, 190)
	f.heads(71, 290)
	s = f.poll(80, read(burrow.StatusStop, 71, []int64{200}, 90))
	assert.False(t, s.AtLeast)
}

// followLowerBound follows two partitions for 100 seconds. Of the second one a lower bound is known.
func followLowerBound(t *testing.T) *followed {
	t.Helper()
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{1000}, 0))
	for second := 0; second <= 100; second += 10 {
		f.heads(second, 1000+10*int64(second), 5000+10*int64(second))
		if second == 60 { // the second partition is read for the first time, far behind
			f.poll(second, read(burrow.StatusOK, second, []int64{1600, 10}, 0, 5590))
		}
	}
	return f
}

// So does that of a partition which becomes the largest because another one has caught up.
func TestLowerBoundThatBecomesTheLargest(t *testing.T) {
	f := followLowerBound(t)
	s := f.poll(101, read(burrow.StatusOK, 100, []int64{1100, 10}, 900, 5990))
	require.Equal(t, []float64{90.95, 41}, s.TimeLags)
	require.False(t, s.AtLeast)
	slow := read(burrow.StatusOK, 101, []int64{1990, 10}, 10, 5990)
	slow.Status, slow.Partitions[0].Status = burrow.StatusWarn, burrow.StatusWarn
	require.NoError(t, f.table.Update(notified(slow), at(102)))
	s = current(t, f.table)
	require.Equal(t, []float64{2.95, 41}, s.TimeLags)
	assert.True(t, s.AtLeast, "of the second partition nothing else is known")
	// Neither does the bound become that of others.
	slow = read(burrow.StatusStop, 101, []int64{1100, 10}, 900, 5990)
	slow.Partitions[1].Status = burrow.StatusOK
	require.NoError(t, f.table.Update(notified(slow), at(103)))
	s = current(t, f.table)
	require.Equal(t, []float64{92.95, 41}, s.TimeLags)
	assert.False(t, s.AtLeast)
}

// What a group was told of last, and by whom.
func TestLastNotificationAndCommit(t *testing.T) {
	table := New(polledLimits)
	require.NoError(t, table.UpdateFromAPI(read(burrow.StatusOK, -5, []int64{1, 2}, 0, 0), at(0)))
	s := current(t, table)
	assert.Zero(t, s.Notified)
	assert.Zero(t, s.Series()&NotificationSeries)
	assert.Equal(t, at(-5).UnixMilli(), s.LastCommit)
	n := notified(read(burrow.StatusOK, 7, []int64{1, 2}, 0, 0))
	n.Group.MaxLag = &read(burrow.StatusOK, 7, []int64{1, 2}, 0, 0).Partitions[1]
	require.NoError(t, table.Update(n, at(10)))
	assert.Equal(t, at(10), current(t, table).Notified)
	assert.Equal(t, at(7).UnixMilli(), current(t, table).LastCommit)
	require.NoError(t, table.UpdateFromAPI(read(burrow.StatusOK, 15, []int64{1, 2}, 0, 0), at(20)))
	assert.Equal(t, at(10), current(t, table).Notified)
	// It came, though what it tells is older than what is known.
	require.NoError(t, table.Update(n, at(21)))
	assert.Equal(t, at(21), current(t, table).Notified)
	assert.Equal(t, at(15).UnixMilli(), current(t, table).LastCommit)
	assert.Equal(t, at(20), current(t, table).Received)
}

// A group that is notified again and again with nothing new keeps the time of the last one over a restart.
func TestRestartKeepsWhatIsKnownOfAGroup(t *testing.T) {
	f := follow(t)
	f.heads(0, 100)
	f.poll(1, read(burrow.StatusStop, 0, []int64{50}, 50))
	f.heads(10, 200)
	f.heads(20, 300)
	f.poll(30, read(burrow.StatusStop, 0, []int64{50}, 250))
	n := notified(read(burrow.StatusStop, 0, []int64{50}, 250))
	require.NoError(t, f.table.Update(n, at(31)))
	s := current(t, f.table)
	require.True(t, s.AtLeast)
	require.Zero(t, s.Ahead)
	data, err := f.table.Record(s)
	require.NoError(t, err)
	require.NoError(t, f.table.Update(n, at(41)))
	times := current(t, f.table).Times()
	times.Record = s.Received.UnixNano()
	restored, err := New(limits).Restore(data, times, at(50))
	require.NoError(t, err)
	assert.True(t, at(41).Equal(restored.Notified), fmt.Sprint(restored.Notified))
	assert.True(t, restored.AtLeast)
	assert.Zero(t, restored.Ahead)
	assert.Equal(t, s.Series(), restored.Series(), "no series ends")
	assert.InDelta(t, s.MaxTimeLag+10, restored.MaxTimeLag, 0.001)

	// A series that begins or ends with them is written, though nothing else has changed.
	seed := maphash.MakeSeed()
	for name, change := range map[string]func(*State){
		"a head is known now":       func(s *State) { s.Ahead = burrow.Unknown },
		"one more is ahead":         func(s *State) { s.Ahead++ },
		"not a lower bound anymore": func(s *State) { s.AtLeast = false },
	} {
		other := *s
		change(&other)
		assert.NotEqual(t, s.Digest(seed), other.Digest(seed), name)
	}
}

// How often Burrow reads heads as a rule says how long one stands still. It does not say that a commit is ahead: while Kafka is away, Burrow
// reads nothing.
func TestReadAsOftenAsARule(t *testing.T) {
	f := follow(t)
	f.heads(0, 100)
	f.poll(1, read(burrow.StatusOK, 0, []int64{100}, 0))
	f.heads(2, 100)
	see := func(second, since int, seen bool) {
		require.NoError(t, f.table.SeeHeads(&Topic{Cluster: "c", Name: "t", Offsets: []int64{100}, Received: at(second)}, Read{Since: at(since), Seen: seen}))
	}
	points := func() int { return len(pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[0])) }
	require.Equal(t, 2, points())
	see(12, -3, false)
	last := func() headPoint {
		all := pointsOf(&f.table.heads.topics[key{"c", "t"}].partitions[0])
		return all[len(all)-1]
	}
	assert.Equal(t, headPoint{100, at(2).UnixMilli()}, last())
	see(22, 7, false)
	assert.Equal(t, headPoint{100, at(22).UnixMilli()}, last())
	s := f.poll(23, read(burrow.StatusOK, 1, []int64{150}, 0))
	assert.Zero(t, s.Ahead)
	see(32, 30, true)
	s = f.poll(33, read(burrow.StatusOK, 1, []int64{150}, 0))
	assert.Zero(t, s.Ahead, "Burrow has read some heads, and this can be that of a slow broker")
	see(91, 30, true)
	s = f.poll(91, read(burrow.StatusOK, 1, []int64{150}, 0))
	assert.Zero(t, s.Ahead)
	see(92, 30, true)
	s = f.poll(93, read(burrow.StatusOK, 1, []int64{150}, 0))
	assert.EqualValues(t, 1, s.Ahead)
	assert.Equal(t, 2, points())

	f.table.Expire(at(93))
	require.ErrorIs(t, f.table.SeeHeads(&Topic{Cluster: "c", Name: "t", Offsets: nil, Received: at(94)}, Read{}), ErrUnmatched)
	require.NoError(t, f.table.SeeHeads(&Topic{Cluster: "c", Name: "nobody reads it", Offsets: []int64{1}, Received: at(94)}, Read{}))
	assert.Equal(t, Stats{Groups: 1, Topics: 1, Partitions: 1}, f.table.Stats(), "nothing of it is held")
}

// While nothing is committed, a time lag grows exactly as time does, however long that is and however the head moves.
func TestStoppedTimeLagGrowsAsTimeDoes(t *testing.T) {
	for _, polled := range []bool{true, false} {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 1))
			f := follow(t)
			head, stopped := int64(1000), int64(0)
			var since float64
			for second := 10; second < 4000; second += 10 {
				head += random.Int64N(1000) * int64(random.IntN(2))
				if second == 500 {
					stopped = head
				}
				if polled {
					f.heads(second, head)
				}
				if second%30 != 0 {
					continue
				}
				g := read(burrow.StatusOK, second-1, []int64{head}, 0)
				if second >= 500 {
					g = read(burrow.StatusStop, 499, []int64{stopped}, head-stopped)
					g.Partitions[0].End.Lag = 0
				}
				if polled {
					f.poll(second, g)
				} else {
					require.NoError(t, f.table.Update(&burrow.Notification{Group: *g}, at(second)))
				}
				s := current(t, f.table)
				switch {
				case second < 600 || s.TimeLag(0) == 0:
				case since == 0:
					since = float64(second) - s.TimeLag(0)
				default:
					require.InDelta(t, since, float64(second)-s.TimeLag(0), 0.1, "polled %v, seed %d, second %d", polled, seed, second)
				}
			}
			require.Positive(t, since)
		}
	}
}

// Partitions that are ahead stay so with a notification that does not list them, and have no time lag, whatever the group's lag is.
func TestAheadBetweenPolls(t *testing.T) {
	ahead := func() *burrow.GroupStatus { return read(burrow.StatusOK, 300, []int64{1000, 1300}, 0, 0) }
	for name, tc := range map[string]struct {
		maxLag *burrow.PartitionStatus
		total  int64
	}{
		"nothing is told of any": {nil, 0},
		"one is told":            {&ahead().Partitions[0], 0},
		"there is some lag":      {&ahead().Partitions[1], 5},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t)
			f.heads(0, 1000, 1000)
			for second := 0; second <= 300; second += 10 {
				f.heads(second, 1000, 1000+int64(second))
				f.poll(second, read(burrow.StatusOK, second, []int64{1000, 1000 + int64(second)}, 0, 0))
			}
			f.heads(310, 20, 20)
			f.heads(320, 30, 30)
			s := f.poll(331, ahead())
			require.EqualValues(t, 2, s.Ahead)
			n := notified(ahead())
			n.Group.MaxLag, n.Group.TotalLag = tc.maxLag, tc.total
			require.NoError(t, f.table.Update(n, at(335)))
			s = current(t, f.table)
			assert.EqualValues(t, 2, s.Ahead)
			require.Len(t, s.Group.Partitions, 2)
			assert.Equal(t, []float64{burrow.Unknown, burrow.Unknown}, []float64{s.TimeLag(0), s.TimeLag(1)})
			assert.InDelta(t, burrow.Unknown, s.MaxTimeLag, 0)
			// Both are read again.
			f.heads(340, 30, 30)
			s = f.poll(345, read(burrow.StatusOK, 344, []int64{30, 30}, 0, 0))
			require.NoError(t, f.table.Update(notified(&s.Group), at(346)))
			s = current(t, f.table)
			assert.Zero(t, s.Ahead)
			assert.Equal(t, []float64{0, 0}, s.TimeLags)
		})
	}
}

// Partitions that have no place tell of the last commit all the same, and it does not go back with a notification that names fewer.
func TestLastCommitOfPartitionsWithoutPlaces(t *testing.T) {
	table := New(Limits{MaxGroups: 5, MaxPartitions: 2, ExpireAfter: time.Minute})
	poll := func(second int, g *burrow.GroupStatus) *State {
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
		return current(t, table)
	}
	require.Len(t, poll(0, read(burrow.StatusOK, -5, []int64{1, 2}, 0, 0)).Group.Partitions, 2)
	grown := read(burrow.StatusOK, 9, []int64{1, 2, 3}, 0, 0, 0)
	s := poll(10, grown)
	require.Empty(t, s.Group.Partitions)
	assert.Equal(t, at(9).UnixMilli(), s.LastCommit)
	require.NoError(t, table.Update(notified(grown), at(11)))
	assert.Equal(t, at(9).UnixMilli(), current(t, table).LastCommit, "of the last poll")
	n := notified(grown)
	n.Group.MaxLag = &read(burrow.StatusOK, 7, []int64{1}, 0).Partitions[0]
	require.NoError(t, table.Update(n, at(12)))
	assert.Equal(t, at(9).UnixMilli(), current(t, table).LastCommit)
	n.Group.MaxLag = &read(burrow.StatusOK, 12, []int64{1}, 0).Partitions[0]
	require.NoError(t, table.Update(n, at(13)))
	assert.Equal(t, at(12).UnixMilli(), current(t, table).LastCommit)
	assert.Equal(t, at(15).UnixMilli(), poll(20, read(burrow.StatusOK, 15, []int64{1, 2, 3}, 0, 0, 0)).LastCommit)
	n = notified(grown)
	require.NoError(t, table.Update(n, at(79)))
	assert.Equal(t, at(15).UnixMilli(), current(t, table).LastCommit)
	require.NoError(t, table.Update(n, at(80)))
	assert.Zero(t, current(t, table).LastCommit, "the poll is too old")
}

// When Karrot starts, evaluations tell of commits above the head that Burrow still tells of. They are not what the API told.
func TestCommitsBeforeHeadsAreFollowedAreNotAhead(t *testing.T) {
	f := follow(t)
	for second := 0; second < 60; second += 10 {
		// Burrow reads heads every minute. The newest commit of its evaluation is 16 s old.
		s := f.poll(second, read(burrow.StatusOK, second-16, []int64{1000 + 10*int64(60+second-16)}, 0))
		assert.LessOrEqual(t, s.Ahead, int64(0), "second %d", second)
		f.heads(second, 1000)
		require.NoError(t, f.table.SeeHeads(&Topic{Cluster: "c", Name: "t", Offsets: []int64{1000}, Received: at(second + 1)}, Read{}))
	}
}

// A partition that was further behind than any is now has moved, and what it has not read is as of the notification that says so.
func TestOldestUnreadOfAPartitionThatHasMoved(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{1000, 1000}, 0, 0))
	see := func(from, to int) {
		for second := from; second <= to; second += 10 {
			f.heads(second, 1000+10*int64(second), 1000+10*int64(second))
		}
	}
	see(0, 100)
	s := f.poll(101, read(burrow.StatusOK, 100, []int64{1100, 1900}, 900, 100))
	require.Equal(t, []float64{90.95, 10.95}, s.TimeLags)
	see(110, 160)
	told := read(burrow.StatusOK, 160, []int64{2500, 2500}, 90, 100)
	n := notified(told)
	n.Group.MaxLag = &told.Partitions[1]
	require.NoError(t, f.table.Update(n, at(161)))
	s = current(t, f.table)
	require.Equal(t, []float64{10.95, 10.95}, s.TimeLags)
	since := at(150).Add(50 * time.Millisecond)
	assert.Equal(t, since, s.OldestUnread(0), "not behind 2500, which the head passed then")
	assert.Equal(t, since, s.OldestUnread(1))
	assert.Equal(t, since, s.OldestUnreadOfAll())
}

// What notifications did not tell of is after a restart as old as it was before, and what they told of is older.
func TestRestartKeepsTheAgeOfUnlistedPartitions(t *testing.T) {
	for name, tc := range map[string]struct {
		growth    int64 // of the head that the first partition reads, per second
		recorded  int
		polled    bool // again, since the record, with nothing new
		committed int64
		lag       int64
	}{
		"notifications since":              {10, 302, false, 5900, 100},
		"a poll since":                     {10, 302, true, 5900, 100},
		"the other one becomes the oldest": {1, 230, false, 4750, 350},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t)
			f.poll(-300, read(burrow.StatusOK, -300, []int64{2000, 2000}, 0, 0))
			for second := -300; second <= 100; second += 10 {
				f.heads(second, 5000+tc.growth*int64(second), 5000+10*int64(second))
			}
			g := read(burrow.StatusOK, 100, []int64{tc.committed, 5500}, tc.lag, 500)
			g.Status, g.Partitions[1].Status = burrow.StatusErr, burrow.StatusStop
			g.MaxLag = &g.Partitions[1]
			f.poll(101, g)
			note := func(second int) *State {
				require.NoError(t, f.table.Update(notified(g), at(second)))
				return current(t, f.table)
			}
			s := note(tc.recorded)
			data, err := f.table.Record(s)
			require.NoError(t, err)
			seed := maphash.MakeSeed()
			digest := s.Digest(seed)
			if tc.polled {
				f.poll(501, g)
			}
			s = note(502)
			require.Equal(t, digest, s.Digest(seed), "the record is that of this state")
			times := s.Times()
			times.Record = at(tc.recorded).UnixNano()
			restored, err := New(f.table.limits).Restore(data, times, at(503))
			require.NoError(t, err)
			for i := range s.TimeLags {
				assert.InDelta(t, s.TimeLag(i), restored.TimeLag(i), 0.001)
				assert.WithinDuration(t, s.OldestUnread(i), restored.OldestUnread(i), time.Millisecond)
			}
			assert.InDelta(t, s.MaxTimeLag, restored.MaxTimeLag, 0.001)
			assert.WithinDuration(t, s.OldestUnreadOfAll(), restored.OldestUnreadOfAll(), time.Millisecond)
		})
	}
}

// The wall clock is put back while heads are followed. Moments of the running process are compared by its own clock, which goes on; all that
// is counted in milliseconds goes back.
func TestClockPutBackWhileHeadsAreFollowed(t *testing.T) {
	const back = 1800
	for name, tc := range map[string]struct {
		stands  bool // the group commits nothing any more
		timeLag float64
	}{
		"a group that has stopped": {true, 600},
		"one that reads all":       {false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t)
			head := int64(5000)
			step := func(second int) *State {
				f.heads(second, head)
				head += 10
				return f.poll(second, read(burrow.StatusOK, second, []int64{head - 70}, 60))
			}
			for second := 0; second <= 2*back; second += 10 {
				step(second)
			}
			group, topic := f.table.groups[key{"c", "g"}], f.table.topics[key{"c", "t"}]
			state, offsets := *group.current, *topic.current
			state.Received, state.Polled, state.answered, offsets.Received = at(back-10), at(back-10), at(back-10), at(back-10)
			group.current, topic.current = &state, &offsets
			stopped := head - 60
			for second := back; second <= back+600; second += 10 {
				f.heads(second, head)
				moment, committed, lag := second, head, int64(0)
				if tc.stands {
					moment, committed, lag = back, stopped, head-stopped
				}
				s := f.poll(second, read(burrow.StatusOK, moment, []int64{committed}, lag))
				assert.LessOrEqual(t, s.Ahead, int64(0))
				if second == back+600 {
					assert.Zero(t, s.Ahead, "it is followed again")
					assert.InDelta(t, tc.timeLag, s.TimeLag(0), 0, "since the clock was put back")
				}
				head += 10
			}
		})
	}
}

// When it is put back by some minutes, some of what is known of the heads is not much later than the new time.
func TestClockPutBackByMinutesWhileHeadsAreFollowed(t *testing.T) {
	f := follow(t)
	head := int64(5000)
	step := func(second int) {
		f.heads(second, head)
		s := f.poll(second, read(burrow.StatusOK, second, []int64{head + 5}, 0)) // Burrow has not read the head since
		require.LessOrEqual(t, s.Ahead, int64(0), "second %d", second)
		head += 10
	}
	for second := 0; second <= 300; second += 10 {
		step(second)
	}
	const back = 150
	group, topic := f.table.groups[key{"c", "g"}], f.table.topics[key{"c", "t"}]
	state, offsets := *group.current, *topic.current
	state.Received, state.Polled, state.answered, offsets.Received = at(back-10), at(back-10), at(back-10), at(back-10)
	group.current, topic.current = &state, &offsets
	for second := back; second <= 300; second += 10 {
		step(second)
	}
}

// A head that is below a commit is no evidence that the topic was recreated as long as Burrow has not read it again, though it has read before.
func TestHeadBelowACommitThatBurrowHasNotReadSince(t *testing.T) {
	f := follow(t)
	f.poll(0, read(burrow.StatusOK, 0, []int64{1000}, 0))
	f.heads(10, 990, 500)
	// Burrow reads the heads at 22. Then another group reads the second partition.
	n := notification("h", 0)
	n.Group.Partitions = []burrow.PartitionStatus{{Topic: "t", Partition: 1, Start: none, End: commit(600, 25, 0), Status: burrow.StatusWarn}}
	require.NoError(t, f.table.Update(n, at(25)))
	f.heads(30, 1100, 580)
	f.heads(40, 1100, 580)
	topic := f.table.heads.topics[key{"c", "t"}]
	assert.Zero(t, topic.fell)
	assert.Equal(t, []headPoint{{600, at(25).UnixMilli()}}, pointsOf(&topic.partitions[1]))
}

// Burrow takes the answers of the brokers as they come, and without one that does not answer it goes on until the next time. A healthy
// partition of a slow broker is not ahead of its head, though Burrow has read those of the others since the commit.
func TestSlowBrokers(t *testing.T) {
	for name, tc := range map[string]struct {
		late  time.Duration // after the other broker's, at most
		fails int           // one reading in so many fails, at random
	}{
		"200 ms":                    {200 * time.Millisecond, 0},
		"1 to 3 s":                  {3 * time.Second, 0},
		"a reading fails":           {0, 4},
		"1 to 3 s, a reading fails": {3 * time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				random := rand.New(rand.NewPCG(seed, 1))
				f := follow(t)
				between := func(from, to time.Duration) time.Duration {
					return from + time.Duration(random.Int64N(int64(to-from)+1))
				}
				const refresh = 10 * time.Second
				written := func(moment time.Duration) int64 { return 1000 + int64(moment/(100*time.Millisecond)) }
				// Burrow's heads of the two partitions, the second of which is on the slow broker.
				var told [2]int64
				asked := time.Duration(0)
				committed := time.Duration(0)
				poll := func(moment time.Duration) {
					// The group commits now and then all that is written.
					for next := committed + between(5*time.Second, 15*time.Second); next <= moment; next += between(5*time.Second, 15*time.Second) {
						committed = next
					}
					g := read(burrow.StatusOK, 0, []int64{written(committed), written(committed)}, 0, 0)
					for i := range g.Partitions {
						p := &g.Partitions[i]
						p.End.Timestamp = at(0).Add(committed).UnixMilli()
						p.End.ObservedAt = p.End.Timestamp
						p.CurrentLag = max(0, told[i]-p.End.Offset)
						g.TotalLag += p.CurrentLag
					}
					require.NoError(t, f.table.UpdateFromAPI(g, at(0).Add(moment)))
					require.LessOrEqual(t, current(t, f.table).Ahead, int64(0), "seed %d: %s, with heads %v and commits up to %d", seed, moment, told, written(committed))
				}
				see := func(moment time.Duration) {
					topic := &Topic{Cluster: "c", Name: "t", Offsets: slices.Clone(told[:]), Received: at(0).Add(moment)}
					_ = f.table.SeeHeads(topic, Read{Since: at(0).Add(asked), Seen: true})
					asked = moment
				}
				for reading := refresh; reading < 10*time.Minute; reading += refresh {
					told[0] = written(reading)
					slow := reading + between(tc.late/3, tc.late)
					// Karrot notices within a second, and settles.
					question := reading + between(0, time.Second) + 200*time.Millisecond
					fails := tc.fails > 0 && random.IntN(tc.fails) == 0
					answer := func() {
						if !fails {
							told[1] = written(slow)
						}
					}
					if question < slow {
						see(question)
						poll(question + 50*time.Millisecond)
						answer()
					} else {
						answer()
						see(question)
					}
					for moment := max(question, slow) + between(0, time.Second); moment < reading+refresh; moment += between(time.Second, 4*time.Second) {
						if random.IntN(3) == 0 {
							asked = moment // the leading topic, which has not moved
						}
						poll(moment)
					}
				}
			}
		})
	}
}
