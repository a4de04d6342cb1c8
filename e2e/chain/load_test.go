package chain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lowess/karrot/e2e/internal/run"
)

// commitEvery is the rhythm of all consumers that do not have one of their own.
const commitEvery = time.Second

func newClient(t testing.TB, address string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(address),
		kgo.RetryBackoffFn(func(int) time.Duration { return 250 * time.Millisecond }),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.UnknownTopicRetries(-1),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func newAdmin(t testing.TB, address string) *kadm.Client {
	t.Helper()
	client := newClient(t, address)
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// work is a goroutine of a producer or consumer.
type work struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// begin runs do until the end of the test, or until stop.
func begin(t testing.TB, do func(context.Context)) *work {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &work{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		do(ctx)
	}()
	t.Cleanup(w.stop)
	return w
}

func (w *work) stop() {
	w.cancel()
	<-w.done
}

// every calls do at a rhythm until the context ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

func (c *chain) createTopic(t testing.TB, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	pointers := map[string]*string{}
	for key, value := range configs {
		pointers[key] = &value
	}
	// A deleted topic of the same name may still be on its way out.
	run.Until(t, startTime, "create topic "+topic, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := c.admin.CreateTopic(ctx, partitions, 1, pointers, topic)
		return err
	})
	c.truth.follow(t, topic, partitions)
}

// producer writes a record to each partition of a topic at a rhythm.
type producer struct {
	*work
	mu     sync.Mutex
	paused bool
}

func (p *producer) pause(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = paused
}

func (p *producer) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// produce writes burst records to each partition at once, again and again.
func (c *chain) produce(t testing.TB, topic string, partitions int32, interval time.Duration, burst int) *producer {
	t.Helper()
	client := newClient(t, c.kafkaAddress, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	p := &producer{}
	n := 0
	p.work = begin(c.t, func(ctx context.Context) {
		defer client.Close()
		every(ctx, interval, func() {
			if p.isPaused() {
				return
			}
			for range burst {
				for partition := range partitions {
					// Few keys, so that a compacted topic has something to compact.
					n++
					client.Produce(ctx, &kgo.Record{Topic: topic, Partition: partition, Key: []byte(strconv.Itoa(n % 5)), Value: []byte("value")}, nil)
				}
			}
		})
	})
	c.producers.add(p)
	return p
}

// load writes to each partition as many records in each second as it is told, a tenth of them at a time.
func (c *chain) load(t testing.TB, topic string, partitions int32, load func(partition, second int) int) *producer {
	t.Helper()
	client := newClient(t, c.kafkaAddress, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	const steps = 10
	p := &producer{}
	// Each topic has a second of its own.
	tick, due := rand.IntN(600*steps), make([]int, partitions)
	p.work = begin(c.t, func(ctx context.Context) {
		defer client.Close()
		every(ctx, time.Second/steps, func() {
			tick++
			for partition := range partitions {
				if tick%steps == 0 {
					due[partition] = load(int(partition), tick/steps)
				}
				if p.isPaused() {
					continue
				}
				for range due[partition]*(tick%steps+1)/steps - due[partition]*(tick%steps)/steps {
					client.Produce(ctx, &kgo.Record{Topic: topic, Partition: partition, Key: []byte(strconv.Itoa(rand.IntN(5))), Value: []byte("value")}, nil)
				}
			}
		})
	})
	c.producers.add(p)
	return p
}

// produceTransactions writes a transaction of size records to each partition at a rhythm; each third one is aborted.
func (c *chain) produceTransactions(t testing.TB, topic string, partitions int32, interval time.Duration, size int) *producer {
	t.Helper()
	client := newClient(t, c.kafkaAddress, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.TransactionalID(topic))
	p := &producer{}
	n := 0
	p.work = begin(c.t, func(ctx context.Context) {
		defer client.Close()
		every(ctx, interval, func() {
			if p.isPaused() {
				return
			}
			n++
			err := client.BeginTransaction()
			for range size {
				for partition := range partitions {
					client.Produce(ctx, &kgo.Record{Topic: topic, Partition: partition, Value: []byte("value")}, nil)
				}
			}
			err = errors.Join(err, client.Flush(ctx))
			err = errors.Join(err, client.EndTransaction(ctx, kgo.TransactionEndTry(n%3 != 0)))
			if err != nil && ctx.Err() == nil {
				c.t.Errorf("transaction in %s: %v", topic, err)
			}
		})
	})
	c.producers.add(p)
	return p
}

type partitionKey struct {
	topic     string
	partition int32
}

// commitRule decides what a consumer commits next: position is what it has read up to, committed its last commit.
// It returns false to commit nothing.
type commitRule func(p partitionKey, position, committed int64) (int64, bool)

// follow commits all that was read.
func follow(_ partitionKey, position, _ int64) (int64, bool) { return position, true }

// hold commits the same offset again and again.
func hold(_ partitionKey, _, committed int64) (int64, bool) { return committed, true }

// silent reads on and commits nothing.
func silent(partitionKey, int64, int64) (int64, bool) { return 0, false }

// advance commits at most n further than the last time.
func advance(n int64) commitRule {
	return func(_ partitionKey, position, committed int64) (int64, bool) { return min(position, committed+n), true }
}

// rewind commits, once, an offset n before the last one, and goes on with another rule.
func rewind(n int64, then commitRule) commitRule {
	done := map[partitionKey]bool{}
	return func(p partitionKey, position, committed int64) (int64, bool) {
		if !done[p] {
			done[p] = true
			return max(0, committed-n), true
		}
		return then(p, position, committed)
	}
}

// consumer is a member of a group that really reads, and commits by its rule.
type consumer struct {
	*work
	mu   sync.Mutex
	rule commitRule
}

// set changes what the consumer commits.
func (c *consumer) set(rule commitRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rule = rule
}

func (c *consumer) next(p partitionKey, position, committed int64) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rule(p, position, committed)
}

// consume starts the only member of a group, which gets all partitions.
func (c *chain) consume(t testing.TB, group string, interval time.Duration, rule commitRule, topics ...string) *consumer {
	t.Helper()
	member := &consumer{rule: rule}
	client := newClient(t, c.kafkaAddress, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topics...), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(60*time.Second), kgo.ClientID("consumer of "+group))
	c.truth.followGroup(group)
	member.work = begin(c.t, func(ctx context.Context) {
		defer client.Close()
		position := map[partitionKey]int64{}
		committed := map[partitionKey]int64{}
		if offsets, err := c.admin.FetchOffsets(ctx, group); err == nil {
			offsets.Each(func(o kadm.OffsetResponse) { committed[partitionKey{o.Topic, o.Partition}] = o.At })
		}
		maps.Copy(position, committed)
		due := time.Now()
		for ctx.Err() == nil {
			poll, cancel := context.WithDeadline(ctx, due)
			fetches := client.PollFetches(poll)
			cancel()
			fetches.EachRecord(func(r *kgo.Record) { position[partitionKey{r.Topic, r.Partition}] = r.Offset + 1 })
			if time.Now().Before(due) {
				continue
			}
			due = time.Now().Add(interval)
			offsets := map[string]map[int32]kgo.EpochOffset{}
			for p, at := range position {
				next, ok := member.next(p, at, committed[p])
				if !ok {
					continue
				}
				if offsets[p.topic] == nil {
					offsets[p.topic] = map[int32]kgo.EpochOffset{}
				}
				offsets[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: next}
				committed[p] = next
			}
			if len(offsets) == 0 {
				continue
			}
			commit, cancel := context.WithTimeout(ctx, 10*time.Second)
			client.CommitOffsetsSync(commit, offsets, nil)
			cancel()
		}
	})
	c.consumers.add(member)
	return member
}

// list is a slice that several tests append to.
type list[T any] struct {
	mu    sync.Mutex
	items []T
}

func (l *list[T]) add(item T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.items = append(l.items, item)
}

func (l *list[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.items)
}

func (c *chain) deleteGroup(t testing.TB, group string) {
	t.Helper()
	run.Until(t, startTime, "delete group "+group, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := c.admin.DeleteGroup(ctx, group)
		return err
	})
	c.truth.forgetGroup(group)
}

// untilForgotten waits until Kafka has deleted the commits of a topic that was deleted.
func (c *chain) untilForgotten(t testing.TB, group, topic string) {
	t.Helper()
	run.Until(t, startTime, "the commits of "+group+" are forgotten", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		offsets, err := c.admin.FetchOffsets(ctx, group)
		if err == nil && len(offsets[topic]) > 0 {
			err = fmt.Errorf("%s has commits", group)
		}
		return err
	})
}

func (c *chain) deleteTopic(t testing.TB, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.admin.DeleteTopic(ctx, topic); err != nil {
		t.Fatal(fmt.Errorf("delete topic %s: %w", topic, err))
	}
	c.truth.forgetTopic(topic)
}
