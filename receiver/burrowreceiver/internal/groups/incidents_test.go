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

// polledAt is an answer of the API, which has no ID.
const polledAt = "polled"

func (x heard) notification() *burrow.Notification {
	n := notification("g", int64(x.at))
	n.Group.Status, n.ID = x.status, x.id
	if x.id != "" {
		n.Start = at(x.start)
	}
	return n
}

func (x heard) bring(t *testing.T, table *Table) {
	t.Helper()
	if x.id == polledAt {
		x.id = ""
		require.NoError(t, table.UpdateFromAPI(&x.notification().Group, at(x.at)))
		return
	}
	require.NoError(t, table.Update(x.notification(), at(x.at)))
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
		// Nobody said that it was bad.
		"close without open": {told: []heard{{0, ok, "", 0}, {60, ok, "a", 30}, {120, ok, "a", 30}}},
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
		"bad again under the old ID, and stays so": {
			told: []heard{{0, bad, "a", 0}, {60, ok, "a", 0}, {70, bad, "a", 0}, {130, bad, "a", 0}, {190, ok, "a", 0}},
			events: []string{
				"opened a since 0 at 0: unknown to ERR", "ended by close a since 0 at 60: ERR to OK",
				"opened a since 70 at 130: OK to ERR", "ended by close a since 70 at 190: ERR to OK",
			},
			seen: 2,
		},
		"a Burrow whose clock is two days behind": {
			told: []heard{{0, bad, "a", -172800}, {60, ok, "a", -172800}, {61, bad, "b", -172740}, {120, ok, "b", -172740}},
			events: []string{
				"opened a since -172800 at 0: unknown to ERR", "ended by close a since -172800 at 60: ERR to OK",
				"opened b since -172740 at 61: OK to ERR", "ended by close b since -172740 at 120: ERR to OK",
			},
			seen: 2,
		},
		"bare results": {
			told:   []heard{{0, bad, "", 0}, {60, warn, "", 0}, {120, ok, "", 0}},
			events: []string{"opened ccbb621aab0e373b-karrot since 0 at 0: unknown to ERR", "changed ccbb621aab0e373b-karrot since 0 at 60: ERR to WARN", "ended by ok ccbb621aab0e373b-karrot since 0 at 120: WARN to OK"},
			seen:   1,
		},
		"polled alone": {
			told: []heard{{0, ok, polledAt, 0}, {30, bad, polledAt, 0}, {60, bad, polledAt, 0}, {90, ok, polledAt, 0}, {120, warn, polledAt, 0}},
			events: []string{
				"opened df671c69f7051386-karrot since 30 at 30: OK to ERR", "ended by poll df671c69f7051386-karrot since 30 at 90: ERR to OK", "opened 717fd68ebf918dd4-karrot since 120 at 120: OK to WARN",
			},
			seen: 2,
		},
		"polled first, then notified": {
			told:   []heard{{30, bad, polledAt, 0}, {40, bad, "a", 25}, {60, bad, polledAt, 0}, {90, ok, polledAt, 0}, {95, ok, "a", 25}, {120, ok, "", 0}},
			events: []string{"opened df671c69f7051386-karrot since 30 at 30: unknown to ERR", "ended by poll a since 25 at 90: ERR to OK"},
			seen:   1,
		},
		"polled from end to end, and then closed": {
			told:   []heard{{30, bad, polledAt, 0}, {90, ok, polledAt, 0}, {95, ok, "a", 25}, {120, bad, polledAt, 0}, {130, bad, "b", 118}, {180, ok, "b", 118}},
			events: []string{"opened df671c69f7051386-karrot since 30 at 30: unknown to ERR", "ended by poll df671c69f7051386-karrot since 30 at 90: ERR to OK", "opened 717fd68ebf918dd4-karrot since 120 at 120: OK to ERR", "ended by close b since 118 at 180: ERR to OK"},
			seen:   2,
		},
		"notified, and overtaken by a poll": {
			told:   []heard{{0, bad, "a", 0}, {60, ok, polledAt, 0}, {61, bad, "a", 0}, {90, ok, polledAt, 0}, {95, ok, "a", 0}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by poll a since 0 at 60: ERR to OK"},
			seen:   1,
		},
		"overtaken by polls from end to end": {
			told:   []heard{{0, bad, polledAt, 0}, {30, ok, polledAt, 0}, {31, bad, "a", -5}, {35, ok, "a", -5}},
			events: []string{"opened ccbb621aab0e373b-karrot since 0 at 0: unknown to ERR", "ended by poll ccbb621aab0e373b-karrot since 0 at 30: ERR to OK"},
			seen:   1,
		},
		"restarted Burrow, polled and notified": {
			told:   []heard{{0, bad, "a", 0}, {30, bad, polledAt, 0}, {200, bad, "b", 190}, {210, bad, polledAt, 0}, {260, ok, "b", 190}},
			events: []string{"opened a since 0 at 0: unknown to ERR", "ended by close b since 0 at 260: ERR to OK"},
			seen:   1,
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
				x.bring(t, table)
				last = current(t, table)
			}
			if tc.expire > 0 {
				table.Expire(at(tc.expire))
			}
			var got []string
			for _, e := range table.TakeEvents(100) {
				got = append(got, describe(e))
			}
			assert.Equal(t, tc.events, got)
			if tc.expire > 0 {
				assert.Empty(t, collect(table, at(tc.expire)))
				return
			}
			assert.Equal(t, tc.seen, last.Incidents.Seen)
			assert.Equal(t, tc.open, last.Incidents.ID)
			assert.Equal(t, at(tc.told[0].at), last.Incidents.Since)
			duration, known := last.IncidentDuration()
			assert.Equal(t, last.Group.Status > ok, known)
			assert.Equal(t, last.Group.Status > ok, last.Incidents.Open)
			assert.Equal(t, tc.duration, duration)
		})
	}
}

func TestIncidentWithoutStart(t *testing.T) {
	table := New(limits)
	n := notification("g", 1)
	n.ID, n.Group.Status = "a", burrow.StatusErr
	require.NoError(t, table.Update(n, at(0)))
	state := current(t, table)
	assert.Equal(t, at(0), state.Incidents.Start, "since Karrot knows")
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
	events := table.TakeEvents(10)
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
	seconds := func(most int) (list []float64) {
		for _, e := range table.TakeEvents(most) {
			list = append(list, e.At.Sub(at(0)).Seconds())
		}
		return list
	}
	for second := range 3 {
		flap(second)
	}
	assert.Equal(t, []float64{0, 1}, seconds(2), "the oldest")
	assert.Equal(t, []float64{2}, seconds(2))
	assert.Empty(t, seconds(2))
	for second := 3; second < 10; second++ {
		flap(second)
	}
	assert.Equal(t, []float64{7, 8, 9}, seconds(10), "the newest")
	table.DropEvents(3)
	assert.EqualValues(t, 4+3, table.Stats().EventsDropped)

	silent := New(limits)
	require.NoError(t, silent.Update(heard{0, burrow.StatusErr, "a", 0}.notification(), at(0)))
	assert.Empty(t, silent.TakeEvents(10), "nobody asks")
}
