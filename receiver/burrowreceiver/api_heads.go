package burrowreceiver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

const (
	// headsTick is how often the leading topic of each cluster is asked for, and so how exactly the moment is known at which Burrow has
	// read the heads.
	headsTick = time.Second
	// headsSettle is how long Burrow needs until it has the answers of all brokers, as a rule. That one takes longer does no harm (groups.topicHeads).
	headsSettle = 200 * time.Millisecond
)

// rhythm is how the heads of one cluster are asked for. Burrow reads all heads of a cluster at once, every offset-refresh. So one topic, the
// one that moves most, is asked for all the time, and when it has moved, all of them are: their heads are then nearly exact in time.
type rhythm struct {
	// topics were listed last. Only they are shared with the polls.
	topics []string

	leader string
	// told is what was told of each topic last.
	told map[string]toldHeads
	// asked is when all topics were asked for, moved when that was because the leading one had moved.
	asked, moved time.Time
	// distance is the shortest in which the leading topic moved lately, 0 if it did not twice: Burrow reads the heads as often, or more often.
	distance time.Duration
}

// toldHeads is the sum of a topic's heads, and when it was asked for them.
type toldHeads struct {
	sum   int64
	asked time.Time
}

// follow notes the topics of a cluster whose heads are to be asked for. What a broken Burrow lists beyond the heads that can be held is
// left out, and so are clusters that are not remembered.
func (p *poller) follow(cluster string, listed []string) {
	topics := slices.DeleteFunc(slices.Clone(listed), func(name string) bool { return !p.filters.topics.takes(name) })
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.rhythms[cluster]
	if c == nil {
		if len(p.rhythms) >= p.maxClusters {
			return
		}
		c = &rhythm{}
		p.rhythms[cluster] = c
	}
	p.following -= len(c.topics)
	c.topics = slices.Clip(topics[:min(len(topics), p.maxTopics-p.following)])
	p.following += len(c.topics)
}

// keepRhythms drops those of clusters that are gone.
func (p *poller) keepRhythms() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.rhythms, func(cluster string, c *rhythm) bool {
		gone := p.clusters[cluster] == nil
		if gone {
			p.following -= len(c.topics)
		}
		return gone
	})
}

// runHeads asks for heads, on their own rhythm, until ctx ends.
func (p *poller) runHeads(ctx context.Context) {
	ctx = p.connections.trace(ctx)
	ticker := time.NewTicker(headsTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.pollHeads(ctx)
		}
	}
}

// pollHeads makes one step in each cluster that was listed. What fails is counted; the polls log it.
func (p *poller) pollHeads(ctx context.Context) {
	p.mu.Lock()
	rhythms, topics := maps.Clone(p.rhythms), map[string][]string{}
	for cluster, c := range rhythms {
		topics[cluster] = c.topics
	}
	p.mu.Unlock()
	r := &round{poller: p, begin: time.Now()}
	each(ctx, r, slices.Sorted(maps.Keys(rhythms)), &p.filters.clusters, func(cluster string) {
		r.heads(ctx, cluster, rhythms[cluster], topics[cluster])
	})
}

// heads asks for the leading topic of a cluster, and for all when that has moved, or when it is time.
func (r *round) heads(ctx context.Context, cluster string, c *rhythm, topics []string) {
	due := r.begin.Sub(c.asked) >= r.cfg.OffsetsInterval
	var read time.Time // when the leading topic was asked for before, if it has moved since
	// Not more than twice as often as it was set, however often Burrow reads.
	if c.leader != "" && r.begin.Sub(c.moved) >= r.cfg.OffsetsInterval/2 {
		read = r.leads(ctx, cluster, c)
	}
	switch {
	case read.IsZero() && !due:
		return
	case read.IsZero():
	case !pause(ctx, headsSettle):
		return
	default:
		c.movedAt(r.begin)
		r.allHeads(ctx, cluster, c, topics, groups.Read{Since: read, Seen: true})
		return
	}
	r.allHeads(ctx, cluster, c, topics, c.concluded(r.begin))
}

// movedAt notes that Burrow has read the heads. If it does so less often than before, that is known after some time.
func (c *rhythm) movedAt(now time.Time) {
	if distance := now.Sub(c.moved); !c.moved.IsZero() {
		if slower := c.distance + c.distance/10; c.distance != 0 {
			distance = min(distance, slower)
		}
		c.distance = distance
	}
	c.moved = now
}

// concluded is a moment since which Burrow has read the heads, by how often it did.
func (c *rhythm) concluded(now time.Time) groups.Read {
	if c.distance == 0 {
		return groups.Read{}
	}
	return groups.Read{Since: now.Add(-c.distance - c.distance/2)}
}

// leads asks for the leading topic. If it has moved, it returns when it was asked for before.
func (r *round) leads(ctx context.Context, cluster string, c *rhythm) (read time.Time) {
	offsets, asked, ok := r.offsets(ctx, cluster, c.leader)
	if !ok {
		return time.Time{}
	}
	before := c.told[c.leader]
	if sumOf(offsets) != before.sum {
		return before.asked
	}
	c.told[c.leader] = toldHeads{before.sum, asked}
	return time.Time{}
}

// allHeads asks for all topics, and finds out which one leads.
func (r *round) allHeads(ctx context.Context, cluster string, c *rhythm, topics []string, read groups.Read) {
	var mu sync.Mutex
	told := make(map[string]toldHeads, len(topics))
	leader, most := "", int64(0)
	each(ctx, r, topics, &r.filters.topics, func(name string) {
		offsets, asked, ok := r.offsets(ctx, cluster, name)
		if !ok {
			return
		}
		r.see(&groups.Topic{Cluster: cluster, Name: name, Offsets: offsets, Received: asked}, read)
		now := toldHeads{sumOf(offsets), asked}
		mu.Lock()
		defer mu.Unlock()
		told[name] = now
		if before, known := c.told[name]; known && (now.sum-before.sum > most || now.sum-before.sum == most && name == c.leader) {
			leader, most = name, now.sum-before.sum
		}
	})
	if ctx.Err() != nil {
		return // not all were asked for
	}
	if _, there := told[c.leader]; leader == "" && there {
		leader = c.leader
	}
	c.leader, c.told, c.asked = leader, told, r.begin
}

func (r *round) see(topic *groups.Topic, read groups.Read) {
	if err := r.table.SeeHeads(topic, read); errors.Is(err, groups.ErrUnmatched) {
		r.logger.Debug("Head offsets are left out", zap.String("cluster", burrow.Printable(topic.Cluster)), zap.String("topic", burrow.Printable(topic.Name)), zap.Error(err))
	}
}

// offsets asks for the heads of a topic, and says when it did.
func (r *round) offsets(ctx context.Context, cluster, name string) (offsets []int64, asked time.Time, ok bool) {
	offsets, ok = ask(ctx, r, func() ([]int64, error) {
		asked = time.Now()
		return r.api.Offsets(ctx, cluster, name)
	})
	return offsets, asked, ok
}

// sumOf adds heads up. It is another one when a head has moved.
func sumOf(offsets []int64) (sum int64) {
	for _, offset := range offsets {
		sum += offset
	}
	return sum
}

// pause says whether ctx has let it end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
