package chain

import (
	"context"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// truth is what Kafka itself says, over time: heads and commits as the admin client reads them, and when each record was
// written as a consumer without a group reads it. It knows neither Burrow nor Karrot.
type truth struct {
	admin  *kadm.Client
	reader *kgo.Client

	mu sync.Mutex
	// topics are those that are there.
	topics map[string]bool
	// made is when a topic was created, and each time that it was recreated.
	made   map[string][]time.Time
	groups map[string]bool
	heads  map[partitionKey]history
	// commits are forgotten where there is none, as when Kafka deletes them along with the topic.
	commits map[string]map[partitionKey]history
	records map[makingKey][]record
}

// makingKey is a partition of a topic, and how often that had been made: what is recreated begins at offset 0 again.
type makingKey struct {
	partitionKey
	makings int
}

// forgotten stands for a commit that is none.
const forgotten = -1

// record is one that a consumer can read: not a marker of a transaction, not aborted, not compacted away before it was read.
type record struct {
	offset  int64
	written time.Time
}

// history is a value that was seen to hold from one moment until the next entry.
type history []seen

type seen struct {
	at    time.Time
	value int64
}

// in is the smallest and the largest value that held at some moment between from and to.
func (h history) in(from, to time.Time) (smallest, largest int64, ok bool) {
	first := sort.Search(len(h), func(i int) bool { return h[i].at.After(from) })
	for i := max(0, first-1); i < len(h) && !h[i].at.After(to); i++ {
		if value := h[i].value; !ok {
			smallest, largest, ok = value, value, true
		} else {
			smallest, largest = min(smallest, value), max(largest, value)
		}
	}
	return smallest, largest, ok
}

func (h history) add(at time.Time, value int64) history {
	if len(h) > 0 && h[len(h)-1].value == value {
		return h
	}
	return append(h, seen{at, value})
}

func startTruth(t *testing.T, address string) *truth {
	t.Helper()
	tr := &truth{
		admin:   newAdmin(t, address),
		reader:  newClient(t, address, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(time.Second)),
		topics:  map[string]bool{},
		made:    map[string][]time.Time{},
		groups:  map[string]bool{},
		heads:   map[partitionKey]history{},
		commits: map[string]map[partitionKey]history{},
		records: map[makingKey][]record{},
	}
	t.Cleanup(tr.reader.Close)
	begin(t, func(ctx context.Context) { every(ctx, 500*time.Millisecond, func() { tr.look(ctx) }) })
	begin(t, tr.read)
	return tr
}

// follow begins to watch a new topic.
func (tr *truth) follow(t testing.TB, topic string, partitions int32) {
	t.Helper()
	assigned := map[int32]kgo.Offset{}
	for partition := range partitions {
		assigned[partition] = kgo.NewOffset().AtStart()
	}
	tr.mu.Lock()
	tr.topics[topic], tr.made[topic] = true, append(tr.made[topic], time.Now())
	tr.mu.Unlock()
	tr.reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned})
}

// forgetTopic notes that a topic is deleted, and with it all commits.
func (tr *truth) forgetTopic(topic string) {
	tr.reader.PurgeTopicsFromConsuming(topic)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.topics, topic)
	for _, partitions := range tr.commits {
		for p, commits := range partitions {
			if p.topic == topic {
				partitions[p] = commits.add(time.Now(), forgotten)
			}
		}
	}
}

func (tr *truth) followGroup(group string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.groups[group] = true
}

func (tr *truth) forgetGroup(group string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.groups, group)
}

// look asks Kafka once. What can't be had this time is had the next time.
func (tr *truth) look(ctx context.Context) {
	tr.mu.Lock()
	var topics, groups []string
	makings := map[string]int{}
	for topic := range tr.topics {
		topics = append(topics, topic)
		makings[topic] = len(tr.made[topic])
	}
	for group := range tr.groups {
		groups = append(groups, group)
	}
	tr.mu.Unlock()
	if len(topics) == 0 || len(groups) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	heads, err := tr.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return
	}
	headsAt := time.Now()
	commits := tr.admin.FetchManyOffsets(ctx, groups...)
	commitsAt := time.Now()

	tr.mu.Lock()
	defer tr.mu.Unlock()
	// An answer can be about a topic that was deleted meanwhile.
	same := func(topic string) bool { return tr.topics[topic] && makings[topic] == len(tr.made[topic]) }
	heads.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && same(o.Topic) {
			p := partitionKey{o.Topic, o.Partition}
			tr.heads[p] = tr.heads[p].add(headsAt, o.Offset)
		}
	})
	for group, response := range commits {
		if response.Err != nil {
			continue
		}
		if tr.commits[group] == nil {
			tr.commits[group] = map[partitionKey]history{}
		}
		now := map[partitionKey]int64{}
		response.Fetched.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil && o.At >= 0 && same(o.Topic) {
				now[partitionKey{o.Topic, o.Partition}] = o.At
			}
		})
		for p := range tr.commits[group] {
			if _, found := now[p]; !found && same(p.topic) {
				now[p] = forgotten
			}
		}
		for p, offset := range now {
			tr.commits[group][p] = tr.commits[group][p].add(commitsAt, offset)
		}
	}
}

func (tr *truth) read(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := tr.reader.PollFetches(ctx)
		tr.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			p := makingKey{partitionKey{r.Topic, r.Partition}, tr.makings(r.Topic, r.Timestamp)}
			if known := tr.records[p]; len(known) > 0 && known[len(known)-1].offset >= r.Offset {
				return
			}
			tr.records[p] = append(tr.records[p], record{r.Offset, r.Timestamp})
		})
		tr.mu.Unlock()
	}
}

// makings is how often a topic had been made at a moment.
func (tr *truth) makings(topic string, at time.Time) int {
	made := tr.made[topic]
	return sort.Search(len(made), func(i int) bool { return made[i].After(at) })
}

// lag is what the total lag of a group can have been at some moment between from and to, heads and commits each taken
// at any moment of it. It is not known before each partition has a commit.
func (tr *truth) lag(group string, from, to time.Time) (smallest, largest int64, ok bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for p, commits := range tr.commits[group] {
		least, most, known := tr.partitionLag(p, commits, from, to)
		if !known || commits[0].at.After(from) {
			return 0, 0, false
		}
		smallest, largest, ok = smallest+least, largest+most, true
	}
	return smallest, largest, ok
}

func (tr *truth) partitionLag(p partitionKey, commits history, from, to time.Time) (smallest, largest int64, ok bool) {
	firstHead, lastHead, headOK := tr.heads[p].in(from, to)
	firstCommit, lastCommit, commitOK := commits.in(from, to)
	return max(0, firstHead-lastCommit), max(0, lastHead-firstCommit), headOK && commitOK && firstCommit != forgotten
}

// now is the last commit and the head of each partition of a group.
func (tr *truth) now(group string) map[partitionKey][2]int64 {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	result := map[partitionKey][2]int64{}
	for p, commits := range tr.commits[group] {
		if heads, committed := tr.heads[p], commits[len(commits)-1].value; len(heads) > 0 && committed != forgotten {
			result[p] = [2]int64{committed, heads[len(heads)-1].value}
		}
	}
	return result
}

// timeLag is how long, at a moment, the oldest record that a group had not committed had been written: 0 without one. Partitions without a
// commit, and those of which the commit lies above the head, have none.
func (tr *truth) timeLag(group string, at time.Time) (lag time.Duration, ok bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for p, commits := range tr.commits[group] {
		i := sort.Search(len(commits), func(i int) bool { return commits[i].at.After(at) })
		if i == 0 {
			return 0, false
		}
		committed := commits[i-1].value
		// Heads and commits are not read at the same moment.
		_, head, known := tr.heads[p].in(at.Add(-time.Second), at.Add(time.Second))
		if committed == forgotten || known && committed > head {
			continue
		}
		ok = true
		records := tr.records[makingKey{p, tr.makings(p.topic, at)}]
		next := sort.Search(len(records), func(n int) bool { return records[n].offset >= committed })
		if next < len(records) && records[next].written.Before(at) {
			lag = max(lag, at.Sub(records[next].written))
		}
	}
	return lag, ok
}

func TestHistory(t *testing.T) {
	zero := time.Unix(1000, 0)
	second := func(n int) time.Time { return zero.Add(time.Duration(n) * time.Second) }
	h := history{}.add(second(0), 5).add(second(1), 5).add(second(2), 9).add(second(4), 7)
	for _, test := range []struct {
		from, to          int
		smallest, largest int64
		ok                bool
	}{
		{-2, -1, 0, 0, false},
		{-1, 0, 5, 5, true},
		{0, 1, 5, 5, true},
		{1, 2, 5, 9, true},
		{3, 3, 9, 9, true},
		{3, 9, 7, 9, true},
		{5, 9, 7, 7, true},
	} {
		smallest, largest, ok := h.in(second(test.from), second(test.to))
		if smallest != test.smallest || largest != test.largest || ok != test.ok {
			t.Errorf("from %d to %d: %d to %d, %v", test.from, test.to, smallest, largest, ok)
		}
	}
}

func TestTimeLag(t *testing.T) {
	zero := time.Unix(1000, 0)
	second := func(n int) time.Time { return zero.Add(time.Duration(n) * time.Second) }
	p, q := partitionKey{"t", 0}, partitionKey{"t", 1}
	tr := &truth{
		made: map[string][]time.Time{"t": {second(0), second(70)}},
		records: map[makingKey][]record{
			{p, 1}: {{0, second(1)}, {1, second(2)}, {5, second(8)}}, {q, 1}: {{0, second(0)}},
			{p, 2}: {{0, second(72)}, {1, second(73)}},
		},
		heads: map[partitionKey]history{p: history{}.add(second(0), 6).add(second(70), 0).add(second(74), 2)},
		commits: map[string]map[partitionKey]history{"g": {
			p: history{}.add(second(3), 1).add(second(6), 2).add(second(9), 6).add(second(65), forgotten).add(second(71), 6).add(second(74), 1),
			q: history{}.add(second(3), 1).add(second(65), forgotten),
		}},
	}
	for _, test := range []struct {
		at   int
		want time.Duration
		ok   bool
	}{
		{2, 0, false},
		{4, 2 * time.Second, true},
		{7, 0, true},               // offset 2 is a gap, and the next record is not written yet
		{8, 0, true},               // written at this moment
		{9, 0, true},               // committed
		{5, 3 * time.Second, true}, // grows
		{60, 0, true},              // stays 0 without a record
		{6, 0, true},               // the second commit
		{3, 1 * time.Second, true}, // the first commit
		{66, 0, false},             // deleted
		{72, 0, false},             // recreated, and the commit is that of the old topic
		{76, 3 * time.Second, true},
	} {
		if got, ok := tr.timeLag("g", second(test.at)); got != test.want || ok != test.ok {
			t.Errorf("at %d: %v, %v", test.at, got, ok)
		}
	}
}

func (tr *truth) knows(group string) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.groups[group]
}
