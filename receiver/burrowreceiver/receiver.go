package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// shutdownTimeout bounds how long Shutdown waits for open requests and for pipelines that refuse or hang. It is
// within the 30 s that Kubernetes grants, and leaves the exporters some of them.
const shutdownTimeout = 20 * time.Second

// cancelTimeout is what a pipeline gets to return after it was told to give up.
const cancelTimeout = 2 * time.Second

// maxEvents bounds the events of incidents that wait for the logs pipelines.
const maxEvents = 10_000

// burrowReceiver starts and stops the two halves. One serves all signals of a configuration: they share
// the server and the table, and each has an emitter of its own.
type burrowReceiver struct {
	cfg       *Config
	set       receiver.Settings
	telemetry *metadata.TelemetryBuilder
	obsreport *receiverhelper.ObsReport
	table     *groups.Table
	webhook   *webhook
	filters   filters
	emitters  []*emitter
	toStart   int
	store     *store  // nil if nothing is kept
	poller    *poller // nil if the API is not polled

	server  *http.Server
	serving sync.WaitGroup

	stopEmitters    chan struct{}
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
	table := groups.New(groups.Limits{
		MaxGroups: cfg.MaxGroups, MaxPartitions: cfg.MaxPartitions, ExpireAfter: cfg.ExpireAfter,
	})
	r := &burrowReceiver{cfg: cfg, set: set, telemetry: telemetry, obsreport: obsreport, table: table}
	if cfg.API.HasValue() {
		if r.filters, err = cfg.API.Get().filters(); err != nil {
			return nil, err
		}
	}
	r.webhook = &webhook{table: table, filters: r.filters, telemetry: telemetry, logger: set.Logger}
	if cfg.Webhook.HasValue() {
		r.webhook.path = cfg.Webhook.Get().Path
	}
	return r, nil
}

func (r *burrowReceiver) addMetrics(next consumer.Metrics) {
	mapper := &metricsMapper{cfg: r.cfg.MetricsBuilderConfig, set: r.set, start: time.Now()}
	o := &metricsOutlet{outlet: r.newOutlet("metrics"), mapper: mapper, next: next}
	r.addEmitter(o.handOver)
}

func (r *burrowReceiver) addLogs(next consumer.Logs) {
	r.table.KeepEvents(maxEvents)
	o := &logsOutlet{outlet: r.newOutlet("logs"), version: r.set.BuildInfo.Version, next: next}
	r.addEmitter(o.handOver)
}

func (r *burrowReceiver) newOutlet(signal string) outlet {
	return outlet{signal: signal, table: r.table, obsreport: r.obsreport, telemetry: r.telemetry, logger: r.set.Logger}
}

func (r *burrowReceiver) addEmitter(handOver func(context.Context, time.Time) bool) {
	r.emitters = append(r.emitters, &emitter{interval: r.cfg.Interval, handOver: handOver})
	r.toStart++
}

// Start begins to listen and to hand over, once it was called for every signal: with the first one, the
// exporters of the others may not have started.
func (r *burrowReceiver) Start(ctx context.Context, host component.Host) error {
	r.toStart--
	if r.toStart > 0 {
		return nil
	}
	if err := r.observeTable(); err != nil {
		return err
	}
	if r.cfg.Storage != nil {
		var err error
		if r.store, err = openStore(ctx, host, r, time.Now()); err != nil {
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
	// The context of Start ends with Start.
	handOvers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop, stopped := make(chan struct{}), make(chan struct{})
	r.cancelHandOvers, r.stopEmitters, r.emittersStopped = cancel, stop, stopped
	var running sync.WaitGroup
	emitters := r.emitters
	if r.store != nil {
		emitters = append(slices.Clip(emitters), &emitter{interval: r.cfg.Interval, handOver: r.store.save})
	}
	if r.poller != nil {
		polls, cancelPolls := context.WithCancel(handOvers)
		r.cancelPolls = cancelPolls
		r.polling.Go(func() { r.poller.run(polls) })
	}
	for _, e := range emitters {
		running.Go(func() { e.run(handOvers, stop) })
	}
	go func() {
		defer close(stopped)
		running.Wait()
	}()
	return nil
}

func (r *burrowReceiver) startWebhook(ctx context.Context, host component.Host) error {
	cfg := r.cfg.Webhook.Get()
	// A copy, because ToServer fills in defaults.
	settings := cfg.Server
	server, err := settings.ToServer(ctx, host.GetExtensions(), r.set.TelemetrySettings, r.webhook,
		confighttp.WithErrorHandler(r.webhook.refuseEarly))
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	listener, err := settings.ToListener(ctx)
	if err != nil {
		return fmt.Errorf("webhook.endpoint %s: %w", cfg.Server.NetAddr.Endpoint, err)
	}
	r.server = server
	r.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(err))
		}
	})
	r.set.Logger.Info("The webhook listens for Burrow's notifications", zap.String("url", r.url(listener.Addr())))
	return nil
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
			o.Observe(value(r.table.Stats()))
			return nil
		}
	}
	return errors.Join(
		r.telemetry.RegisterReceiverBurrowGroupsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Groups) })),
		r.telemetry.RegisterReceiverBurrowTopicsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Topics) })),
		r.telemetry.RegisterReceiverBurrowPartitionsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Partitions) })),
		r.telemetry.RegisterReceiverBurrowSeriesCallback(gauge(func(s groups.Stats) int64 { return int64(s.Series) })),
		r.telemetry.RegisterReceiverBurrowGroupsExpiredCallback(gauge(func(s groups.Stats) int64 { return s.Expired })),
		r.telemetry.RegisterReceiverBurrowIncidentEventsDroppedCallback(gauge(func(s groups.Stats) int64 { return s.EventsDropped })),
		r.telemetry.RegisterReceiverBurrowLastNotificationTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			if last := r.webhook.lastAccepted.Load(); last != 0 {
				o.Observe(float64(last) / float64(time.Second))
			}
			return nil
		}),
	)
}

// Shutdown stops listening, lets open requests end, and hands over what they brought: whatever was
// answered with 200 has reached the pipelines when Shutdown returns without an error. The first call, for
// whichever signal, does it for all.
func (r *burrowReceiver) Shutdown(ctx context.Context) error {
	receivers.mu.Lock()
	delete(receivers.byConfig, r.cfg)
	receivers.mu.Unlock()
	defer r.telemetry.Shutdown()
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	r.shutdownPoller()
	return errors.Join(r.shutdownWebhook(ctx), r.shutdownEmitters(ctx), r.closeStore(ctx))
}

// shutdownPoller breaks a poll off; its requests end at once.
func (r *burrowReceiver) shutdownPoller() {
	if r.cancelPolls != nil {
		r.cancelPolls()
		r.polling.Wait()
	}
}

// closeStore comes after the emitters, the last of which has written to it.
func (r *burrowReceiver) closeStore(ctx context.Context) error {
	if r.store == nil {
		return nil
	}
	client := r.store.client
	r.store = nil
	return client.Close(ctx)
}

func (r *burrowReceiver) shutdownWebhook(ctx context.Context) error {
	if r.server == nil {
		return nil
	}
	err := r.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("webhook: requests were still open: %w", err), r.server.Close())
	}
	r.serving.Wait()
	r.server = nil
	return err
}

func (r *burrowReceiver) shutdownEmitters(ctx context.Context) error {
	if r.stopEmitters == nil {
		return nil
	}
	close(r.stopEmitters)
	r.stopEmitters = nil
	defer r.cancelHandOvers()
	select {
	case <-r.emittersStopped:
		return nil
	case <-ctx.Done():
	}
	r.cancelHandOvers()
	select {
	case <-r.emittersStopped:
		return fmt.Errorf("the pipelines did not take all of the last state: %w", ctx.Err())
	case <-time.After(cancelTimeout):
		return errors.New("a pipeline does not return from the last hand-over, though it was cancelled")
	}
}
