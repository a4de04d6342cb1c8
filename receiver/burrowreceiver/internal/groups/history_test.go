package groups

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

func lagging(second int, status burrow.Status, id string, lag int64) *burrow.Notification {
	n := heard{second, status, id, second - 5}.notification()
	n.Group.TotalLag = lag
	return n
}

func historyAfter(t *testing.T, told ...*burrow.Notification) History {
	t.Helper()
	table := New(limits)
	for i, n := range told {
		require.NoError(t, table.Update(n, at(10*i)))
	}
	var h History
	table.Each(func(s *State) { h = s.History })
	return h
}

func TestHistoryKeepsTheNewestSamples(t *testing.T) {
	var told []*burrow.Notification
	for i := range MaxSamples + 3 {
		told = append(told, lagging(0, burrow.StatusOK, "", int64(i)))
	}
	h := historyAfter(t, told[:2]...)
	assert.Equal(t, []Sample{{at(0).UnixMilli(), 0}, {at(10).UnixMilli(), 1}}, h.Recent())
	h = historyAfter(t, told...)
	require.Len(t, h.Recent(), MaxSamples)
	for i, s := range h.Recent() {
		assert.Equal(t, Sample{at(10 * (i + 3)).UnixMilli(), int64(i + 3)}, s)
	}
	assert.Equal(t, at(0), h.Changed, "the same status all the time")
}

func TestHistoryOfIncidents(t *testing.T) {
	const ok, warn, bad = burrow.StatusOK, burrow.StatusWarn, burrow.StatusErr
	h := historyAfter(t, lagging(0, warn, "a", 10), lagging(0, bad, "a", 900), lagging(0, warn, "a", 20))
	assert.Empty(t, h.Past, "it goes on")
	assert.Equal(t, bad, h.Worst)
	assert.Equal(t, int64(900), h.PeakLag)
	assert.Equal(t, at(20), h.Changed)

	h = historyAfter(t, lagging(0, warn, "a", 10), lagging(0, bad, "a", 900), lagging(0, ok, "a", 5))
	assert.Equal(t, []PastIncident{{ID: "a", Start: at(-5), End: at(20), Worst: bad, PeakLag: 900}}, h.Past)
	assert.Zero(t, h.PeakLag)

	// The next one knows nothing of the one before.
	h = historyAfter(t, lagging(0, bad, "a", 900), lagging(0, ok, "a", 5), lagging(0, warn, "b", 3), lagging(0, ok, "", 0))
	require.Len(t, h.Past, 2)
	assert.Equal(t, PastIncident{ID: "b", Start: at(-5), End: at(30), Worst: warn, PeakLag: 3}, h.Past[0])

	// The close of an incident of which nothing else was received is none.
	assert.Empty(t, historyAfter(t, lagging(0, ok, "", 0), lagging(0, ok, "c", 1)).Past)

	// Nor need an incident have an ID, as the API tells of none.
	h = historyAfter(t, lagging(0, bad, "", 9), lagging(0, ok, "", 1))
	assert.Equal(t, []PastIncident{{ID: "ccbb621aab0e373b-karrot", Start: at(0), End: at(10), Worst: bad, PeakLag: 9}}, h.Past)

	// A notification that was overtaken by the close does not make a second incident.
	h = historyAfter(t, lagging(0, bad, "a", 9), lagging(0, ok, "a", 5), lagging(0, bad, "a", 9), lagging(0, ok, "", 5))
	assert.Len(t, h.Past, 1)
}

func TestHistoryIsBoundedAndItsPastIsNeverChanged(t *testing.T) {
	var told []*burrow.Notification
	for i := range MaxPast + 5 {
		id := strconv.Itoa(i)
		told = append(told, lagging(0, burrow.StatusErr, id, 1), lagging(0, burrow.StatusOK, id, 0))
	}
	before := historyAfter(t, told[:6]...)
	kept := append([]PastIncident{}, before.Past...)
	h := historyAfter(t, told...)
	require.Len(t, h.Past, MaxPast)
	assert.Equal(t, strconv.Itoa(MaxPast+4), h.Past[0].ID, "newest first")
	assert.Equal(t, kept, before.Past)
}

func TestHistorySurvivesARestart(t *testing.T) {
	table := New(limits)
	for i, n := range []*burrow.Notification{
		lagging(0, burrow.StatusErr, "a", 9), lagging(0, burrow.StatusOK, "a", 5), lagging(0, burrow.StatusWarn, "b", 7),
	} {
		require.NoError(t, table.Update(n, at(10*i)))
	}
	var state *State
	table.Each(func(s *State) { state = s })
	data, err := table.Record(state)
	require.NoError(t, err)
	restored, err := New(limits).Restore(data, Times{}, at(25))
	require.NoError(t, err)
	assert.Equal(t, state.History.Samples, restored.History.Samples)
	assert.Equal(t, state.History.Count, restored.History.Count)
	assert.Equal(t, state.History.Worst, restored.History.Worst)
	assert.Equal(t, state.History.PeakLag, restored.History.PeakLag)
	assert.True(t, state.History.Changed.Equal(restored.History.Changed))
	require.Len(t, restored.History.Past, 1)
	assert.True(t, at(10).Equal(restored.History.Past[0].End))

	// What an older version has written has no history.
	var without map[string]any
	require.NoError(t, json.Unmarshal(data, &without))
	delete(without, "history")
	old, err := json.Marshal(without)
	require.NoError(t, err)
	restored, err = New(limits).Restore(old, Times{}, at(25))
	require.NoError(t, err)
	assert.Zero(t, restored.History.Count)
}

func TestBadHistoriesAreRefused(t *testing.T) {
	many := func(n int) (samples []Sample, past []PastIncident) {
		return make([]Sample, n), make([]PastIncident, n)
	}
	samples, _ := many(MaxSamples + 1)
	_, past := many(MaxPast + 1)
	for name, r := range map[string]historyRecord{
		"too many samples":     {Samples: samples},
		"too many incidents":   {Past: past},
		"negative lag":         {Samples: []Sample{{1, -1}}},
		"samples out of order": {Samples: []Sample{{2, 1}, {1, 1}}},
		"no such status":       {Past: []PastIncident{{Worst: 99}}},
		"negative peak":        {Past: []PastIncident{{PeakLag: -2}}},
		"bad open incident":    {Worst: -7},
		"bad open peak":        {PeakLag: -1},
	} {
		_, err := r.history()
		require.Error(t, err, name)
	}
	h, err := new(historyRecord).history()
	require.NoError(t, err)
	assert.Equal(t, History{}, h)
	assert.Equal(t, time.Time{}, h.Changed)
}
