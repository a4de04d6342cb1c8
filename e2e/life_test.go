package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
)

// What can't work ends with one clear error and an exit code that is not 0.
func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	dir := t.TempDir()
	overlay := func(name, text string) string {
		path := filepath.Join(dir, name+".yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const karrotYAML = "config/karrot.yaml"
	for name, tc := range map[string]struct {
		options
		want string
	}{
		"port in use": {
			options{Configs: []string{karrotYAML}, Env: map[string]string{"KARROT_ENDPOINT": taken.Addr().String()}},
			"webhook.endpoint " + taken.Addr().String() + ": listen tcp " + taken.Addr().String() + ": bind: address already in use",
		},
		"unknown key": {
			options{Configs: []string{karrotYAML, overlay("key", "receivers: {burrow: {expire_afer: 5m}}")}},
			"receivers::burrow::expire_afer is no field: did you mean expire_after?",
		},
		"wrong path": {
			options{Configs: []string{karrotYAML, overlay("path", "receivers: {burrow: {webhook: {path: burrow}}}")}},
			`receivers::burrow::webhook::path must begin with /, got "burrow"`,
		},
		"interval without unit": {
			options{Configs: []string{karrotYAML}, Env: map[string]string{"KARROT_INTERVAL": "30"}},
			`receivers::burrow::interval (KARROT_INTERVAL) must be at least 10ms, written with its unit as in 1s, got "30ns"`,
		},
		"absent TLS file": {
			options{Configs: []string{karrotYAML, "config/secure.yaml"}, Env: map[string]string{
				"KARROT_TLS_CERT": "/nonexistent/tls.crt", "KARROT_HTPASSWD": overlay("htpasswd", "burrow:x"),
				"KARROT_PROMETHEUS_TOKEN": overlay("token", "x"),
			}},
			"/nonexistent/tls.crt",
		},
		"absent password file": {
			options{Configs: []string{karrotYAML, "config/secure.yaml"}, Env: map[string]string{
				"KARROT_HTPASSWD": "/nonexistent/htpasswd", "KARROT_PROMETHEUS_TOKEN": overlay("token", "x"),
			}},
			"/nonexistent/htpasswd",
		},
		"absent token file": {
			options{Configs: []string{karrotYAML, "config/secure.yaml"}, Env: map[string]string{
				"KARROT_HTPASSWD": overlay("htpasswd", "burrow:x"), "KARROT_PROMETHEUS_TOKEN": "/nonexistent/token",
			}},
			"/nonexistent/token",
		},
		"absent configuration": {
			options{Configs: []string{"config/nonexistent.yaml"}},
			"nonexistent.yaml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := command(t, tc.options)
			begun := time.Now()
			require.Error(t, k.cmd.Run(), k.log())
			assert.Less(t, time.Since(begun), startTimeout)
			assert.Positive(t, k.cmd.ProcessState.ExitCode())
			assert.Contains(t, k.log(), tc.want)
			assert.NotContains(t, k.log(), "panic")
		})
	}
}

// otlpServer collects the total lag of each group from OTLP in JSON.
type otlpServer struct {
	*httptest.Server
	mu   sync.Mutex
	lags map[string]string
	// hang, while it is not closed, keeps every request waiting.
	hang atomic.Pointer[chan struct{}]
	hung atomic.Int64
}

func newOTLPServer(t *testing.T) *otlpServer {
	t.Helper()
	s := &otlpServer{lags: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if hang := s.hang.Load(); hang != nil {
			s.hung.Add(1)
			select {
			case <-*hang:
			case <-r.Context().Done():
				return
			}
		}
		s.take(t, body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *otlpServer) take(t *testing.T, body []byte) {
	t.Helper()
	type attribute struct {
		Key   string
		Value struct{ StringValue string }
	}
	var request struct {
		ResourceMetrics []struct {
			ScopeMetrics []struct {
				Metrics []struct {
					Name  string
					Gauge struct {
						DataPoints []struct {
							Attributes []attribute
							AsInt      string
							Flags      int
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal(body, &request); err != nil {
		t.Errorf("%v: %s", err, body)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rm := range request.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				if metric.Name != "burrow.group.total_lag" {
					continue
				}
				for _, point := range metric.Gauge.DataPoints {
					var group string
					for _, a := range point.Attributes {
						if a.Key == "group" {
							group = a.Value.StringValue
						}
					}
					s.lags[group] = point.AsInt
				}
			}
		}
	}
}

func (s *otlpServer) lag(group string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lags[group]
}

// SIGTERM during traffic: everything that was answered with 200 was handed on, though the next
// hand-over would have come long after.
func TestTerminationUnderFire(t *testing.T) {
	backend := newOTLPServer(t)
	overlay := filepath.Join(t.TempDir(), "json.yaml")
	require.NoError(t, os.WriteFile(overlay, []byte("exporters: {otlp_http: {encoding: json, compression: none}}"), 0o600))
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/otlp.yaml", overlay},
		Env:     map[string]string{"KARROT_INTERVAL": "1m", "KARROT_OTLP_ENDPOINT": backend.URL},
	})
	var accepted sync.Map
	var stop atomic.Bool
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for i := 0; !stop.Load(); i++ {
				name := fmt.Sprintf("group-%d-%d", sender, i%100)
				body := fmt.Sprintf(`{"cluster":"c","group":%q,"status":"OK","totallag":%d}`, name, i)
				response, err := client.Post(k.webhook, "application/json", strings.NewReader(body))
				if err != nil {
					continue // it is gone
				}
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					accepted.Store(name, i)
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	k.stop(t)
	stop.Store(true)
	senders.Wait()
	n := 0
	accepted.Range(func(name, lag any) bool {
		n++
		assert.Equal(t, fmt.Sprint(lag), backend.lag(name.(string)), name)
		return true
	})
	assert.Greater(t, n, 100)
}

// One of two pipelines has an exporter that hangs for ever: the webhook goes on answering, the other
// pipeline has the newest state as soon as the fan-out returns.
func TestHangingExporter(t *testing.T) {
	backend := newOTLPServer(t)
	overlay := filepath.Join(t.TempDir(), "hang.yaml")
	require.NoError(t, os.WriteFile(overlay, []byte(`
exporters:
  otlp_http/hanging:
    endpoint: ${env:KARROT_OTLP_ENDPOINT}
    encoding: json
    compression: none
    timeout: 1h
    sending_queue: {enabled: false}
    retry_on_failure: {enabled: false}
service:
  pipelines:
    metrics/hanging: {receivers: [burrow], exporters: [otlp_http/hanging]}
`), 0o600))
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", overlay},
		Env:     map[string]string{"KARROT_INTERVAL": "10ms", "KARROT_OTLP_ENDPOINT": backend.URL},
	})
	body := func(lag int) []byte {
		return fmt.Appendf(nil, `{"cluster":"c","group":"g","status":"OK","totallag":%d,"complete":1,"partition_count":0}`, lag)
	}
	page := func(lag uint64) map[string]float64 {
		return seriesOf(notification{Result: burrow.Result{Cluster: "c", Group: "g", Status: "OK", TotalLag: lag, Complete: 1}})
	}
	k.accept(t, body(1))
	k.eventually(t, settled, page(1))

	hang := make(chan struct{})
	backend.hang.Store(&hang)
	k.accept(t, body(2))
	waitFor(t, settled, func() string {
		if backend.hung.Load() == 0 {
			return "the exporter was not asked"
		}
		return ""
	})
	const last = 1000
	var answers []time.Duration
	for lag := 3; lag <= last; lag++ {
		begun := time.Now()
		k.accept(t, body(lag))
		answers = append(answers, time.Since(begun))
	}
	t.Logf("%d answers while an exporter hangs: median %s, p99 %s, slowest %s", len(answers), quantile(answers, 0.5), quantile(answers, 0.99), quantile(answers, 1))
	assert.Less(t, quantile(answers, 0.99), 100*time.Millisecond)
	status, _ := get(t, k.metrics)
	assert.Equal(t, http.StatusOK, status, "the page is served meanwhile")

	backend.hang.Store(nil)
	close(hang)
	k.eventually(t, settled, page(last))
	waitFor(t, settled, func() string {
		if got := backend.lag("g"); got != strconv.Itoa(last) {
			return "the other one has " + got
		}
		return ""
	})
	k.stop(t)
}
