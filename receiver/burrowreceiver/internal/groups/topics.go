package groups

import (
	"errors"
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
}

// UpdateTopic makes offsets the current heads of a topic. Partitions whose groups are followed use them
// for their time lag. The error is ErrUnmatched, or ErrTooManyPartitions: head offsets count like partitions of groups.
// Then nothing has changed.
func (t *Table) UpdateTopic(topic *Topic) error {
	k := key{topic.Cluster, topic.Name}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.topics[k]
	held := 0
	if e != nil && e.current != nil {
		if topic.Received.Before(e.current.Received) {
			return nil
		}
		held = len(e.current.Offsets)
		// A topic never loses a partition, unless it is recreated, and then this state expires.
		if len(topic.Offsets) < held {
			return ErrUnmatched
		}
	}
	heads := t.heads.topics[k]
	if !t.matches(heads, topic, len(topic.Offsets) == held) {
		return ErrUnmatched
	}
	if now := len(topic.Offsets); now > held && t.offsets-held+now > t.limits.MaxPartitions {
		return ErrTooManyPartitions
	}
	if e == nil {
		e = &entry[Topic]{outgoing: outgoing{key: k}}
		t.topics[k] = e
	}
	if e.current == nil {
		t.topicsHeld++
	}
	t.offsets += len(topic.Offsets) - held
	t.setTopic(e, topic)
	t.boundReplaced(&e.outgoing, topic.Received)
	heads.see(topic)
	return nil
}

// see adds what the API tells of the heads of partitions that groups read.
func (t *topicHeads) see(topic *Topic) {
	if t == nil {
		return
	}
	at := topic.Received.UnixMilli()
	each := func(visit func(history *headHistory, p headPoint)) {
		for number, offset := range topic.Offsets {
			if history := t.partitions[int32(number)]; history != nil && offset != burrow.Unknown {
				visit(history, headPoint{offset, at})
			}
		}
	}
	each(func(history *headHistory, p headPoint) {
		// Burrow reads all heads at once, so if one is another, it has read all since it was asked before.
		if history.followed && p.offset != history.newest().offset {
			t.read = t.polled
		}
	})
	each(func(history *headHistory, p headPoint) { history.see(p, t.read) })
	t.polled = at
}

// matches says whether the offsets can be those of the partitions that groups were seen to read: there are enough of them,
// and none is below a head of which Burrow told a short time ago. One of which it told long ago is that of a topic that was recreated, and so
// is one that has fallen below all that it was, if the API told of as many before.
func (t *Table) matches(heads *topicHeads, topic *Topic, asMany bool) bool {
	if heads == nil {
		return true
	}
	asked := topic.Received.UnixMilli()
	for number, history := range heads.partitions {
		if asked-history.seen >= t.limits.ExpireAfter.Milliseconds() {
			continue
		}
		if int(number) >= len(topic.Offsets) {
			return false
		}
		offset, told := topic.Offsets[number], history.told
		if offset != burrow.Unknown && offset < told.offset && told.at <= asked && asked-told.at <= tooLate &&
			!(asMany && history.fallen(headPoint{offset, asked})) {
			return false
		}
	}
	return true
}
