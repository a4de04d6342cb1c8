package burrowreceiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configauth"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadatatest"
)

// running is a receiver that listens on a port of its own.
type running struct {
	*burrowReceiver
	url       string
	telemetry *componenttest.Telemetry
	sink      *consumertest.MetricsSink
}

// host has the extensions that a configuration names.
type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

// run starts a receiver whose hand-overs come every 10 ms. Without a consumer it has a sink.
func run(t testing.TB, next consumer.Metrics, extensions host, change func(*Config)) *running {
	t.Helper()
	cfg := testConfig(change)
	require.NoError(t, cfg.Validate())
	r := &running{telemetry: componenttest.NewTelemetry(), sink: new(consumertest.MetricsSink)}
	if next == nil {
		next = r.sink
	}
	set := receivertest.NewNopSettings(metadata.Type)
	set.ID = component.NewID(metadata.Type)
	set.TelemetrySettings = r.telemetry.NewTelemetrySettings()
	var err error
	r.burrowReceiver, err = newMetricsReceiver(set, cfg, next)
	require.NoError(t, err)
	require.NoError(t, r.Start(context.Background(), extensions))
	t.Cleanup(func() {
		_ = r.Shutdown(context.Background())
		_ = r.telemetry.Shutdown(context.Background())
	})
	r.url = "http://" + cfg.Webhook.Get().Server.NetAddr.Endpoint + cfg.Webhook.Get().Path
	return r
}

// newMetricsReceiver makes a receiver with a metrics pipeline.
func newMetricsReceiver(set receiver.Settings, cfg *Config, next consumer.Metrics) (*burrowReceiver, error) {
	r, err := newBurrowReceiver(set, cfg)
	if err == nil {
		r.addMetrics(next)
	}
	return r, err
}

func testConfig(change func(*Config)) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Interval = minInterval
	cfg.Webhook.Get().Server.NetAddr.Endpoint = freeAddress()
	if change != nil {
		change(cfg)
	}
	return cfg
}

func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func request(t testing.TB, method, url string, body io.Reader, headers ...string) (status int, text string, header http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, strings.TrimSpace(string(answer)), response.Header
}

func (r *running) post(t testing.TB, body string) (status int, text string) {
	t.Helper()
	status, text, _ = request(t, http.MethodPost, r.url, strings.NewReader(body))
	return status, text
}

// outcomes reads own telemetry.
func (r *running) outcomes(t testing.TB) map[string]int64 {
	t.Helper()
	outcomes := map[string]int64{}
	m, err := r.telemetry.GetMetric("otelcol_receiver_burrow_notifications")
	if err != nil {
		return outcomes // nothing was counted yet
	}
	for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
		outcome, _ := point.Attributes.Value("outcome")
		if point.Value != 0 {
			outcomes[outcome.AsString()] = point.Value
		}
	}
	return outcomes
}

func group(name string, lag int) string {
	return fmt.Sprintf(`{"cluster":"c","group":%q,"status":"OK","totallag":%d}`, name, lag)
}

func recordedBody(t testing.TB, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(recorded, name))
	require.NoError(t, err)
	return string(body)
}

func gzipped(text string) *bytes.Buffer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return &b
}

type authenticator struct{ component.StartFunc }

func (authenticator) Shutdown(context.Context) error { return nil }

func (authenticator) Authenticate(ctx context.Context, headers map[string][]string) (context.Context, error) {
	if given := headers["Authorization"]; len(given) != 1 || given[0] != "Bearer right" {
		return ctx, fmt.Errorf("token %v is not known", given)
	}
	return ctx, nil
}

func TestAnswers(t *testing.T) {
	good := recordedBody(t, "warn.json")
	id := component.MustNewID("bearer")
	authenticated := func(c *Config) {
		c.Webhook.Get().Server.Auth = configoptional.Some(confighttp.AuthConfig{Config: configauth.Config{AuthenticatorID: id}})
	}
	small := func(c *Config) { c.Webhook.Get().Server.MaxRequestBodySize = 500 }
	full := func(c *Config) { c.MaxGroups = 1 }
	compressed := func(c *Config) { c.Webhook.Get().Server.CompressionAlgorithms = []string{"", "gzip"} }

	for name, tc := range map[string]struct {
		config  func(*Config)
		before  []string
		method  string
		path    string
		body    io.Reader
		headers []string
		status  int
		text    string
		allow   string
		outcome metadata.AttributeOutcome
	}{
		"valid":                      {body: strings.NewReader(good), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"PUT":                        {method: "PUT", body: strings.NewReader(good), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"DELETE with a body":         {method: "DELETE", body: strings.NewReader(good), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"any content type":           {body: strings.NewReader(good), headers: []string{"Content-Type", "text/html"}, status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"query":                      {path: "/burrow?cluster=x", body: strings.NewReader(good), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"chunked":                    {body: io.MultiReader(strings.NewReader(good)), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"gzip, as by default":        {body: gzipped(good), headers: []string{"Content-Encoding", "gzip"}, status: 400, text: "The body can't be read", outcome: metadata.AttributeOutcomeUnreadable},
		"gzip":                       {config: compressed, body: gzipped(good), headers: []string{"Content-Encoding", "gzip"}, status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"authenticated":              {config: authenticated, body: strings.NewReader(good), headers: []string{"Authorization", "Bearer right"}, status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"known group, full table":    {config: full, before: []string{good}, body: strings.NewReader(good), status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"empty":                      {body: http.NoBody, status: 400, text: "The body must be JSON. Send", outcome: metadata.AttributeOutcomeSyntax},
		"empty gzip":                 {config: compressed, body: gzipped(""), headers: []string{"Content-Encoding", "gzip"}, status: 400, text: "The body must be JSON. Send", outcome: metadata.AttributeOutcomeSyntax},
		"not JSON":                   {body: strings.NewReader("lag=5"), status: 400, text: "The body must be JSON. Send", outcome: metadata.AttributeOutcomeSyntax},
		"no usable form":             {body: strings.NewReader(recordedBody(t, "forms/warn.slack.json")), status: 400, text: "The body must have cluster, group, status and totallag. Send", outcome: metadata.AttributeOutcomeForm},
		"stock template":             {body: strings.NewReader(recordedBody(t, "forms/warn.d.json")), status: 400, text: "The body must have cluster, group, status and totallag. Send", outcome: metadata.AttributeOutcomeForm},
		"bad field":                  {body: strings.NewReader(`{"Result":{"cluster":"c","group":"<script>","status":"OK","totallag":"5"}}`), status: 400, text: "Result.totallag must be an integer from 0 to 9223372036854775807. Send", outcome: metadata.AttributeOutcomeField},
		"too large":                  {config: small, body: strings.NewReader(good), status: 413, text: "The body is larger than webhook.max_request_body_size", outcome: metadata.AttributeOutcomeTooLarge},
		"too large in chunks":        {config: small, body: io.MultiReader(strings.NewReader(good)), status: 413, text: "The body is larger than webhook.max_request_body_size", outcome: metadata.AttributeOutcomeTooLarge},
		"too large when unpacked":    {config: func(c *Config) { small(c); compressed(c) }, body: gzipped(strings.Repeat(" ", 5000)), headers: []string{"Content-Encoding", "gzip"}, status: 413, text: "The body is larger than webhook.max_request_body_size", outcome: metadata.AttributeOutcomeTooLarge},
		"not gzip":                   {config: compressed, body: strings.NewReader(good), headers: []string{"Content-Encoding", "gzip"}, status: 400, text: "The body can't be read", outcome: metadata.AttributeOutcomeUnreadable},
		"cut gzip":                   {config: compressed, body: bytes.NewReader(gzipped(good).Bytes()[:50]), headers: []string{"Content-Encoding", "gzip"}, status: 400, text: "The body can't be read", outcome: metadata.AttributeOutcomeUnreadable},
		"unknown encoding":           {config: compressed, body: strings.NewReader(good), headers: []string{"Content-Encoding", "morse"}, status: 400, text: "The body can't be read", outcome: metadata.AttributeOutcomeUnreadable},
		"GET":                        {method: "GET", status: 405, allow: "DELETE, POST, PUT", text: "The method must be one of DELETE, POST, PUT", outcome: metadata.AttributeOutcomeMethod},
		"other path":                 {path: "/burrow/", body: strings.NewReader(good), status: 404, text: "Nothing is here. Notifications go to /burrow", outcome: metadata.AttributeOutcomePath},
		"other path and method":      {config: func(c *Config) { c.Page.Enabled = false }, method: "GET", path: "/metrics", status: 404, text: "Nothing is here. Notifications go to /burrow", outcome: metadata.AttributeOutcomePath},
		"another site":               {body: strings.NewReader(good), headers: []string{"Origin", "https://example.org"}, status: 403, text: "Requests that a browser sends for another site are refused", outcome: metadata.AttributeOutcomeForeign},
		"another site, by fetch":     {body: strings.NewReader(good), headers: []string{"Sec-Fetch-Site", "cross-site"}, status: 403, text: "Requests that a browser sends for another site are refused", outcome: metadata.AttributeOutcomeForeign},
		"no site":                    {body: strings.NewReader(good), headers: []string{"Origin", "null"}, status: 403, text: "Requests that a browser sends for another site are refused", outcome: metadata.AttributeOutcomeForeign},
		"the same site":              {body: strings.NewReader(good), headers: []string{"Sec-Fetch-Site", "same-origin", "Origin", "https://karrot.example.org"}, status: 200, outcome: metadata.AttributeOutcomeAccepted},
		"not authenticated":          {config: authenticated, body: strings.NewReader(good), status: 401, text: "Authentication is required", outcome: metadata.AttributeOutcomeUnauthenticated},
		"wrong token":                {config: authenticated, body: strings.NewReader(good), headers: []string{"Authorization", "Bearer wrong"}, status: 401, text: "Authentication is required", outcome: metadata.AttributeOutcomeUnauthenticated},
		"table full of groups":       {config: full, before: []string{group("first", 1)}, body: strings.NewReader(good), status: 503, text: "The table is full: max_groups is reached", outcome: metadata.AttributeOutcomeTableFull},
		"table full of partitions":   {config: func(c *Config) { c.MaxPartitions = 1 }, body: strings.NewReader(good), status: 503, text: "The table is full: max_partitions is reached", outcome: metadata.AttributeOutcomeTableFull},
		"table full, but bad anyway": {config: full, before: []string{group("first", 1)}, body: strings.NewReader("{}"), status: 400, text: "The body must have cluster", outcome: metadata.AttributeOutcomeForm},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, nil, host{id: authenticator{}}, tc.config)
			for _, body := range tc.before {
				status, text := r.post(t, body)
				require.Equal(t, http.StatusOK, status, text)
			}
			groupsBefore := r.table.Stats().Groups
			before := r.outcomes(t)

			method, url := http.MethodPost, r.url
			if tc.method != "" {
				method = tc.method
			}
			if tc.path != "" {
				url = strings.TrimSuffix(r.url, defaultPath) + tc.path
			}
			status, text, header := request(t, method, url, tc.body, tc.headers...)
			assert.Equal(t, tc.status, status, text)
			assert.Equal(t, tc.allow, header.Get("Allow"))
			if status == http.StatusOK {
				assert.Empty(t, text)
			} else {
				assert.True(t, strings.HasPrefix(text, tc.text), text)
				assert.NotContains(t, text, "\n", "one line")
				assert.NotContains(t, text, "<script>", "nothing of the request")
				assert.Equal(t, "text/plain; charset=utf-8", header.Get("Content-Type"))
				assert.Equal(t, tc.outcome, r.webhook.lastRefused.Load().outcome)
				assert.Equal(t, groupsBefore, r.table.Stats().Groups, "a refused request changes nothing")
			}
			if status == http.StatusBadRequest && tc.outcome != metadata.AttributeOutcomeUnreadable {
				assert.Contains(t, text, `config/burrow/notification.tmpl: { "Event": {{ jsonencoder . }} }`)
			}
			before[tc.outcome.String()]++
			assert.Equal(t, before, r.outcomes(t))
			require.NoError(t, r.Shutdown(context.Background()))
		})
	}
}

func TestBodiesTogetherAreBounded(t *testing.T) {
	r := run(t, nil, nil, nil)
	budget := r.limits.Budget
	var others []burrow.Share
	for budget.Used() < maxBytesInFlight {
		share := budget.Share()
		require.True(t, share.Take(64<<10))
		others = append(others, share)
	}
	status, text := r.post(t, group("a", 1))
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Equal(t, "Too many bytes are being received at once", text)
	assert.Equal(t, map[string]int64{"busy": 1}, r.outcomes(t))
	assert.EqualValues(t, maxBytesInFlight, budget.Used(), "what was reserved is given back")

	for i := range others {
		others[i].Release()
	}
	for _, body := range []string{group("a", 1), "x", recordedBody(t, "all-50-partitions-stop.json"), `"` + strings.Repeat("x", 1<<20) + `"`} {
		r.post(t, body)
		assert.Zero(t, budget.Used())
	}

	// What is made of a body is paid too: 150,000 partitions of 43 bytes are 6 MB, and 20 MB as they are kept.
	partitions := make([]string, 150_000)
	for i := range partitions {
		partitions[i] = fmt.Sprintf(`{"topic":"t","partition":%d,"current_lag":0}`, i)
	}
	status, text = r.post(t, `{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[`+strings.Join(partitions, ",")+"]}")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Equal(t, "Too many bytes are being received at once", text)
	assert.Zero(t, budget.Used())
}

func TestPathOfTheWebhook(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.Webhook.Get().Path = "/kafka/{burrow} notifications" })
	url := strings.TrimSuffix(r.url, r.cfg.Webhook.Get().Path)
	status, text, _ := request(t, http.MethodPost, url+"/kafka/%7Bburrow%7D%20notifications", strings.NewReader(group("a", 1)))
	assert.Equal(t, http.StatusOK, status, text)
	status, text, _ = request(t, http.MethodPost, url+"/burrow", strings.NewReader(group("a", 1)))
	assert.Equal(t, http.StatusNotFound, status)
	assert.Equal(t, "Nothing is here. Notifications go to /kafka/{burrow} notifications", text)
}

func TestOwnTelemetry(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) {
		c.MaxGroups, c.MaxPartitions = 2, 30
		// Whether they are known depends on the machine's clock.
		c.Metrics.BurrowGroupMaxTimeLag.Enabled, c.Metrics.BurrowPartitionTimeLag.Enabled = false, false
	})
	_, err := r.telemetry.GetMetric("otelcol_receiver_burrow_last_notification_timestamp")
	require.Error(t, err, "absent until the first one")

	before := time.Now()
	r.post(t, group("a", 1))
	r.post(t, recordedBody(t, "warn.json"))
	r.post(t, group("refused", 1))
	grown := strings.NewReplacer(`"east"`, `"c"`, "all-partitions-down", "a")
	r.post(t, grown.Replace(recordedBody(t, "all-50-partitions-stop.json")))
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Equal(c, 23, r.table.Stats().Series) }, 5*time.Second, time.Millisecond)

	of := attribute.String("receiver", "burrow")
	value := func(v int64) []metricdata.DataPoint[int64] {
		return []metricdata.DataPoint[int64]{{Value: v, Attributes: attribute.NewSet(of)}}
	}
	metadatatest.AssertEqualReceiverBurrowGroups(t, r.telemetry, value(2), metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	metadatatest.AssertEqualReceiverBurrowPartitions(t, r.telemetry, value(2), metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	metadatatest.AssertEqualReceiverBurrowSeries(t, r.telemetry, value(23), metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	metadatatest.AssertEqualReceiverBurrowGroupsExpired(t, r.telemetry, value(0), metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	metadatatest.AssertEqualReceiverBurrowGroupsRefused(t, r.telemetry, []metricdata.DataPoint[int64]{
		{Value: 1, Attributes: attribute.NewSet(of, attribute.String("limit", "max_groups"))},
		{Value: 1, Attributes: attribute.NewSet(of, attribute.String("limit", "max_partitions"))},
	}, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	last, err := r.telemetry.GetMetric("otelcol_receiver_burrow_last_notification_timestamp")
	require.NoError(t, err)
	at := last.Data.(metricdata.Gauge[float64]).DataPoints[0].Value
	assert.GreaterOrEqual(t, at, float64(before.UnixMicro())/1e6)
	assert.LessOrEqual(t, at, float64(time.Now().UnixMicro()+1)/1e6)
	accepted, err := r.telemetry.GetMetric("otelcol_receiver_accepted_metric_points")
	require.NoError(t, err)
	assert.EqualValues(t, 23, accepted.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	_, err = r.telemetry.GetMetric("otelcol_receiver_burrow_handover_duration")
	require.NoError(t, err)
}

// Everything that was answered with 200 has reached the pipelines when Shutdown returns.
func TestShutdownUnderFire(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.Interval = time.Minute })
	var accepted sync.Map
	var stop atomic.Bool
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for i := 0; !stop.Load(); i++ {
				name := fmt.Sprintf("g-%d-%d", sender, i%50)
				response, err := http.Post(r.url, "application/json", strings.NewReader(group(name, i)))
				if err != nil {
					continue // the server is gone
				}
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					accepted.Store(name, i)
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, r.Shutdown(context.Background()))
	handedOver := len(r.sink.AllMetrics())
	stop.Store(true)
	senders.Wait()

	held := backend{}
	for _, md := range r.sink.AllMetrics() {
		held.take(t, md)
	}
	n := 0
	accepted.Range(func(name, lag any) bool {
		n++
		id := fmt.Sprintf("burrow.group.total_lag cluster=%q group=%q", "c", name)
		assert.Equal(t, fmt.Sprint(lag), held[id], id)
		return true
	})
	assert.Greater(t, n, 8)
	assert.Len(t, r.sink.AllMetrics(), handedOver, "nothing comes after Shutdown")
}

func TestShutdownIsSafe(t *testing.T) {
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), testConfig(nil), consumertest.NewNop())
	require.NoError(t, err)
	require.NoError(t, r.Shutdown(context.Background()), "without Start")

	started := run(t, nil, nil, nil)
	require.NoError(t, started.Shutdown(context.Background()))
	require.NoError(t, started.Shutdown(context.Background()), "twice")
}

// A pipeline that refuses is no reason for an error: the Collector would end when it is only to read its configuration again.
func TestShutdownWithRefusingPipelines(t *testing.T) {
	refusing := consumertest.NewErr(errors.New("full"))
	r, logs := runLogged(t, refusing)
	r.post(t, group("a", 1))
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	require.NoError(t, r.Shutdown(ctx))
	lines := logs.FilterMessageSnippet("did not take the last state").All()
	require.Len(t, lines, 1)
	assert.EqualValues(t, 1, lines[0].ContextMap()["groups_and_topics"])
}

// runLogged is run with a log that can be read.
func runLogged(t *testing.T, next consumer.Metrics) (*running, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	r := run(t, next, nil, nil)
	r.set.Logger = zap.New(core)
	return r, logs
}

// A request that is open for ever does not use up the time of the last hand-over.
func TestOpenRequestDoesNotCostTheLastHandOver(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) {
		c.Interval = time.Minute
		c.Webhook.Get().Server.ReadTimeout = 0
	})
	address := r.cfg.Webhook.Get().Server.NetAddr.Endpoint
	open, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = open.Close() })
	_, err = fmt.Fprintf(open, "POST /burrow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
	require.NoError(t, err)
	status, text := r.post(t, group("a", 1))
	require.Equal(t, http.StatusOK, status, text)
	require.NoError(t, r.Shutdown(context.Background()))
	held := backend{}
	for _, md := range r.sink.AllMetrics() {
		held.take(t, md)
	}
	assert.Equal(t, "1", held[lagOfA])
}

// hanging never returns from a hand-over until its context ends.
func hanging(entered chan<- struct{}) consumer.Metrics {
	next, _ := consumer.NewMetrics(func(ctx context.Context, _ pmetric.Metrics) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	})
	return next
}

func TestHangingPipelineDoesNotReachTheWebhook(t *testing.T) {
	entered := make(chan struct{}, 1)
	r := run(t, hanging(entered), nil, nil)
	r.post(t, group("a", 1))
	<-entered
	for i := range 100 {
		status, text := r.post(t, group("a", i))
		require.Equal(t, http.StatusOK, status, text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.NoError(t, r.Shutdown(ctx))
}

func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"port in use": {
			func(c *Config) { c.Webhook.Get().Server.NetAddr.Endpoint = taken.Addr().String() },
			"webhook.endpoint " + taken.Addr().String() + ": listen tcp",
		},
		"no such authenticator": {
			func(c *Config) {
				c.Webhook.Get().Server.Auth = configoptional.Some(confighttp.AuthConfig{Config: configauth.Config{AuthenticatorID: component.MustNewID("nobody")}})
			},
			`webhook: failed to resolve authenticator "nobody"`,
		},
		"no TLS file": {
			func(c *Config) {
				tls := configtls.ServerConfig{Config: configtls.Config{CertFile: "absent.pem", KeyFile: "absent.key"}}
				c.Webhook.Get().Server.TLS = configoptional.Some(tls)
			},
			"absent.pem",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), testConfig(tc.change), consumertest.NewNop())
			require.NoError(t, err)
			require.ErrorContains(t, r.Start(context.Background(), host{}), tc.want)
			require.NoError(t, r.Shutdown(context.Background()))
		})
	}
}

func TestShutdownWhileAPipelineHangs(t *testing.T) {
	entered := make(chan struct{}, 1)
	healthy := &pipelines{held: backend{}, t: t, ends: true}
	r := run(t, fanOut(healthy, hanging(entered)), nil, func(c *Config) { c.Interval = 12 * time.Second })
	status, _ := r.post(t, group("a", 1))
	require.Equal(t, 200, status)
	<-entered // the hand-over is under way, and will be for 12 s
	status, _ = r.post(t, group("b", 2))
	require.Equal(t, 200, status)
	require.NoError(t, r.Shutdown(context.Background()))
	assert.Equal(t, "2", healthy.series()[`burrow.group.total_lag cluster="c" group="b"`])
}

func TestShutdownTwoChunksHang(t *testing.T) {
	entered := make(chan struct{}, 1)
	healthy := &pipelines{held: backend{}, t: t, ends: true}
	r := run(t, fanOut(healthy, hanging(entered)), nil, func(c *Config) { c.Interval = time.Minute })
	for i := range 4000 {
		require.Empty(t, send(r.webhook, "POST", []byte(group(fmt.Sprint("g", i), 1))))
	}
	require.NoError(t, r.Shutdown(context.Background()))
	n := 0
	for k := range healthy.series() {
		if len(k) > 22 && k[:22] == "burrow.group.total_lag" {
			n++
		}
	}
	assert.Equal(t, 4000, n)
}
