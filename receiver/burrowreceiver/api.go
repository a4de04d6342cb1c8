package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// poller asks Burrow's API for everything, again and again, and brings the answers into the table. It owns
// the clock of its half.
type poller struct {
	cfg       *APIConfig
	api       *burrow.API
	filters   filters
	table     *groups.Table
	telemetry *metadata.TelemetryBuilder
	logger    *zap.Logger

	failing, late bool
	slashes       sync.Once
	clusters      map[string]bool // that the last answer listed
}

func newPoller(ctx context.Context, host component.Host, r *burrowReceiver) (*poller, error) {
	cfg := r.cfg.API.Get()
	// A copy, because connections are bounded by our own setting.
	settings := cfg.Client
	settings.MaxConnsPerHost = cfg.MaxConcurrentRequests
	settings.MaxIdleConnsPerHost = cfg.MaxConcurrentRequests
	settings.MaxIdleConns = max(settings.MaxIdleConns, cfg.MaxConcurrentRequests)
	client, err := settings.ToClient(ctx, host.GetExtensions(), r.set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	api, err := burrow.NewAPI(client, cfg.Client.Endpoint, cfg.MaxAnswerSize)
	if err != nil {
		return nil, fmt.Errorf("api.%w", err)
	}
	return &poller{
		cfg: cfg, api: api, filters: r.filters, table: r.table, telemetry: r.telemetry, logger: r.set.Logger,
	}, nil
}

// run polls every interval until ctx ends. A poll that takes longer is followed by the next one at once.
func (p *poller) run(ctx context.Context) {
	ticker := time.NewTimer(p.cfg.InitialDelay)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		begin := time.Now()
		p.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		length := time.Since(begin)
		p.telemetry.ReceiverBurrowAPIPollDuration.Record(ctx, length.Seconds())
		p.observeLength(length)
		ticker.Reset(max(p.cfg.CollectionInterval-length, 0))
	}
}

// observeLength logs when polls begin and when they cease to take longer than they may.
func (p *poller) observeLength(length time.Duration) {
	late := length > p.cfg.CollectionInterval
	switch {
	case late && !p.late:
		p.logger.Warn("A poll of Burrow's API takes longer than api.collection_interval. Raise that or api.max_concurrent_requests, or filter.",
			zap.Duration("length", length), zap.Duration("collection_interval", p.cfg.CollectionInterval))
	case !late && p.late:
		p.logger.Info("Polls of Burrow's API are in time again.", zap.Duration("length", length))
	}
	p.late = late
}

// round is one poll.
type round struct {
	*poller
	requests chan struct{} // one for each request under way
	running  sync.WaitGroup

	mu         sync.Mutex
	failures   int
	first      error
	partitions map[topicName]int32 // the highest partition of a topic that a group reads
}

type topicName struct{ cluster, topic string }

// poll asks for clusters, then for the groups and topics of each, then for each of those. What fails is left as it is.
func (p *poller) poll(ctx context.Context) {
	r := &round{poller: p, requests: make(chan struct{}, p.cfg.MaxConcurrentRequests), partitions: map[topicName]int32{}}
	asked := time.Now()
	if clusters, ok := ask(ctx, r, func() ([]string, error) { return p.api.Clusters(ctx) }); ok {
		p.endMissingClusters(clusters, asked)
		for _, cluster := range clusters {
			if p.filters.clusters.takes(cluster) {
				r.running.Go(func() { r.cluster(ctx, cluster) })
			}
		}
	}
	r.running.Wait()
	if ctx.Err() == nil {
		p.observe(r.failures, r.first)
	}
}

// endMissingClusters forgets what the API told of clusters that it does not list any more.
func (p *poller) endMissingClusters(clusters []string, asked time.Time) {
	listed := map[string]bool{}
	for _, cluster := range clusters {
		listed[cluster] = true
	}
	for cluster := range p.clusters {
		if !listed[cluster] {
			p.table.EndMissing(cluster, nil, nil, asked, time.Now())
		}
	}
	p.clusters = listed
}

// observe logs when requests begin and when they cease to fail.
func (p *poller) observe(failures int, first error) {
	switch {
	case failures > 0 && !p.failing:
		p.logger.Error("Burrow's API can't be asked for everything. What is known stays until expire_after.",
			zap.Int("failures", failures), zap.Error(first))
	case failures == 0 && p.failing:
		p.logger.Info("Burrow's API answers everything again.")
	}
	p.failing = failures > 0
}

// ask makes one request when there is a place for it. ok is false if it failed, or came too late.
func ask[T any](ctx context.Context, r *round, request func() (T, error)) (answer T, ok bool) {
	select {
	case r.requests <- struct{}{}:
	case <-ctx.Done():
		return answer, false
	}
	answer, err := request()
	<-r.requests
	if err == nil || ctx.Err() != nil {
		return answer, err == nil
	}
	if !errors.Is(err, burrow.ErrGone) {
		r.fail(ctx, err)
	}
	return answer, false
}

func (r *round) fail(ctx context.Context, err error) {
	r.telemetry.ReceiverBurrowAPIFailures.Add(ctx, 1)
	r.logger.Debug("A request to Burrow's API failed", zap.Error(err))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	if r.first == nil {
		r.first = err
	}
}

// cluster asks for the groups and topics of a cluster.
func (r *round) cluster(ctx context.Context, cluster string) {
	asked := time.Now()
	groupNames, ok := ask(ctx, r, func() ([]string, error) { return r.api.Groups(ctx, cluster) })
	if !ok {
		return
	}
	topicNames, ok := ask(ctx, r, func() ([]string, error) { return r.api.Topics(ctx, cluster) })
	if !ok {
		return
	}
	r.table.EndMissing(cluster, groupNames, topicNames, asked, time.Now())
	// Topics come last: what groups read of them is needed to understand the answers.
	each(ctx, r, groupNames, &r.filters.groups, func(name string) { r.group(ctx, cluster, name) })
	each(ctx, r, topicNames, &r.filters.topics, func(name string) { r.topic(ctx, cluster, name) })
}

// each asks for what the filter takes, with as many goroutines as there may be requests, and waits for all.
func each(ctx context.Context, r *round, names []string, f *filter, do func(name string)) {
	var running sync.WaitGroup
	defer running.Wait()
	queue := make(chan string)
	defer close(queue)
	for range min(cap(r.requests), len(names)) {
		running.Go(func() {
			for name := range queue {
				do(name)
			}
		})
	}
	for _, name := range names {
		if !f.takes(name) {
			continue
		}
		select {
		case queue <- name:
		case <-ctx.Done():
			return
		}
	}
}

func (r *round) group(ctx context.Context, cluster, name string) {
	if strings.Contains(name, "/") {
		r.slashes.Do(func() {
			r.logger.Warn("Burrow's API can't be asked for a group with a slash in its name. Such groups are known from notifications only.",
				zap.String("cluster", cluster), zap.String("group", name))
		})
		return
	}
	// Burrow made its evaluation before the answer came. As of the moment it was asked, it can't take the place of a
	// notification that came meanwhile.
	var asked time.Time
	status, ok := ask(ctx, r, func() (*burrow.GroupStatus, error) {
		asked = time.Now()
		status, err := r.api.Lag(ctx, cluster, name)
		if errors.Is(err, burrow.ErrGone) {
			r.table.End(cluster, name, time.Now())
		}
		return status, err
	})
	if !ok {
		return
	}
	r.notePartitions(status)
	if err := r.table.UpdateFromAPI(status, asked); err != nil {
		r.fail(ctx, err)
	}
}

// notePartitions remembers how many partitions a topic has at least.
func (r *round) notePartitions(g *burrow.GroupStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range g.Partitions {
		name := topicName{g.Cluster, g.Partitions[i].Topic}
		r.partitions[name] = max(r.partitions[name], g.Partitions[i].Partition)
	}
}

// shifted says whether an answer has fewer offsets than the topic has partitions: Burrow leaves out those that it has
// never read.
func (r *round) shifted(cluster, topic string, offsets []int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(offsets) <= int(r.partitions[topicName{cluster, topic}])
}

func (r *round) topic(ctx context.Context, cluster, name string) {
	offsets, ok := ask(ctx, r, func() ([]int64, error) { return r.api.Offsets(ctx, cluster, name) })
	if !ok {
		return
	}
	if r.shifted(cluster, name, offsets) {
		r.logger.Debug("Burrow has not read all heads of a topic yet. Its offsets can't be told apart.", zap.String("cluster", cluster), zap.String("topic", name))
		return
	}
	topic := &groups.Topic{Cluster: cluster, Name: name, Offsets: offsets, Received: time.Now()}
	if err := r.table.UpdateTopic(topic); err != nil {
		r.fail(ctx, err)
	}
}
