package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// karrot1Document is the document that carries the CloudWatch metric of Karrot 1, by document.key().
func (e *evaluation) karrot1Document() map[string]map[string]string {
	name := acceptable(e.Group, maxMetricName)
	switch e.Group {
	case "_aws", "Version", "karrot.cluster", "karrot.group":
		name = rewritten(e.Group, maxMetricName)
	}
	return map[string]map[string]string{
		fmt.Sprintf("karrot.cluster=%q karrot.group=%q", e.Cluster, name): {
			"dimensions": "[[]]",
			name:         fmt.Sprint(float64(e.TotalLag), " Count"),
		},
	}
}

func TestKarrot1CloudWatch(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/karrot1-cloudwatch.yaml"},
		Env:     cw.env(map[string]string{"KARROT_CLOUDWATCH_INTERVAL": "2", "KARROT_CLOUDWATCH_NAMESPACE": "Old"}),
	})
	want := map[string]map[string]string{}
	names := append([]string{"checkout", "karrot.cluster", "karrot.group", "karrot_cluster"}, awkwardNames...)
	for i, name := range names {
		// Equal names in two clusters are values of one metric, and both must arrive.
		for c, cluster := range []string{"east", "запад"} {
			e := evaluation{
				Cluster: cluster, Group: name, Status: "WARN", PartitionCount: 1, TotalLag: uint64(10*i + c),
				Partitions: []partition{{Topic: "orders", Status: "WARN"}},
			}
			k.accept(t, e.body(t))
			maps.Copy(want, e.karrot1Document())
		}
	}
	require.Len(t, want, 2*len(names), "two names have become one")
	for _, d := range cw.expect(t, 0, want) {
		require.Equal(t, "Old", d.directives[0].Namespace)
	}
	k.stop(t)
}

func TestKarrot1Prometheus(t *testing.T) {
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/karrot1-prometheus.yaml"},
		Env:     map[string]string{"KARROT_EXPIRE_AFTER": "2s", "KARROT_INTERVAL": "100ms"},
	})
	old := func() map[string]float64 {
		series := k.series(t)
		maps.DeleteFunc(series, func(name string, _ float64) bool { return strings.HasPrefix(name, "burrow_") })
		return series
	}
	stays := evaluation{Cluster: "east", Group: "stays", TotalLag: 1}
	want := map[string]float64{}
	for i := range 50 {
		e := evaluation{Cluster: "east", Group: fmt.Sprintf("goes-%d", i), TotalLag: uint64(i)}
		k.accept(t, e.body(t))
		want[fmt.Sprintf(`karrot_consumer_lag{cluster="east",consumer="goes-%d"}`, i)] = float64(i)
	}
	k.accept(t, stays.body(t))
	want[`karrot_consumer_lag{cluster="east",consumer="stays"}`] = 1
	waitFor(t, 2*time.Second, func() string { return difference(want, old()) })
	status, page := get(t, k.metrics)
	require.Equal(t, 200, status)
	require.Contains(t, page, "# HELP karrot_consumer_lag Total lag accumulated by the consumer\n# TYPE karrot_consumer_lag gauge\n")
	require.Contains(t, page, "burrow_group_total_lag{")

	// Many series end in one hand-over in which others go on.
	end := time.Now().Add(10 * time.Second)
	for {
		stays.TotalLag++
		k.accept(t, stays.body(t))
		time.Sleep(200 * time.Millisecond)
		left := difference(map[string]float64{`karrot_consumer_lag{cluster="east",consumer="stays"}`: float64(stays.TotalLag)}, old())
		if left == "" {
			break
		}
		require.True(t, time.Now().Before(end), left)
	}
	k.stop(t)
}
