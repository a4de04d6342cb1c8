package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/lowess/karrot/internal/webserver"
)

// maxWatchers is how many connections one of the ports has for those who watch: Prometheus, probes, people.
const maxWatchers = 64

// boundedComponents are the components of the distribution, with a limit of connections on the ports for those who watch. That of own
// telemetry has none: its server can't be reached from here.
func boundedComponents() (otelcol.Factories, error) {
	factories, err := components()
	if err != nil {
		return factories, err
	}
	factories.Exporters[pageType] = boundPage(factories.Exporters[pageType])
	factories.Extensions[healthType] = boundHealth(factories.Extensions[healthType])
	return factories, nil
}

// port is the server of a component, with a limit of connections.
type port struct {
	component component.ID
	settings  confighttp.ServerConfig
	telemetry component.TelemetrySettings
	// slowRequest is how long a request can take before its connection may lose its place.
	slowRequest time.Duration
}

// openPort is a port that is open.
type openPort struct {
	server  *http.Server
	serving sync.WaitGroup
	counted metric.Registration
}

// open serves a page.
func (p port) open(ctx context.Context, host component.Host, page http.Handler) (*openPort, error) {
	server, err := p.settings.ToServer(ctx, host.GetExtensions(), p.telemetry, page)
	if err != nil {
		return nil, err
	}
	connections := webserver.NewConnections(maxWatchers, p.slowRequest)
	connections.Bound(server)
	// Strangers can make it write as much as they like, as with handshakes that fail.
	if server.ErrorLog, err = zap.NewStdLogAt(p.telemetry.Logger, zapcore.DebugLevel); err != nil {
		return nil, err
	}
	counted, err := p.count(connections)
	if err != nil {
		return nil, err
	}
	listener, err := webserver.Listen(ctx, &p.settings)
	if err != nil {
		return nil, errors.Join(err, counted.Unregister())
	}
	o := &openPort{server: server, counted: counted}
	o.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(err))
		}
	})
	return o, nil
}

// close waits for answers that are under way, for a time, and then cuts them off. A port that was never opened is closed.
func (o *openPort) close(ctx context.Context, patience time.Duration) {
	if o == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if o.server.Shutdown(ctx) != nil {
		_ = o.server.Close() // nobody is told
	}
	o.serving.Wait()
	_ = o.counted.Unregister() // never fails
}

// count publishes as own telemetry how many connections were closed to make place for others.
func (p port) count(connections *webserver.Connections) (metric.Registration, error) {
	meter := p.telemetry.MeterProvider.Meter("github.com/lowess/karrot/cmd/karrot")
	closed, err := meter.Int64ObservableCounter("otelcol_karrot_connections_closed",
		metric.WithDescription("Connections to the port of a component that were closed to make place for others."), metric.WithUnit("{connections}"))
	if err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		_, n := connections.Stats()
		o.ObserveInt64(closed, n, metric.WithAttributes(attribute.String("component", p.component.String())))
		return nil
	}, closed)
}
