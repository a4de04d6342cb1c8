package groups

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

func recorded(t testing.TB) []byte {
	t.Helper()
	table := New(limits)
	for second := range 3 {
		n := notification("g", 5, 1, 2)
		n.ID, n.Start, n.Group.Status, n.Group.PartitionCount = "a", at(-100), burrow.StatusErr, 2
		for i := range n.Group.Partitions {
			p := &n.Group.Partitions[i]
			p.Status, p.CurrentLag = burrow.StatusStop, int64(10+second)
			p.Start = burrow.Commit{Offset: burrow.Unknown, Timestamp: burrow.Unknown, Lag: burrow.Unknown}
			p.End = burrow.Commit{Offset: 50, Timestamp: at(-10).UnixMilli(), Lag: 3}
		}
		n.Group.MaxLag = &n.Group.Partitions[0]
		require.NoError(t, table.Update(n, at(second*20)))
	}
	data, err := table.Record(collect(table, at(41))[0].Group)
	require.NoError(t, err)
	return data
}

func TestRecordAndRestore(t *testing.T) {
	data := recorded(t)
	table := New(limits)
	state, err := table.Restore(data, Times{}, at(60))
	require.NoError(t, err)
	assert.Equal(t, "a", state.Incidents.ID)
	assert.True(t, state.Incidents.recent.has("a"))
	assert.EqualValues(t, 1, state.Incidents.Seen)
	assert.True(t, at(0).Equal(state.Incidents.Since))
	assert.True(t, at(40).Equal(state.Received))
	assert.Positive(t, state.MaxTimeLag)
	assert.Equal(t, Stats{Groups: 1, Partitions: 2}, table.Stats())
	again, err := table.Record(state)
	require.NoError(t, err)
	assert.JSONEq(t, string(data), string(again), "with the histories")

	_, err = table.Restore(data, Times{}, at(60))
	require.EqualError(t, err, `group "g" of cluster "c" is there already`)
	future, err := New(limits).Restore(data, Times{}, at(-1000))
	require.NoError(t, err)
	assert.Equal(t, at(-1000), future.Received, "the clock was put back")
	_, err = New(Limits{MaxGroups: 0, MaxPartitions: 10, ExpireAfter: time.Hour}).Restore(data, Times{}, at(60))
	require.ErrorIs(t, err, ErrTooManyGroups)
}

// A limit that is lower since the restart takes no known group away for want of places for its partitions, and leaves no incident open.
func TestRestoreWithLessRoom(t *testing.T) {
	table := New(Limits{MaxGroups: 2, MaxPartitions: 3, ExpireAfter: time.Hour})
	table.KeepEvents(5)
	require.NoError(t, table.Update(notification("other", 1, 1, 2), at(50)))
	table.Finish(collect(table, at(51)), true, at(51))
	state, err := table.Restore(recorded(t), Times{}, at(60))
	require.NoError(t, err)
	assert.Empty(t, state.Group.Partitions)
	assert.Equal(t, burrow.StatusErr, state.Group.Status)
	assert.Equal(t, Places{Groups: 2, Partitions: 2, LeftOut: 2}, table.Places())
	assert.Equal(t, []string{"g>5@40 -t/1 -t/2"}, short(collect(table, at(60))))
	assert.Empty(t, table.TakeEvents(10))

	table = New(Limits{MaxGroups: 0, MaxPartitions: 10, ExpireAfter: time.Hour})
	table.KeepEvents(5)
	_, err = table.Restore(recorded(t), Times{}, at(60))
	require.ErrorIs(t, err, ErrTooManyGroups)
	events := table.TakeEvents(10)
	require.Len(t, events, 1)
	assert.Equal(t, "ended by expiry a since -100 at 60: ERR to ERR", describe(events[0]))
}

func TestRestoreOld(t *testing.T) {
	table := New(limits)
	table.KeepEvents(5)
	_, err := table.Restore(recorded(t), Times{}, at(101))
	require.ErrorIs(t, err, ErrOld)
	assert.Equal(t, Stats{}, table.Stats())
	events := table.TakeEvents(10)
	require.Len(t, events, 1)
	assert.Equal(t, []string{"g>-@101 -group -t/1 -t/2"}, short(collect(table, at(101))), "a pipeline may have it from before the restart")
	assert.Equal(t, "ended by expiry a since -100 at 101: ERR to ERR", describe(events[0]))
}

// After a restart it is known of each partition whether its time lag is a lower bound, also if it is not the largest.
func TestRestartKeepsLowerBounds(t *testing.T) {
	slow := func(second int, committed int64) *burrow.GroupStatus {
		g := read(burrow.StatusOK, second, []int64{committed, 10}, 2000-committed, 5990)
		g.Status, g.Partitions[0].Status = burrow.StatusWarn, burrow.StatusWarn
		return g
	}
	f := followLowerBound(t)
	s := f.poll(101, slow(100, 1100))
	require.Equal(t, []float64{90.95, 41}, s.TimeLags)
	require.False(t, s.AtLeast)
	data, err := f.table.Record(s)
	require.NoError(t, err)
	old := strings.Replace(string(data), `"lower_bounds":[1],`, "", 1)
	require.NotEqual(t, string(data), old)

	// The first partition catches up before anybody tells of all again.
	after := func(data string) *State {
		table := New(f.table.limits)
		_, err := table.Restore([]byte(data), Times{}, at(102))
		require.NoError(t, err)
		require.NoError(t, table.Update(notified(slow(102, 1990)), at(103)))
		return current(t, table)
	}
	s = after(string(data))
	require.InDelta(t, 41, s.MaxTimeLag, 0, "that of the second partition")
	assert.True(t, s.AtLeast)
	s = after(old)
	require.InDelta(t, 41, s.MaxTimeLag, 0)
	assert.False(t, s.AtLeast, "a record of an older version does not say so")

	// The largest of an older record is known to be one.
	f.poll(104, slow(104, 1990))
	data, err = f.table.Record(current(t, f.table))
	require.NoError(t, err)
	old = strings.Replace(string(data), `"lower_bounds":[1],`, "", 1)
	require.NotEqual(t, string(data), old)
	assert.True(t, after(old).AtLeast)
}

// FuzzRestore: whatever the bytes are, nothing panics, and what is taken is a state that could have been recorded.
func FuzzRestore(f *testing.F) {
	whole := string(recorded(f))
	f.Add([]byte(whole))
	for _, change := range [][2]string{
		{`"version":2`, `"version":9`},
		{`"version":2`, `"version":1`},
		{`"Cluster":"c"`, `"Cluster":""`},
		{`"TotalLag":5`, `"TotalLag":-5`},
		{`"Partition":2`, `"Partition":1`},
		{`"points":[[`, `"points":[[9e9,`},
		{`"time_lags":[`, `"time_lags":[-7,`},
		{`"Status":3`, `"Status":77`},
		{`"lower_bounds":[`, `"lower_bounds":[-1,`},
		{`"lower_bounds":[`, `"lower_bounds":[2,`},
		{`"Seen":1`, `"Seen":-1`},
	} {
		require.Contains(f, whole, change[0])
		f.Add([]byte(strings.Replace(whole, change[0], change[1], 1)))
	}
	// A group whose partitions had no place, between two polls.
	table := New(Limits{MaxGroups: 1, MaxPartitions: 1, ExpireAfter: time.Hour})
	require.NoError(f, table.UpdateFromAPI(read(burrow.StatusStop, 0, []int64{1}, 5), at(0)))
	all := read(burrow.StatusStop, 0, []int64{1, 1}, 9, 9)
	require.NoError(f, table.UpdateFromAPI(all, at(30)))
	n := notified(all)
	n.Group.Partitions = nil
	require.NoError(f, table.Update(n, at(40)))
	data, err := table.Record(collect(table, at(40))[0].Group)
	require.NoError(f, err)
	f.Add(data)
	for _, change := range [][2]string{
		{`"answer":{"at":`, `"answer":{"at":-`},
		{`"answer":{"at":1`, `"answer":{"at":9`},
		{`"max_time_lag":30,"at_least":true,"partitions`, `"max_time_lag":-30,"at_least":true,"partitions`},
		{`"partitions_ahead":-1`, `"partitions_ahead":-9`},
	} {
		require.Contains(f, string(data), change[0])
		f.Add([]byte(strings.Replace(string(data), change[0], change[1], 1)))
	}
	f.Add([]byte(`{"version":1,"notification":{"Group":{"Cluster":"c","Group":"g"}},"heads":[{"topic":"t","points":[[5,5],[4,6]]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table := New(Limits{MaxGroups: 10, MaxPartitions: 100, ExpireAfter: 1 << 62})
		state, err := table.Restore(data, Times{}, at(60))
		if err != nil {
			require.Zero(t, table.Stats().Groups)
			return
		}
		require.NoError(t, state.Group.Valid())
		require.False(t, state.Received.After(at(60)))
		require.False(t, state.answered.After(at(60)))
		require.True(t, validTimeLag(state.MaxTimeLag))
		for _, topic := range table.heads.topics {
			for i := range topic.partitions {
				points := pointsOf(&topic.partitions[i])
				require.LessOrEqual(t, len(points), maxHeadPoints)
				for i := range points {
					require.True(t, i == 0 || points[i-1].offset <= points[i].offset)
				}
			}
		}
		data, err = table.Record(state)
		require.NoError(t, err)
		require.True(t, json.Valid(data))
	})
}

// The clock was put back between two runs: the samples of the later one begin anew, and its record can be read too.
func TestRecordAfterTheClockWasPutBack(t *testing.T) {
	restart := func(data []byte, second int) *followed {
		f := follow(t)
		_, err := f.table.Restore(data, Times{}, at(second))
		require.NoError(t, err)
		return f
	}
	record := func(f *followed, second int) []byte {
		data, err := f.table.Record(f.poll(second, read(burrow.StatusOK, second, []int64{100}, 0)))
		require.NoError(t, err)
		return data
	}
	f := follow(t)
	f.poll(-10, read(burrow.StatusOK, -20, []int64{90}, 0))
	f = restart(record(f, 600), 0)
	data := record(f, 30)
	assert.Equal(t, []Sample{{at(-10).UnixMilli(), 0}, {at(30).UnixMilli(), 0}}, current(t, f.table).History.Recent())
	restart(data, 60)
}
