package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// notification is what the tests read of a body: enough to say which series there must be.
type notification struct {
	Cluster, Group, Status string
	Complete               float64
	PartitionCount         float64 `json:"partition_count"`
	TotalLag               float64
	MaxLag                 *listed
	Partitions             []listed
}

type listed struct {
	Topic, Status string
	Partition     int
	CurrentLag    float64 `json:"current_lag"`
	End           *struct{ Offset float64 }
}

// read takes a body in any of its forms.
func read(t testing.TB, body []byte) notification {
	t.Helper()
	type form struct {
		notification
		Result *notification
		Event  *struct{ Result notification }
	}
	var f form
	require.NoError(t, json.Unmarshal(body, &f), "%s", body)
	switch {
	case f.Event != nil:
		return f.Event.Result
	case f.Result != nil:
		return *f.Result
	default:
		return f.notification
	}
}

var statusNumbers = map[string]float64{"OK": 1, "WARN": 2, "ERR": 3, "STOP": 4, "STALL": 5, "REWIND": 6}

// seriesOf is what /metrics must show of the newest notification of each group.
func seriesOf(newest ...notification) map[string]float64 {
	series := map[string]float64{}
	for _, n := range newest {
		add := func(name string, value float64, more ...string) {
			labels := append([]string{label("cluster", n.Cluster), label("group", n.Group)}, more...)
			slices.Sort(labels)
			series[name+"{"+strings.Join(labels, ",")+"}"] = value
		}
		add("burrow_group_status", statusNumbers[n.Status])
		add("burrow_group_total_lag", n.TotalLag)
		add("burrow_group_complete_ratio", n.Complete)
		if n.MaxLag != nil {
			add("burrow_group_max_lag", n.MaxLag.CurrentLag)
		}
		counts := map[string]float64{"ok": n.PartitionCount, "warn": 0, "stop": 0, "stall": 0, "rewind": 0}
		for _, p := range n.Partitions {
			counts["ok"]--
			counts[strings.ToLower(p.Status)]++
			at := []string{label("topic", p.Topic), label("partition", strconv.Itoa(p.Partition))}
			add("burrow_partition_lag", p.CurrentLag, at...)
			add("burrow_partition_status", statusNumbers[p.Status], at...)
			if p.End != nil {
				add("burrow_partition_committed_offset", p.End.Offset, at...)
			}
		}
		for status, count := range counts {
			add("burrow_group_partitions", count, label("status", status))
		}
	}
	return series
}

func label(name, value string) string { return fmt.Sprintf("%s=%q", name, value) }

// newest keeps the last notification of each group.
type newest map[string]notification

func (m newest) take(n notification) { m[n.Cluster+"\x00"+n.Group] = n }

func (m newest) series() map[string]float64 {
	return seriesOf(slices.Collect(maps.Values(m))...)
}
