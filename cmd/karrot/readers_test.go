package main

import (
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
	"go.opentelemetry.io/collector/component/componenttest"

	"github.com/lowess/karrot/internal/webserver"
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

// A client that does not read the page does not hold up the end.
func TestPortClosesBesideReaderThatDoesNotRead(t *testing.T) {
	var asked, cut atomic.Bool
	server := httptest.NewServer(newReaders().wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		defer cut.Store(true)
		for range 4 << 10 {
			_, _ = w.Write(make([]byte, 4<<10))
		}
	})))
	t.Cleanup(server.Close)
	askAndDoNotRead(t, server)
	require.Eventually(t, asked.Load, 5*time.Second, time.Millisecond)
	begin := time.Now()
	opened, err := port{telemetry: componenttest.NewNopTelemetrySettings()}.count(webserver.NewConnections(1, 0))
	require.NoError(t, err)
	(&openPort{server: server.Config, counted: opened}).close(t.Context(), 100*time.Millisecond)
	assert.Less(t, time.Since(begin), readerBlocks)
	assert.Eventually(t, cut.Load, 5*time.Second, time.Millisecond)
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
