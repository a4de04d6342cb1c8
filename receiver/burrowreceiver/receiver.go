package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// burrowReceiver starts and stops the two halves.
type burrowReceiver struct {
	cfg       *Config
	set       receiver.Settings
	telemetry *metadata.TelemetryBuilder
	table     *groups.Table
	webhook   *webhook
	emitter   *emitter

	server  *http.Server
	serving sync.WaitGroup

	stopEmitter     chan struct{}
	emitterStopped  chan struct{}
	cancelHandOvers context.CancelFunc
}

var _ receiver.Metrics = (*burrowReceiver)(nil)

func newBurrowReceiver(set receiver.Settings, cfg *Config, next consumer.Metrics) (*burrowReceiver, error) {
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
	return &burrowReceiver{
		cfg:       cfg,
		set:       set,
		telemetry: telemetry,
		table:     table,
		webhook: &webhook{
			path: cfg.Webhook.Get().Path, table: table, telemetry: telemetry, logger: set.Logger,
		},
		emitter: &emitter{
			interval: cfg.Interval, table: table, next: next, obsreport: obsreport, telemetry: telemetry, logger: set.Logger,
			mapper: &metricsMapper{cfg: cfg.MetricsBuilderConfig, set: set, start: time.Now()},
		},
	}, nil
}

// Start begins to listen and to hand over.
func (r *burrowReceiver) Start(ctx context.Context, host component.Host) error {
	if err := r.observeTable(); err != nil {
		return err
	}
	if err := r.startWebhook(ctx, host); err != nil {
		return err
	}
	// The context of Start ends with Start.
	handOvers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop, stopped := make(chan struct{}), make(chan struct{})
	r.cancelHandOvers, r.stopEmitter, r.emitterStopped = cancel, stop, stopped
	go func() {
		defer close(stopped)
		r.emitter.run(handOvers, stop)
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
		r.telemetry.RegisterReceiverBurrowPartitionsCallback(gauge(func(s groups.Stats) int64 { return int64(s.Partitions) })),
		r.telemetry.RegisterReceiverBurrowSeriesCallback(gauge(func(s groups.Stats) int64 { return int64(s.Series) })),
		r.telemetry.RegisterReceiverBurrowGroupsExpiredCallback(gauge(func(s groups.Stats) int64 { return s.Expired })),
		r.telemetry.RegisterReceiverBurrowLastNotificationTimestampCallback(func(_ context.Context, o metric.Float64Observer) error {
			if last := r.webhook.lastAccepted.Load(); last != 0 {
				o.Observe(float64(last) / float64(time.Second))
			}
			return nil
		}),
	)
}

// Shutdown stops listening, lets open requests end, and hands over what they brought: whatever was
// answered with 200 has reached the pipelines when Shutdown returns without an error.
func (r *burrowReceiver) Shutdown(ctx context.Context) error {
	defer r.telemetry.Shutdown()
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	return errors.Join(r.shutdownWebhook(ctx), r.shutdownEmitter(ctx))
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

func (r *burrowReceiver) shutdownEmitter(ctx context.Context) error {
	if r.stopEmitter == nil {
		return nil
	}
	close(r.stopEmitter)
	r.stopEmitter = nil
	defer r.cancelHandOvers()
	select {
	case <-r.emitterStopped:
	case <-ctx.Done():
		r.cancelHandOvers()
		select {
		case <-r.emitterStopped:
		case <-time.After(cancelTimeout):
			return errors.New("a pipeline does not return from the last hand-over, though it was cancelled")
		}
	}
	if left := len(r.table.Collect(time.Now())); left > 0 {
		return fmt.Errorf("the pipelines did not take the last state of %d groups: %w", left, ctx.Err())
	}
	return nil
}
