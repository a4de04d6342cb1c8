package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
	"github.com/lowess/karrot/e2e/internal/local"
)

// fast is a hand-over so soon that a test does not wait for it.
var fast = map[string]string{"KARROT_INTERVAL": "10ms"}

// settled is how long a change may take to be on the page: two seconds are promised with the interval
// of one second that people use.
const settled = 2 * time.Second

func sequence(t testing.TB) []local.Request {
	t.Helper()
	requests, err := local.Sequence(root)
	require.NoError(t, err)
	require.Len(t, requests, 1064)
	return requests
}

// At every recorded change, and now and then between, the page shows what the last notification of
// each group says, and nothing else.
func TestReplayedSequence(t *testing.T) {
	var groups []struct{ Changes []struct{ T_ms int64 } } //nolint:revive // the recording's own key
	require.NoError(t, json.Unmarshal(testdata(t, "sequence-changes.json"), &groups))
	changed := map[int64]bool{}
	for _, group := range groups {
		for _, change := range group.Changes {
			changed[change.T_ms] = true
		}
	}

	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast})
	known := newest{}
	compared := 0
	for i, r := range sequence(t) {
		k.accept(t, []byte(r.Body))
		known.take(read(t, []byte(r.Body)))
		if changed[r.Millis] {
			delete(changed, r.Millis)
		} else if i%25 != 0 {
			continue
		}
		compared++
		k.eventually(t, settled, known.series())
	}
	k.eventually(t, settled, known.series())
	assert.Empty(t, changed, "every recorded change was reached")
	assert.Len(t, known, 19)
	assert.Greater(t, compared, 60)
	own := scrape(t, k.telemetry)
	assert.InDelta(t, 1064, own[`otelcol_receiver_burrow_notifications_total{outcome="accepted",receiver="burrow"}`], 0)
	assert.InDelta(t, len(k.series(t)), own[`otelcol_receiver_burrow_series{receiver="burrow"}`], 0)
	k.stop(t)
}

// Every recorded body is accepted, in the method it was sent with, and is on the page.
func TestRecordedBodies(t *testing.T) {
	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast})
	known := newest{}

	var index []struct{ File, Method, Cluster, Group string }
	require.NoError(t, json.Unmarshal(testdata(t, "notifications", "index.json"), &index))
	require.NotEmpty(t, index)
	for _, recorded := range index {
		body := testdata(t, "notifications", recorded.File)
		status, text := k.send(t, recorded.Method, body)
		require.Equal(t, http.StatusOK, status, "%s: %s", recorded.File, text)
		n := read(t, body)
		assert.Equal(t, recorded.Group, n.Group)
		known.take(n)
	}
	k.eventually(t, settled, known.series())

	var forms []struct{ File, Form, Method string }
	require.NoError(t, json.Unmarshal(testdata(t, "notifications", "forms", "requests.json"), &forms))
	seen := map[string]int{}
	for _, recorded := range forms {
		seen[recorded.Form]++
		body := testdata(t, "notifications", "forms", recorded.File)
		status, text := k.send(t, recorded.Method, body)
		switch recorded.Form {
		case "a", "b", "c", "e":
			require.Equal(t, http.StatusOK, status, "%s: %s", recorded.File, text)
			known.take(read(t, body))
		default:
			require.Equal(t, http.StatusBadRequest, status, recorded.File)
			require.Contains(t, text, "config/burrow/notification.tmpl", recorded.File)
		}
		k.eventually(t, settled, known.series())
	}
	for _, form := range []string{"a", "b", "c", "d", "e", "slack"} {
		assert.Positive(t, seen[form], "form %s", form)
	}
	found, err := filepath.Glob(filepath.Join(root, "testdata", "notifications", "forms", "*.?.json"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(forms)+2, len(found), "the index lists the files")
	k.stop(t)
}

func manyGroups(groups, partitions int, status string) (bodies [][]byte, all newest) {
	all = newest{}
	for g := range groups {
		n := notification{Result: burrow.Result{Cluster: "c", Group: fmt.Sprintf("group-%03d", g), Status: "ERR", Complete: 1, PartitionCount: partitions, TotalLag: uint64(g)}}
		if status == "OK" {
			n.Status = "OK"
		}
		var list []string
		for p := range partitions {
			if status == "OK" {
				break
			}
			n.Partitions = append(n.Partitions, burrow.Partition{Topic: "t", Partition: int32(p), Status: status, CurrentLag: uint64(p), End: &burrow.Commit{Offset: 5}})
			list = append(list, fmt.Sprintf(`{"topic":"t","partition":%d,"status":%q,"current_lag":%d,"end":{"offset":5,"timestamp":1}}`, p, status, p))
		}
		all.take(n)
		bodies = append(bodies, fmt.Appendf(nil, `{"Result":{"cluster":"c","group":%q,"status":%q,"complete":1,"partition_count":%d,"totallag":%d,"partitions":[%s]}}`,
			n.Group, n.Status, partitions, g, strings.Join(list, ",")))
	}
	return bodies, all
}

// Hundreds of series end in one hand-over: first the partitions of 300 groups, then the groups.
func TestManySeriesEndAtOnce(t *testing.T) {
	env := maps.Clone(fast)
	env["KARROT_INTERVAL"], env["KARROT_EXPIRE_AFTER"] = "1s", "4s"
	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: env})
	bodies, bad := manyGroups(300, 5, "STOP")
	for _, body := range bodies {
		k.accept(t, body)
	}
	k.eventually(t, settled, bad.series())
	require.Len(t, bad.series(), 300*(10+5*3))

	bodies, good := manyGroups(300, 5, "OK")
	for _, body := range bodies {
		k.accept(t, body)
	}
	recovered := time.Now()
	for group, n := range good {
		n.incidents = bad[group].incidents
		good[group] = n
	}
	k.eventually(t, settled, good.series())

	k.eventually(t, 4*time.Second+settled, map[string]float64{})
	assert.Greater(t, time.Since(recovered), 3*time.Second, "they were not gone too early")
	own := scrape(t, k.telemetry)
	assert.InDelta(t, 300, own[`otelcol_receiver_burrow_groups_expired_total{receiver="burrow"}`], 0)
	assert.InDelta(t, 0, own[`otelcol_receiver_burrow_series{receiver="burrow"}`], 0)
	assert.InDelta(t, 0, own[`otelcol_receiver_burrow_groups{receiver="burrow"}`], 0)
	k.stop(t)
}
