package groups

import (
	"math"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

const (
	// maxHeadPoints bounds one history.
	maxHeadPoints = 20
	// maxHeadAge is more than the age of any head that Burrow uses: it asks for heads every offset-refresh, 10 s by
	// default. A head below one that was seen longer ago has fallen, because the topic was made again.
	maxHeadAge = 2 * time.Minute
	tooLate    = int64(maxHeadAge / time.Millisecond)
	// reclaimInterval bounds how often a full set of histories is searched for those that no state needs.
	reclaimInterval = 5 * time.Second
	// headSweeps is how often within ExpireAfter the histories are searched for those to be dropped.
	headSweeps = 4

	// maxRefresh is more than the distance in which Burrow asks for heads. A head that is the same after that stands still.
	maxRefresh = int64(time.Minute / time.Millisecond)
	// maxCached is the age up to which Burrow tells an evaluation again, 10 s by default, and some time for it to arrive.
	maxCached = 12_000
	// askedFor is for how many seconds points are kept because of a group that is further behind than others.
	askedFor = 240
	// windowCommits is how many commits Burrow keeps of a partition by default.
	windowCommits = 10
	// clockDifference is what the clocks of brokers and of Karrot are taken to differ by at the most.
	clockDifference = 5_000
)

// heads has the histories of all partitions. The groups that read a partition share its history.
type heads struct {
	topics map[key]*topicHeads
	// count is the number of histories, at most max.
	count, max  int
	expireAfter time.Duration
	swept       time.Time
	reclaimed   time.Time
	generation  uint8

	// last is the topic that was asked for last: partitions come ordered by topic.
	last  key
	topic *topicHeads
	// working is the history that is worked on.
	working headHistory
}

// topicHeads are the histories of a topic's partitions.
type topicHeads struct {
	partitions histories
	// polled is when Burrow's API told of the heads last, in unix milliseconds; 0 for never.
	polled int64
	// read is a moment since which Burrow has read the heads itself, in unix milliseconds; 0 if none is known.
	read int64
	// settled is such a moment as read, of every partition: it has waited since waitsSince, for brokers that are slow or did not answer once.
	settled, waits, waitsSince int64
	// moved is when it was seen last that Burrow has read them, or when the API told of them first.
	moved int64
	// fell is the last moment at which heads are known that have fallen since, because the topic was recreated; 0 if none has.
	fell int64
	// below is the sum of the heads that the API told last, and one more, if some are below what is known; 0 if none is.
	below int64
}

// fellBefore is t.fell, unless the clock was put back since.
func (t *topicHeads) fellBefore(now int64) int64 {
	if t == nil || t.fell-now > tooLate {
		return 0
	}
	return t.fell
}

// keepFell takes over that of a history.
func (t *topicHeads) keepFell(h *headHistory) {
	if t != nil {
		t.fell = h.fell
	}
}

func newHeads(limits Limits) heads {
	return heads{topics: map[key]*topicHeads{}, max: limits.MaxPartitions, expireAfter: limits.ExpireAfter}
}

// find returns the history of a partition, nil if there is none.
func (h *heads) find(cluster string, p *burrow.PartitionStatus) *packedHistory {
	topic := h.topics[key{cluster, p.Topic}]
	if topic == nil {
		return nil
	}
	return topic.partitions.get(p.Partition)
}

// headHistory is what is known of one partition's head.
type headHistory struct {
	// points are ordered by time, and their offsets never fall. At most two have the same offset: the first and
	// the last time that the head was seen there.
	points []headPoint
	// told is the newest head that Burrow compared a commit with, and toldAt when it did, in unix seconds. It is known only of a group
	// that is behind: Burrow's heads are up to one offset-refresh old, and one below the commit counts as no lag.
	told   int64
	toldAt uint32
	// followed says that Burrow's API tells of the head. Then evaluations add nothing: they tell of the same heads, later, and
	// can have been kept by Burrow for a while.
	followed bool
	// asked is the lowest offset of those that were lately asked for, and askedAt when it was, in unix seconds: the points around it are kept.
	asked   int64
	askedAt uint32
	// fell is that of the topic.
	fell int64
	// made is a moment after which what is told was read: the newest commit of an evaluation, or when the API was asked.
	made int64
}

// headPoint says that the head had reached offset at that time. It may have done so up to one offset-refresh earlier.
type headPoint struct {
	offset int64
	at     int64 // unix milliseconds
}

// timeLag is how long ago the oldest message was written that a group has not committed.
type timeLag struct {
	// seconds is burrow.Unknown if it is not known.
	seconds float64
	// bound says that it is a lower bound.
	bound bool
}

var noTimeLag = timeLag{seconds: burrow.Unknown}

// observe adds what an evaluation tells of heads, and fills in the time lags of s. It returns that of Group.MaxLag.
func (h *heads) observe(s *State) (maxLagTime timeLag) {
	g, now := &s.Group, s.Received.UnixMilli()
	s.MaxTimeLag, s.Ahead, maxLagTime = burrow.Unknown, burrow.Unknown, noTimeLag
	listed := false
	for i := range g.Partitions {
		p := &g.Partitions[i]
		lag := h.observePartition(s, p, now)
		if g.MaxLag != nil && burrow.ComparePartition(g.MaxLag, p) == 0 {
			listed, maxLagTime = true, lag
		}
		s.setTimeLag(i, lag)
	}
	if g.MaxLag != nil && !listed {
		maxLagTime = h.observePartition(s, g.MaxLag, now)
		s.atLeast(maxLagTime)
	}
	return maxLagTime
}

// observePartition does so for one partition, and counts it if its commit is ahead of the head.
func (h *heads) observePartition(s *State, p *burrow.PartitionStatus, now int64) timeLag {
	packed := h.history(s.Group.Cluster, p, now)
	history := &h.working
	packed.open(history)
	defer packed.close(history)
	if !history.isFollowed(h.topic, now) {
		history.fell = h.topic.fellBefore(now)
		defer h.topic.keepFell(history)
		return history.observe(p, now)
	}
	if history.countAhead(s, p, h.topic) {
		return noTimeLag
	}
	return history.judge(p, now, asOf(p, now))
}

// history finds or makes the history of a partition. When there are too many, the partition gets one that nobody
// keeps, and is answered from this notification alone.
func (h *heads) history(cluster string, p *burrow.PartitionStatus, now int64) *packedHistory {
	if k := (key{cluster, p.Topic}); h.topic == nil || k != h.last {
		h.last, h.topic = k, h.topics[k]
	}
	if h.topic != nil {
		if history := h.topic.partitions.get(p.Partition); history != nil {
			if now-1000*int64(history.seen) >= h.expireAfter.Milliseconds() {
				history.length = 0
			}
			history.seen = max(history.seen, unixSeconds(now))
			return history
		}
	}
	if h.count >= h.max {
		return &packedHistory{}
	}
	if h.topic == nil {
		h.topic = &topicHeads{}
		h.topics[h.last] = h.topic
	}
	var history *packedHistory
	h.topic.partitions, history = h.topic.partitions.insert(p.Partition)
	history.seen = unixSeconds(now)
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
	h.drop(func(history *packedHistory) bool { return history.generation != h.generation })
}

func (h *heads) keep(cluster string, p *burrow.PartitionStatus) {
	if history := h.find(cluster, p); history != nil {
		history.generation = h.generation
	}
}

// expire drops the histories that were not heard of for expireAfter, with a delay of up to a quarter of it.
func (h *heads) expire(now time.Time) {
	if now.Sub(h.swept) < h.expireAfter/headSweeps {
		return
	}
	h.swept = now
	limit := unixSeconds(now.Add(-h.expireAfter).UnixMilli())
	h.drop(func(history *packedHistory) bool { return history.seen <= limit })
}

// forgetTopic drops the histories of a topic that is no more. One that is made with the same name later is another one.
func (h *heads) forgetTopic(k key) {
	if topic := h.topics[k]; topic != nil {
		h.count -= len(topic.partitions)
		delete(h.topics, k)
		h.last, h.topic = key{}, nil
	}
}

func (h *heads) drop(unwanted func(*packedHistory) bool) {
	h.last, h.topic = key{}, nil
	for k, topic := range h.topics {
		kept := 0
		for i := range topic.partitions {
			if unwanted(&topic.partitions[i]) {
				continue
			}
			if kept < i {
				topic.partitions[kept] = topic.partitions[i]
			}
			kept++
		}
		h.count -= len(topic.partitions) - kept
		topic.partitions = topic.partitions[:kept]
		switch {
		case kept == 0:
			delete(h.topics, k)
		case 2*kept < cap(topic.partitions):
			topic.partitions = slices.Clone(topic.partitions)
		}
	}
}

// isFollowed says whether Burrow's API tells of the head. It ceases to be when it has not for some time.
func (h *headHistory) isFollowed(t *topicHeads, now int64) bool {
	h.followed = h.followed && t != nil && now-t.polled <= tooLate && t.polled-now <= tooLate && len(h.points) > 0
	return h.followed
}

// isAbove says whether a higher head is known than one that the API tells.
func (h *headHistory) isAbove(p headPoint) bool {
	return len(h.points) > 0 && h.newest().offset > p.offset
}

// newest is the point that the API told last. There is one if the history is followed.
func (h *headHistory) newest() headPoint { return h.points[len(h.points)-1] }

// isBehind says whether the head lies below the newest commit, though Burrow has read it since: Burrow's heads are up to one offset-refresh
// old, and commits are not. read is a moment since which it has read it. A group that goes on to commit the offsets of a topic that is no more
// has done so for as long as its oldest commit is old.
func (h *headHistory) isBehind(p *burrow.PartitionStatus, read int64) bool {
	return h.isBelow(&p.End, read) || p.Start.Known() && p.Start.Offset <= p.End.Offset && h.isBelow(&p.Start, read)
}

// isBelow says so of one commit. With min-distance Burrow gives one the time of an earlier one, so that it counts when it saw it.
func (h *headHistory) isBelow(c *burrow.Commit, read int64) bool {
	return c.Known() && c.Offset > h.newest().offset && c.Timestamp > 0 && seenAt(*c) < read-clockDifference
}

// countAhead counts a partition whose head is followed in s.Ahead, if its commit is ahead of the head.
func (h *headHistory) countAhead(s *State, p *burrow.PartitionStatus, t *topicHeads) bool {
	s.Ahead = max(s.Ahead, 0)
	if !h.isBehind(p, max(h.readSince(), t.settled)) {
		return false
	}
	s.Ahead++
	return true
}

// readSince is a moment since which Burrow has read the head, because it is another one since; 0 if none is known.
func (h *headHistory) readSince() int64 {
	for _, p := range slices.Backward(h.points) {
		if p.offset != h.newest().offset {
			return p.at
		}
	}
	return 0
}

// forget drops all points if the clock was put back since the newest one.
func (h *headHistory) forget(now int64) {
	if n := len(h.points); n > 0 && h.points[n-1].at-now > tooLate {
		h.points, h.followed = h.points[:0], false
	}
}

// observe adds what a group's partition tells of the head, and returns the group's time lag there.
func (h *headHistory) observe(p *burrow.PartitionStatus, now int64) timeLag {
	h.forget(now)
	h.made = seenAt(p.End)
	h.compare(p, now)
	h.commit(p.Start, now)
	if !p.End.Known() {
		return noTimeLag
	}
	h.head(p.End.Offset, p.CurrentLag, now)
	// Last, so that no other one takes its place: it is what is asked for.
	h.commit(p.End, now)
	if told, ok := headOf(p.End, p.CurrentLag); ok {
		h.told, h.toldAt = told, unixSeconds(now)
	}
	// The heads here are up to one offset-refresh older than their moments, which is more than the age of the evaluation.
	return h.judge(p, now, now)
}

// judge returns the time lag of a group's partition as of a moment. That a head was told with the evaluation which is not in the history helps if
// it is higher than all in there.
func (h *headHistory) judge(p *burrow.PartitionStatus, now, of int64) timeLag {
	switch {
	case !p.End.Known():
		return noTimeLag
	case p.CurrentLag == 0:
		return timeLag{}
	}
	told := headPoint{math.MaxInt64, now}
	if p.CurrentLag <= math.MaxInt64-p.End.Offset {
		told.offset = p.End.Offset + p.CurrentLag
	}
	// One that is further behind asks again within that time.
	if seconds := unixSeconds(now); p.End.Offset <= h.asked || seconds-h.askedAt > askedFor/2 {
		h.asked, h.askedAt = p.End.Offset, seconds
	}
	at, bound, ok := h.passed(p.End.Offset, told)
	if !ok {
		return noTimeLag
	}
	return timeLag{float64(max(0, of-at)) / 1000, bound}
}

// asOf is the moment of which an evaluation tells that arrives now. Burrow can have kept it for some seconds, and a group that goes on
// has committed more since. Its lag is then about what it was in the middle between two commits.
func asOf(p *burrow.PartitionStatus, now int64) int64 {
	if p.Status == burrow.StatusStop || p.Status == burrow.StatusStall || !p.Start.Known() || p.End.Offset == p.Start.Offset {
		return now
	}
	commits := float64(windowCommits)
	if p.Complete != burrow.Unknown {
		commits *= p.Complete
	}
	distance := int64(float64(p.End.Timestamp-p.Start.Timestamp) / max(commits-1, 1))
	if age := now - p.End.Timestamp; age > distance && age <= distance+maxCached {
		return p.End.Timestamp + distance/2
	}
	return now
}

// headOf is the head that Burrow compared a commit with. It is not known of one without lag: that can lie above the head that Burrow had.
func headOf(c burrow.Commit, lag int64) (head int64, ok bool) {
	if !c.Known() || lag <= 0 || lag > math.MaxInt64-c.Offset {
		return 0, false
	}
	return c.Offset + lag, true
}

// compare finds out whether the head has fallen: the one that an evaluation tells is below one that Burrow had before, or below a commit that
// is older than any head can be. What one evaluation tells is of one Burrow. Another evaluation can be of another Burrow, and older than it
// comes: it was made after the newest commit that it tells of.
func (h *headHistory) compare(p *burrow.PartitionStatus, now int64) {
	told, ok := headOf(p.End, p.CurrentLag)
	if !ok {
		return
	}
	for _, c := range [...]burrow.Commit{p.Start, p.End} {
		head, ok := headOf(c, c.Lag)
		if !ok && c.Known() && h.made-seenAt(c) > maxRefresh {
			head, ok = c.Offset, true
		}
		if ok && head > told {
			h.fall(told, min(seenAt(c), now-1))
		}
	}
	if toldAt := 1000 * int64(h.toldAt); h.told > told && h.made-toldAt >= maxRefresh/2 {
		h.fall(told, toldAt)
	}
}

// seenAt is when Burrow saw a commit, or when it was made if that is later by the clock of the broker.
func seenAt(c burrow.Commit) int64 { return max(c.Timestamp, c.ObservedAt) }

// fall forgets the topic that was there until a moment, because it was recreated: the head is at offset now.
func (h *headHistory) fall(offset, until int64) {
	h.fell = max(h.fell, until)
	if slices.ContainsFunc(h.points, func(p headPoint) bool { return p.at <= until && p.offset > offset }) {
		h.points = slices.DeleteFunc(h.points, func(p headPoint) bool { return p.at <= until || p.offset > offset })
	}
	if h.told > offset {
		h.told, h.toldAt = 0, 0
	}
}

// see adds a head that Burrow's API told at a moment. That it is the same as before says that it stands still only if Burrow has read it
// again, which it has since the moment read, or if nothing has moved for so long that it must have.
// again says that Burrow has read heads since it began to tell of some that are below what is known.
func (h *headHistory) see(p headPoint, t *topicHeads, read int64, again bool) {
	h.forget(p.at)
	h.made = p.at
	if h.fallen(p, t.read) || again && h.isAbove(p) && h.newest().at <= t.read {
		h.fall(p.offset, h.newest().at)
	}
	if h.followed && len(h.points) > 0 && p.offset == h.newest().offset && read < h.newest().at && p.at-t.moved < maxRefresh {
		return
	}
	h.add(p)
	h.followed = true
}

// fallen says whether a head is below one that was seen so long ago that its age does not explain it, or since which Burrow has read it.
// Where several Burrows answer in turn, one is behind another by what was written between two readings, which tells nothing.
func (h *headHistory) fallen(p headPoint, read int64) bool {
	for i := range h.points {
		first := &h.points[i]
		if first.offset <= p.offset {
			continue
		}
		age := p.at - first.at
		return age > tooLate || first.at+clockDifference <= read && (first.offset < h.newest().offset || age > maxRefresh)
	}
	return false
}

// commit adds the head that Burrow compared a commit with. It did so when it saw the commit, which can be long after
// the commit's own time: a Burrow that has just started reads the commits of hours. A commit from the future is of
// a clock that can't be compared with ours.
func (h *headHistory) commit(c burrow.Commit, now int64) {
	if !c.Known() || c.Lag == burrow.Unknown || c.Timestamp == 0 {
		return
	}
	if at := seenAt(c); at <= now {
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
//
// What was seen before a topic was recreated tells nothing, and for some time it is the other way round: the higher one is that which tells
// nothing. Burrow does not notice at once, and compares commits with the head of the old topic, or commits of the old topic with the new head.
func (h *headHistory) add(p headPoint) {
	if h.fell > 0 && p.at <= h.fell {
		return
	}
	i := len(h.points) // where p belongs
	for i > 0 && h.points[i-1].at > p.at {
		i--
	}
	j := i // the points from i to j are newer and lower
	for j < len(h.points) && h.points[j].offset < p.offset {
		if h.points[j].at-p.at > tooLate || h.hasJustFallen(p.at) {
			return
		}
		j++
	}
	if i > 0 && h.points[i-1].offset > p.offset {
		k := i // the points from k to i are older, and higher or not old enough
		if h.hasJustFallen(h.points[i-1].at) {
			for k > 0 && h.points[k-1].offset > p.offset {
				k--
			}
		} else {
			for k > 0 && p.at-h.points[k-1].at <= tooLate {
				k--
			}
			if k == 0 || h.points[k-1].offset <= p.offset {
				return
			}
			h.fellTo(p.offset, h.points[:i])
			k = 0
		}
		h.points = slices.Delete(h.points, k, i)
		i, j = k, j-(i-k)
	}
	stood := i > 0 && i < j && h.points[i].offset == h.points[i-1].offset
	h.points = slices.Delete(h.points, i, j)
	if stood {
		// What was told of it later was old. It ended where the head was seen higher.
		end := headPoint{h.points[i-1].offset, p.at}
		h.insert(i, end)
		i = len(h.points)
		for i > 0 && h.points[i-1].at > p.at {
			i--
		}
	}
	h.insert(i, p)
}

// fellTo notes that the head has fallen since it was seen higher at points, as far as what tells so is known to be newer: notifications can come late.
func (h *headHistory) fellTo(offset int64, points []headPoint) {
	for _, p := range points {
		if p.offset > offset && p.at < h.made {
			h.fell = max(h.fell, p.at)
		}
	}
}

// hasJustFallen says whether a moment is one of the first in which the topic is another one.
func (h *headHistory) hasJustFallen(at int64) bool { return h.fell > 0 && at-h.fell <= tooLate }

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
		h.remove(least)
		if least < i {
			i--
		}
		h.points = slices.Insert(h.points, i, p)
	}
}

func (h *headHistory) remove(i int) { h.points = slices.Delete(h.points, i, i+1) }

// least returns the point that is missed least, for its age, when it is removed: the line between its neighbours then
// moves by a known time, and they leave a longer gap. So young points stand close, and old ones reach far back. Where a group is behind, all points
// that it has before it are of one age, those around it stay, and those behind it are for groups that go back.
func (h *headHistory) least() (best int) {
	best = 1
	const (
		gap    = 0.1 // what a gap weighs beside a known error
		behind = 10  // how much older points are taken that no group has before it
	)
	n := len(h.points)
	now := h.points[n-1].at
	before := h.before(now)
	leastCost, leastAge := math.Inf(1), 1.0
	for i := 1; i < n-1; i++ {
		a, p, b := &h.points[i-1], &h.points[i], &h.points[i+1]
		age := float64(now - p.at)
		switch {
		case before < 0:
		case i == before || i == before+1:
			continue
		case i > before:
			age = float64(now - h.points[before].at)
		default:
			age *= behind
		}
		span := float64(b.at - a.at)
		missed := span*(float64(p.offset-a.offset)/float64(b.offset-a.offset)) - float64(p.at-a.at)
		cost := math.Abs(missed) + gap*span
		if cost*leastAge < leastCost*age {
			best, leastCost, leastAge = i, cost, age
		}
	}
	return best
}

// before is the last point that the group which is furthest behind has passed, -1 if none is.
func (h *headHistory) before(now int64) int {
	if h.askedAt == 0 || int64(unixSeconds(now))-int64(h.askedAt) > askedFor {
		return -1
	}
	i := len(h.points) - 1
	for i >= 0 && h.points[i].offset > h.asked {
		i--
	}
	return i
}

// passed returns when the head passed offset, which is when the oldest message was written that is not committed; newest is behind the
// history, if it is higher. If that was before all that is known, it is the oldest time known, at which the message was there already.
func (h *headHistory) passed(offset int64, newest headPoint) (at int64, bound, ok bool) {
	above := newest
	for i, p := range slices.Backward(h.points) {
		if p.offset > offset {
			above = p
			continue
		}
		if above.offset <= offset {
			return 0, false, false
		}
		stood := !h.followed && i > 0 && h.points[i-1].offset == p.offset && above.at < newest.at
		return between(p, above, offset, stood), false, true
	}
	return above.at, true, above.at < newest.at
}

// between interpolates between two points with different offsets. The message with an offset makes the head pass it. Between two heads it
// is taken to do so in the middle of its share of the time. Of a standstill of which evaluations tell, the end is not known: they can have been
// kept. It lasts until the head was seen higher, if that was before now.
func between(a, b headPoint, offset int64, stood bool) int64 {
	share := 0.5
	if stood {
		share = 1
	}
	return a.at + int64(float64(b.at-a.at)*((float64(offset-a.offset)+share)/float64(b.offset-a.offset)))
}
