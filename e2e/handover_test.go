package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// illBackend takes OTLP, unless it is told to be ill.
type illBackend struct {
	*httptest.Server
	behave   atomic.Pointer[http.HandlerFunc] // nil: it takes everything
	requests atomic.Int64

	mu      sync.Mutex
	held    map[string]bool // series that it has
	points  int
	largest int
}

func newIllBackend(t testing.TB) *illBackend {
	t.Helper()
	b := &illBackend{held: map[string]bool{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

func (b *illBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.requests.Add(1)
	body, _ := io.ReadAll(r.Body)
	if behave := b.behave.Load(); behave != nil {
		(*behave)(w, r)
		return
	}
	if len(body) > 20<<20 {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/v1/metrics") {
		request := pmetricotlp.NewExportRequest()
		if err := request.UnmarshalProto(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.take(request, len(body))
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (b *illBackend) take(request pmetricotlp.ExportRequest, size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.largest = max(b.largest, size)
	for _, rm := range request.Metrics().ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				var points pmetric.NumberDataPointSlice
				if metric.Type() == pmetric.MetricTypeSum {
					points = metric.Sum().DataPoints()
				} else {
					points = metric.Gauge().DataPoints()
				}
				for _, point := range points.All() {
					id := metric.Name() + fmt.Sprint(point.Attributes().AsRaw())
					if b.points++; point.Flags().NoRecordedValue() {
						delete(b.held, id)
					} else {
						b.held[id] = true
					}
				}
			}
		}
	}
}

// count is the number of series that it has of a group; of all for "".
func (b *illBackend) count(group string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.held {
		if group == "" || strings.Contains(id, "group:"+group+" ") || strings.Contains(id, "group:"+group+"]") {
			n++
		}
	}
	return n
}

// directOTLP sends metrics and logs without a queue, so that every refusal comes back to the receiver.
const directOTLP = `
exporters:
  otlp_http/direct:
    endpoint: ${env:KARROT_OTLP_ENDPOINT}
    compression: none
    timeout: 10s
    sending_queue: {enabled: false}
    retry_on_failure: {enabled: false}
service:
  pipelines:
    metrics/direct: {receivers: [burrow], exporters: [otlp_http/direct]}
    logs/direct: {receivers: [burrow], exporters: [otlp_http/direct]}
`

func overlayFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overlay.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// listing is a bad group that lists these partitions; without any it is OK.
func listing(group string, lag int, partitions ...int) []byte {
	status, list := "OK", []string{}
	for _, p := range partitions {
		status = "ERR"
		list = append(list, fmt.Sprintf(`{"topic":"t","partition":%d,"status":"STOP","current_lag":%d}`, p, lag))
	}
	id := ""
	if len(partitions) > 0 {
		id = "incident-of-" + group
	}
	return fmt.Appendf(nil, `{"Event":{"ID":%q,"Start":"2026-11-22T13:00:00Z","Result":{"cluster":"c","group":%q,"status":%q,"complete":1,"partition_count":5,"totallag":%d,"partitions":[%s]}}}`,
		id, group, status, lag, strings.Join(list, ","))
}

// One of two pipelines is ill. The page of the other shows what holds, as fresh as ever; the ill one is asked ever less often, and is
// complete soon after it is well again. A reload meanwhile leaves a working process.
func TestIllPipeline(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "ill", code) }
	}
	for name, behave := range map[string]http.HandlerFunc{
		"400": status(http.StatusBadRequest),
		"503": status(http.StatusServiceUnavailable),
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(6 * time.Second):
			case <-r.Context().Done():
			}
		},
		"closes": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const interval = time.Second
			backend := newIllBackend(t)
			backend.Config.ErrorLog = nil
			k := start(t, options{
				Configs: []string{"config/karrot.yaml", "config/incidents.yaml", overlayFile(t, directOTLP)},
				Env:     map[string]string{"KARROT_INTERVAL": interval.String(), "KARROT_EXPIRE_AFTER": "8s", "KARROT_OTLP_ENDPOINT": backend.URL, "KARROT_INCIDENT_EXPORTERS": "debug/incidents"},
			})
			k.accept(t, listing("before", 1))
			waitFor(t, 5*time.Second, func() string {
				if backend.count("before") == 0 {
					return "the backend has nothing yet"
				}
				return ""
			})
			backend.behave.Store(&behave)

			// New state every second: the page is never older than two intervals, with some tolerance for a busy machine.
			const tolerance = 1500 * time.Millisecond
			accepted := map[int]time.Time{}
			lagOnPage := func() int { return int(k.series(t)[`burrow_group_total_lag{cluster="c",group="moves"}`]) }
			for lag := 1; lag <= 10; lag++ {
				accepted[lag] = time.Now()
				k.accept(t, listing("moves", lag, 1, lag%3+2))
				for end := time.Now().Add(interval); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					shown := lagOnPage()
					if next, found := accepted[shown+1]; found && lag > 1 {
						assert.Less(t, time.Since(next), 2*interval+tolerance, "the page shows %d", shown)
					}
				}
			}
			// A recovered partition, and a group that comes and goes.
			k.accept(t, listing("goes", 7, 0))
			k.accept(t, listing("moves", 11))
			noGhosts := func(part string) func() string {
				return func() string {
					for id := range k.series(t) {
						if strings.Contains(id, part) {
							return "still there: " + id
						}
					}
					return ""
				}
			}
			waitFor(t, 2*interval+tolerance, noGhosts(`burrow_partition_status{cluster="c",group="moves"`))
			waitFor(t, 8*time.Second+2*interval+tolerance, noGhosts(`group="goes"`))
			waitFor(t, 8*time.Second+2*interval+tolerance, noGhosts(`group="before"`))

			lines := strings.Count(k.log(), "Consumer group moves in cluster c is ERR")
			assert.GreaterOrEqual(t, lines, 2, "the log has a line, and the exporter prints one")
			assert.LessOrEqual(t, lines, 3, "or two where nobody knows who has it")

			// With nothing new, and the logs' second attempt among them.
			waitFor(t, 15*time.Second, noGhosts(`cluster="c"`))
			before := backend.requests.Load()
			time.Sleep(20 * time.Second)
			assert.LessOrEqual(t, backend.requests.Load()-before, int64(5), "asked ever less often")

			// A reload is no end.
			require.NoError(t, k.cmd.Process.Signal(syscall.SIGHUP))
			waitFor(t, 40*time.Second, func() string {
				if strings.Count(k.log(), "Everything is ready") < 2 {
					return "it is not ready again"
				}
				return ""
			})
			require.False(t, k.hasExited())
			k.accept(t, listing("after", 5, 1))
			waitFor(t, 5*time.Second, func() string {
				if k.series(t)[`burrow_group_status{cluster="c",group="after"}`] != 3 {
					return "the reloaded process does not show it"
				}
				return ""
			})

			backend.behave.Store(nil)
			waitFor(t, 65*time.Second, func() string {
				k.accept(t, listing("after", 5, 1))
				if backend.count("after") < 10 {
					return "the backend is not complete"
				}
				return ""
			})
			k.stop(t)
		})
	}
}

// A Burrow that has just started answers 200 with empty lists. Nothing ends by that, and an incident that has another ID
// afterwards is the same.
func TestBurrowRestarts(t *testing.T) {
	good := recordedAPI(t).Config.Handler
	var empty atomic.Int64 // polls that get empty lists
	var deleted atomic.Bool
	burrow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case empty.Load() > 0 && r.URL.Path == "/v3/kafka":
			empty.Add(-1)
			_, _ = io.WriteString(w, `{"error":false,"message":"cluster list returned","clusters":[]}`)
		case deleted.Load() && r.URL.Path == "/v3/kafka/east/consumer":
			recorder := httptest.NewRecorder()
			good.ServeHTTP(recorder, r)
			_, _ = io.WriteString(w, strings.Replace(recorder.Body.String(), `"reports-batch",`, "", 1))
		default:
			good.ServeHTTP(w, r)
		}
	}))
	defer burrow.Close()
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml", "config/incidents.yaml"},
		Env:     map[string]string{"KARROT_INTERVAL": "100ms", "KARROT_BURROW_API": burrow.URL, "KARROT_BURROW_API_INTERVAL": "1s"},
	})
	status := `burrow_group_status{cluster="east",group="reports-batch"}`
	waitFor(t, 10*time.Second, func() string {
		if k.series(t)[status] == 0 {
			return "it was not polled yet"
		}
		return ""
	})
	bad := func(id string) []byte {
		return fmt.Appendf(nil, `{"Event":{"ID":%q,"Start":"2026-11-22T13:00:00Z","Result":{"cluster":"east","group":"restarted","status":"ERR","complete":1,"partition_count":1,"totallag":5,"partitions":[]}}}`, id)
	}
	k.accept(t, bad("first"))
	waitFor(t, 5*time.Second, func() string {
		if k.series(t)[`burrow_group_incidents_total{cluster="east",group="restarted"}`] != 1 {
			return "the incident is not counted"
		}
		return ""
	})
	waitFor(t, 5*time.Second, func() string {
		if !strings.Contains(k.log(), "Consumer group restarted in cluster east is ERR:") {
			return "the incident is not logged"
		}
		return ""
	})
	lasting := func() int {
		page := k.series(t)
		assert.Empty(t, withoutTimeLags(page))
		return len(page)
	}
	before := lasting()
	opened := strings.Count(k.log(), "is ERR:") + strings.Count(k.log(), "is WARN:")

	empty.Store(5)
	for empty.Load() > 0 {
		assert.Equal(t, before, lasting())
		time.Sleep(100 * time.Millisecond)
	}
	k.accept(t, bad("second"))
	time.Sleep(2500 * time.Millisecond) // two polls
	assert.Equal(t, before, lasting())
	assert.InDelta(t, 1, k.series(t)[`burrow_group_incidents_total{cluster="east",group="restarted"}`], 0)
	assert.Equal(t, opened, strings.Count(k.log(), "is ERR:")+strings.Count(k.log(), "is WARN:"), "no event")
	assert.NotContains(t, k.log(), "burrow.incident.ended")

	deleted.Store(true)
	waitFor(t, 10*time.Second, func() string {
		if _, found := k.series(t)[status]; found {
			return "it was deleted"
		}
		return ""
	})
	k.stop(t)
}

// loadedBurrow answers for many groups with many partitions.
func loadedBurrow(t testing.TB, groups, partitions int) *httptest.Server {
	t.Helper()
	var names []string
	for g := range groups {
		names = append(names, fmt.Sprintf("consumer-group-%05d", g))
	}
	list, err := json.Marshal(names)
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.TrimPrefix(r.URL.Path, "/v3/kafka"); {
		case path == "":
			_, _ = io.WriteString(w, `{"error":false,"clusters":["east"]}`)
		case path == "/east/consumer":
			fmt.Fprintf(w, `{"error":false,"consumers":%s}`, list)
		case path == "/east/topic":
			_, _ = io.WriteString(w, `{"error":false,"topics":["orders"]}`)
		case strings.HasSuffix(path, "/lag"):
			name := strings.Split(path, "/")[3]
			var all []string
			for p := range partitions {
				all = append(all, fmt.Sprintf(`{"topic":"orders-of-%s","partition":%d,"owner":"/10.0.0.1","client_id":"c","status":"OK","start":{"offset":5,"timestamp":1795355219814,"observedAt":1795355219000,"lag":1},`+
					`"end":{"offset":9,"timestamp":1795355229814,"observedAt":1795355229000,"lag":1},"current_lag":1,"complete":1}`, name, p))
			}
			fmt.Fprintf(w, `{"error":false,"status":{"cluster":"east","group":%q,"status":"OK","complete":1,"partitions":[%s],"partition_count":%d,"totallag":%d}}`, name, strings.Join(all, ","), partitions, partitions)
		default:
			_, _ = io.WriteString(w, `{"error":false,"offsets":[10]}`)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// A poll of 2,000 groups of 50 partitions reaches a backend with the usual limit of 20 MiB a request, whole.
func TestLargePollReachesOTLP(t *testing.T) {
	const groups, partitions = 2000, 50
	backend := newIllBackend(t)
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml", "config/otlp.yaml", "config/storage.yaml", overlayFile(t, "exporters: {otlp_http: {compression: none}}")},
		Env: map[string]string{
			"KARROT_STORAGE_DIRECTORY": t.TempDir(),
			"KARROT_BURROW_API":        loadedBurrow(t, groups, partitions).URL, "KARROT_BURROW_API_INTERVAL": "1h", "KARROT_EXPIRE_AFTER": "3h", "KARROT_OTLP_ENDPOINT": backend.URL,
		},
	})
	want := groups*(4+5) + groups*partitions*3 + 1
	waitFor(t, time.Minute, func() string {
		if n := backend.count(""); n < want {
			return fmt.Sprintf("%d series have arrived of %d", n, want)
		}
		return ""
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.cmd.Process.Pid))
	require.NoError(t, err)
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	peak, _, _ = strings.Cut(peak, "\n")
	t.Logf("peak memory of the process, with storage and the page of Prometheus: %s", strings.TrimSpace(peak))
	backend.mu.Lock()
	t.Logf("%d points in requests of at most %.1f MiB", backend.points, float64(backend.largest)/(1<<20))
	assert.LessOrEqual(t, backend.largest, 8<<20)
	backend.mu.Unlock()
	assert.InDelta(t, 0, scrape(t, k.telemetry)[`otelcol_receiver_burrow_handover_failures_total{receiver="burrow"}`], 0)
	k.stop(t)
}

// Two receivers in one process: neither takes the place of the other, in own telemetry or elsewhere.
func TestTwoReceivers(t *testing.T) {
	second := freePorts(t, 1)[0]
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", overlayFile(t, `
receivers: {burrow/second: {webhook: {endpoint: "`+second+`"}}}
service: {pipelines: {metrics/prometheus: {receivers: [burrow, burrow/second]}}}
`)},
	})
	k.accept(t, listing("one", 1))
	for _, group := range []string{"two", "three"} {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+second+"/burrow", strings.NewReader(string(listing(group, 1))))
		require.NoError(t, err)
		status, text := do(t, request)
		require.Equal(t, http.StatusOK, status, text)
	}
	waitFor(t, settled+2*time.Second, func() string {
		own := scrape(t, k.telemetry)
		if own[`otelcol_receiver_burrow_groups{receiver="burrow"}`] != 1 || own[`otelcol_receiver_burrow_groups{receiver="burrow/second"}`] != 2 {
			return "wrong counts"
		}
		return ""
	})
	own := scrape(t, k.telemetry)
	for _, receiver := range []string{"burrow", "burrow/second"} {
		assert.Positive(t, own[`otelcol_receiver_burrow_last_notification_timestamp_seconds{receiver="`+receiver+`"}`])
	}
	k.stop(t)
}
