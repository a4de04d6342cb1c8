package webserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The order in which connections lose their place.
func TestLeastMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConnections(5, time.Second)
		names := map[net.Conn]string{}
		var added []net.Conn
		add := func(name string) (net.Conn, context.Context) {
			near, far := net.Pipe()
			t.Cleanup(func() { _, _ = near.Close(), far.Close() })
			names[near] = name
			added = append(added, near)
			return near, c.open(t.Context(), near)
		}
		held := func() (held []string) {
			for _, conn := range added {
				if c.byConn[conn] != nil {
					held = append(held, names[conn])
				}
			}
			return held
		}
		at := func(seconds int) { time.Sleep(time.Duration(seconds) * time.Second) }
		wanted := func(name string, states ...http.ConnState) net.Conn {
			conn, ctx := add(name)
			Keep(ctx)
			for _, state := range states {
				c.observe(conn, state)
			}
			at(1)
			return conn
		}
		wanted("idle for 5 s", http.StateActive, http.StateIdle)
		busy := wanted("busy for 4 s", http.StateActive)
		silent, _ := add("silent for 3 s")
		at(1)
		again, ctx := add("refused again and again")
		at(1)
		wanted("idle for 1 s", http.StateIdle)

		c.observe(silent, http.StateActive)
		wanted("idle for 0 s", http.StateIdle)
		assert.NotContains(t, held(), "silent for 3 s", "the oldest of those that are not wanted, busy or not")
		wanted("next", http.StateIdle)
		assert.NotContains(t, held(), "refused again and again")
		_ = again
		Keep(ctx) // comes too late and does no harm
		wanted("third", http.StateIdle)
		assert.NotContains(t, held(), "busy for 4 s")
		wanted("fourth", http.StateIdle)
		assert.NotContains(t, held(), "idle for 5 s")
		assert.Len(t, held(), 5)
		c.observe(busy, http.StateClosed)
		assert.Len(t, held(), 5)

		// Where all are busy and have just begun, the new one gets no place.
		for conn := range c.byConn {
			c.observe(conn, http.StateActive)
		}
		before := held()
		late, _ := add("late")
		assert.Equal(t, before, held())
		_, err := late.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		_, closed := c.Stats()
		assert.EqualValues(t, 5, closed)
		at(1)
		add("later")
		assert.Contains(t, held(), "later", "a slow request loses its place")
	})
}
