package burrowreceiver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrowtest"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const recordedAPI = "../../testdata/api"

// swap is a server whose answers can be changed.
type swap struct{ atomic.Pointer[http.Handler] }

func (s *swap) use(h http.Handler) { s.Store(&h) }

func (s *swap) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.Load()).ServeHTTP(w, r) }

// polling is a receiver whose polls and hand-overs are made by the test.
type polling struct {
	*burrowReceiver
	sink *consumertest.MetricsSink
	logs *observer.ObservedLogs
	held backend
}

func newPolling(t testing.TB, api http.Handler, change func(*Config)) *polling {
	t.Helper()
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	core, logs := observer.New(zap.DebugLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	cfg.API.GetOrInsertDefault().Client.Endpoint = server.URL
	if change != nil {
		change(cfg)
	}
	require.NoError(t, cfg.Validate())
	cfg.API.Get().CollectionInterval = time.Nanosecond // the tests poll one after the other
	p := &polling{sink: new(consumertest.MetricsSink), logs: logs, held: backend{}}
	var err error
	p.burrowReceiver, err = newMetricsReceiver(set, cfg, p.sink)
	require.NoError(t, err)
	p.poller, err = newPoller(context.Background(), host{}, p.burrowReceiver)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return p
}

// poll asks for everything once and hands over.
func (p *polling) poll(t *testing.T) backend {
	t.Helper()
	p.poller.poll(context.Background(), time.Now())
	return p.handOver(t)
}

func (p *polling) handOver(t *testing.T) backend {
	t.Helper()
	p.sink.Reset()
	require.True(t, p.emitters[0].emit(context.Background(), time.Now(), false))
	for _, md := range p.sink.AllMetrics() {
		p.held.take(t, md)
	}
	return p.held
}

// ofBurrow reads the /metrics text of Burrow: our name of each series, with its value.
func ofBurrow(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordedAPI, name))
	require.NoError(t, err)
	ours := map[string]string{
		"burrow_kafka_consumer_lag_total":      "burrow.group.total_lag",
		"burrow_kafka_consumer_status":         "burrow.group.status",
		"burrow_kafka_topic_partition_status":  "burrow.partition.status",
		"burrow_kafka_consumer_current_offset": "burrow.partition.committed_offset",
		"burrow_kafka_consumer_partition_lag":  "burrow.partition.lag",
		"burrow_kafka_topic_partition_offset":  "burrow.topic.offset",
	}
	label := regexp.MustCompile(`([a-z_]+)=("(?:[^"\\]|\\.)*")`)
	series := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		metric, rest, found := strings.Cut(line, "{")
		if !found || ours[metric] == "" {
			continue
		}
		end := strings.LastIndex(rest, "} ")
		id := []string{ours[metric]}
		labels := map[string]string{}
		for _, pair := range label.FindAllStringSubmatch(rest[:end], -1) {
			value, err := strconv.Unquote(pair[2])
			require.NoError(t, err)
			labels[pair[1]] = fmt.Sprintf("%q", value)
		}
		for _, key := range [][2]string{{"cluster", "cluster"}, {"consumer_group", "group"}, {"topic", "topic"}, {"partition", "partition"}} {
			if value, found := labels[key[0]]; found {
				id = append(id, key[1]+"="+value)
			}
		}
		value, err := strconv.ParseFloat(rest[end+2:], 64)
		require.NoError(t, err)
		series[strings.Join(id, " ")] = strconv.FormatFloat(value, 'f', -1, 64)
	}
	require.NoError(t, lines.Err())
	return series
}

// Of every recorded group and topic we have the series that Burrow's own page has, recorded at the same time, with
// the same values. The differences are known.
func TestPollEqualsBurrowsOwnMetrics(t *testing.T) {
	p := newPolling(t, burrowtest.RecordedAPI(t, recordedAPI), func(c *Config) { c.API.Get().Topics = FilterConfig{} })
	ours := p.poll(t)
	burrows := ofBurrow(t, "metrics.txt")
	require.Len(t, burrows, 29+29+104+104+128+75)

	compared := 0
	for id, theirs := range burrows {
		if strings.Contains(id, "back\\\\slash/and:colon") {
			continue // a name with a slash can't be asked for: Burrow answers 404
		}
		assert.Equal(t, theirs, ours[id], id)
		compared++
	}
	t.Logf("%d series compared", compared)
	assert.Greater(t, compared, 440)

	// What we have and Burrow's page does not: status and offset of a partition whose window is not full.
	for id := range ours {
		metric, _, _ := strings.Cut(id, " ")
		switch metric {
		case "burrow.partition.status", "burrow.partition.committed_offset":
		case "burrow.group.total_lag", "burrow.group.status", "burrow.partition.lag", "burrow.topic.offset":
			assert.Contains(t, burrows, id, "not on Burrow's page")
		}
	}
}

// What two lists of the API lack ends; the rest goes on.
func TestDeletedGroupAndTopicEnd(t *testing.T) {
	server := &swap{}
	server.use(burrowtest.RecordedAPI(t, recordedAPI))
	p := newPolling(t, server, nil)
	before := len(p.poll(t))
	has := func(part string) (n int) {
		for id := range p.held {
			if strings.Contains(id, part) {
				n++
			}
		}
		return n
	}
	require.Positive(t, has(`group="reports-batch"`))
	require.Equal(t, 3, has(`burrow.topic.offset cluster="east" topic="temp.export"`))

	server.use(burrowtest.RecordedAPI(t, recordedAPI, filepath.Join(recordedAPI, "after-deletes")))
	p.poll(t)
	assert.Positive(t, has(`group="reports-batch"`), "one list is no evidence")
	p.poll(t)
	assert.Zero(t, has(`group="reports-batch"`))
	assert.Zero(t, has(`topic="temp.export"`), "the topic's heads, and the partitions of the group that read it")
	assert.Positive(t, has(`burrow.group.status cluster="east" group="temp-export-reader"`), "a group without topics stays")
	assert.Less(t, len(p.held), before)
	assert.Len(t, p.held, p.table.Stats().Series)
}

// The lists before and after a poll that failed are not two in a row.
func TestFailedPollIsNoEvidence(t *testing.T) {
	server := &swap{}
	server.use(burrowtest.RecordedAPI(t, recordedAPI))
	p := newPolling(t, server, nil)
	p.poll(t)
	before := p.table.Stats()
	for range 3 {
		server.use(burrowtest.RecordedAPI(t, recordedAPI, filepath.Join(recordedAPI, "after-deletes")))
		p.poll(t)
		server.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
		p.poll(t)
	}
	after := p.table.Stats()
	assert.Equal(t, [2]int{before.Groups, before.Topics}, [2]int{after.Groups, after.Topics})
}

// Notifications and polls feed one table: the newest counts.
func TestBothSources(t *testing.T) {
	p := newPolling(t, burrowtest.RecordedAPI(t, recordedAPI), nil)
	p.poll(t)
	status := `burrow.partition.status cluster="east" group="mailer" topic="orders" partition="%d"`
	total := `burrow.group.total_lag cluster="east" group="mailer"`
	for number := range 4 {
		require.Contains(t, p.held, fmt.Sprintf(status, number))
	}
	require.Empty(t, send(p.webhook, "POST", []byte(recordedBody(t, "escalate-1-warn.json"))))
	p.handOver(t)
	assert.Equal(t, "2400", p.held[total])
	for number := range 4 {
		assert.Equal(t, "2", p.held[fmt.Sprintf(status, number)])
	}
	require.Empty(t, send(p.webhook, "POST", []byte(recordedBody(t, "escalate-3-close.json"))))
	p.handOver(t)
	for number := range 4 {
		assert.Equal(t, "1", p.held[fmt.Sprintf(status, number)], "not listed, so OK")
	}
	p.poll(t)
	assert.NotEqual(t, "15", p.held[total], "the API is newer")
}

func TestFilters(t *testing.T) {
	p := newPolling(t, burrowtest.RecordedAPI(t, recordedAPI), func(c *Config) {
		api := c.API.Get()
		c.Clusters.Include = []string{"^east$"}
		c.Groups.Include = []string{"^mailer$", "^fraud-", "^billing"}
		c.Groups.Exclude = []string{"-check$"}
		api.Topics.Include = []string{"^orders$"}
	})
	names := map[string]bool{}
	for id := range p.poll(t) {
		if group := regexp.MustCompile(`group="([^"]*)"`).FindStringSubmatch(id); group != nil {
			names[group[1]] = true
		} else {
			assert.Contains(t, id, `cluster="east" topic="orders"`)
		}
		assert.NotContains(t, id, `cluster="west"`)
	}
	assert.Equal(t, map[string]bool{"mailer": true, "billing-service": true}, names)

	before := p.table.Stats()
	for _, left := range []string{"warn.json", "same-group-other-cluster.json"} {
		require.Empty(t, send(p.webhook, "POST", []byte(recordedBody(t, left))), "answered 200")
	}
	assert.Equal(t, before, p.table.Stats(), "and ignored")
}

// A Burrow that lists any number of clusters, each of them often, is asked for them a few at a time.
func TestManyClusters(t *testing.T) {
	const clusters = 3000
	var most, asked atomic.Int64
	names := make([]string, 0, 2*clusters)
	for i := range 2 * clusters {
		names = append(names, fmt.Sprintf("c%d", i%clusters))
	}
	list, err := json.Marshal(names)
	require.NoError(t, err)
	p := newPolling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
		if r.URL.Path == "/v3/kafka" {
			fmt.Fprintf(w, `{"clusters":%s}`, list)
			return
		}
		asked.Add(1)
		fmt.Fprint(w, `{"consumers":[],"topics":[]}`)
	}), nil)
	p.poll(t)
	assert.EqualValues(t, 2*clusters, asked.Load(), "groups and topics of each, once")
	assert.Less(t, most.Load(), int64(500))
}

// One that lists other clusters each time does not make what is remembered of them grow.
func TestClustersAreBounded(t *testing.T) {
	p := &poller{
		cfg: &APIConfig{CollectionInterval: time.Second}, expireAfter: time.Hour, table: groups.New(groups.Limits{}),
		clusters: map[string]*clusterListing{}, maxClusters: 3, rhythms: map[string]*rhythm{}, maxTopics: 5,
	}
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	for second := range 10 {
		listed := []string{"known", fmt.Sprint("a", second), fmt.Sprint("b", second)}
		p.endAbsentClusters(listed, at(second))
		for _, cluster := range listed {
			p.follow(cluster, []string{"x", "y"})
		}
		assert.LessOrEqual(t, len(p.rhythms), 3)
		followed := 0
		for _, c := range p.rhythms {
			followed += len(c.topics)
		}
		assert.Equal(t, followed, p.following)
		assert.Equal(t, 5, followed, "there is no place for the heads of more")
		assert.LessOrEqual(t, len(p.clusters), 3)
		assert.Contains(t, p.clusters, "known")
	}
	p.endAbsentClusters([]string{"other", "next"}, at(4000))
	assert.Len(t, p.clusters, 2, "what was known has expired")
	assert.Zero(t, p.following)
}

func TestFilteredIsCounted(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.Groups.Exclude = []string{"^fraud-"} })
	status, text := r.post(t, recordedBody(t, "warn.json"))
	require.Equal(t, http.StatusOK, status, text)
	assert.Equal(t, map[string]int64{"filtered": 1}, r.outcomes(t))
	assert.Zero(t, r.table.Stats().Groups)
	_, err := r.telemetry.GetMetric("otelcol_receiver_burrow_last_notification_timestamp")
	require.Error(t, err, "of what is filtered nothing is known, not even that it came")
}

// A Burrow that is away costs nothing of what is known, and one line in the log.
func TestUnreachableBurrow(t *testing.T) {
	server := &swap{}
	server.use(burrowtest.RecordedAPI(t, recordedAPI))
	p := newPolling(t, server, nil)
	p.poll(t)
	p.poll(t) // with the heads of the first one
	known := len(p.held)
	broken := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) })
	server.use(broken)
	p.poll(t)
	p.poll(t)
	assert.Len(t, p.held, known)
	assert.Equal(t, 1, p.logs.FilterMessageSnippet("can't be asked for everything").Len(), "one line when it begins")
	server.use(burrowtest.RecordedAPI(t, recordedAPI))
	p.poll(t)
	assert.Len(t, p.held, known)
	assert.Equal(t, 1, p.logs.FilterMessageSnippet("answers everything again").Len(), "and one when it ends")
	assert.Equal(t, 1, p.logs.FilterMessageSnippet("slash").Len(), "one line about a name that can't be asked for, once")
}

// One bad answer does not fail the rest.
func TestOneBadGroup(t *testing.T) {
	good := burrowtest.RecordedAPI(t, recordedAPI)
	p := newPolling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/billing-service/lag"):
			_, _ = w.Write([]byte(`{"error":false,"status":{"cluster":"east","group":"billing-service","status":"FINE"}}`))
		case strings.HasSuffix(r.URL.Path, "/mailer/lag"):
			_, _ = w.Write([]byte(strings.Repeat("x", 100_000)))
		case strings.HasSuffix(r.URL.Path, "/topic/orders"):
			panic(http.ErrAbortHandler)
		default:
			good.ServeHTTP(w, r)
		}
	}), func(c *Config) { c.API.Get().MaxAnswerSize = 50_000 })
	held := p.poll(t)
	assert.Contains(t, held, `burrow.group.status cluster="east" group="fraud-check"`)
	assert.NotContains(t, held, `burrow.group.status cluster="east" group="mailer"`)
	assert.NotContains(t, held, `burrow.group.status cluster="east" group="billing-service"`)
	assert.Contains(t, held, `burrow.topic.offset cluster="east" topic="payments" partition="0"`)
	lines := p.logs.FilterMessageSnippet("can't be asked for everything").All()
	require.Len(t, lines, 1)
	// billing-service and the topic in both clusters, and mailer.
	assert.GreaterOrEqual(t, lines[0].ContextMap()["failures"], int64(5))
}

// Shutdown in the middle of a poll returns at once, and hands over what had come.
func TestShutdownInAPoll(t *testing.T) {
	load := burrowtest.LoadAPI(100, 5)
	load.Delay = 200 * time.Millisecond
	server := httptest.NewServer(load)
	defer server.Close()
	r := run(t, nil, nil, func(c *Config) {
		api := c.API.GetOrInsertDefault()
		api.Client.Endpoint = server.URL
		api.InitialDelay = 0
		api.MaxConcurrentRequests = 2
	})
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Greater(c, load.Requests(), int64(5)) }, 10*time.Second, time.Millisecond)
	begin := time.Now()
	require.NoError(t, r.Shutdown(context.Background()))
	assert.Less(t, time.Since(begin), 2*time.Second)
	assert.Positive(t, r.sink.DataPointCount())
}

// Connections are bounded and used again, and a poll that can't be in time says so.
func TestPollIsBoundedAndSaysWhenItIsLate(t *testing.T) {
	load := burrowtest.LoadAPI(200, 3)
	load.Delay = 2 * time.Millisecond
	p := newPolling(t, load, func(c *Config) { c.API.Get().MaxConcurrentRequests = 4 })
	p.poll(t)
	assert.EqualValues(t, 4, load.MaxRequests())
	assert.Equal(t, 200, p.table.Stats().Groups)
	assert.EqualValues(t, 1+2+200+20, load.Requests())

	p.cfg.API.Get().CollectionInterval = 30 * time.Second
	p.poller.observeLength(31*time.Second, time.Now())
	p.poller.observeLength(32*time.Second, time.Now())
	p.poller.observeLength(29*time.Second, time.Now())
	p.poller.observeLength(28*time.Second, time.Now())
	assert.Equal(t, 1, p.logs.FilterMessageSnippet("takes longer").Len())
	assert.Equal(t, 1, p.logs.FilterMessageSnippet("in time again").Len())
}

func TestPollsGoOn(t *testing.T) {
	load := burrowtest.LoadAPI(1, 1)
	server := httptest.NewServer(load)
	defer server.Close()
	r := run(t, nil, nil, func(c *Config) {
		api := c.API.GetOrInsertDefault()
		api.Client.Endpoint = server.URL
		api.InitialDelay = 0
		api.CollectionInterval = time.Second
		c.Webhook.Get().Server.NetAddr.Endpoint = freeAddress()
	})
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.GreaterOrEqual(c, load.Requests(), int64(10)) }, 10*time.Second, 10*time.Millisecond, "two polls of five requests")
	length, err := r.telemetry.GetMetric("otelcol_receiver_burrow_api_poll_duration")
	require.NoError(t, err)
	assert.Positive(t, length.Data.(metricdata.Gauge[float64]).DataPoints[0].Value)
	require.NoError(t, r.Shutdown(context.Background()))
}

func TestAPIAlone(t *testing.T) {
	server := httptest.NewServer(burrowtest.LoadAPI(3, 2))
	defer server.Close()
	cfg := createDefaultConfig().(*Config)
	cfg.Webhook = configoptional.None[WebhookConfig]()
	cfg.Interval = minInterval
	api := cfg.API.GetOrInsertDefault()
	api.Client.Endpoint, api.InitialDelay = server.URL, 0
	require.NoError(t, cfg.Validate())
	sink := new(consumertest.MetricsSink)
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), cfg, sink)
	require.NoError(t, err)
	require.NoError(t, r.Start(context.Background(), host{}))
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Positive(c, sink.DataPointCount()) }, 10*time.Second, time.Millisecond)
	require.NoError(t, r.Shutdown(context.Background()))
}

// Burrow leaves out heads that it has not read, and the others move up: such an answer is not used.
func TestShiftedOffsets(t *testing.T) {
	good := burrowtest.RecordedAPI(t, recordedAPI)
	p := newPolling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v3/kafka/east/topic/orders" {
			_, _ = w.Write([]byte(`{"error":false,"message":"topic offsets returned","offsets":[1,2,3]}`)) // of four partitions
			return
		}
		good.ServeHTTP(w, r)
	}), nil)
	held := p.poll(t)
	assert.NotContains(t, held, `burrow.topic.offset cluster="east" topic="orders" partition="0"`)
	assert.Contains(t, held, `burrow.topic.offset cluster="west" topic="orders" partition="0"`)
	assert.Contains(t, held, `burrow.partition.lag cluster="east" group="mailer" topic="orders" partition="3"`)
}

// An answer was evaluated before it arrived: a notification that comes between counts.
func TestNotificationWhileBurrowIsAsked(t *testing.T) {
	good := burrowtest.RecordedAPI(t, recordedAPI)
	var p *polling
	p = newPolling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v3/kafka/east/consumer/mailer/lag" {
			assert.Empty(t, send(p.webhook, "POST", []byte(recordedBody(t, "escalate-1-warn.json"))))
		}
		good.ServeHTTP(w, r)
	}), nil)
	held := p.poll(t)
	assert.Equal(t, "2400", held[`burrow.group.total_lag cluster="east" group="mailer"`])
	assert.Equal(t, "2", held[`burrow.group.status cluster="east" group="mailer"`])
}
