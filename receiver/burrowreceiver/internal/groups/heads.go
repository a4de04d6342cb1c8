package groups

import (
	"math"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

const (
	// maxHeadPoints bounds one history.
	maxHeadPoints = 16
	// maxHeadAge is more than the age of any head that Burrow uses: it asks for heads every offset-refresh, 10 s by
	// default. A head below one that was seen longer ago has fallen, because the topic was made again.
	maxHeadAge = 2 * time.Minute
	tooLate    = int64(maxHeadAge / time.Millisecond)
	// headSweeps is how often within ExpireAfter the histories are searched for those to be dropped.
	headSweeps = 4
)

// heads has the histories of all partitions. The groups that read a partition share its history.
type heads struct {
	topics     map[headTopic]map[int32]*headHistory
	count, max int
	swept      time.Time

	// last is the topic that was asked for last: partitions come ordered by topic.
	last       headTopic
	partitions map[int32]*headHistory
}

func newHeads(limit int) heads {
	return heads{topics: map[headTopic]map[int32]*headHistory{}, max: limit}
}

type headTopic struct{ cluster, topic string }

// headHistory is what is known of one partition's head.
type headHistory struct {
	// points are ordered by time, and their offsets never fall. At most two have the same offset: the first and
	// the last time that the head was seen there.
	points []headPoint
	// seen is when the partition was last heard of, in unix milliseconds.
	seen int64
}

// headPoint says that the head had reached offset at that time. It may have done so up to one offset-refresh earlier.
type headPoint struct {
	offset int64
	at     int64 // unix milliseconds
}

// observe adds what a notification tells of heads. It returns the time lag in seconds of each listed partition, nil
// if none is known, and the largest of them and of maxlag; burrow.Unknown is one that is not known.
func (h *heads) observe(g *burrow.GroupStatus, received time.Time) (lags []float64, largest float64) {
	largest = burrow.Unknown
	if g.MaxLag != nil {
		largest = h.history(g.Cluster, g.MaxLag).observe(g.MaxLag, received)
	}
	for i := range g.Partitions {
		p := &g.Partitions[i]
		lag := h.history(g.Cluster, p).observe(p, received)
		if lag == burrow.Unknown {
			continue
		}
		if lags == nil {
			lags = slices.Repeat([]float64{burrow.Unknown}, len(g.Partitions))
		}
		lags[i] = lag
		largest = max(largest, lag)
	}
	return lags, largest
}

// history finds or makes the history of a partition. When there are too many, the partition gets one that nobody
// keeps, and is answered from this notification alone.
func (h *heads) history(cluster string, p *burrow.PartitionStatus) *headHistory {
	if key := (headTopic{cluster, p.Topic}); h.partitions == nil || key != h.last {
		h.last, h.partitions = key, h.topics[key]
	}
	if history := h.partitions[p.Partition]; history != nil {
		return history
	}
	history := new(headHistory)
	if h.count >= h.max {
		return history
	}
	if h.partitions == nil {
		h.partitions = map[int32]*headHistory{}
		h.topics[h.last] = h.partitions
	}
	h.partitions[p.Partition] = history
	h.count++
	return history
}

// expire drops the histories that were not heard of for the given time, with a delay of up to a quarter of it.
func (h *heads) expire(now time.Time, after time.Duration) {
	if now.Sub(h.swept) < after/headSweeps {
		return
	}
	h.swept, h.last, h.partitions = now, headTopic{}, nil
	limit := now.Add(-after).UnixMilli()
	for key, partitions := range h.topics {
		for number, history := range partitions {
			if history.seen <= limit {
				delete(partitions, number)
				h.count--
			}
		}
		if len(partitions) == 0 {
			delete(h.topics, key)
		}
	}
}

// observe adds what a group's partition tells of the head, and returns the group's time lag there.
func (h *headHistory) observe(p *burrow.PartitionStatus, received time.Time) float64 {
	now := received.UnixMilli()
	h.seen = max(h.seen, now)
	if n := len(h.points); n > 0 && h.points[n-1].at-now > tooLate {
		h.points = h.points[:0] // the clock was put back
	}
	h.commit(p.Start, now)
	h.commit(p.End, now)
	if !p.End.Known() {
		return burrow.Unknown
	}
	h.head(p.End.Offset, p.CurrentLag, now)
	if p.CurrentLag == 0 {
		return 0
	}
	at, ok := h.passed(p.End.Offset)
	if !ok {
		return burrow.Unknown
	}
	return float64(max(0, now-at)) / 1000
}

// commit adds the head that Burrow compared a commit with. It did so when it saw the commit, which can be long after
// the commit's own time: a Burrow that has just started reads the commits of hours. A commit from the future is of
// a clock that can't be compared with ours.
func (h *headHistory) commit(c burrow.Commit, now int64) {
	if !c.Known() || c.Lag == burrow.Unknown || c.Timestamp == 0 {
		return
	}
	if at := max(c.Timestamp, c.ObservedAt); at <= now {
		h.head(c.Offset, c.Lag, at)
	}
}

// head adds that a group was at offset, and by so much behind the head.
func (h *headHistory) head(offset, lag, at int64) {
	if lag <= math.MaxInt64-offset {
		h.add(headPoint{offset + lag, at})
	}
}

// add keeps the points in order. When an older point is higher than a newer one, the newer is a head that was old
// when Burrow used it, and tells nothing. If it is too late for that, the head has fallen, and the older point is
// of a topic that is no more.
func (h *headHistory) add(p headPoint) {
	i := len(h.points) // where p belongs
	for i > 0 && h.points[i-1].at > p.at {
		i--
	}
	j := i // the points from i to j are newer and lower
	for j < len(h.points) && h.points[j].offset < p.offset {
		if h.points[j].at-p.at > tooLate {
			return
		}
		j++
	}
	if i > 0 && h.points[i-1].offset > p.offset {
		k := i
		for k > 0 && p.at-h.points[k-1].at <= tooLate {
			k--
		}
		if k == 0 || h.points[k-1].offset <= p.offset {
			return
		}
		h.points = slices.Delete(h.points, 0, i)
		i, j = 0, j-i
	}
	h.points = slices.Delete(h.points, i, j)
	h.insert(i, p)
}

// insert puts p where it belongs. Of a stretch in which the head stands still, the two ends are kept.
func (h *headHistory) insert(i int, p headPoint) {
	is := func(i int) bool { return i >= 0 && i < len(h.points) && h.points[i].offset == p.offset }
	switch {
	case i > 0 && h.points[i-1] == p, is(i-1) && is(i):
	case is(i-2) && is(i-1):
		h.points[i-1] = p
	case is(i) && is(i+1):
		h.points[i] = p
	default:
		if len(h.points) == maxHeadPoints && h.thin() < i {
			i--
		}
		h.points = slices.Insert(h.points, i, p)
	}
}

// thinGap weighs the gap that a point leaves against the error that it leaves.
const thinGap = 0.1

// thin removes the point that is missed least, and returns where it stood.
func (h *headHistory) thin() int {
	n := len(h.points)
	now := h.points[n-1].at
	least, best := math.Inf(1), 1
	for i := 1; i < n-1; i++ {
		a, p, b := h.points[i-1], h.points[i], h.points[i+1]
		missed := math.Abs(float64(p.at - between(a, b, p.offset)))
		cost := (missed + thinGap*float64(b.at-a.at)) / float64(now-p.at+1000)
		if cost < least {
			least, best = cost, i
		}
	}
	h.points = slices.Delete(h.points, best, best+1)
	return best
}

// passed returns when the head passed offset, in unix milliseconds, which is when the first message not yet
// committed was written. For an offset older than the history it is the oldest time, at which that message was already there.
func (h *headHistory) passed(offset int64) (at int64, ok bool) {
	n := len(h.points)
	if n < 2 || h.points[n-1].offset <= offset {
		return 0, false
	}
	for i := n - 2; i >= 0; i-- {
		if h.points[i].offset <= offset {
			return between(h.points[i], h.points[i+1], offset), true
		}
	}
	return h.points[0].at, true
}

// between interpolates.
func between(a, b headPoint, offset int64) int64 {
	if a.offset == b.offset {
		return b.at
	}
	return a.at + int64(float64(b.at-a.at)*(float64(offset-a.offset)/float64(b.offset-a.offset)))
}
