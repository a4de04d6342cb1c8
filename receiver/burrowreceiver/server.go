package burrowreceiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const (
	// maxHeaderBytes bounds what a connection can hold before its request is looked at.
	maxHeaderBytes = 32 << 10
	// slowRequest is how long a request can take before its connection may be closed to make place for another one.
	slowRequest = time.Second
)

// newServer makes the webhook's server. It speaks HTTP/1.1 only, so that a connection is one request at a time and the
// limit of connections is that of requests under way too.
func newServer(ctx context.Context, host component.Host, set receiver.Settings, cfg *WebhookConfig, w *webhook, c *serverConnections) (*http.Server, net.Listener, error) {
	// A copy, because ToServer fills in defaults.
	settings := cfg.Server
	server, err := settings.ToServer(ctx, host.GetExtensions(), set.TelemetrySettings, w, confighttp.WithErrorHandler(w.refuseEarly))
	if err != nil {
		return nil, nil, fmt.Errorf("webhook: %w", err)
	}
	server.Handler = w.guard(server.Handler)
	server.MaxHeaderBytes = maxHeaderBytes
	server.ErrorLog = log.New(w, "", 0)
	server.ConnContext = c.open
	server.ConnState = c.observe
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)

	var tlsConfig *tls.Config
	if settings.TLS.HasValue() {
		if tlsConfig, err = settings.TLS.Get().LoadTLSConfig(ctx); err != nil {
			return nil, nil, fmt.Errorf("webhook.tls: %w", err)
		}
		tlsConfig.NextProtos = []string{"http/1.1"}
	}
	listener, err := settings.NetAddr.Listen(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("webhook.endpoint %s: %w", settings.NetAddr.Endpoint, err)
	}
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
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
				o.Observe(int64(r.connections.limit), limit(metadata.AttributeLimitMaxConnections))
			}
			return nil
		}),
		r.telemetry.RegisterReceiverBurrowLimitUsedCallback(func(_ context.Context, o metric.Int64Observer) error {
			used := r.table.Places()
			o.Observe(int64(used.Groups), limit(metadata.AttributeLimitMaxGroups))
			o.Observe(int64(used.Partitions), limit(metadata.AttributeLimitMaxPartitions))
			if r.connections != nil {
				open, _ := r.connections.stats()
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
				open, _ := r.connections.stats()
				o.Observe(open, r.own)
				return nil
			}),
			r.telemetry.RegisterReceiverBurrowConnectionsClosedCallback(func(_ context.Context, o metric.Int64Observer) error {
				_, closed := r.connections.stats()
				o.Observe(closed, r.own)
				return nil
			}))
	}
	return errors.Join(errs...)
}

// serverConnections bounds those of the server. When there is no place for a new one, it takes that of the one that is
// missed least: first of those that never sent a request that was accepted, the oldest; then of those whose request
// takes long, the one that takes longest; then the one that has been idle for longest. So neither connections that
// say nothing nor those that are refused, again and again, keep Burrow's notifications out.
type serverConnections struct {
	limit int

	mu     sync.Mutex
	byConn map[net.Conn]*connection
	closed int64
}

type connection struct {
	conn net.Conn
	// wanted means that a request of it was answered with 200.
	wanted bool
	idle   bool
	// since is the beginning of the state.
	since time.Time
}

type connectionKey struct{}

func newConnections(limit int) *serverConnections {
	return &serverConnections{limit: limit, byConn: map[net.Conn]*connection{}}
}

// stats returns how many there are, and how many were closed to make place.
func (c *serverConnections) stats() (open, closed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.byConn)), c.closed
}

// open is called by the server for each new connection, one after the other.
func (c *serverConnections) open(ctx context.Context, conn net.Conn) context.Context {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byConn) >= c.limit {
		c.closed++
		victim := c.leastMissed(now)
		if victim == nil {
			closeNow(conn)
			return ctx
		}
		delete(c.byConn, victim.conn)
		closeNow(victim.conn)
	}
	opened := &connection{conn: conn, since: now}
	c.byConn[conn] = opened
	return context.WithValue(ctx, connectionKey{}, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		opened.wanted = true
	})
}

// keepConnection notes that the connection of a request is of somebody whose requests are accepted.
func keepConnection(ctx context.Context) {
	if keep, ok := ctx.Value(connectionKey{}).(func()); ok {
		keep()
	}
}

// leastMissed finds the connection to be closed, if there is one.
func (c *serverConnections) leastMissed(now time.Time) *connection {
	var least *connection
	for _, candidate := range c.byConn {
		if candidate.wanted && !candidate.idle && now.Sub(candidate.since) < slowRequest {
			continue
		}
		if least == nil || candidate.missedLess(least) {
			least = candidate
		}
	}
	return least
}

func (c *connection) missedLess(other *connection) bool {
	switch {
	case c.wanted != other.wanted:
		return other.wanted
	case c.wanted && c.idle != other.idle:
		return other.idle
	}
	return c.since.Before(other.since)
}

// observe is called by the server when a connection changes its state.
func (c *serverConnections) observe(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.byConn[conn]
	if known == nil {
		return
	}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.byConn, conn)
	case http.StateActive, http.StateIdle:
		known.idle = state == http.StateIdle
		if known.wanted {
			known.since = time.Now()
		}
	case http.StateNew:
	}
}

// closeNow closes a connection without the farewell of TLS, for which the other side could let us wait.
func closeNow(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close() // nobody is told
}
