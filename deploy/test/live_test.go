package deploy

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// running is a Prometheus with the rules, and what it scrapes: a Karrot that got the recorded traffic, one that polls, and
// some for which everything goes wrong.
type running struct {
	prometheus string
	// groups says how many groups the recorded traffic is about.
	groups int
	// since is when the traffic began.
	since time.Time
}

const (
	// everythingIsRefused makes each hand-over fail and the table full with the second group.
	everythingIsRefused = "receivers: {burrow: {max_groups: 1}}\nprocessors: {memory_limiter: {limit_percentage: 0, spike_limit_percentage: 0, limit_mib: 2, spike_limit_mib: 1}}\n"
	// everyMetric switches on what is off by default.
	everyMetric = "receivers: {burrow: {metrics: {burrow.partition.owner: {enabled: true}, burrow.partition.complete: {enabled: true}, burrow.partition.last_commit_timestamp: {enabled: true}, " +
		"burrow.partition.oldest_unread_timestamp: {enabled: true}, burrow.group.oldest_unread_timestamp: {enabled: true}, burrow.group.time_lag_is_lower_bound: {enabled: true}}}}\n"
	replaySpeed = 40
)

func startAll(t *testing.T) *running {
	t.Helper()
	dir := t.TempDir()
	refusing := filepath.Join(dir, "refusing.yaml")
	require.NoError(t, os.WriteFile(refusing, []byte(everythingIsRefused), 0o600))

	karrot := run.StartKarrot(t, root, nil)
	everything := filepath.Join(dir, "everything.yaml")
	require.NoError(t, os.WriteFile(everything, []byte(everyMetric), 0o600))
	polling := run.StartKarrot(t, root, map[string]string{"KARROT_BURROW_API": recordedAPI(t).URL, "KARROT_BURROW_API_INTERVAL": "1s"}, "config/api.yaml", everything)
	refused := run.StartKarrot(t, root, map[string]string{"KARROT_BURROW_API": "http://127.0.0.1:1", "KARROT_BURROW_API_INTERVAL": "1s"}, "config/api.yaml", refusing)
	// It would try for 20 s to hand over its last state.
	t.Cleanup(refused.Kill)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(away.Close)
	denied := run.StartKarrot(t, root, map[string]string{
		"AWS_ENDPOINT_URL": away.URL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example",
		"KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_OTLP_ENDPOINT": "http://127.0.0.1:1",
	}, "config/cloudwatch.yaml", "config/otlp.yaml")

	var targets []string
	for _, k := range []*run.Karrot{karrot, polling, refused, denied} {
		targets = append(targets, k.Page, k.Own)
	}
	r := &running{prometheus: startPrometheus(t, dir, time.Second, map[string]any{"targets": targets}), since: time.Now()}
	// Prometheus must have seen the counters before they count.
	r.waitForSamples(t, `otelcol_receiver_burrow_groups`, 4)

	names := map[string]bool{}
	var last []string
	replay(t, replaySpeed, func(body, group string) {
		status, answer := run.Post(t, "http://"+karrot.Webhook+"/burrow", body)
		require.Equal(t, http.StatusOK, status, answer)
		if !names[group] {
			names[group] = true
			last = append(last, body)
		}
	})
	r.groups = len(names)
	// No recorded group has a lag that shrinks when the traffic ends.
	for _, lag := range []int{3000, 2000, 1000} {
		status, answer := run.Post(t, "http://"+karrot.Webhook+"/burrow", fmt.Sprintf(
			`{"cluster": "east", "group": "draining", "status": "OK", "totallag": %d, "complete": 1, "partition_count": 1, "partitions": []}`, lag))
		require.Equal(t, http.StatusOK, status, answer)
		r.waitForSamples(t, fmt.Sprintf(`burrow_group_total_lag{group="draining"} == %d`, lag), 1)
	}
	for _, body := range append(last, "{", "{}", `{"Event":{}}`) {
		_, _ = run.Post(t, "http://"+refused.Webhook+"/burrow", body)
		_, _ = run.Post(t, "http://"+denied.Webhook+"/burrow", body)
	}
	r.waitForSamples(t, `otelcol_exporter_send_failed_metric_points_total > 0`, 1)
	// Three more scrapes, so that rates have what they need.
	r.waitForSamples(t, `count_over_time(otelcol_exporter_send_failed_metric_points_total[1m]) > 3`, 1)
	return r
}

// startPrometheus starts one with the rules, which scrapes targets of the job karrot.
func startPrometheus(t *testing.T, dir string, interval time.Duration, targets ...any) (address string) {
	t.Helper()
	rules, err := filepath.Abs(prometheusDir + "/karrot.rules.yaml")
	require.NoError(t, err)
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": interval.String(), "scrape_timeout": "1s", "evaluation_interval": interval.String()},
		"rule_files":     []string{rules},
		"scrape_configs": []any{map[string]any{"job_name": "karrot", "static_configs": targets}},
	})
	require.NoError(t, err)
	file := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(file, config, 0o600))
	address = "http://127.0.0.1:" + run.Ports(t, 1)[0]
	p := run.Start(t, dir, nil, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+strings.TrimPrefix(address, "http://"))
	p.Ready(t, time.Minute, address+"/-/ready")
	return address
}

type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) number(t testing.TB) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(s.Value[1].(string), 64)
	require.NoError(t, err)
	return value
}

// query asks for an expression now.
func (r *running) query(t testing.TB, expr string) []sample {
	t.Helper()
	var answer struct {
		Data struct {
			ResultType string
			Result     []sample
		}
	}
	run.GetJSON(t, r.prometheus+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	require.Equal(t, "vector", answer.Data.ResultType, expr)
	return answer.Data.Result
}

func (r *running) waitForSamples(t testing.TB, expr string, atLeast int) {
	t.Helper()
	run.WaitFor(t, 30*time.Second, func() string {
		if found := r.query(t, expr); len(found) < atLeast {
			return fmt.Sprintf("%s has %d series, not %d", expr, len(found), atLeast)
		}
		return ""
	})
}

// labels returns the label names of every metric that has been scraped, and the values of each.
func (r *running) labels(t testing.TB) map[string]map[string]map[string]bool {
	t.Helper()
	var answer struct{ Data []map[string]string }
	run.GetJSON(t, r.prometheus+"/api/v1/series?match[]="+url.QueryEscape(`{job="karrot"}`), &answer)
	require.NotEmpty(t, answer.Data)
	out := map[string]map[string]map[string]bool{}
	for _, series := range answer.Data {
		name := series["__name__"]
		if out[name] == nil {
			out[name] = map[string]map[string]bool{}
		}
		for label, value := range series {
			if out[name][label] == nil {
				out[name][label] = map[string]bool{}
			}
			out[name][label][value] = true
		}
	}
	return out
}

var (
	millis  = regexp.MustCompile(`"(timestamp|observedAt)":(\d{13})`)
	started = regexp.MustCompile(`"Start":"(20[^"]+)"`)
)

// replay gives the recorded notifications in their order and speed times as fast as they came, with all times moved so that
// the last one is of the moment at which the replay ends.
func replay(t *testing.T, speed time.Duration, send func(body, group string)) {
	t.Helper()
	type request struct {
		Millis int64 `json:"t_ms"`
		Body   string
	}
	file, err := os.Open(root + "/testdata/sequence.jsonl.gz")
	require.NoError(t, err)
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	require.NoError(t, err)
	var requests []request
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	var newest int64
	for lines.Scan() {
		var r request
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		for _, found := range millis.FindAllStringSubmatch(r.Body, -1) {
			ms, err := strconv.ParseInt(found[2], 10, 64)
			require.NoError(t, err)
			newest = max(newest, ms)
		}
		requests = append(requests, r)
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, requests)

	begin := time.Now()
	length := time.Duration(requests[len(requests)-1].Millis) * time.Millisecond / speed
	shift := begin.Add(length).Sub(time.UnixMilli(newest))
	var name struct {
		Event struct{ Cluster, Group string }
	}
	for _, r := range requests {
		time.Sleep(time.Until(begin.Add(time.Duration(r.Millis) * time.Millisecond / speed)))
		body := millis.ReplaceAllStringFunc(r.Body, func(text string) string {
			found := millis.FindStringSubmatch(text)
			ms, err := strconv.ParseInt(found[2], 10, 64)
			require.NoError(t, err)
			return fmt.Sprintf(`%q:%d`, found[1], ms+shift.Milliseconds())
		})
		body = started.ReplaceAllStringFunc(body, func(text string) string {
			at, err := time.Parse(time.RFC3339Nano, started.FindStringSubmatch(text)[1])
			require.NoError(t, err)
			return fmt.Sprintf(`"Start":%q`, at.Add(shift).Format(time.RFC3339Nano))
		})
		require.NoError(t, json.Unmarshal([]byte(body), &name))
		send(body, name.Event.Cluster+"/"+name.Event.Group)
	}
}

// recordedAPI answers as the recorded Burrow did.
func recordedAPI(t *testing.T) *httptest.Server {
	t.Helper()
	dir := root + "/testdata/api/"
	text, err := os.ReadFile(dir + "index.json")
	require.NoError(t, err)
	var index []struct {
		File, Method, Path string
		Status             int
	}
	require.NoError(t, json.Unmarshal(text, &index))
	files := map[string]string{}
	for _, a := range index {
		if path, err := url.PathUnescape(a.Path); err == nil && a.Method == http.MethodGet && a.Status == http.StatusOK {
			files[path] = a.File
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := os.ReadFile(dir + files[r.URL.Path])
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return server
}
