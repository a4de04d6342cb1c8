//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Nobody holds up the end of the process by reading or saying something slowly, on any port.
func TestShutdownBesideSlowClients(t *testing.T) {
	const (
		page   = "GET /metrics HTTP/1.1\r\nHost: karrot\r\n\r\n"
		header = "GET /metrics HTTP/1.1\r\nHost: "
	)
	metrics := func(k *karrot) string { return k.metrics }
	for name, c := range map[string]struct {
		port func(*karrot) string
		say  string
		// reads is how many bytes are read every 10 ms.
		reads   int
		clients int
		within  time.Duration
	}{
		"a reader of /metrics drips":               {metrics, page, 16 << 10, 1, 4 * time.Second},
		"a reader of /metrics takes a byte":        {metrics, page, 1, 1, 4 * time.Second},
		"readers of /metrics wait for their place": {metrics, page, 4 << 10, 6, 4 * time.Second},
		"half a header, /metrics":                  {metrics, header, 0, 1, 4 * time.Second},
		"half a header, health":                    {func(k *karrot) string { return k.health }, header, 0, 1, 4 * time.Second},
		"half a header, own telemetry":             {func(k *karrot) string { return k.telemetry }, header, 0, 1, 8 * time.Second},
		"half a header, webhook":                   {func(k *karrot) string { return k.webhook }, header, 0, 1, 10 * time.Second},
		"nothing, webhook":                         {func(k *karrot) string { return k.webhook }, "", 0, 1, 10 * time.Second},
		"nothing, /metrics":                        {metrics, "", 0, 1, 4 * time.Second},
		"an event stream that is not read":         {func(k *karrot) string { return k.webhook }, "GET /events HTTP/1.1\r\nHost: karrot\r\nAccept: text/event-stream\r\n\r\n", 0, 10, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, options{Configs: []string{"config/karrot.yaml"}})
			for i := range 20 {
				k.accept(t, wide(fmt.Sprint("g", i), 1000))
			}
			waitFor(t, startTimeout, func() string {
				if n := len(k.series(t)); n < 20_000 {
					return fmt.Sprint(n, " series")
				}
				return ""
			})
			address, err := url.Parse(c.port(k))
			require.NoError(t, err)
			for range c.clients {
				dialer := net.Dialer{Control: func(_, _ string, s syscall.RawConn) error {
					return s.Control(func(fd uintptr) {
						_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, max(2*c.reads, 4<<10))
					})
				}}
				conn, err := dialer.DialContext(t.Context(), "tcp", address.Host)
				require.NoError(t, err)
				_, err = io.WriteString(conn, c.say)
				require.NoError(t, err)
				done := make(chan struct{})
				t.Cleanup(func() { _ = conn.Close(); <-done })
				go func() {
					defer close(done)
					for chunk := make([]byte, c.reads); c.reads > 0; time.Sleep(10 * time.Millisecond) {
						if _, err := conn.Read(chunk); err != nil {
							return
						}
					}
				}()
			}
			if strings.HasSuffix(c.say, "\r\n\r\n") {
				time.Sleep(time.Second) // until it is answered
			} else {
				time.Sleep(100 * time.Millisecond)
			}
			begin := time.Now()
			k.stop(t)
			took := time.Since(begin)
			t.Logf("figures | %s | %.1f s |", name, took.Seconds())
			assert.Less(t, took, c.within)
		})
	}
}
