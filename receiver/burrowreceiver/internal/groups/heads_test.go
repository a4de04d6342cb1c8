package groups

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// commit is one that Burrow saw at once.
func commit(offset int64, second int, lag int64) burrow.Commit {
	ms := at(second).UnixMilli()
	return burrow.Commit{Offset: offset, Timestamp: ms, ObservedAt: ms / 1000 * 1000, Lag: lag}
}

var none = burrow.Commit{Offset: burrow.Unknown, Timestamp: burrow.Unknown, ObservedAt: burrow.Unknown, Lag: burrow.Unknown}

// told is what one notification tells of a partition.
type told struct {
	start, end burrow.Commit
	currentLag int64
	received   int // second
}

func (n told) observe(h *headHistory) float64 {
	return h.observe(&burrow.PartitionStatus{Status: burrow.StatusStop, Start: n.start, End: n.end, CurrentLag: n.currentLag}, at(n.received).UnixMilli()).seconds
}

func TestTimeLag(t *testing.T) {
	late := commit(100, 0, 400) // committed at 0, seen at 90
	late.ObservedAt = at(90).UnixMilli()
	for name, tc := range map[string]struct {
		told []told
		want float64 // at the last one
	}{
		"no lag":                                 {[]told{{none, commit(100, 1, 0), 0, 2}}, 0},
		"no commit":                              {[]told{{none, none, 0, 2}, {none, none, 0, 62}}, burrow.Unknown},
		"one point only":                         {[]told{{none, burrow.Commit{Offset: 100, Timestamp: 1, Lag: burrow.Unknown}, 5, 2}}, burrow.Unknown},
		"two equal points":                       {[]told{{none, commit(100, 2, 5), 5, 2}}, burrow.Unknown},
		"inside":                                 {[]told{{commit(0, 0, 50), commit(75, 10, 25), 75, 20}}, 14.9},
		"at a point":                             {[]told{{commit(0, 0, 50), commit(100, 10, 50), 70, 30}}, 24.95},
		"caught up and stopped":                  {[]told{{commit(50, 0, 0), commit(100, 10, 0), 900, 60}}, 49.973},
		"flat: the right end":                    {[]told{{commit(50, 0, 50), commit(100, 10, 0), 0, 40}, {commit(50, 0, 50), commit(100, 10, 0), 30, 60}}, 19.667},
		"flat: one message":                      {[]told{{commit(50, 0, 50), commit(100, 10, 0), 0, 40}, {commit(50, 0, 50), commit(100, 10, 0), 1, 60}, {commit(50, 0, 50), commit(100, 10, 0), 2, 90}}, 30},
		"one message":                            {[]told{{none, commit(100, 10, 0), 0, 10}, {none, commit(100, 10, 0), 1, 60}, {none, commit(100, 10, 0), 2, 90}}, 55},
		"flat: and behind it":                    {[]told{{commit(50, 0, 50), commit(90, 10, 10), 10, 40}, {commit(50, 0, 50), commit(115, 41, 0), 15, 60}}, 18.367},
		"below everything":                       {[]told{{commit(5, 0, 50), commit(6, 10, 60), 70, 30}}, 30},
		"nothing is produced":                    {[]told{{commit(5, 0, 50), commit(6, 10, 49), 49, 30}}, 30},
		"rewound":                                {[]told{{commit(100, 0, 0), commit(20, 10, 90), 100, 30}}, 30},
		"a start without a lag":                  {[]told{{burrow.Commit{Offset: 1, Timestamp: 1, Lag: burrow.Unknown}, commit(100, 10, 0), 10, 30}}, 19},
		"read late by Burrow":                    {[]told{{late, commit(200, 95, 300), 300, 100}, {late, commit(200, 95, 300), 320, 120}}, 30},
		"another clock":                          {[]told{{commit(0, 1000, 50), commit(75, 1010, 25), 75, 20}}, burrow.Unknown},
		"another clock, later":                   {[]told{{commit(0, 1000, 50), commit(75, 1010, 25), 75, 20}, {commit(0, 1000, 50), commit(200, 1010, 25), 50, 80}}, 29.7},
		"no time":                                {[]told{{burrow.Commit{Offset: 1, Timestamp: 0, Lag: 5}, burrow.Commit{Offset: 2, Timestamp: 0, Lag: 5}, 5, 2}}, burrow.Unknown},
		"a head that was old":                    {[]told{{commit(100, 0, 0), commit(20, 10, 70), 70, 30}}, 30},
		"recreated within the window":            {[]told{{commit(4900, 0, 200), commit(30, 60, 20), 25, 65}}, 5},
		"recreated after an old commit":          {[]told{{commit(5000, 0, 0), commit(30, 85, 20), 25, 90}}, 5},
		"recreated between two":                  {[]told{{none, commit(4900, 0, 100), 100, 2}, {none, commit(30, 60, 20), 25, 65}}, 5},
		"recreated, and Burrow does not notice":  {[]told{{none, commit(4900, 0, 100), 100, 2}, {commit(4950, 50, 0), commit(30, 60, 20), 25, 65}}, 5},
		"told of the old topic once more":        {[]told{{commit(4900, 0, 200), commit(30, 60, 20), 25, 65}, {commit(4900, 0, 200), commit(60, 110, 40), 45, 125}}, 54.5},
		"too soon to know it":                    {[]told{{none, commit(4900, 0, 100), 100, 2}, {none, commit(30, 20, 20), 25, 25}}, 25},
		"told of the beginning of the old topic": {[]told{{none, commit(5000, 0, 0), 0, 2}, {none, commit(30, 124, 20), 25, 125}, {commit(20, 1, 10), commit(40, 129, 18), 20, 130}}, 6},
		"an evaluation that was kept":            {[]told{{none, commit(4900, 100, 100), 100, 102}, {none, commit(4800, 20, 100), 100, 170}}, 150},
		"one that was kept for long":             {[]told{{none, commit(4900, 100, 100), 100, 102}, {none, commit(4800, 20, 100), 100, 300}}, 280},
		"as far as numbers go": {[]told{{
			commit(math.MaxInt64-20, 0, 10), commit(math.MaxInt64-5, 10, 5), math.MaxInt64, 20, // the sum would overflow
		}}, 14.5},
		"the widest step": {[]told{{commit(0, 0, 0), commit(math.MaxInt64/2, 10, math.MaxInt64/2), math.MaxInt64 / 2, 30}}, 25},
	} {
		t.Run(name, func(t *testing.T) {
			h := new(headHistory)
			lag := 0.0
			for _, n := range tc.told {
				lag = n.observe(h)
			}
			assert.InDelta(t, tc.want, lag, 0.001, "%v", h.points)
		})
	}
}

// history is made of (offset, second) in the order in which they become known.
func history(points ...[2]int64) *headHistory {
	h := new(headHistory)
	for _, p := range points {
		h.add(headPoint{p[0], 1000 * p[1]})
	}
	return h
}

func TestHistory(t *testing.T) {
	type points = [][2]int64
	for name, tc := range map[string]struct{ told, want points }{
		"in order":                       {points{{1, 1}, {2, 2}, {3, 3}}, points{{1, 1}, {2, 2}, {3, 3}}},
		"late":                           {points{{3, 3}, {1, 1}, {2, 2}}, points{{1, 1}, {2, 2}, {3, 3}}},
		"twice":                          {points{{1, 1}, {2, 2}, {1, 1}, {2, 2}}, points{{1, 1}, {2, 2}}},
		"at once":                        {points{{1, 1}, {2, 1}, {1, 1}}, points{{1, 1}, {2, 1}}},
		"flat":                           {points{{1, 1}, {1, 9}, {1, 5}, {1, 20}, {2, 30}, {1, 0}}, points{{1, 0}, {1, 20}, {2, 30}}},
		"flat, known from its right end": {points{{1, 9}, {1, 5}, {1, 7}, {0, 1}, {1, 3}}, points{{0, 1}, {1, 3}, {1, 9}}},
		"an old head, used later":        {points{{1, 1}, {9, 100}, {5, 110}, {10, 120}}, points{{1, 1}, {9, 100}, {10, 120}}},
		"an old head, used before":       {points{{1, 1}, {5, 110}, {6, 115}, {10, 120}, {9, 100}}, points{{1, 1}, {9, 100}, {10, 120}}},
		"fallen":                         {points{{8, 1}, {9, 100}, {5, 300}, {6, 400}}, points{{5, 300}, {6, 400}}},
		"fallen below what is old":       {points{{8, 1}, {9, 100}, {9, 130}, {5, 140}}, points{{5, 140}}},
		"told of the old topic later":    {points{{5, 300}, {6, 400}, {9, 100}}, points{{5, 300}, {6, 400}}},
		"fallen before something known":  {points{{8, 1}, {9, 300}, {5, 200}}, points{{5, 200}, {9, 300}}},
		"perhaps a young topic fell":     {points{{8, 1}, {9, 50}, {5, 100}, {6, 180}}, points{{6, 180}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got points
			for _, p := range history(tc.told...).points {
				got = append(got, [2]int64{p.offset, p.at / 1000})
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

// Whatever is told, a history is in order and bounded, and answers are numbers that can be right.
func TestHistoryTakesAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	number := func() int64 {
		switch random.IntN(6) {
		case 0:
			return burrow.Unknown
		case 1:
			return 0
		case 2:
			return math.MaxInt64 - random.Int64N(3)
		case 3:
			return start.UnixMilli() + random.Int64N(600_000)
		}
		return random.Int64N(100)
	}
	anyCommit := func() burrow.Commit {
		c := burrow.Commit{Offset: number(), Timestamp: number(), ObservedAt: number(), Lag: number()}
		if c.Offset == burrow.Unknown || c.Timestamp == burrow.Unknown {
			return none
		}
		return c
	}
	for range 2000 {
		h := new(headHistory)
		for range 50 {
			n := told{anyCommit(), anyCommit(), max(0, number()), random.IntN(600)}
			lag := n.observe(h)
			if lag != burrow.Unknown {
				require.False(t, math.IsNaN(lag) || lag < 0 || lag > float64(at(600).Unix()), "%v", lag)
			}
			require.LessOrEqual(t, len(h.points), maxHeadPoints)
			for i := 1; i < len(h.points); i++ {
				require.LessOrEqual(t, h.points[i-1].at, h.points[i].at)
				require.LessOrEqual(t, h.points[i-1].offset, h.points[i].offset)
				if i > 1 {
					require.NotEqual(t, h.points[i-2].offset, h.points[i].offset, "%v", h.points)
				}
			}
		}
	}
}

// Heads that are up to 30 s old when they are used, and notifications of several groups that arrive late, leave the
// history whole: it goes back to the first point, and no bound is above the truth.
func TestOldHeadsAreNotAFall(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 9))
		var head []int64 // by second
		for offset := int64(0); len(head) < 4000; {
			offset += random.Int64N(50) * int64(random.IntN(2))
			head = append(head, offset)
		}
		h := new(headHistory)
		first := int64(math.MaxInt64)
		for second := 200; second < len(head); second += random.IntN(20) {
			used := second - random.IntN(90) // told up to a minute late, of a head up to 30 s old
			polled := used - random.IntN(30)
			first = min(first, int64(used))
			h.add(headPoint{head[polled], int64(used) * 1000})
			require.Equal(t, first, h.points[0].at/1000)
			for _, p := range h.points {
				require.LessOrEqual(t, p.offset, head[p.at/1000])
			}
		}
	}
}

func TestGroupsShareAHistory(t *testing.T) {
	table := New(limits)
	send := func(group string, p burrow.PartitionStatus, second int) *State {
		p.Topic = "t"
		n := &burrow.Notification{Group: burrow.GroupStatus{Cluster: "c", Group: group, Partitions: []burrow.PartitionStatus{p}}}
		require.NoError(t, table.Update(n, at(second)))
		return table.groups[key{"c", group}].current
	}
	send("a", burrow.PartitionStatus{Start: commit(100, 0, 0), End: commit(200, 10, 0), CurrentLag: 50}, 20)
	state := send("b", burrow.PartitionStatus{Start: commit(50, 50, 950), End: commit(150, 60, 950), CurrentLag: 950}, 65)
	assert.Equal(t, []float64{59.95}, state.TimeLags)
	assert.InDelta(t, 59.95, state.MaxTimeLag, 0)
	state = send("b", burrow.PartitionStatus{Partition: 1, Start: none, End: none}, 125)
	assert.Nil(t, state.TimeLags)
	assert.InDelta(t, burrow.Unknown, state.MaxTimeLag, 0)
	assert.InDelta(t, burrow.Unknown, state.TimeLag(0), 0)
}

func TestMaxTimeLag(t *testing.T) {
	table := New(limits)
	g := burrow.GroupStatus{Cluster: "c", Group: "g", Partitions: []burrow.PartitionStatus{
		{Topic: "s", Start: commit(0, 0, 0), End: commit(10, 10, 0), CurrentLag: 5},
		{Topic: "t", Start: none, End: none},
		{Topic: "t", Partition: 2, Start: commit(0, 0, 0), End: commit(10, 20, 0), CurrentLag: 9},
	}}
	g.MaxLag = &burrow.PartitionStatus{Topic: "t", Partition: 3, Start: commit(0, 0, 0), End: commit(10, 50, 0), CurrentLag: 99}
	update := func(second int) *State {
		require.NoError(t, table.Update(&burrow.Notification{Group: g}, at(second)))
		return table.groups[key{"c", "g"}].current
	}
	state := update(60)
	assert.Equal(t, []float64{45, burrow.Unknown, 37.778}, state.TimeLags)
	assert.InDelta(t, 45, state.MaxTimeLag, 0)
	g.Partitions = nil
	state = update(61)
	assert.Nil(t, state.TimeLags)
	assert.InDelta(t, 10.95, state.MaxTimeLag, 0, "the partition with the highest lag counts though it is not listed")
}

func TestHistoriesAreBounded(t *testing.T) {
	table := New(Limits{MaxGroups: 10, MaxPartitions: 2, ExpireAfter: time.Minute})
	send := func(group string, second int) *State {
		n := &burrow.Notification{Group: burrow.GroupStatus{Cluster: "c", Group: group}}
		n.Group.MaxLag = &burrow.PartitionStatus{Topic: "t" + group, Start: commit(0, second-20, 0), End: commit(10, second-10, 0), CurrentLag: 5}
		require.NoError(t, table.Update(n, at(second)))
		return table.groups[key{"c", group}].current
	}
	for i := range 5 {
		assert.InDelta(t, 9, send(strconv.Itoa(i), 0).MaxTimeLag, 0, "group %d is answered from what its notification says", i)
	}
	assert.Equal(t, 2, table.heads.count)
	assert.Len(t, table.heads.topics, 2)

	send("1", 50)
	collect(table, at(59))
	assert.Equal(t, 2, table.heads.count)
	collect(table, at(75))
	assert.Equal(t, 1, table.heads.count, "nothing was heard of the other one")
	assert.NotNil(t, table.heads.topics[key{"c", "t1"}])
	send("4", 76)
	assert.Equal(t, 2, table.heads.count)
	collect(table, at(200))
	assert.Zero(t, table.heads.count)
	assert.Empty(t, table.heads.topics)
	send("4", 201)
	assert.Equal(t, 1, table.heads.count)
}

// Who lists other partitions each time does not keep listed ones from having a history.
func TestHistoriesAreReclaimed(t *testing.T) {
	table := New(Limits{MaxGroups: 10, MaxPartitions: 4, ExpireAfter: time.Hour})
	send := func(group, topic string, second int) *State {
		n := notification(group, 1)
		n.Group.Partitions = []burrow.PartitionStatus{{Topic: topic, Start: commit(0, second-20, 0), End: commit(10, second-10, 0), CurrentLag: 5}}
		require.NoError(t, table.Update(n, at(second)))
		return table.groups[key{"c", group}].current
	}
	has := func(topic string) bool { return table.heads.topics[key{"c", topic}] != nil }
	send("honest", "orders", 0)
	for i := range 3 {
		send("stranger", strconv.Itoa(i), 1+i)
	}
	assert.Equal(t, 4, table.Histories(), "kept while there is room")
	send("stranger", "3", 4)
	assert.True(t, has("3"))
	assert.True(t, has("orders"), "a state lists it")
	assert.True(t, has("2"), "the state that is replaced lists it")
	assert.Equal(t, 3, table.Histories())

	// Not every notification searches.
	send("stranger", "4", 5)
	send("stranger", "5", 5)
	assert.False(t, has("5"))
	send("new", "payments", 9)
	assert.True(t, has("payments"))
	assert.True(t, has("orders"))
	assert.Equal(t, 2, table.Histories(), "that of the stranger's last topic was never made")
}

func TestRefusedNotificationTellsNothing(t *testing.T) {
	table := New(Limits{MaxGroups: 1, MaxPartitions: 10, ExpireAfter: time.Minute})
	require.NoError(t, table.Update(notification("a", 1), at(0)))
	require.Error(t, table.Update(notification("b", 1, 1), at(0)))
	assert.Zero(t, table.heads.count)
}

func TestClockPutBack(t *testing.T) {
	h := new(headHistory)
	told{commit(0, 900, 0), commit(10, 910, 0), 20, 1000}.observe(h)
	assert.InDelta(t, 58.5, told{commit(30, 90, 0), commit(40, 100, 0), 20, 160}.observe(h), 0)
	assert.True(t, slices.IsSortedFunc(h.points, func(a, b headPoint) int { return int(a.at - b.at) }))
}

func pointsOf(p *packedHistory) []headPoint {
	var h headHistory
	p.open(&h)
	return h.points
}
