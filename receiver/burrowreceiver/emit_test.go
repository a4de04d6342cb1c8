package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// pipelines is a consumer that can be told to refuse.
type pipelines struct {
	t *testing.T

	// ends says that series may end that were not there: they may have been refused.
	ends bool

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
	switch {
	case p.err != nil:
	case p.ends:
		p.held.show(md)
	default:
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
	runEmitter(t, r)
	return r, next, logs
}

// runEmitter runs the emitter of r until the test ends.
func runEmitter(t *testing.T, r *burrowReceiver) {
	t.Helper()
	passes, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.emitters[0].run(context.Background(), passes)
	}()
	t.Cleanup(func() {
		stop()
		<-stopped
		require.NoError(t, r.Shutdown(context.Background()))
	})
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
				require.Len(t, next.series(), 19)

				next.refuse(refusal)
				require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "warn.json"))))
				require.Empty(t, send(r.webhook, "POST", []byte(strings.Replace(group("fraud-check", 7), `"c"`, `"east"`, 1))))
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
				pass(time.Minute)
				refused := next.seen()[1:]
				var after []time.Duration
				for _, at := range refused[1:] {
					after = append(after, at.Sub(refused[0]))
				}
				assert.Equal(t, []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second}, after, "ever less often")
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 2))))
				pass(time.Second)
				assert.Len(t, next.seen(), 1+7, "what is new is handed over at once, and alone")
				assert.Len(t, next.series(), 19, "nothing was taken")

				next.refuse(nil)
				pass(time.Minute)
				assert.Equal(t, backend{
					lagOfA: "2",
					`burrow.group.incidents cluster="c" group="a"`:              "0",
					`burrow.group.incidents cluster="east" group="fraud-check"`: "1",
					`burrow.group.status cluster="c" group="a"`:                 "1",
					`burrow.group.status cluster="east" group="fraud-check"`:    "1",
					`burrow.group.total_lag cluster="east" group="fraud-check"`: "7",
					// When they came: at once, and a minute later.
					`burrow.group.last_notification cluster="east" group="fraud-check"`: "9.466848015e+08",
					`burrow.group.last_notification cluster="c" group="a"`:              "9.466848615e+08",
				}, next.series(), "the newest state, and the end of what the pipelines had before")
				assert.Equal(t, 1, logs.FilterMessageSnippet("pipeline refuses").Len(), "one line when it begins")
				assert.Equal(t, 1, logs.FilterMessageSnippet("pipelines take").Len(), "and one when it ends")
			})
		})
	}
}

// fanOut is what the Collector puts between a receiver and several pipelines: one after the other, and one error for all.
func fanOut(all ...consumer.Metrics) consumer.Metrics {
	next, _ := consumer.NewMetrics(func(ctx context.Context, md pmetric.Metrics) error {
		var errs error
		for _, one := range all {
			errs = errors.Join(errs, one.ConsumeMetrics(ctx, md))
		}
		return errs
	})
	return next
}

// Whatever one pipeline does, the page of another shows what holds, as fresh as ever, and gets few repeats.
func TestOnePipelineOfTwo(t *testing.T) {
	hangs := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	refuses := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	for name, behave := range map[string]func(context.Context) error{
		"permanent": refuses(consumererror.NewPermanent(errors.New("400"))),
		"retryable": refuses(errors.New("503")),
		"hangs":     hangs(6 * time.Second),
		"for ever":  hangs(time.Hour),
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", it comes first: ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					healthy, other := &pipelines{held: backend{}, t: t}, &pipelines{held: backend{}, t: t}
					var ill sync.Map
					ill.Store("now", true)
					var calls atomic.Int64
					bad, _ := consumer.NewMetrics(func(ctx context.Context, md pmetric.Metrics) error {
						calls.Add(1)
						if _, now := ill.Load("now"); !now {
							return other.ConsumeMetrics(ctx, md)
						}
						return behave(ctx)
					})
					next := fanOut(healthy, bad)
					if first {
						next = fanOut(bad, healthy)
					}
					core, _ := observer.New(zap.InfoLevel)
					set := receivertest.NewNopSettings(metadata.Type)
					set.Logger = zap.New(core)
					cfg := createDefaultConfig().(*Config)
					r, err := newMetricsReceiver(set, cfg, next)
					require.NoError(t, err)
					healthy.ends, other.ends = true, true
					runEmitter(t, r)

					bodies := []string{"warn.json", "close.json", "stall.json"}
					for i := range 30 { // new state every second
						require.Empty(t, send(r.webhook, "POST", []byte(group("a", i))))
						require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, bodies[i%3]))))
						pass(time.Second)
						if i > 1 {
							lag := healthy.series()[lagOfA]
							assert.Contains(t, []string{strconv.Itoa(i), strconv.Itoa(i - 1), strconv.Itoa(i - 2)}, lag, "two intervals at the most")
						}
					}
					pass(2 * time.Second)
					assert.Equal(t, current(r), healthy.series(), "recovered partitions are not there any more")

					before := calls.Load()
					pass(time.Minute)
					assert.LessOrEqual(t, calls.Load()-before, int64(10), "with nothing new")
					pass(5 * time.Minute)
					assert.Empty(t, healthy.series(), "all groups have expired")
					assert.Positive(t, r.table.Stats().Pending)

					require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "warn.json"))))
					pass(time.Second)
					ill.Delete("now")
					pass(lastRepeat + 2*time.Second)
					assert.Equal(t, current(r), healthy.series())
					assert.Equal(t, current(r), other.series(), "complete within the back-off")
					assert.Zero(t, r.table.Stats().Pending)
				})
			})
		}
	}
}

// current is what a page should show.
func current(r *burrowReceiver) backend {
	var all []*groups.State
	r.table.Each(func(s *groups.State) { all = append(all, s) })
	held := backend{}
	mapper := &metricsMapper{cfg: r.cfg.MetricsBuilderConfig, set: r.set}
	for _, s := range all {
		begin := func(groups.Ref) groups.Change {
			return groups.Change{Cluster: s.Group.Cluster, Name: s.Group.Group, Group: s, At: s.Received}
		}
		_, payloads, _ := mapper.build(begin, make([]groups.Ref, 1), maxPoints)
		for _, md := range payloads {
			held.show(md)
		}
	}
	return held
}

func TestDrainRepeatsUntilTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &pipelines{held: backend{}, t: t, err: errors.New("full")}
		r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), next)
		require.NoError(t, err)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		passes, stop := context.WithCancel(context.Background())
		stop()
		go func() {
			time.Sleep(5500 * time.Millisecond)
			next.refuse(nil)
		}()
		r.emitters[0].run(context.Background(), passes)
		assert.Equal(t, "1", next.series()[lagOfA])
		assert.Len(t, next.seen(), 4, "when it is stopped, and after 1, 3 and 7 s")
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
	require.NoError(t, first.Shutdown(ctx), "metrics hang: to stop is no error")
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

// logsEmitting runs the emitter of logs alone, on the clock of the bubble. refuse sets what the pipelines answer.
func logsEmitting(t *testing.T) (r *burrowReceiver, sink *consumertest.LogsSink, calls func() int, refuse func(error)) {
	t.Helper()
	var mu sync.Mutex
	var refusal error
	count := 0
	sink = new(consumertest.LogsSink)
	next, err := consumer.NewLogs(func(ctx context.Context, ld plog.Logs) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		if refusal != nil {
			return refusal
		}
		return sink.ConsumeLogs(ctx, ld)
	})
	require.NoError(t, err)
	r, err = newBurrowReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config))
	require.NoError(t, err)
	r.addLogs(next)
	runEmitter(t, r)
	calls = func() int { mu.Lock(); defer mu.Unlock(); return count }
	refuse = func(err error) { mu.Lock(); defer mu.Unlock(); refusal = err }
	return r, sink, calls, refuse
}

func eventsOf(sink *consumertest.LogsSink) (names []string) {
	for _, ld := range sink.AllLogs() {
		for _, record := range ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().All() {
			names = append(names, strings.TrimPrefix(record.EventName(), "burrow.incident."))
		}
	}
	return names
}

func TestRefusedEvents(t *testing.T) {
	post := func(t *testing.T, r *burrowReceiver, name string) {
		t.Helper()
		require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, name))))
	}
	t.Run("again when a later one is taken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, sink, calls, refuse := logsEmitting(t)
			refuse(errors.New("full"))
			post(t, r, "escalate-1-warn.json")
			pass(2 * time.Second)
			post(t, r, "escalate-2-err.json")
			pass(10 * time.Second)
			assert.Equal(t, 2, calls(), "each once")
			refuse(nil)
			post(t, r, "escalate-3-close.json")
			pass(time.Second)
			assert.Equal(t, []string{"ended", "opened", "changed"}, eventsOf(sink))
			assert.Zero(t, r.table.Stats().EventsDropped)
		})
	})
	t.Run("again after a minute, and not a third time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, sink, calls, refuse := logsEmitting(t)
			refuse(errors.New("full"))
			post(t, r, "escalate-1-warn.json")
			pass(59 * time.Second)
			assert.Equal(t, 1, calls())
			pass(4 * time.Minute)
			assert.Equal(t, 2, calls())
			assert.EqualValues(t, 1, r.table.Stats().EventsDropped)
			assert.Empty(t, eventsOf(sink))
		})
	})
	t.Run("a permanent refusal is not repeated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, sink, calls, refuse := logsEmitting(t)
			refuse(consumererror.NewPermanent(errors.New("bad request")))
			post(t, r, "escalate-1-warn.json")
			pass(time.Second)
			refuse(nil)
			post(t, r, "escalate-2-err.json")
			pass(2 * time.Minute)
			assert.Equal(t, 2, calls())
			assert.Equal(t, []string{"changed"}, eventsOf(sink))
			assert.EqualValues(t, 1, r.table.Stats().EventsDropped)
		})
	})
	t.Run("the last time when it stops", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, sink, _, refuse := logsEmitting(t)
			refuse(errors.New("full"))
			post(t, r, "escalate-1-warn.json")
			pass(time.Second)
			refuse(nil)
			require.True(t, r.emitters[0].emit(context.Background(), time.Now(), true))
			assert.Equal(t, []string{"opened"}, eventsOf(sink))
		})
	})
}

// Two receivers in one process: the own telemetry of one does not take the place of the other's.
func TestTwoReceiversTellThemselvesApart(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	for i, name := range []string{"east", "west"} {
		set := receivertest.NewNopSettings(metadata.Type)
		set.ID = component.MustNewIDWithName("burrow", name)
		set.TelemetrySettings = telemetry.NewTelemetrySettings()
		cfg := testConfig(nil)
		r, err := newMetricsReceiver(set, cfg, consumertest.NewNop())
		require.NoError(t, err)
		require.NoError(t, r.Start(context.Background(), host{}))
		for n := range i + 1 {
			require.Empty(t, send(r.webhook, "POST", []byte(group(fmt.Sprint("g", n), 1))))
		}
		defer func() { require.NoError(t, r.Shutdown(context.Background())) }()
	}
	m, err := telemetry.GetMetric("otelcol_receiver_burrow_groups")
	require.NoError(t, err)
	held := map[string]int64{}
	for _, point := range m.Data.(metricdata.Gauge[int64]).DataPoints {
		receiver, _ := point.Attributes.Value("receiver")
		held[receiver.AsString()] = point.Value
	}
	assert.Equal(t, map[string]int64{"burrow/east": 1, "burrow/west": 2}, held)
}

func TestOneGroupThatIsNeverTakenDoesNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := &pipelines{held: backend{}, t: t, ends: true}
		var calls atomic.Int64
		next, _ := consumer.NewMetrics(func(ctx context.Context, md pmetric.Metrics) error {
			calls.Add(1)
			m := pmetric.JSONMarshaler{}
			b, _ := m.MarshalMetrics(md)
			if strings.Contains(string(b), "poison") {
				return consumererror.NewPermanent(errors.New("400"))
			}
			return held.ConsumeMetrics(ctx, md)
		})
		r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), next)
		require.NoError(t, err)
		runEmitter(t, r)
		for round := range 8 { // a poll every 30 s brings all of them at once
			for i := range 10 {
				require.Empty(t, send(r.webhook, "POST", []byte(group(fmt.Sprint("g", i), round))))
			}
			require.Empty(t, send(r.webhook, "POST", []byte(group("poison", round))))
			pass(30 * time.Second)
		}
		n := 0
		for k := range held.series() {
			if strings.HasPrefix(k, "burrow.group.total_lag") {
				n++
			}
		}
		assert.Equal(t, 10, n, "in 4 minutes, %d hand-overs", calls.Load())
	})
}

// A pass that only waits for a repeat hands nothing over, and says nothing of how long that takes.
func TestHandOverDurationIsOfHandOvers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		telemetry := componenttest.NewTelemetry()
		set := receivertest.NewNopSettings(metadata.Type)
		set.TelemetrySettings = telemetry.NewTelemetrySettings()
		slow, err := consumer.NewMetrics(func(context.Context, pmetric.Metrics) error {
			time.Sleep(500 * time.Millisecond)
			return errors.New("full")
		})
		require.NoError(t, err)
		r, err := newMetricsReceiver(set, createDefaultConfig().(*Config), slow)
		require.NoError(t, err)
		r.webhook.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, defaultPath, strings.NewReader(group("a", 1))))
		emit := r.emitters[0].emit
		begin := time.Now()
		duration := func() float64 {
			return gaugeBy(t, telemetry, "otelcol_receiver_burrow_handover_duration", "receiver")[set.ID.String()]
		}
		assert.False(t, emit(t.Context(), begin, false))
		assert.InDelta(t, 0.5, duration(), 0)
		assert.False(t, emit(t.Context(), time.Now(), false), "too early for a repeat")
		assert.InDelta(t, 0.5, duration(), 0)
		assert.False(t, emit(t.Context(), begin.Add(time.Minute), false))
		require.NoError(t, r.Shutdown(t.Context()))
		require.NoError(t, telemetry.Shutdown(t.Context()))
	})
}
