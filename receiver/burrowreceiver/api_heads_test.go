package burrowreceiver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// readsHeads is a Burrow that reads all heads of its cluster every refresh. It answers within the process.
type readsHeads struct {
	begin   time.Time
	refresh time.Duration
	// head is that of the only partition of a topic, at a moment.
	head map[string]func(seconds float64) int64

	mu     sync.Mutex
	asked  map[string][]time.Duration // by topic
	broken bool
}

func (b *readsHeads) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	answer := map[string]any{"error": false}
	status := http.StatusOK
	now := time.Since(b.begin)
	switch name := path.Base(r.URL.Path); {
	case b.broken:
		status = http.StatusBadGateway
	case r.URL.Path == "/v3/kafka":
		answer["clusters"] = []string{"c"}
	case name == "consumer":
		answer["consumers"] = []string{}
	case name == "topic":
		names := []string{"__consumer_offsets"}
		for topic := range b.head {
			names = append(names, topic)
		}
		answer["topics"] = names
	case b.head[name] != nil:
		b.asked[name] = append(b.asked[name], now)
		answer["offsets"] = []int64{b.head[name](now.Truncate(b.refresh).Seconds())}
	default:
		status = http.StatusNotFound
	}
	w := httptest.NewRecorder()
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// pollerIn makes a poller whose Burrow is in the process. The clock is that of the test's bubble.
func pollerIn(t *testing.T, b *readsHeads, change func(*APIConfig)) *poller {
	t.Helper()
	b.begin, b.asked = time.Now(), map[string][]time.Duration{}
	cfg := createDefaultConfig().(*Config)
	if api := cfg.API.GetOrInsertDefault(); change != nil {
		change(api)
	}
	require.NoError(t, cfg.Validate())
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), cfg, new(consumertest.MetricsSink))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Shutdown(context.Background())) })
	api, err := burrow.NewAPI(&http.Client{Transport: b}, "http://burrow", 1<<20, burrow.APILimits{MaxPartitions: 100})
	require.NoError(t, err)
	return newPollerOf(r, api)
}

// between are the requests for a topic from one second to another, in seconds.
func (b *readsHeads) between(topic string, from, to float64) (seconds []string) {
	for _, at := range b.asked[topic] {
		if at.Seconds() >= from && at.Seconds() < to {
			seconds = append(seconds, fmt.Sprintf("%.1f", at.Seconds()))
		}
	}
	return seconds
}

// The topic that moves most is asked for every second, and when it has moved, all are.
func TestTheLeadingTopicTellsWhenBurrowReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &readsHeads{refresh: 10 * time.Second, head: map[string]func(float64) int64{
			"slow":  func(s float64) int64 { return int64(s) },
			"busy":  func(s float64) int64 { return int64(1000 * s) },
			"still": func(float64) int64 { return 7 },
		}}
		p := pollerIn(t, b, nil)
		ctx, cancel := context.WithCancel(context.Background())
		p.poll(ctx, time.Now())
		time.Sleep(500 * time.Millisecond)
		done := make(chan struct{})
		go func() { defer close(done); p.runHeads(ctx) }()
		time.Sleep(2 * time.Minute)
		cancel()
		<-done

		assert.Equal(t, "busy", p.rhythms["c"].leader)
		for _, topic := range []string{"slow", "still"} {
			assert.Equal(t, []string{"60.7", "70.7", "80.7", "90.7"}, b.between(topic, 60, 100), "just behind the reading, which is at 60, 70, ...")
		}
		assert.Equal(t, []string{"80.5", "80.7", "85.5", "86.5", "87.5", "88.5", "89.5"}, b.between("busy", 80, 90))
		assert.Empty(t, b.asked["__consumer_offsets"])
	})
}

// However seldom the heads move, they are asked for every offsets_interval; however often they do, not more than twice as often.
func TestHeadsAreAskedForInAnyCase(t *testing.T) {
	for name, tc := range map[string]struct {
		refresh time.Duration
		head    func(float64) int64
		want    []string
	}{
		"nothing moves":     {10 * time.Second, func(float64) int64 { return 1 }, []string{"120.5", "140.5", "160.5"}},
		"seldom read":       {70 * time.Second, func(s float64) int64 { return int64(s) }, []string{"120.5", "140.7", "160.5"}},
		"read all the time": {time.Second, func(s float64) int64 { return int64(s) }, []string{"121.7", "131.7", "141.7", "151.7", "161.7", "171.7"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &readsHeads{refresh: tc.refresh, head: map[string]func(float64) int64{"a": tc.head, "b": tc.head}}
				p := pollerIn(t, b, func(c *APIConfig) { c.OffsetsInterval = 20 * time.Second })
				p.poll(context.Background(), time.Now())
				time.Sleep(500 * time.Millisecond)
				for range 180 {
					p.pollHeads(context.Background())
					time.Sleep(time.Until(b.begin.Add(time.Since(b.begin).Truncate(time.Second) + 1500*time.Millisecond)))
				}
				follower := "a"
				if p.rhythms["c"].leader == "a" {
					follower = "b"
				}
				assert.Equal(t, tc.want, b.between(follower, 120, 180))
			})
		})
	}
}

// A Burrow that does not answer costs its failures, and is asked on.
func TestHeadsOfABrokenBurrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &readsHeads{refresh: 10 * time.Second, head: map[string]func(float64) int64{"a": func(s float64) int64 { return int64(s) }}}
		p := pollerIn(t, b, nil)
		p.poll(context.Background(), time.Now())
		steps := func(n int) {
			for range n {
				p.pollHeads(context.Background())
				time.Sleep(time.Second)
			}
		}
		steps(40)
		require.Equal(t, "a", p.rhythms["c"].leader)
		asked := len(b.asked["a"])
		b.broken = true
		steps(40)
		assert.Empty(t, p.rhythms["c"].leader, "nobody knows which one it is")
		b.broken = false
		steps(40)
		assert.Equal(t, "a", p.rhythms["c"].leader)
		assert.Greater(t, len(b.asked["a"]), asked)
		// The cluster is gone.
		p.clusters = map[string]*clusterListing{}
		p.keepRhythms()
		assert.Empty(t, p.rhythms)
	})
}

func TestTopicsThatAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		still := func(float64) int64 { return 1 }
		b := &readsHeads{refresh: time.Second, head: map[string]func(float64) int64{"orders": still, "orders.dlq": still, "payments": still}}
		p := pollerIn(t, b, func(c *APIConfig) { c.Topics = FilterConfig{Include: []string{"^orders"}, Exclude: []string{"dlq$"}} })
		p.poll(context.Background(), time.Now())
		p.pollHeads(context.Background())
		assert.Equal(t, []string{"orders"}, p.rhythms["c"].topics)
		var asked []string
		for topic := range b.asked {
			asked = append(asked, topic)
		}
		slices.Sort(asked)
		assert.Equal(t, "orders", strings.Join(asked, " "))
	})
}

// How often Burrow reads the heads is learned from the shortest distance, and unlearned when it is longer.
func TestRhythm(t *testing.T) {
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	var c rhythm
	assert.Zero(t, c.concluded(at(0)))
	c.movedAt(at(0))
	assert.Zero(t, c.concluded(at(5)), "once says nothing")
	c.movedAt(at(40))
	c.movedAt(at(50))
	assert.Equal(t, at(85), c.concluded(at(100)).Since)
	assert.False(t, c.concluded(at(100)).Seen)
	c.movedAt(at(80))
	assert.Equal(t, 11*time.Second, c.distance)
	for i := range 20 {
		c.movedAt(at(110 + 30*i))
	}
	assert.Equal(t, 30*time.Second, c.distance)
}
