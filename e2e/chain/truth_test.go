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

	mu      sync.Mutex
	topics  map[string]bool
	groups  map[string]bool
	heads   map[partitionKey]history
	commits map[string]map[partitionKey]history
	records map[partitionKey][]record
}

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
		groups:  map[string]bool{},
		heads:   map[partitionKey]history{},
		commits: map[string]map[partitionKey]history{},
		records: map[partitionKey][]record{},
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
	tr.reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned})
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.topics[topic] = true
}

func (tr *truth) forgetTopic(topic string) {
	tr.reader.PurgeTopicsFromConsuming(topic)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.topics, topic)
	for p := range tr.heads {
		if p.topic == topic {
			delete(tr.heads, p)
			delete(tr.records, p)
		}
	}
	for _, partitions := range tr.commits {
		for p := range partitions {
			if p.topic == topic {
				delete(partitions, p)
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
	for topic := range tr.topics {
		topics = append(topics, topic)
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
	heads.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && tr.topics[o.Topic] {
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
		response.Fetched.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil && o.At >= 0 && tr.topics[o.Topic] {
				p := partitionKey{o.Topic, o.Partition}
				tr.commits[group][p] = tr.commits[group][p].add(commitsAt, o.At)
			}
		})
	}
}

func (tr *truth) read(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := tr.reader.PollFetches(ctx)
		tr.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			p := partitionKey{r.Topic, r.Partition}
			if known := tr.records[p]; len(known) > 0 && known[len(known)-1].offset >= r.Offset {
				return
			}
			tr.records[p] = append(tr.records[p], record{r.Offset, r.Timestamp})
		})
		tr.mu.Unlock()
	}
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
	return max(0, firstHead-lastCommit), max(0, lastHead-firstCommit), headOK && commitOK
}

// now is the last commit and the head of each partition of a group.
func (tr *truth) now(group string) map[partitionKey][2]int64 {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	result := map[partitionKey][2]int64{}
	for p, commits := range tr.commits[group] {
		if heads := tr.heads[p]; len(heads) > 0 {
			result[p] = [2]int64{commits[len(commits)-1].value, heads[len(heads)-1].value}
		}
	}
	return result
}

// timeLag is how long, at a moment, the oldest record that a group had not committed had been written: 0 without one.
func (tr *truth) timeLag(group string, at time.Time) (lag time.Duration, ok bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for p, commits := range tr.commits[group] {
		i := sort.Search(len(commits), func(i int) bool { return commits[i].at.After(at) })
		if i == 0 {
			return 0, false
		}
		ok = true
		records := tr.records[p]
		next := sort.Search(len(records), func(n int) bool { return records[n].offset >= commits[i-1].value })
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
		records: map[partitionKey][]record{p: {{0, second(1)}, {1, second(2)}, {5, second(8)}}, q: {{0, second(0)}}},
		commits: map[string]map[partitionKey]history{"g": {
			p: history{}.add(second(3), 1).add(second(6), 2).add(second(9), 6),
			q: history{}.add(second(3), 1),
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
