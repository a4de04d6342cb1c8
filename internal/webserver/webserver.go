// Package webserver bounds what the connections of an HTTP server cost, whoever opens them.
package webserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/config/confighttp"
)

// maxHeaderBytes bounds what a connection can hold before its request is looked at.
const maxHeaderBytes = 32 << 10

// Listen opens the port of a server that Bound has made one of HTTP/1.1. An error begins with the key that it is about.
func Listen(ctx context.Context, settings *confighttp.ServerConfig) (net.Listener, error) {
	var tlsConfig *tls.Config
	if settings.TLS.HasValue() {
		var err error
		if tlsConfig, err = settings.TLS.Get().LoadTLSConfig(ctx); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		tlsConfig.NextProtos = []string{"http/1.1"}
	}
	listener, err := settings.NetAddr.Listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", settings.NetAddr.Endpoint, err)
	}
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	}
	return listener, nil
}

// Connections bounds those of a server. When there is no place for a new one, it takes that of the one that is
// missed least: first of those that never sent a request that was accepted, the oldest; then of those whose request
// takes long, the one that takes longest; then the one that has been idle for longest. So neither connections that
// say nothing nor those that are refused, again and again, keep out who belongs there.
type Connections struct {
	limit int
	// slowRequest is how long a request can take before its connection may be closed to make place for another one.
	slowRequest time.Duration

	mu     sync.Mutex
	byConn map[net.Conn]*connection
	closed int64
}

type connection struct {
	conn net.Conn
	// wanted means that a request of it was accepted.
	wanted bool
	idle   bool
	// since is the beginning of the state.
	since time.Time
}

type connectionKey struct{}

// NewConnections makes a bound of so many connections.
func NewConnections(limit int, slowRequest time.Duration) *Connections {
	return &Connections{limit: limit, slowRequest: slowRequest, byConn: map[net.Conn]*connection{}}
}

// Bound makes a server keep to the limit. It speaks HTTP/1.1 only then, so that a connection is one request at a time and the
// limit of connections is that of requests under way too.
func (c *Connections) Bound(server *http.Server) {
	server.MaxHeaderBytes = maxHeaderBytes
	server.ConnContext = c.open
	server.ConnState = c.observe
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
}

// Limit is how many there may be.
func (c *Connections) Limit() int { return c.limit }

// Stats returns how many there are, and how many were closed to make place.
func (c *Connections) Stats() (open, closed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.byConn)), c.closed
}

// open is called by the server for each new connection, one after the other.
func (c *Connections) open(ctx context.Context, conn net.Conn) context.Context {
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

// Keep notes that the connection of a request is of somebody whose requests are accepted.
func Keep(ctx context.Context) {
	if keep, ok := ctx.Value(connectionKey{}).(func()); ok {
		keep()
	}
}

// leastMissed finds the connection to be closed, if there is one.
func (c *Connections) leastMissed(now time.Time) *connection {
	var least *connection
	for _, candidate := range c.byConn {
		if candidate.wanted && !candidate.idle && now.Sub(candidate.since) < c.slowRequest {
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
func (c *Connections) observe(conn net.Conn, state http.ConnState) {
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
