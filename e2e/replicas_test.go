package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// What docs/high-availability.md says of two Karrots.

// Two behind one Service get every second notification each. Each shows what it was told last, and neither the truth.
func TestTwoReplicasBehindOneServiceContradictEachOther(t *testing.T) {
	env := map[string]string{"KARROT_INTERVAL": "10ms", "KARROT_EXPIRE_AFTER": "5s"}
	a, b := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: env}), start(t, options{Configs: []string{"config/karrot.yaml"}, Env: env})
	for i, name := range []string{"escalate-1-warn", "escalate-2-err", "escalate-3-close"} {
		body := testdata(t, "notifications", name+".json")
		[]*karrot{a, b}[i%2].accept(t, body)
	}
	group := read(t, testdata(t, "notifications", "escalate-2-err.json")).Result
	labels := `{cluster="` + group.Cluster + `",group="` + group.Group + `"}`
	// a had the first bad verdict and the OK, b only the second bad verdict.
	for k, status := range map[*karrot]float64{a: 1, b: 3} {
		waitFor(t, settled, func() string {
			return difference(map[string]float64{"status": status, "incidents": 1}, map[string]float64{
				"status": k.series(t)["burrow_group_status"+labels], "incidents": k.series(t)["burrow_group_incidents_total"+labels],
			})
		})
	}
	assert.Contains(t, b.series(t), "burrow_group_incident_duration_seconds"+labels, "b has an incident that is over")
	listed := func(k *karrot) (n int) {
		for id := range k.series(t) {
			if strings.HasPrefix(id, "burrow_partition_status{") {
				n++
			}
		}
		return n
	}
	assert.Zero(t, listed(a), "all partitions have recovered")
	assert.Positive(t, listed(b), "b has not received that")
	// It ends by expiry, and not before.
	b.eventually(t, 2*settled+5*time.Second, map[string]float64{})
	a.stop(t)
	b.stop(t)
}

// Two that are both told show the same.
func TestTwoThatAreBothToldAgree(t *testing.T) {
	a, b := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast}), start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast})
	for _, name := range []string{"escalate-1-warn", "escalate-2-err", "stall", "all-50-partitions-stop", "ok", "escalate-3-close"} {
		body := testdata(t, "notifications", name+".json")
		a.accept(t, body)
		b.accept(t, body)
	}
	agree(t, a, b)
	// Both counted the incident that opened and ended.
	group := read(t, testdata(t, "notifications", "escalate-3-close.json")).Result
	for _, k := range []*karrot{a, b} {
		assert.InDelta(t, 1, k.series(t)[`burrow_group_incidents_total{cluster="`+group.Cluster+`",group="`+group.Group+`"}`], 0)
		assert.NotContains(t, k.series(t), `burrow_group_incident_duration_seconds{cluster="`+group.Cluster+`",group="`+group.Group+`"}`)
	}
	a.stop(t)
	b.stop(t)
}

// Two that poll one Burrow show the same.
func TestTwoThatPollAgree(t *testing.T) {
	burrow := recordedAPI(t)
	env := map[string]string{"KARROT_INTERVAL": "10ms", "KARROT_BURROW_API": burrow.URL, "KARROT_BURROW_API_INTERVAL": "1s"}
	configs := []string{"config/karrot.yaml", "config/api.yaml"}
	a, b := start(t, options{Configs: configs, Env: env}), start(t, options{Configs: configs, Env: env})
	agree(t, a, b)
	a.stop(t)
	b.stop(t)
}

// agree waits until two show the same groups, except for the moment in which each was told.
func agree(t *testing.T, a, b *karrot) {
	t.Helper()
	waitFor(t, 5*settled, func() string {
		one, other := a.series(t), b.series(t)
		if len(one) < 50 {
			return "there are not all groups yet"
		}
		return withoutTimeLags(one) + withoutTimeLags(other) + difference(one, other)
	})
}
