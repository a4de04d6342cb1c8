package burrowreceiver

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// pipelines is a consumer that can be told to refuse.
type pipelines struct {
	t *testing.T

	mu    sync.Mutex
	err   error
	calls []time.Time
	held  backend
}

func (p *pipelines) refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// seen returns the moments of the hand-overs.
func (p *pipelines) seen() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// series returns what a backend behind the pipelines has.
func (p *pipelines) series() backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.held)
}

func (p *pipelines) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (p *pipelines) ConsumeMetrics(_ context.Context, md pmetric.Metrics) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, time.Now())
	if p.err == nil {
		p.held.take(p.t, md)
	}
	return p.err
}

const lagOfA = `burrow.group.total_lag cluster="c" group="a"`

// emitting runs an emitter alone, on the clock of the bubble.
func emitting(t *testing.T, change func(*Config)) (*burrowReceiver, *pipelines, *observer.ObservedLogs) {
	t.Helper()
	next := &pipelines{held: backend{}, t: t}
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	r, err := newMetricsReceiver(set, cfg, next)
	require.NoError(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		r.emitters[0].run(context.Background(), stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		require.NoError(t, r.Shutdown(context.Background()))
	})
	return r, next, logs
}

// pass lets time go by and the emitter come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHandOverEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r, next, _ := emitting(t, func(c *Config) { c.Interval = 10 * time.Second })
		pass(9 * time.Second)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		pass(500 * time.Millisecond)
		assert.Empty(t, next.seen())
		pass(time.Second)
		assert.Equal(t, "1", next.series()[lagOfA])
		pass(time.Minute)
		assert.Equal(t, []time.Time{begin.Add(10 * time.Second)}, next.seen(), "only what has changed is handed over")
	})
}

func TestSeriesEndWhenAGroupExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, next, _ := emitting(t, nil)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		pass(3 * time.Minute)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 2))))
		pass(5*time.Minute - time.Millisecond)
		assert.Equal(t, "2", next.series()[lagOfA], "it was heard of again")
		pass(2 * time.Second)
		assert.Empty(t, next.series())
		assert.Zero(t, r.table.Stats().Groups)
		assert.Len(t, next.seen(), 3)
	})
}

func TestRefusedStateIsHandedOverAgain(t *testing.T) {
	for name, refusal := range map[string]error{
		"retryable": errors.New("memory is short"),
		"permanent": consumererror.NewPermanent(errors.New("one of two pipelines can't take it")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, next, logs := emitting(t, nil)
				require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "warn.json"))))
				pass(1500 * time.Millisecond)
				require.Len(t, next.series(), 17)

				next.refuse(refusal)
				require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "warn.json"))))
				require.Empty(t, send(r.webhook, "POST", []byte(strings.Replace(group("fraud-check", 7), `"c"`, `"east"`, 1))))
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
				pass(10 * time.Second)
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 2))))
				pass(10 * time.Second)
				assert.Len(t, next.seen(), 1+20)
				assert.Len(t, next.series(), 17, "nothing was taken")

				next.refuse(nil)
				pass(time.Second)
				assert.Equal(t, backend{
					lagOfA: "2",
					`burrow.group.incidents cluster="c" group="a"`:              "0",
					`burrow.group.incidents cluster="east" group="fraud-check"`: "1",
					`burrow.group.status cluster="c" group="a"`:                 "1",
					`burrow.group.status cluster="east" group="fraud-check"`:    "1",
					`burrow.group.total_lag cluster="east" group="fraud-check"`: "7",
				}, next.series(), "the newest state, and the end of what the pipelines had before")
				assert.Len(t, next.seen(), 1+21)
				assert.Equal(t, 1, logs.FilterMessageSnippet("pipelines refuse").Len(), "one line when it begins")
				assert.Equal(t, 1, logs.FilterMessageSnippet("pipelines take").Len(), "and one when it ends")
			})
		})
	}
}

func TestDrainRetriesUntilTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &pipelines{held: backend{}, t: t, err: errors.New("full")}
		r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), next)
		require.NoError(t, err)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		stop := make(chan struct{})
		close(stop)
		go func() {
			time.Sleep(5500 * time.Millisecond)
			next.refuse(nil)
		}()
		r.emitters[0].run(context.Background(), stop)
		assert.Equal(t, "1", next.series()[lagOfA])
		assert.Len(t, next.seen(), 8, "at the start, when it is stopped, and after every interval")
		require.NoError(t, r.Shutdown(context.Background()))
	})
}

func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, logs := emitting(t, func(c *Config) { c.MaxGroups = 1 })
		bad := func(body string) { require.NotEmpty(t, send(r.webhook, "POST", []byte(body))) }
		for range 1000 {
			bad("not JSON")
			bad("{}")
			pass(25 * time.Millisecond) // 25 s together
		}
		lines := logs.FilterMessageSnippet("Refused").All()
		require.Len(t, lines, 6, "three of each kind")
		left := 0
		for _, line := range lines {
			left += int(line.ContextMap()["more_since_last_line"].(int64))
		}
		assert.Equal(t, 2*(400+400-2), left)

		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		for range 100 {
			bad(group("b", 1))
			pass(time.Second)
		}
		full := logs.Filter(func(line observer.LoggedEntry) bool { return line.ContextMap()["outcome"] == "table_full" })
		assert.Equal(t, 1, full.Len())
	})
}

// One server and one table for both signals, and neither waits for the other's pipelines.
func TestSignalsShareTheReceiver(t *testing.T) {
	factory, cfg := NewFactory(), testConfig(nil)
	set := receivertest.NewNopSettings(metadata.Type)
	entered := make(chan struct{}, 1)
	logs := new(consumertest.LogsSink)
	first, err := factory.CreateMetrics(context.Background(), set, cfg, hanging(entered))
	require.NoError(t, err)
	second, err := factory.CreateLogs(context.Background(), set, cfg, logs)
	require.NoError(t, err)
	require.Same(t, first, second)
	url := "http://" + cfg.Webhook.Get().Server.NetAddr.Endpoint + defaultPath

	require.NoError(t, first.Start(context.Background(), host{}))
	_, err = http.Get(url)
	require.Error(t, err, "the exporters of the logs may not have started yet")
	require.NoError(t, second.Start(context.Background(), host{}))

	status, text, _ := request(t, http.MethodPost, url, strings.NewReader(recordedBody(t, "warn.json")))
	require.Equal(t, http.StatusOK, status, text)
	<-entered
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Equal(c, 1, logs.LogRecordCount()) }, 5*time.Second, time.Millisecond)

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, first.Shutdown(ctx), "metrics hang")
	require.NoError(t, second.Shutdown(context.Background()))

	other, err := factory.CreateLogs(context.Background(), set, cfg, logs)
	require.NoError(t, err)
	require.NotSame(t, first, other, "a new life is a new receiver")
	require.NoError(t, other.Shutdown(context.Background()))
}

func TestLogsAlone(t *testing.T) {
	factory, cfg := NewFactory(), testConfig(func(c *Config) { c.ExpireAfter = 500 * time.Millisecond })
	logs := new(consumertest.LogsSink)
	r, err := factory.CreateLogs(context.Background(), receivertest.NewNopSettings(metadata.Type), cfg, logs)
	require.NoError(t, err)
	require.NoError(t, r.Start(context.Background(), host{}))
	url := "http://" + cfg.Webhook.Get().Server.NetAddr.Endpoint + defaultPath
	for range 3 {
		status, text, _ := request(t, http.MethodPost, url, strings.NewReader(recordedBody(t, "warn.json")))
		require.Equal(t, http.StatusOK, status, text)
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Equal(c, 2, logs.LogRecordCount()) }, 10*time.Second, 10*time.Millisecond)
	assert.Equal(t, groups.Stats{Expired: 1}, r.(*burrowReceiver).table.Stats(), "nothing is left")
	require.NoError(t, r.Shutdown(context.Background()))
}

func TestRefusedEventsAreHandedOverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusing := true
		sink := new(consumertest.LogsSink)
		next, err := consumer.NewLogs(func(ctx context.Context, ld plog.Logs) error {
			if refusing {
				return errors.New("full")
			}
			return sink.ConsumeLogs(ctx, ld)
		})
		require.NoError(t, err)
		r, err := newBurrowReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config))
		require.NoError(t, err)
		r.addLogs(next)
		handOver := func() bool { return r.emitters[0].handOver(context.Background(), time.Now()) }

		require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "escalate-1-warn.json"))))
		require.False(t, handOver())
		require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "escalate-2-err.json"))))
		require.False(t, handOver())
		refusing = false
		require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "escalate-3-close.json"))))
		require.True(t, handOver())
		require.True(t, handOver())
		require.Len(t, sink.AllLogs(), 1)
		var names []string
		for _, record := range sink.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().All() {
			names = append(names, record.EventName())
		}
		assert.Equal(t, []string{"burrow.incident.opened", "burrow.incident.changed", "burrow.incident.ended"}, names)
		require.NoError(t, r.Shutdown(context.Background()))
	})
}
