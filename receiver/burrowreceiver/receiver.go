package burrowreceiver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/internal/webserver"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/page"
)

// What Shutdown waits for, each with a time of its own, so that none uses up that of another: open requests, then
// pipelines that refuse or hang, which get cancelTimeout to return after they were told to give up, then the storage. It is within
// the 30 s that Kubernetes grants, and leaves the exporters some of them.
const (
	requestsTimeout  = 8 * time.Second
	handOversTimeout = 10 * time.Second
	cancelTimeout    = 2 * time.Second
	storageTimeout   = 3 * time.Second
)

// maxEvents bounds the events of incidents that wait for the logs pipelines, and those that wait for their second attempt. One with very
// long names counts as several.
const maxEvents = 10_000

// burrowReceiver starts and stops the parts. One serves all signals of a configuration: they share
// the server and the table, and each has an emitter of its own.
type burrowReceiver struct {
	cfg       *Config
	set       receiver.Settings
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption // tells the own telemetry of several receivers apart
	obsreport *receiverhelper.ObsReport
	table     *groups.Table
	webhook   *webhook
	filters   filters
	limits    burrow.APILimits // of the webhook
	answers   *burrow.Budget
	emitters  []*emitter
	// notStarted is the number of signals for which Start was not called yet.
	notStarted int
	keeper     *keeper // nil without a storage
	poller     *poller // nil if the API is not polled
	polls      polls
	// started is when Start was called; listening is the address of the webhook as Burrow needs it.
	started   time.Time
	listening string

	server      *http.Server
	connections *webserver.Connections // nil without a server
	serving     sync.WaitGroup

	stopEmitters    context.CancelFunc // nil if they do not run
	emittersStopped chan struct{}
	cancelHandOvers context.CancelFunc

	polling     sync.WaitGroup
	cancelPolls context.CancelFunc // nil if the API is not polled
}

var (
	_ receiver.Metrics = (*burrowReceiver)(nil)
	_ receiver.Logs    = (*burrowReceiver)(nil)
)

// receivers finds the receiver of a configuration: the Collector creates one for each signal, with the same
// configuration, and keeps no other tie between them.
var receivers = struct {
	mu       sync.Mutex
	byConfig map[*Config]*burrowReceiver
}{byConfig: map[*Config]*burrowReceiver{}}

func receiverOf(set receiver.Settings, cfg *Config) (*burrowReceiver, error) {
	receivers.mu.Lock()
	defer receivers.mu.Unlock()
	if r := receivers.byConfig[cfg]; r != nil {
		return r, nil
	}
	r, err := newBurrowReceiver(set, cfg)
	if err != nil {
		return nil, err
	}
	receivers.byConfig[cfg] = r
	return r, nil
}

func newBurrowReceiver(set receiver.Settings, cfg *Config) (*burrowReceiver, error) {
	telemetry, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	obsreport, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, Transport: "http", ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, err
	}
	limits := groups.Limits{
		MaxGroups: cfg.MaxGroups, MaxPartitions: cfg.MaxPartitions, ExpireAfter: cfg.ExpireAfter,
		Owners: cfg.Metrics.BurrowPartitionOwner.Enabled,
	}
	table := groups.New(limits)
	lines := 0
	if cfg.LogIncidents {
		lines = maxIncidentLines
	}
	table.KeepNews(maxNamed, lines) // before the storage is read, which ends what has expired
	own := metric.WithAttributeSet(attribute.NewSet(attribute.String("receiver", set.ID.String())))
	r := &burrowReceiver{cfg: cfg, set: set, telemetry: telemetry, own: own, obsreport: obsreport, table: table}
	if r.filters, err = cfg.filters(); err != nil {
		return nil, err
	}
	r.limits = burrow.APILimits{MaxPartitions: cfg.MaxPartitions, Budget: burrow.NewBudget(maxBytesInFlight)}
	r.answers = burrow.NewBudget(maxAnswerBytes)
	r.webhook = &webhook{
		table: table, filters: r.filters, limits: r.limits, telemetry: telemetry, own: own, outcomes: outcomeOptions(set.ID.String()), logger: set.Logger,
	}
	if cfg.Webhook.HasValue() {
		r.webhook.path, r.webhook.unpacked = cfg.Webhook.Get().Path, cfg.Webhook.Get().unpacked()
		r.connections = webserver.NewConnections(cfg.Webhook.Get().MaxConnections, slowRequest)
		if cfg.Page.Enabled {
			r.webhook.challenge = challenge(cfg.Webhook.Get())
			r.webhook.page = page.New(table, page.Options{
				Path: cfg.Page.Path, WebhookPath: r.webhook.path, Interval: cfg.Interval, Limits: limits,
				Version: set.BuildInfo.Version, Password: cfg.Webhook.Get().Server.Auth.HasValue(), APIPolled: cfg.API.HasValue(),
				Now: time.Now, Webhook: r.webhook.forPage,
			})
		}
	}
	return r, nil
}

func (r *burrowReceiver) addMetrics(next consumer.Metrics) {
	mapper := &metricsMapper{cfg: r.cfg.MetricsBuilderConfig, set: r.set, start: time.Now()}
	handOvers := r.newHandOvers("metrics", "What is new goes to the others as ever. What was refused is repeated after 1 s, and then ever less often, down to once a minute.")
	r.addEmitter((&metricsEmitter{handOvers: handOvers, mapper: mapper, next: next, repeatPoints: maxPoints}).emit)
}

func (r *burrowReceiver) addLogs(next consumer.Logs) {
	r.table.KeepEvents(maxEvents)
	handOvers := r.newHandOvers("logs", "Each event is repeated once, when a later one is taken or after a minute. A permanent refusal is not repeated.")
	r.addEmitter((&logsEmitter{
		handOvers: handOvers, version: r.set.BuildInfo.Version, next: next, refused: groups.NewEventQueue(maxEvents),
	}).emit)
}

func (r *burrowReceiver) newHandOvers(signal, promise string) handOvers {
	return handOvers{
		signal: signal, promise: promise, table: r.table, obsreport: r.obsreport, telemetry: r.telemetry, own: r.own,
		logger: r.set.Logger, timeout: max(r.cfg.Interval, minHandOverTimeout),
	}
}

func (r *burrowReceiver) addEmitter(emit func(context.Context, time.Time, bool) bool) {
	r.emitters = append(r.emitters, &emitter{interval: r.cfg.Interval, emit: emit})
	r.notStarted++
}

// Start begins to listen and to hand over, once it was called for every signal: with the first one, the
// exporters of the others may not have started. If it fails, nothing is left open.
func (r *burrowReceiver) Start(ctx context.Context, host component.Host) error {
	r.notStarted--
	if r.notStarted > 0 {
		return nil
	}
	err := r.startParts(ctx, host)
	if err != nil {
		r.shutdownWebhook(ctx)
		r.closeKeeper(ctx)
	}
	return err
}

func (r *burrowReceiver) startParts(ctx context.Context, host component.Host) error {
	r.started = time.Now()
	if err := errors.Join(r.observeTable(), r.observeLimits()); err != nil {
		return err
	}
	r.countFromZero(ctx)
	if r.cfg.Storage != nil {
		var err error
		if r.keeper, err = openKeeper(ctx, host, r, time.Now); err != nil {
			return err
		}
	}
	if r.cfg.API.HasValue() {
		var err error
		if r.poller, err = newPoller(ctx, host, r); err != nil {
			return err
		}
	}
	if r.cfg.Webhook.HasValue() {
		if err := r.startWebhook(ctx, host); err != nil {
			return err
		}
	}
	r.startLoops(ctx)
	return nil
}

// startLoops starts what runs until Shutdown.
func (r *burrowReceiver) startLoops(ctx context.Context) {
	// The context of Start ends with Start.
	handOvers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	passes, stop := context.WithCancel(handOvers)
	stopped := make(chan struct{})
	r.cancelHandOvers, r.stopEmitters, r.emittersStopped = cancel, stop, stopped
	var running sync.WaitGroup
	emitters := append(slices.Clip(r.emitters), &emitter{interval: min(r.cfg.Interval, maxReportInterval), emit: r.newReporter().emit})
	if r.keeper != nil {
		emitters = append(emitters, &emitter{interval: r.cfg.Interval, emit: r.keeper.save})
	}
	if r.poller != nil {
		polls, cancelPolls := context.WithCancel(handOvers)
		r.cancelPolls = cancelPolls
		r.polling.Go(func() { r.poller.run(polls) })
		r.polling.Go(func() { r.poller.runHeads(polls) })
	}
	for _, e := range emitters {
		running.Go(func() { e.run(handOvers, passes) })
	}
	go func() {
		defer close(stopped)
		running.Wait()
	}()
}

func (r *burrowReceiver) startWebhook(ctx context.Context, host component.Host) error {
	server, listener, err := newServer(ctx, host, r.set, r.cfg.Webhook.Get(), r.webhook, r.connections)
	if err != nil {
		return err
	}
	r.server = server
	r.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(err))
		}
	})
	r.listening = r.url(listener.Addr())
	r.set.Logger.Info("The webhook listens for Burrow's notifications", zap.String("url", r.listening))
	return nil
}

// challenge makes a browser ask for a password, of authenticators that take one.
func challenge(cfg *WebhookConfig) string {
	if !cfg.Server.Auth.HasValue() || cfg.Server.Auth.Get().AuthenticatorID.Type().String() != "basicauth" {
		return ""
	}
	return `Basic realm="Karrot", charset="UTF-8"`
}

// url is what belongs into url-open and url-close of Burrow's notifier.
func (r *burrowReceiver) url(addr net.Addr) string {
	cfg := r.cfg.Webhook.Get()
	scheme := "http"
	if cfg.Server.TLS.HasValue() {
		scheme = "https"
	}
	return scheme + "://" + addr.String() + cfg.Path
}

// observeTable publishes what the table holds as own telemetry.
func (r *burrowReceiver) observeTable() error {
	gauge := func(value func(groups.Stats) int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(value(r.table.Stats()), r.own)
			return nil
		}
	}
	return errors.Join(
		r.telemetry.RegisterReceiverBurrowGroupsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Groups) })),
		r.telemetry.RegisterReceiverBurrowTopicsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Topics) })),
		r.telemetry.RegisterReceiverBurrowPartitionsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Partitions) })),
		r.telemetry.RegisterReceiverBurrowHeadHistoriesCallback(gauge(func(groups.Stats) int64 { return int64(r.table.Histories()) })),
		r.telemetry.RegisterReceiverBurrowPendingCallback(gauge(func(s groups.Stats) int64 { return int64(s.Pending) })),
		r.telemetry.RegisterReceiverBurrowSeriesCallback(gauge(func(s groups.Stats) int64 { return int64(s.Series) })),
		r.telemetry.RegisterReceiverBurrowGroupsExpiredCallback(gauge(func(s groups.Stats) int64 { return s.Expired })),
		r.telemetry.RegisterReceiverBurrowEndsDroppedCallback(gauge(func(s groups.Stats) int64 { return s.EndsDropped })),
		r.telemetry.RegisterReceiverBurrowIncidentEventsDroppedCallback(gauge(func(s groups.Stats) int64 { return s.EventsDropped })),
		r.telemetry.RegisterReceiverBurrowLastNotificationTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			if last := r.webhook.lastAccepted.Load(); last != 0 {
				o.Observe(float64(last)/float64(time.Second), r.own)
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowLastContactTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			if r.cfg.Webhook.HasValue() {
				o.Observe(r.sinceStart(&r.webhook.lastAccepted), r.own, fromSource(metadata.AttributeSourceWebhook))
			}
			if r.cfg.API.HasValue() {
				o.Observe(r.sinceStart(&r.polls.answered), r.own, fromSource(metadata.AttributeSourceApi))
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowAPILastCompletePollTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			if r.cfg.API.HasValue() {
				o.Observe(r.sinceStart(&r.polls.completed), r.own)
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowLastMovedTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			for cluster, at := range r.table.LastMoved() {
				o.Observe(unixSeconds(at), r.own, metric.WithAttributes(attribute.String("cluster", cluster)))
			}
			return nil
		}),
	)
}

// sinceStart is a moment in unix seconds: when the receiver started, as long as it has not come.
func (r *burrowReceiver) sinceStart(moment *atomic.Int64) float64 {
	last := moment.Load()
	if last == 0 {
		last = r.started.UnixNano()
	}
	return float64(last) / float64(time.Second)
}

func fromSource(source metadata.AttributeSource) metric.ObserveOption {
	return metric.WithAttributes(attribute.String("source", source.String()))
}

// countFromZero makes every counter exist: rate and increase do not see a first event that is the first value.
func (r *burrowReceiver) countFromZero(ctx context.Context) {
	r.telemetry.ReceiverBurrowHandoverFailures.Add(ctx, 0, r.own)
	if r.cfg.Storage != nil {
		r.telemetry.ReceiverBurrowStorageFailures.Add(ctx, 0, r.own)
	}
	if r.cfg.API.HasValue() {
		r.telemetry.ReceiverBurrowAPIFailures.Add(ctx, 0, r.own)
	}
	for _, options := range r.webhook.outcomes {
		r.telemetry.ReceiverBurrowNotifications.Add(ctx, 0, options...)
	}
	for _, limit := range []metadata.AttributeLimit{metadata.AttributeLimitMaxGroups, metadata.AttributeLimitMaxPartitions} {
		r.telemetry.ReceiverBurrowGroupsRefused.Add(ctx, 0, r.own, metric.WithAttributes(attribute.String("limit", limit.String())))
	}
}

// Shutdown stops listening, lets open requests end, and hands over what they brought: whatever was
// answered with 200 has reached the pipelines that take it when Shutdown returns. What a pipeline refuses is logged, and is
// no error: the Collector would end, also when it is only to read its configuration again. The first call, for
// whichever signal, does it for all.
func (r *burrowReceiver) Shutdown(ctx context.Context) error {
	receivers.mu.Lock()
	if receivers.byConfig[r.cfg] == r {
		delete(receivers.byConfig, r.cfg)
	}
	receivers.mu.Unlock()
	r.shutdownPoller()
	r.shutdownWebhook(ctx)
	r.shutdownEmitters(ctx)
	r.closeKeeper(ctx)
	r.telemetry.Shutdown()
	return nil
}

// shutdownPoller breaks a poll off; its requests end at once.
func (r *burrowReceiver) shutdownPoller() {
	if r.cancelPolls != nil {
		r.cancelPolls()
		r.polling.Wait()
	}
	if r.poller != nil {
		r.poller.close()
		r.poller = nil
	}
}

// closeKeeper comes after the emitters, the last of which has written to it.
func (r *burrowReceiver) closeKeeper(ctx context.Context) {
	if r.keeper == nil || r.keeper.store == nil {
		r.keeper = nil
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	if err := r.keeper.store.Close(ctx); err != nil {
		r.set.Logger.Error("The storage can't be closed.", zap.Error(err))
	}
	r.keeper = nil
}

func (r *burrowReceiver) shutdownWebhook(ctx context.Context) {
	if r.webhook.page != nil {
		r.webhook.page.Close() // the server waits for streams that are open
	}
	if r.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestsTimeout)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.set.Logger.Warn("Requests to the webhook were still open, and are cut off: they were not answered.", zap.Error(errors.Join(err, r.server.Close())))
	}
	r.serving.Wait()
	r.server = nil
}

func (r *burrowReceiver) shutdownEmitters(ctx context.Context) {
	if r.stopEmitters == nil {
		return
	}
	r.stopEmitters()
	r.stopEmitters = nil
	defer r.cancelHandOvers()
	ctx, cancel := context.WithTimeout(ctx, handOversTimeout)
	defer cancel()
	select {
	case <-r.emittersStopped:
		return
	case <-ctx.Done():
	}
	r.cancelHandOvers()
	select {
	case <-r.emittersStopped:
		r.set.Logger.Error("A pipeline did not take the last state of all groups.", zap.Int("groups_and_topics", r.table.Stats().Pending))
	case <-time.After(cancelTimeout):
		r.set.Logger.Error("A pipeline does not return from the last hand-over, though it was cancelled.")
	}
}
