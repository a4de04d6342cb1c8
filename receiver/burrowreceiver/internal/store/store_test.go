package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/extension/xextension/storage"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

var (
	start  = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	limits = groups.Limits{MaxGroups: 5000, MaxPartitions: 500_000, ExpireAfter: time.Minute}
)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// memory is a storage client that notes what is done with it.
type memory struct {
	data    map[string][]byte
	written []string // keys of the operations that write, in their order, and "|" behind each transaction
	err     error
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, key string) ([]byte, error) { return m.data[key], nil }

func (m *memory) Set(ctx context.Context, key string, value []byte) error {
	return m.Batch(ctx, storage.SetOperation(key, value))
}

func (m *memory) Delete(ctx context.Context, key string) error {
	return m.Batch(ctx, storage.DeleteOperation(key))
}

func (m *memory) Close(context.Context) error { return nil }

func (m *memory) Batch(_ context.Context, operations ...*storage.Operation) error {
	writes := false
	for _, o := range operations {
		switch o.Type {
		case storage.Get:
			o.Value = m.data[o.Key]
			continue
		case storage.Set:
			m.written = append(m.written, "set "+o.Key)
			if m.err == nil {
				m.data[o.Key] = o.Value
			}
		case storage.Delete:
			m.written = append(m.written, "delete "+o.Key)
			if m.err == nil {
				delete(m.data, o.Key)
			}
		}
		writes = true
	}
	if writes {
		m.written = append(m.written, "|")
	}
	return m.err
}

// take returns what was written since the last time.
func (m *memory) take() []string {
	written := m.written
	m.written = nil
	return written
}

func takesAll(_, _ string) bool { return true }

func load(t testing.TB, client storage.Client, now time.Time) (*Store, *groups.Table, Loaded) {
	t.Helper()
	table := groups.New(limits)
	s, loaded, err := Load(context.Background(), client, table, takesAll, now)
	require.NoError(t, err)
	return s, table, loaded
}

func save(t testing.TB, s *Store) Saved {
	t.Helper()
	saved, err := s.Save(context.Background())
	require.NoError(t, err)
	return saved
}

// polledGroup is an answer of the API: partitions with a lag, whose commits are of a second.
func polledGroup(name string, partitions int32, committed int) *burrow.GroupStatus {
	g := &burrow.GroupStatus{Cluster: "c", Group: name, Status: burrow.StatusErr, TotalLag: 5, Complete: 1, PartitionCount: int64(partitions)}
	for p := range partitions {
		g.Partitions = append(g.Partitions, burrow.PartitionStatus{
			Topic: "a-topic-with-a-usual-name", Partition: p, Status: burrow.StatusStop, CurrentLag: 5, Complete: 1,
			Owner: "/10.42.1.17", ClientID: "consumer-settlement-writer-1",
			Start: burrow.Commit{Offset: 68515500, Timestamp: at(committed - 9).UnixMilli(), ObservedAt: at(committed - 9).UnixMilli(), Lag: 4},
			End:   burrow.Commit{Offset: 68515593, Timestamp: at(committed).UnixMilli(), ObservedAt: at(committed).UnixMilli(), Lag: 2},
		})
	}
	return g
}

func stateOf(t *testing.T, table *groups.Table, name string) *groups.State {
	t.Helper()
	var found *groups.State
	table.Each(func(s *groups.State) {
		if s.Group.Group == name {
			found = s
		}
	})
	require.NotNil(t, found, name)
	return found
}

func TestOnlyChangesAreWritten(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, -20), at(0)))
	save(t, s)
	assert.Equal(t, []string{"set group/0", "set slots", "|"}, client.take())
	save(t, s)
	assert.Empty(t, client.take())

	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, -20), at(30)))
	saved := save(t, s)
	assert.Equal(t, []string{"set times/0", "|"}, client.take(), "nothing but the time of the poll has changed")
	assert.Zero(t, saved.Groups)
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, 35), at(40)))
	save(t, s)
	assert.Equal(t, []string{"set group/0", "|"}, client.take())

	client.err = errors.New("disk full")
	require.NoError(t, table.UpdateFromAPI(polledGroup("b", 1, 0), at(41)))
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, 35), at(41)))
	for range 2 {
		_, err := s.Save(context.Background())
		require.ErrorContains(t, err, "disk full")
		assert.Equal(t, []string{"set group/1", "set slots", "|", "set times/0", "|"}, client.take(), "until it is written")
	}
	client.err = nil
	save(t, s)
	assert.Equal(t, []string{"set group/1", "set slots", "|", "set times/0", "|"}, client.take())
	save(t, s)
	assert.Empty(t, client.take())
}

// Times as the version before wrote them are read: without them every group that did not move would have expired.
func TestTimesOfTheVersionBefore(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	require.NoError(t, table.Update(&burrow.Notification{Group: *polledGroup("a", 2, -20)}, at(0)))
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, -20), at(1)))
	save(t, s)
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, -20), at(50)))
	save(t, s)
	now := make([]groups.Times, slotsPerTimes)
	_, err := binary.Decode(client.data["times/0"], binary.LittleEndian, now)
	require.NoError(t, err)
	before := make([]timesBefore, slotsPerTimes)
	for i, times := range now {
		before[i] = timesBefore{times.Record, times.Received, times.Polled}
	}
	client.data["times/0"], err = binary.Append(nil, binary.LittleEndian, before)
	require.NoError(t, err)

	_, restored, loaded := load(t, client, at(70))
	assert.Equal(t, Loaded{Groups: 1}, loaded)
	after := stateOf(t, restored, "a")
	assert.True(t, at(50).Equal(after.Received))
	assert.True(t, at(50).Equal(after.Polled))
	assert.True(t, at(0).Equal(after.Notified), "as it was when the record was written")
}

// What is written of a group that does not move is old; it comes back as of the last poll all the same.
func TestTimesComeBack(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	for second := 0; second <= 300; second += 30 {
		require.NoError(t, table.UpdateFromAPI(polledGroup("a", 2, -20), at(second)))
		save(t, s)
	}
	before := stateOf(t, table, "a")
	require.Positive(t, before.MaxTimeLag)

	_, restored, loaded := load(t, client, at(330))
	assert.Equal(t, Loaded{Groups: 1}, loaded)
	after := stateOf(t, restored, "a")
	assert.True(t, before.Received.Equal(after.Received))
	assert.True(t, before.Polled.Equal(after.Polled))
	assert.InDelta(t, before.MaxTimeLag, after.MaxTimeLag, 0.001)
	assert.InDeltaSlice(t, before.TimeLags, after.TimeLags, 0.001)
	// The head stood still until the last poll, and not only until the record was written.
	moved := polledGroup("a", 2, 340)
	for i := range moved.Partitions {
		moved.Partitions[i].CurrentLag = 105
		moved.Partitions[i].End.Offset += 5 // all that was there
		moved.Partitions[i].End.Lag = burrow.Unknown
		moved.Partitions[i].Start = moved.Partitions[i].End
	}
	require.NoError(t, table.UpdateFromAPI(moved, at(350)))
	require.NoError(t, restored.UpdateFromAPI(moved, at(350)))
	assert.InDelta(t, stateOf(t, table, "a").MaxTimeLag, stateOf(t, restored, "a").MaxTimeLag, 0.001)
	assert.LessOrEqual(t, stateOf(t, restored, "a").MaxTimeLag, 50.0)
}

func TestSlotsAreUsedAgain(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	require.NoError(t, table.UpdateFromAPI(polledGroup("old", 1, 0), at(0)))
	require.NoError(t, table.UpdateFromAPI(polledGroup("new", 1, 0), at(50)))
	save(t, s)
	client.take()

	s, table, loaded := load(t, client, at(70))
	assert.Equal(t, Loaded{Groups: 1, Expired: 1}, loaded)
	save(t, s)
	require.Len(t, client.written, 2)
	assert.True(t, strings.HasPrefix(client.take()[0], "delete group/"), "the old one is removed")
	assert.Len(t, s.free, 1)
	require.NoError(t, table.UpdateFromAPI(polledGroup("next", 1, 0), at(71)))
	save(t, s)
	assert.Empty(t, s.free)
	assert.Equal(t, 2, s.slots)
	_, _, loaded = load(t, client, at(72))
	assert.Equal(t, Loaded{Groups: 2}, loaded)
}

// Records that are not ours, or not whole, are left out.
func TestDamagedRecords(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	for i := range 6 {
		require.NoError(t, table.UpdateFromAPI(polledGroup(fmt.Sprint("g", i), 2, 0), at(0)))
	}
	save(t, s)
	whole := string(client.data[slotKey(0)])
	for number, record := range []string{whole, "{}", "foreign", whole[:len(whole)/2], strings.Replace(whole, `"version":2`, `"version":77`, 1), whole} {
		client.data[slotKey(number)] = []byte(record)
	}
	client.data[timesKey(0)] = []byte("short")
	s, _, loaded := load(t, client, at(1))
	assert.Equal(t, 1, loaded.Groups, "the last one is there already")
	assert.Equal(t, 5, loaded.LeftOut)
	require.Error(t, loaded.FirstErr)
	assert.Len(t, s.stale, 5)
	save(t, s)
	assert.Len(t, s.free, 5)

	client.data[slotsKey] = []byte("foreign")
	table = groups.New(limits)
	s, _, err := Load(context.Background(), client, table, takesAll, at(1))
	require.ErrorIs(t, err, ErrForeign)
	require.NoError(t, table.UpdateFromAPI(polledGroup("a", 1, 0), at(2)))
	save(t, s)
	_, _, loaded = load(t, client, at(3))
	assert.Equal(t, Loaded{Groups: 1}, loaded, "it is begun anew")
}

// A group that can't be written does not keep the others from it.
func TestOneGroupCannotBeWritten(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	bad := &burrow.Notification{Start: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), Group: *polledGroup("bad", 1, 0)}
	require.NoError(t, table.Update(bad, at(0)))
	require.NoError(t, table.UpdateFromAPI(polledGroup("good", 1, 0), at(0)))
	_, err := s.Save(context.Background())
	require.ErrorContains(t, err, `group "bad" of cluster "c"`)
	_, _, loaded := load(t, client, at(1))
	assert.Equal(t, Loaded{Groups: 1}, loaded)
}

// Neither a first write nor a restart takes everything at once.
func TestTransactionsAreBounded(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	for i := range 400 {
		require.NoError(t, table.UpdateFromAPI(polledGroup(fmt.Sprintf("group-%04d", i), 50, 0), at(0)))
	}
	saved := save(t, s)
	assert.Equal(t, 400, saved.Groups)
	transactions := slices.DeleteFunc(client.take(), func(w string) bool { return w != "|" })
	assert.GreaterOrEqual(t, len(transactions), saved.Bytes/(maxWrite+50_000))
	assert.Greater(t, len(transactions), 5)
	_, _, loaded := load(t, client, at(1))
	assert.Equal(t, Loaded{Groups: 400}, loaded)
}

// BenchmarkSave is what a poll of 2,000 groups of 50 partitions writes: when every group has committed since, and when none has.
func BenchmarkSave(b *testing.B) {
	const n, partitions = 2000, 50
	for name, moves := range map[string]bool{"all committed": true, "none committed": false} {
		b.Run(name, func(b *testing.B) {
			table := groups.New(limits)
			s, _, err := Load(context.Background(), newMemory(), table, takesAll, at(0))
			require.NoError(b, err)
			poll := func(round int) {
				committed := 0
				if moves {
					committed = round
				}
				for i := range n {
					require.NoError(b, table.UpdateFromAPI(polledGroup(fmt.Sprintf("group-%04d", i), partitions, committed), at(round)))
				}
			}
			poll(0)
			save(b, s)
			written, round := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				round++
				poll(round)
				b.StartTimer()
				written += save(b, s).Bytes
			}
			b.ReportMetric(float64(written)/float64(round)/(1<<20), "MiB/poll")
		})
	}
}

func TestSlotDoesNotKeepTheTimesOfTheGroupBefore(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	require.NoError(t, table.UpdateFromAPI(polledGroup("old", 2, -20), at(0)))
	save(t, s)
	require.NoError(t, table.UpdateFromAPI(polledGroup("old", 2, -20), at(30))) // times/0
	save(t, s)
	table.EndCluster("c", at(31), at(31)) // or two lists without it
	save(t, s)
	n := &burrow.Notification{Group: *polledGroup("new", 2, 20)}
	require.NoError(t, table.Update(n, at(40)))
	save(t, s)
	require.Zero(t, stateOf(t, table, "new").Polled)

	_, restored, _ := load(t, client, at(45))
	before, after := stateOf(t, table, "new"), stateOf(t, restored, "new")
	assert.Equal(t, before.Polled, after.Polled, "the API never told of it")
	// The next notification lists one of the two: the other is not known any more.
	n2 := *polledGroup("new", 1, 49)
	require.NoError(t, table.Update(&burrow.Notification{Group: n2}, at(50)))
	n3 := *polledGroup("new", 1, 49)
	n3.PartitionCount, n2.PartitionCount = 2, 2
	require.NoError(t, restored.Update(&burrow.Notification{Group: n3}, at(50)))
	assert.Len(t, stateOf(t, table, "new").Group.Partitions, 1)
	assert.Len(t, stateOf(t, restored, "new").Group.Partitions, 1, "a ghost")
}

func TestNewestRecordWins(t *testing.T) {
	client := newMemory()
	s, table, _ := load(t, client, at(0))
	for i, g := range []string{"a", "x", "y"} {
		require.NoError(t, table.UpdateFromAPI(polledGroup(g, 1, 0), at(i)))
		save(t, s)
	}
	small := limits
	small.MaxGroups = 1 // lowered: x and y are left out
	table = groups.New(small)
	s, loaded, err := Load(context.Background(), client, table, takesAll, at(10))
	require.NoError(t, err)
	require.Equal(t, 2, loaded.LeftOut)
	// a ends, x has room.
	table.EndCluster("c", at(11), at(11))
	save(t, s)
	for second := 12; second < 100; second += 20 {
		require.NoError(t, table.UpdateFromAPI(polledGroup("x", 1, second), at(second)))
		save(t, s)
	}
	_, table, _ = load(t, client, at(101))
	var names []string
	table.Each(func(s *groups.State) { names = append(names, s.Group.Group+s.Received.Sub(start).String()) })
	assert.Equal(t, []string{"x1m32s"}, names)
}
