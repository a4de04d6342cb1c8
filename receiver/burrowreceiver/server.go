package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/internal/webserver"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// slowRequest is how long a notification can take before its connection may be closed to make place for another one.
const slowRequest = time.Second

// newServer makes the webhook's server and opens its port.
func newServer(ctx context.Context, host component.Host, set receiver.Settings, cfg *WebhookConfig, w *webhook, c *webserver.Connections) (*http.Server, net.Listener, error) {
	// A copy, because ToServer fills in defaults.
	settings := cfg.Server
	server, err := settings.ToServer(ctx, host.GetExtensions(), set.TelemetrySettings, w, confighttp.WithErrorHandler(w.refuseEarly))
	if err != nil {
		return nil, nil, fmt.Errorf("webhook: %w", err)
	}
	c.Bound(server)
	server.Handler = w.guard(server.Handler)
	server.ErrorLog = log.New(w, "", 0)
	listener, err := webserver.Listen(ctx, &settings)
	if err != nil {
		return nil, nil, fmt.Errorf("webhook.%w", err)
	}
	return server, listener, nil
}

// observeLimits publishes what is limited and not part of the table, and the limits.
func (r *burrowReceiver) observeLimits() error {
	limit := func(name metadata.AttributeLimit) metric.MeasurementOption {
		return metric.WithAttributes(attribute.String("receiver", r.set.ID.String()), attribute.String("limit", name.String()))
	}
	r.set.Logger.Info("Limits of what is held", zap.Int("max_groups", r.cfg.MaxGroups), zap.Int("max_partitions", r.cfg.MaxPartitions))
	errs := []error{
		r.telemetry.RegisterReceiverBurrowBytesInFlightCallback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(r.limits.Budget.Used()+r.answers.Used(), r.own)
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowLimitCallback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(r.cfg.MaxGroups), limit(metadata.AttributeLimitMaxGroups))
			o.Observe(int64(r.cfg.MaxPartitions), limit(metadata.AttributeLimitMaxPartitions))
			if r.connections != nil {
				o.Observe(int64(r.connections.Limit()), limit(metadata.AttributeLimitMaxConnections))
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowLimitUsedCallback(func(_ context.Context, o metric.Int64Observer) error {
			used := r.table.Places()
			o.Observe(int64(used.Groups), limit(metadata.AttributeLimitMaxGroups))
			o.Observe(int64(used.Partitions), limit(metadata.AttributeLimitMaxPartitions))
			if r.connections != nil {
				open, _ := r.connections.Stats()
				o.Observe(open, limit(metadata.AttributeLimitMaxConnections))
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowPartitionsLeftOutCallback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(r.table.Places().LeftOut, r.own)
			return nil
		}),
	}
	if r.connections != nil {
		errs = append(errs,
			r.telemetry.RegisterReceiverBurrowConnectionsCallback(func(_ context.Context, o metric.Int64Observer) error {
				open, _ := r.connections.Stats()
				o.Observe(open, r.own)
				return nil
			}),
			r.telemetry.RegisterReceiverBurrowConnectionsClosedCallback(func(_ context.Context, o metric.Int64Observer) error {
				_, closed := r.connections.Stats()
				o.Observe(closed, r.own)
				return nil
			}))
	}
	return errors.Join(errs...)
}
