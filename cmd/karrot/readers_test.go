package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/exporter"
)

// However many ask for the page and do not read it, few are answered at one moment, and one who reads gets it.
func TestReadersThatDoNotRead(t *testing.T) {
	var now, most atomic.Int64
	answered := newReaders().wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		chunk := make([]byte, 4<<10)
		for range 4 << 10 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	server := httptest.NewServer(answered)
	t.Cleanup(server.Close)

	for range 3 * maxReaders {
		askAndDoNotRead(t, server)
	}
	require.Eventually(t, func() bool { return now.Load() == maxReaders }, 5*time.Second, time.Millisecond)

	response, err := http.Get(server.URL)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	n, err := io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	assert.EqualValues(t, 16<<20, n)
	assert.EqualValues(t, maxReaders, most.Load())
}

// askAndDoNotRead asks for the page and leaves it where it is.
func askAndDoNotRead(t *testing.T, server *httptest.Server) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: karrot\r\n\r\n")
	require.NoError(t, err)
}

// served is an exporter that waits for its server, as that for Prometheus does.
type served struct {
	exporter.Metrics
	server *http.Server
}

func (s served) Shutdown(ctx context.Context) error { return s.server.Shutdown(ctx) }

// A client that does not read the page does not hold up the end.
func TestShutdownBesideReaderThatDoesNotRead(t *testing.T) {
	l := newReaders()
	var asked, cut atomic.Bool
	server := httptest.NewServer(l.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		defer cut.Store(true)
		for range 4 << 10 {
			_, _ = w.Write(make([]byte, 4<<10))
		}
	})))
	t.Cleanup(server.Close)
	askAndDoNotRead(t, server)
	require.Eventually(t, asked.Load, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 10*readerBlocks)
	defer cancel()
	require.NoError(t, (&boundedExporter{Metrics: served{server: server.Config}, readers: l}).Shutdown(ctx))
	assert.True(t, cut.Load())
}

// Who reads is not cut, though others wait.
func TestReadersWait(t *testing.T) {
	begin := make(chan struct{})
	server := httptest.NewServer(newReaders().wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-begin
		_, _ = w.Write([]byte("page"))
	})))
	defer server.Close()
	var running sync.WaitGroup
	var pages atomic.Int64
	for range 3 * maxReaders {
		running.Go(func() {
			response, err := http.Get(server.URL)
			if err != nil {
				return
			}
			defer func() { _ = response.Body.Close() }()
			if text, err := io.ReadAll(response.Body); err == nil && string(text) == "page" {
				pages.Add(1)
			}
		})
	}
	close(begin)
	running.Wait()
	assert.EqualValues(t, 3*maxReaders, pages.Load())
}
