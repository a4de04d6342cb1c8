package burrowreceiver

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configauth"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configoptional"
)

func (r *running) root() string { return strings.TrimSuffix(r.url, defaultPath) + "/" }

func TestPageRequestsAreNoNotifications(t *testing.T) {
	r := run(t, nil, nil, nil)
	status, text := r.post(t, group("orders", 7))
	require.Equal(t, http.StatusOK, status, text)
	for path, want := range map[string]int{"": 200, "api/v1/groups": 200, "groups/c/orders": 200, "groups/c/none": 404, "favicon.ico": 404, "?limit=0": 400} {
		status, _, header := request(t, http.MethodGet, r.root()+path, http.NoBody)
		assert.Equal(t, want, status, path)
		assert.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", path)
	}
	assert.Equal(t, map[string]int64{"accepted": 1}, r.outcomes(t))
	// What is posted beside the webhook's path is a notification that went astray.
	status, _, _ = request(t, http.MethodPost, r.root()+"burow", strings.NewReader(group("orders", 7)))
	assert.Equal(t, http.StatusNotFound, status)
	status, _, _ = request(t, http.MethodGet, r.url, http.NoBody)
	assert.Equal(t, http.StatusMethodNotAllowed, status)
	assert.Equal(t, map[string]int64{"accepted": 1, "path": 1, "method": 1}, r.outcomes(t))
	_, text, _ = request(t, http.MethodGet, r.root(), http.NoBody)
	assert.Contains(t, text, "method 1, path 1")
	assert.Contains(t, text, "method: method &#34;GET&#34;")
}

func TestPageIsBehindTheSameAuthentication(t *testing.T) {
	for name, challenge := range map[string]string{"basicauth": `Basic realm="Karrot", charset="UTF-8"`, "bearertokenauth": ""} {
		id := component.MustNewID(name)
		r := run(t, nil, host{id: authenticator{}}, func(c *Config) {
			c.Webhook.Get().Server.Auth = configoptional.Some(confighttp.AuthConfig{Config: configauth.Config{AuthenticatorID: id}})
		})
		for _, path := range []string{"", "api/v1/groups", "events", "static/page.js", "groups/c/g"} {
			status, text, header := request(t, http.MethodGet, r.root()+path, http.NoBody)
			assert.Equal(t, http.StatusUnauthorized, status, path)
			assert.Equal(t, "Authentication is required", text)
			assert.Equal(t, challenge, header.Get("WWW-Authenticate"), path)
		}
		status, text, _ := request(t, http.MethodGet, r.root(), http.NoBody, "Authorization", "Bearer right")
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, text, `username="burrow"`)
		assert.Empty(t, r.outcomes(t))
	}
}

func TestNoPage(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.Page.Enabled = false })
	status, _, header := request(t, http.MethodGet, r.root(), http.NoBody)
	assert.Equal(t, http.StatusNotFound, status)
	assert.Empty(t, header.Get("Content-Security-Policy"))
	assert.Equal(t, map[string]int64{"path": 1}, r.outcomes(t))
}

// A page that is open must not hold the shutdown up, and is told of what changes until then, longer than a request may take.
func TestShutdownWithAnOpenPage(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) {
		c.Webhook.Get().Server.ReadTimeout = 50 * time.Millisecond
		c.Webhook.Get().Server.WriteTimeout = 50 * time.Millisecond
	})
	response, err := http.Get(r.root() + "events")
	require.NoError(t, err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for !strings.HasPrefix(lines.Text(), "data: ") {
		require.True(t, lines.Scan(), "hello")
	}
	time.Sleep(120 * time.Millisecond) // longer than both
	status, text := r.post(t, group("orders", 7777))
	require.Equal(t, http.StatusOK, status, text)
	for !strings.Contains(lines.Text(), `"total_lag":7777`) {
		require.True(t, lines.Scan(), "the change")
	}
	begin := time.Now()
	require.NoError(t, r.Shutdown(context.Background()))
	assert.Less(t, time.Since(begin), 5*time.Second)
	for lines.Scan() {
		continue // to the end
	}
}
