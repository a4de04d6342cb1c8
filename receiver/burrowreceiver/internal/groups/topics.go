package groups

import (
	"errors"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// ErrUnmatched means that head offsets can't be matched to the partitions of their topic: Burrow leaves out the partitions whose
// head it has never read, and those behind them move up.
var ErrUnmatched = errors.New("burrow has not read all heads of the topic yet: its offsets can't be matched to partitions")

// Topic is what the API tells of a topic. It does not change any more once the table has it.
type Topic struct {
	Cluster, Name string
	// Offsets are the head offsets by partition number; burrow.Unknown is one that is not known.
	Offsets []int64
	// Received is when the API was asked.
	Received time.Time
	// Moved is when a head was last found to be another than before; zero if none was. The table sets it.
	Moved time.Time
}

// UpdateTopic makes offsets the current heads of a topic. Partitions whose groups are followed use them
// for their time lag. The error is ErrUnmatched, or ErrTooManyPartitions: head offsets count like partitions of groups.
// Then nothing has changed.
func (t *Table) UpdateTopic(topic *Topic) error {
	k := key{topic.Cluster, topic.Name}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.topics[k]
	held, offsets := 0, 0
	if e != nil && e.current != nil {
		if topic.Received.Before(e.current.Received) {
			return nil
		}
		held, offsets = e.current.places(), len(e.current.Offsets)
		// A topic loses partitions only when it is recreated: Burrow did not list it meanwhile, or goes on to tell of fewer, and so do the groups.
		switch {
		case len(topic.Offsets) >= offsets:
		case !e.absent.IsZero():
			t.heads.forgetTopic(k)
		case topic.Received.Sub(e.current.Received) <= maxHeadAge:
			return ErrUnmatched
		}
	}
	heads := t.heads.topics[k]
	if !t.matches(heads, topic, len(topic.Offsets) == offsets, Read{}) {
		return ErrUnmatched
	}
	if now := topic.places(); now > held && t.headPlaces-held+now > t.limits.MaxPartitions {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = &entry[Topic]{outgoing: outgoing{key: k}}
		t.topics[k] = e
	}
	if e.current == nil {
		t.topicsHeld++
	}
	if before := e.current; before != nil {
		if topic.Moved = before.Moved; !slices.Equal(before.Offsets, topic.Offsets) {
			topic.Moved = topic.Received
		}
	}
	t.headPlaces += topic.places() - held
	t.setTopic(e, topic)
	t.boundReplaced(&e.outgoing, topic.Received)
	t.heads.see(heads, topic, Read{})
	return nil
}

// Read says since when Burrow has read heads itself, zero if that is not known. It is Seen if one has moved since, and otherwise concluded from
// how often it did: while Kafka is away, Burrow does not.
type Read struct {
	Since time.Time
	Seen  bool
}

// SeeHeads does so for the time lags alone: the heads that are handed over stay those of UpdateTopic. The error is ErrUnmatched.
func (t *Table) SeeHeads(topic *Topic, read Read) error {
	k := key{topic.Cluster, topic.Name}
	t.mu.Lock()
	defer t.mu.Unlock()
	held := 0
	if e := t.topics[k]; e != nil && e.current != nil {
		held = len(e.current.Offsets)
	}
	heads := t.heads.topics[k]
	if len(topic.Offsets) < held || !t.matches(heads, topic, len(topic.Offsets) == held, read) {
		return ErrUnmatched
	}
	t.heads.see(heads, topic, read)
	return nil
}

// see adds what the API tells of the heads of partitions that groups read. What was asked before the newest answer is not used.
func (h *heads) see(t *topicHeads, topic *Topic, read Read) {
	at := topic.Received.UnixMilli()
	if t == nil {
		return
	}
	if t.polled-at > tooLate {
		*t = topicHeads{partitions: t.partitions} // the clock was put back
	}
	if at < t.polled {
		return
	}
	each := func(visit func(packed *packedHistory, p headPoint)) {
		for number, offset := range topic.Offsets {
			if packed := t.partitions.get(int32(number)); packed != nil && offset != burrow.Unknown {
				packed.open(&h.working)
				h.working.fell = t.fell
				visit(packed, headPoint{offset, at})
			}
		}
	}
	if t.polled == 0 {
		t.moved = at
	}
	if read.Seen {
		t.read, t.moved = max(t.read, read.Since.UnixMilli()), at
	}
	history, above := &h.working, false
	each(func(_ *packedHistory, p headPoint) {
		above = above || history.isAbove(p)
		// Burrow reads all heads at once, so if one is another, it has read all since it was asked before. One that is only lower than the
		// newest point is none: a commit has proved that point, and Burrow does not tell of it yet.
		if history.followed && len(history.points) > 0 && (p.offset > history.newest().offset || history.fallen(p, t.read)) {
			t.read, t.moved = max(t.read, t.polled), at
		}
	})
	again := t.isBelowAgain(above, topic.Offsets)
	if again {
		t.read = max(t.read, t.polled)
	}
	since := t.read
	if !read.Since.IsZero() {
		since = max(since, read.Since.UnixMilli())
	}
	each(func(packed *packedHistory, p headPoint) {
		history.see(p, t, since, again)
		packed.close(history)
		t.fell = history.fell
	})
	t.polled = at
	t.settle(at)
}

// isBelowAgain notes whether some of the heads that the API tells are below what is known, and says whether they were so before, and Burrow
// has read them since. Of several Burrows that answer in turn one is behind, but what it reads next is not below what another one has read before.
func (t *topicHeads) isBelowAgain(above bool, offsets []int64) bool {
	before := t.below
	if t.below = 0; !above {
		return false
	}
	t.below = 1
	for _, offset := range offsets {
		t.below += max(offset, 0) // not burrow.Unknown
	}
	return before != 0 && t.below > before
}

// matches says whether the offsets can be those of the partitions that groups were seen to read: there are enough of them,
// and none is below a head of which Burrow told a short time ago. One of which it told long ago is that of a topic that was recreated, and so
// is one that has fallen below all that it was, if the API told of as many before. A partition of which no group told lately can be gone.
func (t *Table) matches(heads *topicHeads, topic *Topic, asMany bool, read Read) bool {
	if heads == nil {
		return true
	}
	asked, since := topic.Received.UnixMilli(), heads.read
	if read.Seen {
		since = max(since, read.Since.UnixMilli())
	}
	lately := min(maxHeadAge, t.limits.ExpireAfter).Milliseconds()
	for i := range heads.partitions {
		history := &heads.partitions[i]
		if asked-1000*int64(history.seen) >= lately {
			continue
		}
		if int(history.number) >= len(topic.Offsets) {
			return false
		}
		offset, toldAt := topic.Offsets[history.number], 1000*int64(history.toldAt)
		if offset == burrow.Unknown || offset >= history.told || toldAt > asked || asked-toldAt > tooLate {
			continue
		}
		history.open(&t.heads.working)
		if !asMany || !t.heads.working.fallen(headPoint{offset, asked}, since) {
			return false
		}
	}
	return true
}

// settle makes a moment since which Burrow has read heads one since which it has read all, when the API tells of them so much later that Burrow has
// gone on to ask each broker again.
func (t *topicHeads) settle(at int64) {
	if t.waits != 0 && at-t.waitsSince >= maxRefresh {
		t.settled, t.waits = t.waits, 0
	}
	if t.waits == 0 && t.read > t.settled {
		t.waits, t.waitsSince = t.read, at
	}
}
