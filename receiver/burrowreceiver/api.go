package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// poller asks Burrow's API for everything, again and again, and brings the answers into the table. It owns
// the clock of its half.
type poller struct {
	cfg         *APIConfig
	expireAfter time.Duration
	api         *burrow.API
	filters     filters
	table       *groups.Table
	telemetry   *metadata.TelemetryBuilder
	own         metric.MeasurementOption
	logger      *zap.Logger
	connections connections
	polls       *polls
	requests    chan struct{} // one for each request under way

	outage, late outage
	// complete says that the log has told of a complete poll, listing that it had groups.
	complete, listing bool
	slashes           sync.Once
	full              logLimiter
	clusters          map[string]*clusterListing // that were listed, at most as many as groups can be held
	maxClusters       int

	mu      sync.Mutex
	rhythms map[string]*rhythm // by cluster
	// following is the number of topics that they ask for, at most maxTopics.
	following, maxTopics int
}

// clusterListing is when a cluster was listed last, and when a list lacked it first; zero if the last one had it.
type clusterListing struct{ listed, absent time.Time }

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
	api, err := burrow.NewAPI(client, cfg.Client.Endpoint, cfg.MaxAnswerSize,
		burrow.APILimits{MaxPartitions: r.cfg.MaxPartitions, Budget: r.answers})
	if err != nil {
		return nil, fmt.Errorf("api.%w", err)
	}
	return newPollerOf(r, api), nil
}

func newPollerOf(r *burrowReceiver, api *burrow.API) *poller {
	cfg := r.cfg.API.Get()
	return &poller{
		cfg: cfg, expireAfter: r.cfg.ExpireAfter, api: api, filters: r.filters, table: r.table, telemetry: r.telemetry, own: r.own, logger: r.set.Logger,
		polls: &r.polls, requests: make(chan struct{}, cfg.MaxConcurrentRequests), clusters: map[string]*clusterListing{}, maxClusters: r.cfg.MaxGroups, maxTopics: r.cfg.MaxPartitions, rhythms: map[string]*rhythm{},
	}
}

// run polls every interval until ctx ends. A poll that takes longer is followed by the next one at once.
func (p *poller) run(ctx context.Context) {
	ctx = p.connections.trace(ctx)
	ticker := time.NewTimer(p.cfg.InitialDelay)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		begin := time.Now()
		p.poll(ctx, begin)
		if ctx.Err() != nil {
			return
		}
		length := time.Since(begin)
		p.telemetry.ReceiverBurrowAPIPollDuration.Record(ctx, length.Seconds(), p.own)
		p.observeLength(length, begin.Add(length))
		ticker.Reset(max(p.cfg.CollectionInterval-length, 0))
	}
}

// observeLength logs when polls begin and when they cease to take longer than they may.
func (p *poller) observeLength(length time.Duration, now time.Time) {
	if length <= p.cfg.CollectionInterval {
		if p.late.end() {
			p.logger.Info("Polls of Burrow's API are in time again.", zap.Duration("length", length))
		}
		return
	}
	if untold, tell := p.late.fail(now); tell {
		p.logger.Warn("A poll of Burrow's API takes longer than api.collection_interval. Raise that or api.max_concurrent_requests, or filter.",
			zap.Duration("length", length), zap.Duration("collection_interval", p.cfg.CollectionInterval), zap.Int("times_since_last_line", untold))
	}
}

// round is one poll.
type round struct {
	*poller
	begin time.Time

	mu       sync.Mutex
	failures int
	first    error
	// clusters are listed, groups and topics were answered.
	clusters, groups, topics int
}

// poll asks for clusters, then for the groups and topics of each, then for each of those. What fails is left as it is.
func (p *poller) poll(ctx context.Context, begin time.Time) {
	r := &round{poller: p, begin: begin}
	if clusters, ok := ask(ctx, r, func() ([]string, error) { return p.api.Clusters(ctx) }); ok {
		p.endAbsentClusters(clusters, r.begin)
		r.clusters = len(clusters)
		// Bounded as groups are: a broken Burrow can list any number of clusters.
		each(ctx, r, clusters, &p.filters.clusters, func(cluster string) { r.cluster(ctx, cluster) })
	} else if ctx.Err() == nil {
		p.notListed()
	}
	if ctx.Err() == nil {
		p.observe(r, time.Now())
	}
}

// notListed notes that the list of clusters, and so all others, could not be had.
func (p *poller) notListed() {
	for _, listing := range p.clusters {
		listing.absent = time.Time{}
	}
	p.table.NothingListed()
}

// endAbsentClusters ends what the API told of clusters that it does not list any more, by the rules of groups.List. A broken Burrow
// can list others each time: what is told of one that is not remembered ends by expire_after.
func (p *poller) endAbsentClusters(listed []string, asked time.Time) {
	now := map[string]bool{}
	// What was there has expired.
	maps.DeleteFunc(p.clusters, func(_ string, listing *clusterListing) bool { return asked.Sub(listing.listed) >= p.expireAfter })
	defer p.keepRhythms()
	for _, cluster := range listed {
		now[cluster] = true
		if p.clusters[cluster] != nil || len(p.clusters) < p.maxClusters {
			p.clusters[cluster] = &clusterListing{listed: asked}
		}
	}
	var lacking []string
	var absent []*time.Time
	for cluster, listing := range p.clusters {
		if !now[cluster] {
			lacking, absent = append(lacking, cluster), append(absent, &listing.absent)
		}
	}
	list := groups.List{Names: listed, Asked: asked, Interval: p.cfg.CollectionInterval}
	for _, i := range list.Judge(absent, len(p.clusters)) {
		p.table.EndCluster(lacking[i], asked, time.Now())
		delete(p.clusters, lacking[i])
	}
}

// observe counts a poll that has ended. It logs when requests begin and when they cease to fail, and the first complete poll: that
// of a Burrow that has just started lists nothing.
func (p *poller) observe(r *round, now time.Time) {
	if r.failures > 0 {
		p.polls.incomplete.Add(1)
		if untold, tell := p.outage.fail(now); tell {
			p.logger.Error("Burrow's API can't be asked for everything. What is known stays until expire_after.",
				zap.Int("failures", r.failures), printableError(r.first), zap.Int("outages_since_last_line", untold))
		}
		return
	}
	p.polls.complete.Add(1)
	p.polls.answered.Store(now.UnixNano())
	p.polls.completed.Store(now.UnixNano())
	if p.outage.end() {
		p.logger.Info("Burrow's API answers everything again.")
	}
	fields := []zap.Field{zap.Int("clusters", r.clusters), zap.Int("groups", r.groups), zap.Int("topics", r.topics), zap.Duration("length", now.Sub(r.begin))}
	switch {
	case r.groups > 0 && !p.listing:
		p.logger.Info("The first complete poll of Burrow's API", fields...)
		p.listing = true
	case r.groups == 0 && !p.complete:
		p.logger.Info("Burrow's API answers, and tells of no group.", fields...)
	}
	p.complete = true
}

// printableError is an error that may repeat names or answers of Burrow.
func printableError(err error) zap.Field { return zap.String("error", burrow.Printable(err.Error())) }

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

// answered counts an answer in one of the numbers of the round.
func (r *round) answered(count *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*count++
}

func (r *round) fail(ctx context.Context, err error) {
	r.telemetry.ReceiverBurrowAPIFailures.Add(ctx, 1, r.own)
	r.logger.Debug("A request to Burrow's API failed", printableError(err))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	if r.first == nil {
		r.first = err
	}
}

// cluster asks for the groups of a cluster, and then for its topics: what groups read of them is needed to understand the answers.
// One failed list costs only what it is about.
func (r *round) cluster(ctx context.Context, cluster string) {
	if names, ok := ask(ctx, r, func() ([]string, error) { return r.api.Groups(ctx, cluster) }); ok {
		var gone sync.Map // listed, and unknown when it was asked for
		each(ctx, r, names, &r.filters.groups, func(name string) {
			if r.group(ctx, cluster, name) {
				gone.Store(name, true)
			}
		})
		names = slices.DeleteFunc(names, func(name string) bool { _, found := gone.Load(name); return found })
		if ctx.Err() == nil {
			r.table.ListGroups(r.list(cluster, names), time.Now())
		}
	} else if ctx.Err() == nil {
		r.table.GroupsNotListed(cluster)
	}
	if names, ok := ask(ctx, r, func() ([]string, error) { return r.api.Topics(ctx, cluster) }); ok {
		r.follow(cluster, names)
		each(ctx, r, names, &r.filters.topics, func(name string) { r.topic(ctx, cluster, name) })
		if ctx.Err() == nil {
			r.table.ListTopics(r.list(cluster, names), time.Now())
		}
	} else if ctx.Err() == nil {
		r.table.TopicsNotListed(cluster)
	}
}

func (r *round) list(cluster string, names []string) groups.List {
	return groups.List{Cluster: cluster, Names: names, Asked: r.begin, Interval: r.cfg.CollectionInterval}
}

// each asks for what the filter takes, with as many goroutines as there may be requests, and waits for all.
func each(ctx context.Context, r *round, names []string, f *filter, do func(name string)) {
	var running sync.WaitGroup
	defer running.Wait()
	queue := make(chan string)
	defer close(queue)
	for range min(r.cfg.MaxConcurrentRequests, len(names)) {
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

// group asks for a group, and says whether Burrow does not know it.
func (r *round) group(ctx context.Context, cluster, name string) (gone bool) {
	if !burrow.Askable(name) {
		r.slashes.Do(func() {
			r.logger.Warn("Burrow's API can't be asked for a group with a slash in its name, or with a name of dots. Such groups are known from notifications only.",
				zap.String("cluster", burrow.Printable(cluster)), zap.String("group", burrow.Printable(name)))
		})
		return false
	}
	// Burrow made its evaluation before the answer came. As of the moment it was asked, it can't take the place of a
	// notification that came meanwhile.
	var asked time.Time
	status, ok := ask(ctx, r, func() (*burrow.GroupStatus, error) {
		asked = time.Now()
		status, err := r.api.Lag(ctx, cluster, name)
		gone = errors.Is(err, burrow.ErrGone)
		return status, err
	})
	if ok {
		r.answered(&r.groups)
		err := r.table.UpdateFromAPI(status, asked)
		if err == nil {
			r.polls.answered.Store(asked.UnixNano())
		}
		r.refused(ctx, err)
	}
	return gone
}

func (r *round) topic(ctx context.Context, cluster, name string) {
	offsets, asked, ok := r.offsets(ctx, cluster, name)
	if !ok {
		return
	}
	r.answered(&r.topics)
	err := r.table.UpdateTopic(&groups.Topic{Cluster: cluster, Name: name, Offsets: offsets, Received: asked})
	if errors.Is(err, groups.ErrUnmatched) {
		r.logger.Debug("Head offsets are left out", zap.String("cluster", burrow.Printable(cluster)), zap.String("topic", burrow.Printable(name)), zap.Error(err))
		return
	}
	r.refused(ctx, err)
}

// refused counts an answer that the table has no place for, and logs one now and then.
func (r *round) refused(ctx context.Context, err error) {
	if err == nil {
		return
	}
	limit := countTableFull(ctx, r.telemetry, r.own, err)
	if leftOut, ok := r.full.allow(metadata.AttributeOutcomeTableFull.String(), tableFullLogInterval, time.Now()); ok {
		r.logger.Warn("An answer of Burrow's API has no place in the table", zap.Stringer("limit", limit), zap.Error(err), zap.Int("more_since_last_line", leftOut))
	}
}

// connections are those of the client that were not closed when they were last looked through. The client itself can't be told to
// close those that are idle: what measures it stands between.
type connections struct {
	mu   sync.Mutex
	open []net.Conn
}

// trace makes requests with the context tell of the connections that they open.
func (c *connections) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if info.Reused {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open = slices.DeleteFunc(c.open, func(conn net.Conn) bool { return conn.SetReadDeadline(time.Time{}) != nil })
		c.open = append(c.open, info.Conn)
	}})
}

// close closes what the client has left open. No request is under way.
func (p *poller) close() {
	p.connections.mu.Lock()
	defer p.connections.mu.Unlock()
	for _, conn := range p.connections.open {
		_ = conn.Close() // it may be closed already
	}
	p.connections.open = nil
}
