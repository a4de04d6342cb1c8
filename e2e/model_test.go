package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
)

// notification is one of Burrow's, and what the tests know of the incidents of its group.
type notification struct {
	burrow.Result

	incidents float64
	open      bool
}

// read takes a body in any of its forms.
func read(t testing.TB, body []byte) notification {
	t.Helper()
	n, err := burrow.Read(body)
	require.NoError(t, err, "%s", body)
	return notification{Result: n.Result}
}

// seriesOf is what /metrics must show of the newest notification of each group.
func seriesOf(newest ...notification) map[string]float64 {
	series := map[string]float64{}
	for _, n := range newest {
		add := func(name string, value float64, more ...string) {
			labels := append([]string{label("cluster", n.Cluster), label("group", n.Group)}, more...)
			slices.Sort(labels)
			series[name+"{"+strings.Join(labels, ",")+"}"] = value
		}
		add("burrow_group_status", burrow.Number[n.Status])
		add("burrow_group_total_lag", float64(n.TotalLag))
		add("burrow_group_complete_ratio", n.Complete)
		add("burrow_group_incidents_total", n.incidents)
		if n.open {
			add("burrow_group_incident_duration_seconds", onTheClock)
		}
		if n.MaxLag != nil {
			add("burrow_group_max_lag", float64(n.MaxLag.CurrentLag))
		}
		counts := map[string]float64{"ok": float64(n.PartitionCount), "warn": 0, "stop": 0, "stall": 0, "rewind": 0}
		for _, p := range n.Partitions {
			counts["ok"]--
			counts[strings.ToLower(p.Status)]++
			at := []string{label("topic", p.Topic), label("partition", strconv.Itoa(int(p.Partition)))}
			add("burrow_partition_lag", float64(p.CurrentLag), at...)
			add("burrow_partition_status", burrow.Number[p.Status], at...)
			if p.End != nil {
				add("burrow_partition_committed_offset", float64(p.End.Offset), at...)
			}
		}
		for status, count := range counts {
			add("burrow_group_partitions", count, label("status", status))
		}
	}
	return series
}

func label(name, value string) string { return fmt.Sprintf("%s=%q", name, value) }

// onTheClock stands for a value that depends on when it was asked for. Such values only have to be possible.
const onTheClock = -1

func dependsOnTheClock(series string) bool {
	return strings.HasPrefix(series, "burrow_group_incident_duration_seconds{")
}

// newest keeps the last notification of each group. The recordings have no incident whose ID changes.
type newest map[string]notification

func (m newest) take(n notification) {
	key := n.Cluster + "\x00" + n.Group
	before := m[key]
	// An incident is the time in which the verdict is not OK.
	n.incidents, n.open = before.incidents, n.Status != "OK"
	if n.open && !before.open {
		n.incidents++
	}
	m[key] = n
}

func (m newest) series() map[string]float64 {
	return seriesOf(slices.Collect(maps.Values(m))...)
}
