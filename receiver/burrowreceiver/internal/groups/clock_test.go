package groups

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// clockPut is the moment t of a process whose wall clock was put forward by a time before it, back if that is negative. The monotonic clock of
// the process, which is a part of t, goes on as if nothing had happened.
func clockPut(t *testing.T, moment time.Time, by time.Duration) time.Time {
	t.Helper()
	put := moment.Add(by)
	(*struct { // time.Time
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&put)).ext -= int64(by)
	require.Zero(t, put.Sub(moment), "by the monotonic clock")
	require.Equal(t, by, put.Round(0).Sub(moment.Round(0)), "by the wall clock")
	return put
}

// Backends drop what is older than what they have: the Prometheus exporter does, and so do the receivers of remote write. So points go on when the
// clock is put back.
func TestPointsGoOnWhenTheClockIsPutBack(t *testing.T) {
	begin := time.Now()
	later := func(d time.Duration) time.Time { return clockPut(t, begin.Add(d), -time.Hour) }
	table := New(limits)
	last := map[string]time.Time{}
	handOver := func(now time.Time, taken bool) (names []string) {
		changes := collect(table, now)
		for _, c := range changes {
			names = append(names, c.Name)
			require.True(t, c.At.Round(0).After(last[c.Name].Round(0)), "%s at %s is not after %s", c.Name, c.At, last[c.Name])
			last[c.Name] = c.At
		}
		table.Finish(changes, taken, now)
		return names
	}
	topic := func(head int64, asked time.Time) *Topic {
		return &Topic{Cluster: "c", Name: "t", Offsets: []int64{head}, Received: asked}
	}
	require.NoError(t, table.Update(notification("g", 1, 0), begin))
	require.NoError(t, table.UpdateTopic(topic(5, begin)))
	assert.Equal(t, []string{"g", "t"}, handOver(begin, true))

	require.NoError(t, table.Update(notification("g", 2), later(time.Second)))
	require.NoError(t, table.UpdateTopic(topic(6, later(time.Second))))
	assert.Equal(t, []string{"g", "t"}, handOver(later(time.Second), true), "the partition has ended, too")
	require.NoError(t, table.Update(notification("g", 3), later(2*time.Second)))
	assert.Equal(t, []string{"g"}, handOver(later(2*time.Second), false))
	changes := collect(table, later(3*time.Second))
	require.Len(t, changes, 1)
	assert.Equal(t, last["g"], changes[0].At, "a repeat is of the same moment")
	table.Finish(changes, true, later(3*time.Second))
	assert.Equal(t, []string{"g", "t"}, handOver(later(2*time.Minute), true), "both have expired")

	require.NoError(t, table.Update(notification("h", 1), later(3*time.Minute)))
	changes = collect(table, later(3*time.Minute))
	require.Len(t, changes, 1)
	assert.Equal(t, later(3*time.Minute), changes[0].At, "of what is new the moment is that of the clock")
}

// The storage knows moments of the wall clock. When it is put back after a start, notifications count all the same, and a group expires
// when nothing was received of it for ExpireAfter.
func TestClockPutBackAfterARestart(t *testing.T) {
	begin := time.Now()
	before := New(limits)
	g := evaluation(5, burrow.StatusStop)
	require.NoError(t, before.UpdateFromAPI(g, begin.Add(-20*time.Second)))
	require.NoError(t, before.Update(notified(evaluation(5, burrow.StatusStop)), begin.Add(-10*time.Second)))
	data, err := before.Record(before.groups[key{"c", "g"}].current)
	require.NoError(t, err)

	later := func(d time.Duration) time.Time { return clockPut(t, begin.Add(d), -time.Hour) }
	table := New(limits)
	restored, err := table.Restore(data, Times{}, begin)
	require.NoError(t, err)
	assert.True(t, restored.Received.Equal(begin.Add(-10*time.Second)))
	assert.True(t, restored.Notified.Equal(begin.Add(-10*time.Second)))
	assert.True(t, restored.Polled.Equal(begin.Add(-20*time.Second)))
	table.Expire(later(49 * time.Second))
	assert.Equal(t, 1, table.Stats().Groups)
	require.NoError(t, table.Update(notified(evaluation(7, burrow.StatusStop)), later(49*time.Second)))
	assert.EqualValues(t, 7, table.groups[key{"c", "g"}].current.Group.TotalLag)

	table = New(limits)
	_, err = table.Restore(data, Times{}, begin)
	require.NoError(t, err)
	table.Expire(later(50 * time.Second))
	assert.Zero(t, table.Stats().Groups)
}

// The clock is put back between two processes, while a group is bad under the ID of an incident that has ended: half a minute later that is an incident.
func TestClockPutBackBeforeARestartWithALateIncident(t *testing.T) {
	before := New(limits)
	heard{0, burrow.StatusWarn, "a", 0}.bring(t, before)
	heard{10, burrow.StatusOK, "a", 0}.bring(t, before)
	heard{12, burrow.StatusWarn, "a", 0}.bring(t, before)
	data, err := before.Record(current(t, before))
	require.NoError(t, err)

	table := New(limits)
	table.KeepEvents(10)
	_, err = table.Restore(data, Times{}, at(-3600))
	require.NoError(t, err)
	heard{-3580, burrow.StatusWarn, "a", 0}.bring(t, table)
	require.Empty(t, table.TakeEvents(10))
	heard{-3570, burrow.StatusWarn, "a", 0}.bring(t, table)
	require.Len(t, table.TakeEvents(10), 1)
}
