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
	// reclaimInterval bounds how often a full set of histories is searched for those that no state needs.
	reclaimInterval = 5 * time.Second
	// headSweeps is how often within ExpireAfter the histories are searched for those to be dropped.
	headSweeps = 4
)

// heads has the histories of all partitions. The groups that read a partition share its history.
type heads struct {
	topics map[key]map[int32]*headHistory
	// count is the number of histories, at most max.
	count, max  int
	expireAfter time.Duration
	swept       time.Time
	reclaimed   time.Time
	generation  uint8

	// last is the topic that was asked for last: partitions come ordered by topic.
	last       key
	partitions map[int32]*headHistory
}

func newHeads(limits Limits) heads {
	return heads{topics: map[key]map[int32]*headHistory{}, max: limits.MaxPartitions, expireAfter: limits.ExpireAfter}
}

// headHistory is what is known of one partition's head.
type headHistory struct {
	// points are ordered by time, and their offsets never fall. At most two have the same offset: the first and
	// the last time that the head was seen there.
	points []headPoint
	// told is the newest head that Burrow compared a commit with. It is known only of a group that is behind: Burrow's heads are
	// up to one offset-refresh old, and one below the commit counts as no lag.
	told headPoint
	// seen is when the partition was last received, in unix milliseconds.
	seen int64
	// generation is that of the last search in which a state needed it.
	generation uint8
}

// headPoint says that the head had reached offset at that time. It may have done so up to one offset-refresh earlier.
type headPoint struct {
	offset int64
	at     int64 // unix milliseconds
}

// observe adds what an evaluation tells of heads, and fills in the time lags of s. It returns that of Group.MaxLag.
func (h *heads) observe(s *State) (maxLagTime float64) {
	g, now := &s.Group, s.Received.UnixMilli()
	s.MaxTimeLag, maxLagTime = burrow.Unknown, burrow.Unknown
	listed := false
	for i := range g.Partitions {
		p := &g.Partitions[i]
		lag := h.history(g.Cluster, p, now).observe(p, now)
		if g.MaxLag != nil && burrow.ComparePartition(g.MaxLag, p) == 0 {
			listed, maxLagTime = true, lag
		}
		if lag == burrow.Unknown {
			continue
		}
		if s.TimeLags == nil {
			s.TimeLags = slices.Repeat([]float64{burrow.Unknown}, len(g.Partitions))
		}
		s.TimeLags[i] = lag
		s.MaxTimeLag = max(s.MaxTimeLag, lag)
	}
	if g.MaxLag != nil && !listed {
		maxLagTime = h.history(g.Cluster, g.MaxLag, now).observe(g.MaxLag, now)
		s.MaxTimeLag = max(s.MaxTimeLag, maxLagTime)
	}
	return maxLagTime
}

// history finds or makes the history of a partition. When there are too many, the partition gets one that nobody
// keeps, and is answered from this notification alone.
func (h *heads) history(cluster string, p *burrow.PartitionStatus, now int64) *headHistory {
	if k := (key{cluster, p.Topic}); h.partitions == nil || k != h.last {
		h.last, h.partitions = k, h.topics[k]
	}
	if history := h.partitions[p.Partition]; history != nil {
		if now-history.seen >= h.expireAfter.Milliseconds() {
			history.points = history.points[:0]
		}
		history.seen = max(history.seen, now)
		return history
	}
	history := &headHistory{seen: now}
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

// full says that there is no place for another history, and that it is time to search for one.
func (h *heads) full(now time.Time) bool {
	return h.count >= h.max && now.Sub(h.reclaimed) >= reclaimInterval
}

// reclaim drops the histories of partitions that no current state lists. They are kept as long as there is room, because
// a partition that is OK can be behind again soon; they must not be in the way of one that is listed.
func (h *heads) reclaim(states func(yield func(*State) bool), now time.Time) {
	h.reclaimed = now
	h.generation++
	for s := range states {
		for i := range s.Group.Partitions {
			h.keep(s.Group.Cluster, &s.Group.Partitions[i])
		}
		if s.Group.MaxLag != nil {
			h.keep(s.Group.Cluster, s.Group.MaxLag)
		}
	}
	h.drop(func(history *headHistory) bool { return history.generation != h.generation })
}

func (h *heads) keep(cluster string, p *burrow.PartitionStatus) {
	if history := h.topics[key{cluster, p.Topic}][p.Partition]; history != nil {
		history.generation = h.generation
	}
}

// expire drops the histories that were not heard of for expireAfter, with a delay of up to a quarter of it.
func (h *heads) expire(now time.Time) {
	if now.Sub(h.swept) < h.expireAfter/headSweeps {
		return
	}
	h.swept = now
	limit := now.Add(-h.expireAfter).UnixMilli()
	h.drop(func(history *headHistory) bool { return history.seen <= limit })
}

func (h *heads) drop(unwanted func(*headHistory) bool) {
	h.last, h.partitions = key{}, nil
	for k, partitions := range h.topics {
		for number, history := range partitions {
			if unwanted(history) {
				delete(partitions, number)
				h.count--
			}
		}
		if len(partitions) == 0 {
			delete(h.topics, k)
		}
	}
}

// observe adds what a group's partition tells of the head, and returns the group's time lag there.
func (h *headHistory) observe(p *burrow.PartitionStatus, now int64) float64 {
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
	h.told = headPoint{p.End.Offset + p.CurrentLag, now}
	at, ok := h.passed(p.End.Offset, now)
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
	n := len(h.points)
	is := func(i int) bool { return i >= 0 && i < n && h.points[i].offset == p.offset }
	before, behind := is(i-1), is(i)
	switch {
	case before && (behind || h.points[i-1] == p):
	case before && is(i-2):
		h.points[i-1] = p
	case behind && is(i+1):
		h.points[i] = p
	case n < maxHeadPoints:
		h.points = slices.Insert(h.points, i, p)
	default:
		least := h.least()
		if least < i {
			i--
			copy(h.points[least:i], h.points[least+1:])
		} else {
			copy(h.points[i+1:least+1], h.points[i:])
		}
		h.points[i] = p
	}
}

// least returns the point that is missed least, for its age, when it is removed: the line between its neighbours then
// moves by a known time, and they leave a longer gap. So young points stand close, and old ones reach far back.
func (h *headHistory) least() (best int) {
	best = 1
	const gap = 0.1 // what a gap weighs beside a known error
	n := len(h.points)
	now := h.points[n-1].at
	leastCost, leastAge := math.Inf(1), 1.0
	for i := 1; i < n-1; i++ {
		a, p, b := &h.points[i-1], &h.points[i], &h.points[i+1]
		span := float64(b.at - a.at)
		missed := span*(float64(p.offset-a.offset)/float64(b.offset-a.offset)) - float64(p.at-a.at)
		cost, age := math.Abs(missed)+gap*span, float64(now-p.at)
		if cost*leastAge < leastCost*age {
			best, leastCost, leastAge = i, cost, age
		}
	}
	return best
}

// passed returns when the head passed offset, which is when the oldest message was written that is not committed. If
// that was before all that is known, it is the oldest time known, at which the message was there already.
func (h *headHistory) passed(offset, now int64) (at int64, ok bool) {
	n := len(h.points)
	if n == 0 || h.points[n-1].offset <= offset {
		return 0, false
	}
	for i := n - 2; i >= 0; i-- {
		if h.points[i].offset <= offset {
			return between(h.points[i], h.points[i+1], offset), true
		}
	}
	return h.points[0].at, h.points[0].at < now
}

// between interpolates between two points with different offsets.
func between(a, b headPoint, offset int64) int64 {
	return a.at + int64(float64(b.at-a.at)*(float64(offset-a.offset)/float64(b.offset-a.offset)))
}
