package groups

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// heard is a notification at a second: status, incident ID, and the second of its start.
type heard struct {
	at     int
	status burrow.Status
	id     string
	start  int
}

func (x heard) notification() *burrow.Notification {
	n := notification("g", int64(x.at))
	n.Group.Status, n.ID = x.status, x.id
	if x.id != "" {
		n.Start = at(x.start)
	}
	return n
}

func describe(e Event) string {
	start := "?"
	if !e.Start.IsZero() {
		start = fmt.Sprint(e.Start.Sub(at(0)).Seconds())
	}
	kind := []string{"opened", "changed", "ended by " + string(e.EndedBy)}[e.Kind]
	return fmt.Sprintf("%s %s since %s at %v: %s to %s", kind, e.ID, start, e.At.Sub(at(0)).Seconds(), e.Previous, e.Status)
}

func TestIncidents(t *testing.T) {
	const ok, warn, bad = burrow.StatusOK, burrow.StatusWarn, burrow.StatusErr
	for name, tc := range map[string]struct {
		told   []heard
		expire int // a second, if any
		events []string
		seen   int64
		// of the last state
		open     string
		duration time.Duration
	}{
		"healthy": {told: []heard{{0, ok, "", 0}, {60, ok, "", 0}}},
		"opens and repeats": {
			told:   []heard{{0, ok, "", 0}, {60, bad, "a", 55}, {120, bad, "a", 55}, {180, bad, "a", 55}},
			events: []string{"opened a since 55 at 60: OK to ERR"},
			seen:   1, open: "a", duration: 125 * time.Second,
		},
		"known from its middle": {
			told:   []heard{{100, warn, "a", -500}},
			events: []string{"opened a since -500 at 100: unknown to WARN"},
			seen:   1, open: "a", duration: 600 * time.Second,
		},
		"start after receipt": {
			told:   []heard{{0, warn, "a", 5}},
			events: []string{"opened a since 5 at 0: unknown to WARN"},
			seen:   1, open: "a", duration: 0,
		},
		"escalates and closes": {
			told:   []heard{{0, warn, "a", 0}, {60, bad, "a", 0}, {120, warn, "a", 0}, {180, ok, "a", 0}, {240, ok, "", 0}},
			events: []string{"opened a since 0 at 0: unknown to WARN", "changed a since 0 at 60: WARN to ERR", "changed a since 0 at 120: ERR to WARN", "ended by close a since 0 at 180: WARN to OK"},
			seen:   1,
		},
		"the same close twice": {
			told:   []heard{{0, bad, "a", 0}, {60, ok, "a", 0}, {61, ok, "a", 0}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by close a since 0 at 60: ERR to OK"},
			seen:   1,
		},
		"close lost": {
			told:   []heard{{0, bad, "a", 0}, {120, ok, "", 0}, {180, bad, "b", 175}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by ok a since 0 at 120: ERR to OK", "opened b since 175 at 180: OK to ERR"},
			seen:   2, open: "b", duration: 5 * time.Second,
		},
		"close without open": {
			told:   []heard{{0, ok, "", 0}, {60, ok, "a", 30}, {120, ok, "a", 30}},
			events: []string{"ended by close a since 30 at 60: OK to OK"},
			seen:   1,
		},
		"renamed by a failover": {
			told:   []heard{{0, bad, "a", 0}, {60, bad, "b", 58}, {120, bad, "b", 58}, {180, ok, "b", 58}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by close b since 0 at 180: ERR to OK"},
			seen:   1,
		},
		"renamed and still open": {
			told:   []heard{{0, bad, "a", 0}, {60, bad, "b", 58}},
			events: []string{"opened a since 0 at 0: unknown to ERR"},
			seen:   1, open: "b", duration: 60 * time.Second,
		},
		"overtaken by its close": {
			told:   []heard{{0, bad, "a", 0}, {60, ok, "a", 0}, {61, bad, "a", 0}, {120, ok, "", 0}, {180, bad, "b", 170}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by close a since 0 at 60: ERR to OK", "opened b since 170 at 180: OK to ERR"},
			seen:   2, open: "b", duration: 10 * time.Second,
		},
		"bare results": {
			told:   []heard{{0, bad, "", 0}, {60, warn, "", 0}, {120, ok, "", 0}},
			events: nil,
		},
		"bare result in an incident": {
			told:   []heard{{0, bad, "a", 0}, {60, warn, "", 0}, {120, ok, "", 0}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "changed a since 0 at 60: ERR to WARN", "ended by ok a since 0 at 120: WARN to OK"},
			seen:   1,
		},
		"expires": {
			told:   []heard{{0, bad, "a", 0}},
			expire: 60,
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by expiry a since 0 at 60: ERR to ERR"},
		},
		"expires healthy": {told: []heard{{0, ok, "", 0}}, expire: 60},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Limits{MaxGroups: 1, MaxPartitions: 1, ExpireAfter: time.Minute})
			table.KeepEvents(100)
			var last *State
			for _, x := range tc.told {
				require.NoError(t, table.Update(x.notification(), at(x.at)))
				last = table.Collect()[0].Current
			}
			if tc.expire > 0 {
				table.Expire(at(tc.expire))
			}
			events, _ := table.Events()
			var got []string
			for _, e := range events {
				got = append(got, describe(e))
			}
			assert.Equal(t, tc.events, got)
			if tc.expire > 0 {
				assert.Empty(t, table.Collect())
				return
			}
			assert.Equal(t, tc.seen, last.Incidents.Seen)
			assert.Equal(t, tc.open, last.Incidents.ID)
			assert.Equal(t, at(tc.told[0].at), last.Incidents.Since)
			duration, known := last.IncidentDuration()
			assert.Equal(t, tc.open != "", known)
			assert.Equal(t, tc.duration, duration)
		})
	}
}

func TestIncidentWithoutStart(t *testing.T) {
	table := New(limits)
	n := notification("g", 1)
	n.ID, n.Group.Status = "a", burrow.StatusErr
	require.NoError(t, table.Update(n, at(0)))
	state := table.Collect()[0].Current
	_, known := state.IncidentDuration()
	assert.False(t, known)
	assert.EqualValues(t, 1, state.Incidents.Seen)
}

func TestEventNamesTheWorstPartitions(t *testing.T) {
	table := New(Limits{MaxGroups: 1, MaxPartitions: 100, ExpireAfter: time.Minute})
	table.KeepEvents(1)
	n := notification("g", 7)
	n.ID, n.Group.Status = "a", burrow.StatusErr
	for p := range int32(30) {
		n.Group.Partitions = append(n.Group.Partitions, burrow.PartitionStatus{Topic: "t", Partition: p, CurrentLag: int64(p % 20)})
	}
	require.NoError(t, table.Update(n, at(0)))
	events, _ := table.Events()
	require.Len(t, events, 1)
	assert.Equal(t, 30, events[0].Listed)
	var worst []int32
	for _, p := range events[0].Worst {
		worst = append(worst, p.Partition)
	}
	assert.Equal(t, []int32{19, 18, 17, 16, 15, 14, 13, 12, 11, 10}, worst)
	assert.EqualValues(t, 7, events[0].TotalLag)
}

func TestEventsWaitAndAreBounded(t *testing.T) {
	table := New(Limits{MaxGroups: 1, MaxPartitions: 1, ExpireAfter: time.Hour})
	table.KeepEvents(3)
	flap := func(second int) {
		status := burrow.StatusOK
		if second%2 == 0 {
			status = burrow.StatusErr
		}
		require.NoError(t, table.Update(heard{second, status, fmt.Sprint("incident ", second/2), second}.notification(), at(second)))
	}
	seconds := func() (list []float64, end int64) {
		events, end := table.Events()
		for _, e := range events {
			list = append(list, e.At.Sub(at(0)).Seconds())
		}
		return list, end
	}
	flap(0)
	flap(1)
	list, end := seconds()
	assert.Equal(t, []float64{0, 1}, list)
	flap(2)
	flap(3) // drops the event of second 0 while it is being handed over
	table.CommitEvents(end)
	list, end = seconds()
	assert.Equal(t, []float64{2, 3}, list)
	table.CommitEvents(end)
	table.CommitEvents(end)
	list, _ = seconds()
	assert.Empty(t, list)
	for second := 4; second < 10; second++ {
		flap(second)
	}
	list, _ = seconds()
	assert.Equal(t, []float64{7, 8, 9}, list, "the newest")
	assert.EqualValues(t, 1+3, table.Stats().EventsDropped)

	silent := New(limits)
	require.NoError(t, silent.Update(heard{0, burrow.StatusErr, "a", 0}.notification(), at(0)))
	events, _ := silent.Events()
	assert.Empty(t, events, "nobody asks")
}
