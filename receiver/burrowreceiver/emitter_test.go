package burrowreceiver

import (
	"context"
	"errors"
	"maps"
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
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// pipelines is a consumer that can be told to refuse.
type pipelines struct {
	t *testing.T

	mu    sync.Mutex
	err   error
	calls []time.Time
	held  store
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
func (p *pipelines) series() store {
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
	next := &pipelines{held: store{}, t: t}
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	r, err := newBurrowReceiver(set, cfg, next)
	require.NoError(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		r.emitter.run(context.Background(), stop)
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
				require.Len(t, next.series(), 15)

				next.refuse(refusal)
				require.Empty(t, send(r.webhook, "POST", []byte(recordedBody(t, "warn.json"))))
				require.Empty(t, send(r.webhook, "POST", []byte(strings.Replace(group("fraud-check", 7), `"c"`, `"east"`, 1))))
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
				pass(10 * time.Second)
				require.Empty(t, send(r.webhook, "POST", []byte(group("a", 2))))
				pass(10 * time.Second)
				assert.Len(t, next.seen(), 1+20)
				assert.Len(t, next.series(), 15, "nothing was taken")

				next.refuse(nil)
				pass(time.Second)
				assert.Equal(t, store{
					lagOfA: "2",
					`burrow.group.status cluster="c" group="a"`:                 "1",
					`burrow.group.status cluster="east" group="fraud-check"`:    "1",
					`burrow.group.total_lag cluster="east" group="fraud-check"`: "7",
				}, next.series(), "the newest state, and the end of what the pipelines had before")
				assert.Len(t, next.seen(), 1+21)
				assert.Equal(t, 1, logs.FilterMessageSnippet("refuse").Len(), "one line when it begins")
				assert.Equal(t, 1, logs.FilterMessageSnippet("again.").FilterLevelExact(zap.InfoLevel).Len(), "and one when it ends")
			})
		})
	}
}

func TestDrainRetriesUntilTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &pipelines{held: store{}, t: t, err: errors.New("full")}
		r, err := newBurrowReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), next)
		require.NoError(t, err)
		require.Empty(t, send(r.webhook, "POST", []byte(group("a", 1))))
		stop := make(chan struct{})
		close(stop)
		go func() {
			time.Sleep(5500 * time.Millisecond)
			next.refuse(nil)
		}()
		r.emitter.run(context.Background(), stop)
		assert.Equal(t, "1", next.series()[lagOfA])
		assert.Len(t, next.seen(), 7, "at once and after every interval")
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
