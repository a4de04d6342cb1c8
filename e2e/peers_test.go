package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/prom"
	"github.com/lowess/karrot/e2e/internal/run"
)

// The tests in this file need other programs, and run with make e2e-peers: moto, which stands in for AWS, in a
// folder of its own; Prometheus and promtool.

// python is that of the folder in which moto is.
func python(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "build", "moto", "bin", "python"))
	require.NoError(t, err)
	require.FileExists(t, path, "run this test with make e2e-peers, which installs moto")
	return path
}

// startMoto starts a server for AWS's APIs and returns its URL.
func startMoto(t *testing.T) string {
	t.Helper()
	address := run.Addresses(t, 1)[0]
	host, port, _ := strings.Cut(address, ":")
	dir := run.KeepOnFailure(t, filepath.Join(root, "build", "e2e-peers"))
	server := run.Program{
		Name: "moto", Path: python(t), Dir: dir,
		Args: []string{"-c", "from moto.server import main; main()", "-H", host, "-p", port},
	}.Start(t)
	server.Ready(t, 2*startTimeout, "http://"+address+"/moto-api/")
	return "http://" + address
}

// storedEvents are all log events that moto has, read by AWS's own client.
func storedEvents(t testing.TB, endpoint string) (events []storedEvent) {
	t.Helper()
	client := exec.CommandContext(t.Context(), python(t), filepath.Join("testdata", "moto", "events.py"), endpoint)
	client.Env = []string{
		"PATH=" + os.Getenv("PATH"), "AWS_DEFAULT_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=dummy", "AWS_SECRET_ACCESS_KEY=dummy",
	}
	output, err := client.Output()
	require.NoError(t, err)
	for line := range bytes.Lines(output) {
		var event storedEvent
		require.NoError(t, json.Unmarshal(line, &event))
		events = append(events, event)
	}
	return events
}

type storedEvent struct {
	Group, Stream, Message string
	Timestamp              int64
}

// What both CloudWatch overlays send is taken by a server for AWS's API that is not ours, and read back by AWS's own
// client: each document once, valid, in the log group of the configuration, for 300 groups and for names that
// CloudWatch refuses.
func TestPeerCloudWatch(t *testing.T) {
	endpoint := startMoto(t)
	k := start(t, options{Configs: append(withCloudWatch, "config/karrot1-cloudwatch.yaml"), Env: map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy",
		"AWS_ENDPOINT_URL": endpoint, "KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_INTERVAL": "2s",
		"KARROT_CLOUDWATCH_LOG_GROUP": "/karrot/test",
	}})
	want := map[string]map[string]string{}
	accept := func(e evaluation) {
		k.accept(t, e.body(t))
		maps.Copy(want, e.documents())
		maps.Copy(want, e.karrot1Document())
	}
	for i := range 300 {
		accept(evaluation{
			Cluster: "east", Group: fmt.Sprintf("group-%03d", i), Status: "WARN", PartitionCount: i + 1, TotalLag: uint64(1000 + i),
			Partitions: []partition{{Topic: "orders", Partition: int32(i), Status: "WARN", CurrentLag: uint64(i)}},
		})
	}
	for i, name := range awkwardNames {
		accept(evaluation{Cluster: "names", Group: name, PartitionCount: 1, TotalLag: uint64(i)})
	}
	// What was answered with 200 has been delivered when the process ends.
	k.stop(t)

	got := map[string]map[string]string{}
	streams := map[string]int{}
	for _, event := range storedEvents(t, endpoint) {
		assert.Equal(t, "/karrot/test", event.Group)
		streams[event.Stream]++
		d, err := decodeDocument([]byte(event.Message))
		require.NoError(t, err, event.Message)
		assert.Empty(t, d.violations(), event.Message)
		assert.Equal(t, d.timestamp, event.Timestamp)
		key := d.key()
		assert.NotContains(t, got, key, "twice")
		got[key] = d.values(t)
	}
	require.Equal(t, want, got)
	t.Logf("%d documents in streams %v", len(got), streams)
}

// startPrometheus starts a Prometheus that scrapes some targets each second and takes remote write. It returns its URL.
func startPrometheus(t *testing.T, targets map[string]string) string {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	require.NoError(t, err, "Prometheus is needed (Debian's package prometheus)")
	dir := run.KeepOnFailure(t, filepath.Join(root, "build", "e2e-peers"))
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n")
	for _, job := range slices.Sorted(maps.Keys(targets)) {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: [%q]}]}\n", job, targets[job])
	}
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config.String()), 0o600))
	address := run.Addresses(t, 1)[0]
	run.Program{
		Name: "prometheus", Path: path, Dir: dir,
		Args: []string{
			"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address,
			"--web.enable-remote-write-receiver", "--log.level=warn",
		},
	}.Start(t).Ready(t, 2*startTimeout, "http://"+address+"/-/ready")
	return "http://" + address
}

// inPrometheus are the series of Burrow that a Prometheus has now, without the labels it adds.
func inPrometheus(t testing.TB, server, selector string) map[string]float64 {
	t.Helper()
	answer, err := prom.Query(t.Context(), server, selector, time.Now())
	require.NoError(t, err)
	page := map[string]float64{}
	for _, series := range answer {
		labels := maps.Clone(series.Labels)
		name := labels["__name__"]
		for _, added := range []string{"__name__", "job", "instance"} {
			delete(labels, added)
		}
		id := prom.ID(name, labels)
		value := series.Points[len(series.Points)-1].Value
		if dependsOnTheClock(id) {
			value = onTheClock
		}
		page[id] = value
	}
	return page
}

var (
	recordedMillis  = regexp.MustCompile(`"(timestamp|observedAt)":(\d{13})\b`)
	recordedInstant = regexp.MustCompile(`"Start":"(20[^"]+)"`)
)

// moved is a recorded body whose times are those of a recording that is later by so much.
func moved(t testing.TB, body string, by time.Duration) []byte {
	t.Helper()
	body = recordedMillis.ReplaceAllStringFunc(body, func(field string) string {
		parts := recordedMillis.FindStringSubmatch(field)
		millis, err := strconv.ParseInt(parts[2], 10, 64)
		require.NoError(t, err)
		return fmt.Sprintf("%q:%d", parts[1], millis+by.Milliseconds())
	})
	return []byte(recordedInstant.ReplaceAllStringFunc(body, func(field string) string {
		at, err := time.Parse(time.RFC3339Nano, recordedInstant.FindStringSubmatch(field)[1])
		require.NoError(t, err)
		return fmt.Sprintf("%q:%q", "Start", at.Add(by).Format(time.RFC3339Nano))
	}))
}

// newestMillis is the newest time in a body.
func newestMillis(t testing.TB, body string) (newest int64) {
	t.Helper()
	for _, match := range recordedMillis.FindAllStringSubmatch(body, -1) {
		millis, err := strconv.ParseInt(match[2], 10, 64)
		require.NoError(t, err)
		newest = max(newest, millis)
	}
	return newest
}

// A Prometheus that scrapes Karrot while the recorded traffic arrives has in the end what the newest notifications say
// and nothing else, and every query of docs/metrics.md selects of it what its comment says.
func TestPeerPrometheus(t *testing.T) {
	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast})
	server := startPrometheus(t, map[string]string{
		"karrot": strings.TrimSuffix(strings.TrimPrefix(k.metrics, "http://"), "/metrics"), "telemetry": strings.TrimSuffix(strings.TrimPrefix(k.telemetry, "http://"), "/metrics"),
	})
	requests := sequence(t)
	last := int64(0)
	for _, r := range requests {
		last = max(last, newestMillis(t, r.Body))
	}
	require.Positive(t, last, "the recording has times")
	shift := time.Since(time.UnixMilli(last))
	known := newest{}
	for _, r := range requests {
		body := moved(t, r.Body, shift)
		k.accept(t, body)
		known.take(read(t, body))
	}
	const burrows = `{__name__=~"burrow_.+"}`
	waitFor(t, 10*time.Second, func() string {
		page := inPrometheus(t, server, burrows)
		return withoutTimeLags(page) + difference(known.series(), page)
	})
	waitFor(t, 10*time.Second, func() string {
		// Karrot's own metrics are another page, which is scraped at another moment.
		answer, err := prom.Query(t.Context(), server, `otelcol_receiver_burrow_notifications_total{outcome="accepted"}`, time.Now())
		if err != nil || len(answer) != 1 || answer[0].Points[0].Value != float64(len(requests)) {
			return fmt.Sprint(answer, err)
		}
		return ""
	})

	text, err := prom.Fetch(t.Context(), k.metrics)
	require.NoError(t, err)
	page, err := prom.Parse(text)
	require.NoError(t, err)
	over := func(name, label string, limit float64) int {
		n := 0
		for id, value := range page {
			if strings.HasPrefix(id, name+"{") && value > limit && strings.Contains(id, label) {
				n++
			}
		}
		return n
	}
	full, clusters := 0, map[string]bool{}
	for id, value := range page {
		if cluster, found := strings.CutPrefix(id, `burrow_group_status{cluster="`); found {
			cluster, _, _ = strings.Cut(cluster, `"`)
			clusters[cluster] = true
		}
		if labels, found := strings.CutPrefix(id, "burrow_group_status"); found && value == 3 && page["burrow_group_complete_ratio"+labels] == 1 {
			full++
		}
	}
	results := map[string]int{
		`burrow_group_status > 1`:                    over("burrow_group_status", "", 1),
		`burrow_group_partitions{status="stop"} > 0`: over("burrow_group_partitions", `status="stop"`, 0),
		`burrow_group_status == 3 and on (cluster, group) burrow_group_complete_ratio == 1`:              full,
		`burrow_group_incident_duration_seconds > 600`:                                                   over("burrow_group_incident_duration_seconds", "", 600),
		`topk(10, burrow_partition_lag)`:                                                                 10,
		`max_over_time(burrow_group_max_time_lag_seconds[10m]) > 600`:                                    over("burrow_group_max_time_lag_seconds", "", 600),
		`burrow_group_partitions_ahead > 0`:                                                              over("burrow_group_partitions_ahead", "", 0),
		`time() - burrow_group_oldest_unread_timestamp_seconds > 600`:                                    0, // off by default
		`time() - max by (cluster) (otelcol_receiver_burrow_last_moved_timestamp_seconds) > 120`:         0,
		`time() - max by (job, receiver) (otelcol_receiver_burrow_last_contact_timestamp_seconds) > 180`: 0,
	}
	for _, positive := range []string{`burrow_group_status > 1`, `burrow_group_partitions{status="stop"} > 0`} {
		require.Positive(t, results[positive], "the recording has something for %s", positive)
	}
	queries := documentedQueries(t)
	require.GreaterOrEqual(t, len(queries), len(results))
	for _, query := range queries {
		want, known := results[query]
		answer, err := prom.Query(t.Context(), server, query, time.Now())
		require.NoError(t, err, query)
		if assert.True(t, known, "docs/metrics.md has a query that this test does not know: %s", query) {
			assert.Len(t, answer, want, query)
		}
	}
	t.Logf("results of the documented queries: %v", results)
	// The recording is too short for some of them. With lower limits they find something.
	for query, want := range map[string]int{
		`burrow_group_incident_duration_seconds > 60`:                                                   over("burrow_group_incident_duration_seconds", "", 60),
		`burrow_group_max_time_lag_seconds > 60`:                                                        over("burrow_group_max_time_lag_seconds", "", 60),
		`time() - max by (job, receiver) (otelcol_receiver_burrow_last_contact_timestamp_seconds) > -1`: 1,
		`time() - max by (cluster) (otelcol_receiver_burrow_last_moved_timestamp_seconds) > -1`:         len(clusters),
	} {
		require.Positive(t, want, query)
		answer, err := prom.Query(t.Context(), server, query, time.Now())
		require.NoError(t, err, query)
		assert.Len(t, answer, want, query)
	}
	k.stop(t)
}

// documentedQueries are those of docs/metrics.md.
func documentedQueries(t testing.TB) (queries []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	require.NoError(t, err)
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				queries = append(queries, line)
			}
		}
	}
	return queries
}

// promtool finds nothing to complain of on the page and in Karrot's own telemetry.
func TestPeerPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	require.NoError(t, err, "promtool is needed (Debian's package prometheus)")
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml"},
		Env:     map[string]string{"KARROT_INTERVAL": "10ms", "KARROT_BURROW_API": recordedAPI(t).URL, "KARROT_BURROW_API_INTERVAL": "1s"},
	})
	k.accept(t, testdata(t, "notifications", "warn.json"))
	waitFor(t, 10*time.Second, func() string {
		for id := range k.series(t) {
			if strings.HasPrefix(id, "burrow_topic_offset") {
				return ""
			}
		}
		return "nothing was polled"
	})
	check := func(text string) (string, error) {
		command := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		command.Stdin = strings.NewReader(text)
		output, err := command.CombinedOutput()
		return string(output), err
	}
	for _, url := range []string{k.metrics, k.telemetry} {
		text, err := prom.Fetch(context.Background(), url)
		require.NoError(t, err)
		require.Contains(t, text, "burrow_")
		output, err := check(text)
		require.NoError(t, err, "%s: %s", url, output)
		assert.Empty(t, output, url)
	}
	output, err := check("# TYPE wrong_total gauge\nwrong_total 1\n")
	require.Error(t, err, "promtool finds what is wrong")
	require.NotEmpty(t, output)
	k.stop(t)
}

// comeAndGo has hundreds of partitions go bad and recover, and their groups expire, and demands each time that a backend
// has exactly the series that hold.
func (k *karrot) comeAndGo(t *testing.T, backend func() map[string]float64) {
	t.Helper()
	same := func(want map[string]float64) {
		t.Helper()
		waitFor(t, 10*time.Second, func() string {
			page := backend()
			return withoutTimeLags(page) + difference(want, page)
		})
	}
	known := newest{}
	for _, status := range []string{"STOP", "OK"} {
		bodies, _ := manyGroups(100, 5, status)
		for _, body := range bodies {
			k.accept(t, body)
			known.take(read(t, body))
		}
		same(known.series())
	}
	same(map[string]float64{})
	k.stop(t)
}

// What config/remote-write.yaml writes into a Prometheus is what stands on the page, ends included.
func TestPeerRemoteWrite(t *testing.T) {
	server := startPrometheus(t, nil)
	env := maps.Clone(fast)
	env["KARROT_REMOTE_WRITE_ENDPOINT"] = server + "/api/v1/write"
	env["KARROT_EXPIRE_AFTER"] = "4s"
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/remote-write.yaml"}, Env: env})
	k.comeAndGo(t, func() map[string]float64 { return inPrometheus(t, server, `{__name__=~"burrow_.+"}`) })
}

// What config/otlp.yaml sends is, behind a collector that was built from somebody else's manifest, what stands on the
// page, ends included.
func TestPeerOTLP(t *testing.T) {
	path := foreignCollector(t)
	dir := run.KeepOnFailure(t, filepath.Join(root, "build", "e2e-peers"))
	addresses := run.Addresses(t, 2)
	backend := run.Program{
		Name: "collector", Path: path, Dir: dir,
		Args: []string{"--config", fill(t, dir, "otlp.yaml", "@OTLP@", addresses[0], "@PAGE@", addresses[1])},
	}.Start(t)
	backend.Listens(t, startTimeout, addresses[0])
	backend.Listens(t, startTimeout, addresses[1])
	env := maps.Clone(fast)
	env["KARROT_OTLP_ENDPOINT"] = "http://" + addresses[0]
	env["KARROT_EXPIRE_AFTER"] = "4s"
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/otlp.yaml"}, Env: env})
	k.comeAndGo(t, func() map[string]float64 { return scrape(t, "http://"+addresses[1]+"/metrics") })
}
