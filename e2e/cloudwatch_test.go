package e2e

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
)

var withCloudWatch = []string{"config/karrot.yaml", "config/cloudwatch.yaml"}

// evaluation is what the documents of a notification are made from.
type evaluation burrow.Result

type partition = burrow.Partition

// body is the notification that Burrow would send.
func (e *evaluation) body(t testing.TB) []byte {
	t.Helper()
	if e.Status == "" {
		e.Status = "OK"
	}
	body, err := json.Marshal(map[string]any{"Event": map[string]any{"Result": e}})
	require.NoError(t, err)
	return body
}

// evaluationOf reads a recorded notification.
func evaluationOf(t testing.TB, body []byte) evaluation {
	t.Helper()
	n, err := burrow.Read(body)
	require.NoError(t, err)
	return evaluation(n.Result)
}

// anyValue stands for what depends on the clock or on earlier notifications.
const anyValue = "any"

var dependent = map[string]bool{"burrow.group.incidents": true, "burrow.group.incident.duration": true}

// documents are the values that CloudWatch must get, by document.key().
func (e *evaluation) documents() map[string]map[string]string {
	counts := map[string]int{"OK": e.PartitionCount - len(e.Partitions)}
	group := fmt.Sprintf("cluster=%q group=%q", acceptable(e.Cluster, maxDimensionValue), acceptable(e.Group, maxDimensionValue))
	documents := map[string]map[string]string{}
	for i := range e.Partitions {
		p := &e.Partitions[i]
		counts[p.Status]++
		values := map[string]string{
			"dimensions":              "[[cluster group partition topic]]",
			"burrow.partition.lag":    fmt.Sprint(float64(p.CurrentLag), " Count"),
			"burrow.partition.status": fmt.Sprint(burrow.Number[p.Status], " None"),
		}
		if p.End != nil {
			values["burrow.partition.committed_offset"] = fmt.Sprint(float64(p.End.Offset), " Count")
		}
		documents[fmt.Sprintf(`%s partition="%d" topic=%q`, group, p.Partition, acceptable(p.Topic, maxDimensionValue))] = values
	}
	values := map[string]string{
		"dimensions":             "[[cluster group]]",
		"burrow.group.status":    fmt.Sprint(burrow.Number[e.Status], " None"),
		"burrow.group.total_lag": fmt.Sprint(float64(e.TotalLag), " Count"),
		"burrow.group.complete":  fmt.Sprint(e.Complete, " None"),
		"burrow.group.incidents": anyValue + " Count",
	}
	if e.Status != "OK" {
		values["burrow.group.incident.duration"] = anyValue + " Seconds"
	}
	for _, status := range []string{"OK", "WARN", "STOP", "STALL", "REWIND"} {
		values["burrow.group.partitions."+strings.ToLower(status)] = fmt.Sprint(counts[status], " Count")
	}
	if e.MaxLag != nil {
		values["burrow.group.max_lag"] = fmt.Sprint(float64(e.MaxLag.CurrentLag), " Count")
	}
	documents[group] = values
	return documents
}

var refused = regexp.MustCompile(`^:|[^ -~]`)

// likeRewritten is how a rewritten name ends.
var likeRewritten = regexp.MustCompile(`~[0-9a-f]{8}\z`)

// acceptable is what becomes of a name.
func acceptable(name string, most int) string {
	if !refused.MatchString(name) && !likeRewritten.MatchString(name) && strings.Trim(name, " ") != "" && len(name) <= most {
		return name
	}
	return rewritten(name, most)
}

func rewritten(name string, most int) string {
	suffix := fmt.Sprintf("~%x", sha256.Sum256([]byte(name)))[:9]
	kept := refused.ReplaceAllString(name, "?")
	return kept[:min(len(kept), most-len(suffix))] + suffix
}

// expect waits for exactly these documents behind the first seen ones, each one once.
func (c *cloudwatchLogs) expect(t testing.TB, seen int, want map[string]map[string]string) []document {
	t.Helper()
	waitFor(t, 15*time.Second, func() string {
		if n := len(c.recorded()) - seen; n < len(want) {
			return fmt.Sprintf("%d documents, not %d", n, len(want))
		}
		return ""
	})
	documents := c.documents(t)[seen:]
	got := map[string]map[string]string{}
	for _, d := range documents {
		require.NotContains(t, got, d.key(), "two documents of one group or partition for one notification")
		got[d.key()] = d.values(t)
	}
	require.Equal(t, want, got)
	return documents
}

// Every recorded notification gives one document for the group and one for each listed partition.
func TestCloudWatchDocuments(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: withCloudWatch, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1",
		"KARROT_INTERVAL":            "100ms",
	})})
	files, err := filepath.Glob(filepath.Join(root, "testdata", "notifications", "*.json"))
	require.NoError(t, err)
	require.Greater(t, len(files), 20)

	// Of a group that is notified twice within KARROT_INTERVAL only the newest state is handed on. So each
	// round has one notification of each group.
	var rounds []map[string][]byte
	bodies := map[string][][]byte{}
	for _, file := range files {
		if filepath.Base(file) == "index.json" {
			continue
		}
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		e := evaluationOf(t, body)
		name := e.Cluster + "/" + e.Group
		if len(bodies[name]) == len(rounds) {
			rounds = append(rounds, map[string][]byte{})
		}
		rounds[len(bodies[name])][name] = body
		bodies[name] = append(bodies[name], body)
	}

	var all []document
	for _, round := range rounds {
		seen := len(cw.recorded())
		want := map[string]map[string]string{}
		before := time.Now().UnixMilli()
		for _, body := range round {
			k.accept(t, body)
			e := evaluationOf(t, body)
			maps.Copy(want, e.documents())
		}
		after := time.Now().UnixMilli()
		for _, d := range cw.expect(t, seen, want) {
			assert.GreaterOrEqual(t, d.timestamp, before)
			assert.LessOrEqual(t, d.timestamp, after)
			all = append(all, d)
		}
	}
	logSizes(t, all)
	k.stop(t)
}

// logSizes is where the figures of docs/cloudwatch.md come from.
func logSizes(t testing.TB, documents []document) {
	t.Helper()
	sizes := map[string][]int{}
	for _, d := range documents {
		kind := d.values(t)["dimensions"]
		sizes[kind] = append(sizes[kind], d.bytes)
	}
	for kind, sizes := range sizes {
		slices.Sort(sizes)
		t.Logf("%d documents with dimensions %s: %d to %d bytes, median %d",
			len(sizes), kind, sizes[0], sizes[len(sizes)-1], sizes[len(sizes)/2])
	}
}

// Metrics that are off by default: seconds, and attributes beyond the dimensions.
func TestCloudWatchOptionalMetrics(t *testing.T) {
	optional := filepath.Join(t.TempDir(), "optional.yaml")
	require.NoError(t, os.WriteFile(optional, []byte("receivers: {burrow: {metrics: {burrow.partition.owner: {enabled: true},"+
		" burrow.partition.last_commit_timestamp: {enabled: true}, burrow.partition.complete: {enabled: true}}}}"), 0o600))
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: append(withCloudWatch, optional), Env: cw.env(map[string]string{"KARROT_CLOUDWATCH_INTERVAL": "1"})})
	body := testdata(t, "notifications", "warn.json")
	k.accept(t, body)
	e := evaluationOf(t, body)
	want := e.documents()
	const partition = `cluster="east" group="fraud-check" partition="%d" topic="orders"`
	const owned = `client_id="fraud-0" cluster="east" group="fraud-check" owner="/192.0.2.11" partition="%d" topic="orders"`
	for i := range 2 {
		values := want[fmt.Sprintf(partition, i)]
		values["burrow.partition.complete"] = "1 None"
		values["burrow.partition.last_commit_timestamp"] = fmt.Sprint(1795355236.714, " Seconds")
		want[fmt.Sprintf(owned, i)] = map[string]string{"dimensions": values["dimensions"], "burrow.partition.owner": "1 None"}
	}
	cw.expect(t, 0, want)
	k.stop(t)
}

// config/cloudwatch-lean.yaml: two metrics for each group of the recorded notifications, and nothing of partitions,
// while Prometheus still has everything. Names are rewritten as in cloudwatch.yaml.
func TestCloudWatchLean(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/cloudwatch-lean.yaml"},
		Env:     cw.env(map[string]string{"KARROT_CLOUDWATCH_INTERVAL": "2"}),
	})
	want := map[string]map[string]string{}
	for _, name := range []string{"warn", "stall", "all-50-partitions-stop", "ok", "rewind", "same-group-other-cluster"} {
		body := testdata(t, "notifications", name+".json")
		k.accept(t, body)
		e := evaluationOf(t, body)
		maps.Copy(want, e.lean())
	}
	recorded := len(want)
	logSizes(t, cw.expect(t, 0, want))

	clear(want)
	for i, name := range awkwardNames {
		e := evaluation{Cluster: name, Group: name, Status: "WARN", PartitionCount: 1, TotalLag: uint64(i), Partitions: []partition{{Topic: name, Status: "WARN"}}}
		k.accept(t, e.body(t))
		maps.Copy(want, e.lean())
	}
	require.Len(t, want, len(awkwardNames), "two names have become one")
	cw.expect(t, recorded, want)
	assert.Contains(t, k.series(t), `burrow_partition_lag{cluster="east",group="fraud-check",partition="0",topic="orders"}`)
	k.stop(t)
	assert.NotContains(t, k.log(), "failed to", "a statement of the transformation")
}

// lean is what config/cloudwatch-lean.yaml leaves of an evaluation.
func (e *evaluation) lean() map[string]map[string]string {
	group := *e
	group.Partitions = nil
	documents := group.documents()
	for _, values := range documents {
		maps.DeleteFunc(values, func(name, _ string) bool {
			return name != "dimensions" && name != "burrow.group.status" && name != "burrow.group.total_lag"
		})
	}
	return documents
}

func TestCloudWatchSettings(t *testing.T) {
	t.Run("defaults", func(t *testing.T) {
		t.Parallel()
		cw := newCloudwatchLogs(t)
		cw.streams["/karrot/burrow"] = map[string]bool{}
		k := start(t, options{Configs: withCloudWatch, Env: cw.env(nil)})
		e := evaluation{Cluster: "east", Group: "checkout"}
		k.accept(t, e.body(t))
		time.Sleep(5 * time.Second)
		assert.Empty(t, cw.recorded(), "a push before the 30 s are over")
		k.stop(t)
		require.Len(t, cw.documents(t), 1)
		assert.Equal(t, "GumGum/Kafka/Burrow/ConsumerLag", cw.documents(t)[0].directives[0].Namespace)
		assert.Equal(t, "/karrot/burrow", cw.recorded()[0].Group)
		assert.Equal(t, fakeAccessKey, cw.recorded()[0].AccessKey)
		assert.Empty(t, cw.roles)
		assert.NotContains(t, cw.calls, "CreateLogGroup", "the log group is there already")
	})
	t.Run("variables", func(t *testing.T) {
		t.Parallel()
		cw := newCloudwatchLogs(t)
		k := start(t, options{Configs: withCloudWatch, Env: cw.env(map[string]string{
			"KARROT_CLOUDWATCH_NAMESPACE": "My/Name space",
			"KARROT_CLOUDWATCH_LOG_GROUP": "/my/group",
			"KARROT_CLOUDWATCH_INTERVAL":  "2",
			"KARROT_IAM_ROLE":             "arn:aws:iam::123456789012:role/karrot",
			"KARROT_INTERVAL":             "100ms",
		})})
		for end := time.Now().Add(9 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			e := evaluation{Cluster: "east", Group: "checkout"}
			k.accept(t, e.body(t))
		}
		puts := cw.putTimes()
		require.GreaterOrEqual(t, len(puts), 3)
		for i := 1; i < len(puts); i++ {
			assert.InDelta(t, 2, puts[i].Sub(puts[i-1]).Seconds(), 1, "seconds between two pushes")
		}
		k.stop(t)
		assert.Equal(t, "My/Name space", cw.documents(t)[0].directives[0].Namespace)
		assert.Equal(t, "/my/group", cw.recorded()[0].Group)
		assert.Equal(t, fakeAssumedKey, cw.recorded()[0].AccessKey)
		require.NotEmpty(t, cw.roles)
		assert.Equal(t, "arn:aws:iam::123456789012:role/karrot", cw.roles[0].Get("RoleArn"))
		// Exactly the actions of the policy in docs/cloudwatch.md.
		assert.ElementsMatch(t, []string{"CreateLogGroup", "CreateLogStream", "PutLogEvents"}, slices.Collect(maps.Keys(cw.calls)))
	})
}

// awkwardNames are names that Kafka allows for a group.
var awkwardNames = []string{
	"заказы", "оплата", // of one length
	"??????~c359203e", "??????~c359203e~", "x~C359203E", "~c359203e", "c359203e", // the first is what the first above becomes
	`team "A" <orders> & 'co'`, "tab\there", "line\nbreak", ":leading", "mid:dle", " ", "   ", "~", "?~12345678", "ключ\x7f",
	"cluster", "group", "burrow.group.status", "_aws", "Version",
	strings.Repeat("x", 1024), strings.Repeat("x", 1023) + "\t", strings.Repeat("ж", 512), strings.Repeat("ж", 511) + "xy",
	strings.Repeat("y", 255), strings.Repeat("y", 256), strings.Repeat("y", 257), strings.Repeat("y", 300) + "a", strings.Repeat("y", 300) + "b",
}

func TestCloudWatchNames(t *testing.T) {
	// Not computed by what is tested, nor by what tests it.
	assert.Equal(t, "??????~c359203e", acceptable("заказы", maxDimensionValue))
	for _, file := range []string{"cloudwatch.yaml", "cloudwatch-durable.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			testCloudWatchNames(t, "config/"+file)
		})
	}
}

func testCloudWatchNames(t *testing.T, config string) {
	t.Helper()
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: []string{"config/karrot.yaml", config}, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "2", "KARROT_STORAGE_DIRECTORY": t.TempDir(),
	})})
	want := map[string]map[string]string{}
	for i, name := range awkwardNames {
		e := evaluation{
			Cluster: name, Group: name, Status: "WARN", PartitionCount: 1, TotalLag: uint64(i),
			Partitions: []partition{{Topic: name, Status: "WARN"}},
		}
		k.accept(t, e.body(t))
		maps.Copy(want, e.documents())
	}
	require.Len(t, want, 2*len(awkwardNames), "two names have become one")
	cw.expect(t, 0, want)

	// The receiver's own limit is the one of a dimension's value.
	e := evaluation{Cluster: "east", Group: strings.Repeat("x", 1100)}
	status, _ := k.post(t, e.body(t))
	assert.Equal(t, http.StatusBadRequest, status)
	k.stop(t)
	assert.NotContains(t, k.log(), "failed to execute", "a statement of the transformation")
}

// One hand-over of the receiver, for the documents and for the old names at the same time. Neither log group exists.
func TestCloudWatchManyGroupsAtOnce(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1",
		"KARROT_INTERVAL":            "3s",
	})})
	want := map[string]map[string]string{}
	for i := range 300 {
		e := evaluation{Cluster: "east", Group: fmt.Sprintf("group-%03d", i), PartitionCount: i, TotalLag: uint64(1000 + i)}
		k.accept(t, e.body(t))
		maps.Copy(want, e.documents())
		maps.Copy(want, e.karrot1Document())
	}
	logSizes(t, cw.expect(t, 0, want))
	k.stop(t)
}

// A hand-over near the size at which batch would cut it is delivered in one push, although each of its requests
// takes as long as to a far region.
func TestCloudWatchLargestPush(t *testing.T) {
	cw := newCloudwatchLogs(t)
	cw.setDelay(60 * time.Millisecond)
	k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "300",
		"KARROT_INTERVAL":            "60s",
	})})
	want := map[string]map[string]string{}
	for i := range 4300 { // of 9 points
		e := evaluation{
			Cluster: "east", Group: fmt.Sprintf("some-consumer-group-%04d", i), PartitionCount: 12, TotalLag: uint64(i),
			MaxLag: &partition{Topic: "orders", Status: "OK"},
		}
		k.accept(t, e.body(t))
		maps.Copy(want, e.documents())
		maps.Copy(want, e.karrot1Document())
	}
	begin := time.Now()
	k.stop(t)
	t.Logf("%d documents in %d requests, ended %s after SIGTERM", len(want), len(cw.putTimes()), time.Since(begin).Round(time.Millisecond))
	cw.expect(t, 0, want)
}

// A group that is not heard of any more gets no further document, and certainly not one with a 0.
func TestCloudWatchEndOfSeries(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1",
		"KARROT_EXPIRE_AFTER":        "2s",
	})})
	bad := evaluation{
		Cluster: "east", Group: "checkout", Status: "WARN", PartitionCount: 2, TotalLag: 7,
		Partitions: []partition{{Topic: "orders", Status: "WARN", CurrentLag: 7}},
	}
	k.accept(t, bad.body(t))
	want := bad.documents()
	maps.Copy(want, bad.karrot1Document())
	cw.expect(t, 0, want)
	waitFor(t, 10*time.Second, func() string { return difference(nil, k.series(t)) })
	time.Sleep(2500 * time.Millisecond)
	k.stop(t)
	assert.Len(t, cw.documents(t), len(want))
}

// What was answered with 200 has been delivered when the process ends.
func TestCloudWatchFlushAtShutdown(t *testing.T) {
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "300",
		"KARROT_INTERVAL":            "30s",
	})})
	want := map[string]map[string]string{}
	for i := range 50 {
		e := evaluation{Cluster: "east", Group: fmt.Sprintf("group-%d", i), TotalLag: uint64(i)}
		k.accept(t, e.body(t))
		maps.Copy(want, e.documents())
		maps.Copy(want, e.karrot1Document())
	}
	require.Empty(t, cw.recorded())
	k.stop(t)
	cw.expect(t, 0, want)
}

// A CloudWatch that does not work reaches neither Burrow nor Prometheus, and is used again when it works again.
// KARROT_E2E_OUTAGE and KARROT_E2E_INTERVAL change how long it is away and the seconds between pushes, for measuring.
func TestCloudWatchAway(t *testing.T) {
	outage, err := time.ParseDuration(cmp.Or(os.Getenv("KARROT_E2E_OUTAGE"), "12s"))
	require.NoError(t, err)
	for name, mode := range map[string]cloudwatchMode{
		"hangs": cloudwatchHangs, "throttles": cloudwatchThrottles, "refuses": cloudwatchRefuses, "fails": cloudwatchFails,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cw := newCloudwatchLogs(t)
			cw.set(mode)
			k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: cw.env(map[string]string{
				"KARROT_CLOUDWATCH_INTERVAL": cmp.Or(os.Getenv("KARROT_E2E_INTERVAL"), "5"),
			})})
			group := func(i int) []byte {
				e := evaluation{Cluster: "east", Group: fmt.Sprintf("group-%03d", i%300), PartitionCount: 12}
				return e.body(t)
			}
			for i := range 300 {
				k.accept(t, group(i))
			}

			k.outage(t, outage, group)
			waitFor(t, 20*time.Second, func() string {
				own := scrape(t, k.telemetry)
				for _, exporter := range []string{"awsemf/cloudwatch", "awsemf/karrot1-cloudwatch"} {
					if own[fmt.Sprintf("otelcol_exporter_send_failed_metric_points_total{exporter=%q}", exporter)] == 0 {
						return "no failure counted for " + exporter
					}
				}
				return ""
			})
			assert.Empty(t, cw.recorded())
			status, _ := get(t, k.health)
			assert.Equal(t, http.StatusOK, status)

			cw.set(cloudwatchWorks)
			e := evaluation{Cluster: "east", Group: "back-again", TotalLag: 1}
			want := e.documents()
			maps.Copy(want, e.karrot1Document())
			k.accept(t, e.body(t))
			waitFor(t, 45*time.Second, func() string {
				missing := maps.Clone(want)
				for _, d := range cw.documents(t) {
					delete(missing, d.key())
				}
				return strings.Join(slices.Collect(maps.Keys(missing)), "\n")
			})

			// Away again when the process has to end, with more to deliver than goes into one request.
			cw.set(mode)
			for i := range 300 {
				k.accept(t, group(i))
			}
			begin := time.Now()
			k.stop(t)
			t.Logf("ended %s after SIGTERM", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// With a queue a CloudWatch that hangs reaches nobody at all.
func TestCloudWatchAwayWithQueue(t *testing.T) {
	t.Parallel()
	outage, err := time.ParseDuration(cmp.Or(os.Getenv("KARROT_E2E_OUTAGE"), "12s"))
	require.NoError(t, err)
	logs, metrics := newCloudwatchLogs(t), newCloudwatchMetrics(t)
	for name, test := range map[string]struct {
		cw      cloudwatch
		configs []string
	}{
		"cloudwatch-durable.yaml": {logs, []string{"config/karrot.yaml", "config/cloudwatch-durable.yaml"}},
		"cloudwatch-otlp.yaml":    {metrics, metrics.configs(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.cw.set(cloudwatchHangs)
			k := start(t, options{Configs: test.configs, Env: test.cw.env(map[string]string{
				"KARROT_CLOUDWATCH_INTERVAL": cmp.Or(os.Getenv("KARROT_E2E_INTERVAL"), "5"), "KARROT_STORAGE_DIRECTORY": t.TempDir(),
			})})
			k.outage(t, outage, func(i int) []byte {
				e := evaluation{Cluster: "east", Group: fmt.Sprintf("group-%03d", i%300), PartitionCount: 12}
				return e.body(t)
			})
			assert.Zero(t, scrape(t, k.telemetry)[`otelcol_receiver_burrow_handover_failures_total{receiver="burrow"}`])
			assert.Empty(t, test.cw.samples(t))
			begin := time.Now()
			k.stop(t)
			t.Logf("ended %s after SIGTERM", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// outage posts ten notifications a second for as long and demands quick answers and a page that is up to date. Every
// second notification has a higher lag for one and the same group, so that a scrape shows how old what it sees is.
func (k *karrot) outage(t *testing.T, length time.Duration, group func(int) []byte) {
	t.Helper()
	var answers, scrapes, ages []time.Duration
	sent := []time.Time{time.Now()} // by lag: when the notification was answered
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if time.Since(sent[len(sent)-1]) >= 200*time.Millisecond {
			e := evaluation{Cluster: "east", Group: "probe", TotalLag: uint64(len(sent))}
			for _, body := range [][]byte{group(len(sent)), e.body(t)} {
				begin := time.Now()
				k.accept(t, body)
				answers = append(answers, time.Since(begin))
			}
			sent = append(sent, time.Now())
		}
		begin := time.Now()
		seen := int(k.series(t)[`burrow_group_total_lag{cluster="east",group="probe"}`])
		scrapes = append(scrapes, time.Since(begin))
		age := time.Duration(0)
		if seen+1 < len(sent) {
			age = begin.Sub(sent[seen+1])
		}
		ages = append(ages, age)
	}
	t.Logf("%d answers of the webhook: median %s, p99 %s, max %s; %d scrapes: median %s, p99 %s; age of what they show: median %s, p99 %s, max %s",
		len(answers), quantile(answers, 0.5), quantile(answers, 0.99), quantile(answers, 1),
		len(scrapes), quantile(scrapes, 0.5), quantile(scrapes, 0.99),
		quantile(ages, 0.5), quantile(ages, 0.99), quantile(ages, 1))
	assert.Less(t, quantile(answers, 0.99), time.Second)
	assert.Less(t, quantile(scrapes, 0.99), time.Second)
	// The receiver's interval, one push of 5 s that it may have to wait for, and a second for a busy machine.
	assert.Less(t, quantile(ages, 1), 7*time.Second)
}

func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}
