// Package fakekafka imitates a Kafka cluster on the loopback address, with topics that grow and with
// consumer groups of every kind of health, so that a real Burrow has something to judge.
//
// No consumer runs. What groups commit is written into __consumer_offsets in Kafka's own encoding,
// which is all that Burrow ever sees of a group.
package fakekafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	offsetsTopic = "__consumer_offsets"

	// roundEvery is the pace of everything: a round produces, and lets groups commit that are due.
	roundEvery = 250 * time.Millisecond
	// commitEvery is above Burrow's min-distance of one second, so that every commit counts.
	commitEvery = 5 * roundEvery
	// metadataEvery is how often Kafka would write a group's members, had they changed.
	metadataEvery = 20 * time.Second
)

// Topic is a topic and its traffic.
type Topic struct {
	Name       string
	Partitions int32
	// Seed is how many messages each partition holds at the start.
	Seed int
	// Rate is in messages per second and partition.
	Rate float64
}

// Group is a consumer group.
type Group struct {
	Name string
	// StartLag is how far behind the head the group's first commit is.
	StartLag int64
	// ClientID is that of the only member. Without one the group's members stay unknown.
	ClientID string
	// Commits says for each partition what the group commits. A nil Behavior is a partition that
	// has an owner and no commits.
	Commits map[string]map[int32]Behavior
}

// Cluster is a running cluster.
type Cluster struct {
	kafka  *kfake.Cluster
	client *kgo.Client
	stop   context.CancelFunc
	calls  chan call
	ended  chan struct{}

	// Everything below belongs to the goroutine of run; the methods reach it through calls.
	topics []Topic
	groups []*group
	heads  map[partition]int64
	due    map[string]float64
	now    time.Time // of the last round
	still  bool
	err    error
}

type call struct {
	do   func(context.Context) error
	done chan error
}

type partition struct {
	topic  string
	number int32
}

type group struct {
	Group
	offsets      map[partition]*progress
	nextCommit   time.Time
	nextMetadata time.Time
}

// progress is how far a group has come in one partition.
type progress struct {
	commits int
	offset  int64
}

// Start starts a cluster, which runs until Close.
func Start(ctx context.Context, id string, topics []Topic, groups []Group) (*Cluster, error) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID(id), kfake.SeedTopics(1, offsetsTopic)}
	for _, topic := range topics {
		opts = append(opts, kfake.SeedTopics(topic.Partitions, topic.Name))
	}
	kafka, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start imitated cluster %s: %w", id, err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(kafka.ListenAddrs()...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		// Burrow's client can read every compression; without one the imitation costs less.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		kafka.Close()
		return nil, fmt.Errorf("connect to imitated cluster %s: %w", id, err)
	}

	c := &Cluster{
		kafka:  kafka,
		client: client,
		calls:  make(chan call),
		ended:  make(chan struct{}),
		topics: topics,
		heads:  map[partition]int64{},
		due:    map[string]float64{},
	}
	for _, g := range groups {
		c.groups = append(c.groups, &group{Group: g, offsets: map[partition]*progress{}})
	}
	if err := c.seed(ctx); err != nil {
		client.Close()
		kafka.Close()
		return nil, fmt.Errorf("fill imitated cluster %s: %w", id, err)
	}
	ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	go c.run(ctx)
	return c, nil
}

// Addr is the address of the cluster's only broker.
func (c *Cluster) Addr() string { return c.kafka.ListenAddrs()[0] }

// Close stops the cluster. It returns the first thing that went wrong while it ran, since traffic that never reached
// the cluster makes groups look worse than they were meant to.
func (c *Cluster) Close() error {
	c.stop()
	<-c.ended
	c.client.Close()
	c.kafka.Close()
	return c.err
}

// Still ends all traffic: from its return on no head moves and no group commits. Groups make one
// last commit, so that those without lag stay without.
func (c *Cluster) Still(ctx context.Context) error {
	return c.call(ctx, func(ctx context.Context) error {
		for _, g := range c.groups {
			g.nextCommit = time.Time{}
		}
		if err := c.round(ctx, c.now); err != nil {
			return err
		}
		c.still = true
		return nil
	})
}

// DeleteGroup deletes a group the way Kafka does: with a tombstone for its metadata.
func (c *Cluster) DeleteGroup(ctx context.Context, name string) error {
	return c.call(ctx, func(ctx context.Context) error {
		i := slices.IndexFunc(c.groups, func(g *group) bool { return g.Name == name })
		if i < 0 {
			return fmt.Errorf("no group %q", name)
		}
		c.groups = slices.Delete(c.groups, i, i+1)
		return c.produce(ctx, []*kgo.Record{{Topic: offsetsTopic, Key: metadataKey(name)}})
	})
}

// DeleteTopic deletes a topic and lets the groups that read it go on without it.
func (c *Cluster) DeleteTopic(ctx context.Context, name string) error {
	return c.call(ctx, func(ctx context.Context) error {
		i := slices.IndexFunc(c.topics, func(topic Topic) bool { return topic.Name == name })
		if i < 0 {
			return fmt.Errorf("no topic %q", name)
		}
		c.topics = slices.Delete(c.topics, i, i+1)
		for _, g := range c.groups {
			delete(g.Commits, name)
		}
		return c.deleteTopic(ctx, name)
	})
}

func (c *Cluster) deleteTopic(ctx context.Context, name string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 5000
	req.TopicNames = []string{name}
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = new(name)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return fmt.Errorf("delete topic: %w", err)
	}
	for _, topic := range resp.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return fmt.Errorf("delete topic: %w", err)
		}
	}
	return nil
}

// call runs do between two rounds.
func (c *Cluster) call(ctx context.Context, do func(context.Context) error) error {
	done := make(chan error, 1)
	select {
	case c.calls <- call{do, done}:
	case <-c.ended:
		return errors.New("the cluster is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cluster) run(ctx context.Context) {
	defer close(c.ended)
	tick := time.NewTicker(roundEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case call := <-c.calls:
			call.done <- call.do(ctx)
		case now := <-tick.C:
			if c.still {
				continue
			}
			if err := c.round(ctx, now); err != nil && ctx.Err() == nil && c.err == nil {
				c.err = err
			}
		}
	}
}

// round produces what is due and then lets the groups commit that are due at now.
func (c *Cluster) round(ctx context.Context, now time.Time) error {
	c.now = now
	var records []*kgo.Record
	for _, topic := range c.topics {
		c.due[topic.Name] += topic.Rate * roundEvery.Seconds()
		n := int(c.due[topic.Name])
		c.due[topic.Name] -= float64(n)
		records = append(records, messages(topic, n)...)
	}
	if err := c.produce(ctx, records); err != nil {
		return err
	}

	records = records[:0]
	for _, g := range c.groups {
		if g.ClientID != "" && !now.Before(g.nextMetadata) {
			g.nextMetadata = now.Add(metadataEvery)
			records = append(records, g.metadata(now))
		}
		if !now.Before(g.nextCommit) {
			g.nextCommit = now.Add(commitEvery)
			records = append(records, g.commit(now, c.heads)...)
		}
	}
	return c.produce(ctx, records)
}

func (c *Cluster) seed(ctx context.Context) error {
	for _, topic := range c.topics {
		if err := c.produce(ctx, messages(topic, topic.Seed)); err != nil {
			return err
		}
	}
	return nil
}

// messages makes n messages for each partition of a topic.
func messages(topic Topic, n int) []*kgo.Record {
	records := make([]*kgo.Record, 0, n*int(topic.Partitions))
	for p := range topic.Partitions {
		for range n {
			records = append(records, &kgo.Record{Topic: topic.Name, Partition: p, Value: []byte("x")})
		}
	}
	return records
}

// produce writes records and moves the heads to where they ended.
func (c *Cluster) produce(ctx context.Context, records []*kgo.Record) error {
	var errs error
	for _, result := range c.client.ProduceSync(ctx, records...) {
		if result.Err != nil {
			errs = errors.Join(errs, result.Err)
			continue
		}
		p := partition{result.Record.Topic, result.Record.Partition}
		c.heads[p] = max(c.heads[p], result.Record.Offset+1)
	}
	return errs
}
