package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/extensiontest"
)

// The bounded health check answers as the extension itself does.
func TestHealthAnswersAsTheExtension(t *testing.T) {
	for name, settings := range map[string]map[string]any{
		"default":   {},
		"path":      {"path": "/heartbeat"},
		"body":      {"response_body": map[string]any{"healthy": "good", "unhealthy": "bad"}},
		"no bodies": {"response_body": map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := answersOf(t, healthcheckextension.NewFactory(), settings)
			assert.Equal(t, theirs, answersOf(t, boundHealth(healthcheckextension.NewFactory()), settings))
			assert.Len(t, theirs, 8)
		})
	}
}

// answersOf are the answers of a health check before, while and after all parts run.
func answersOf(t *testing.T, factory extension.Factory, settings map[string]any) (answers []answer) {
	t.Helper()
	cfg := factory.CreateDefaultConfig()
	require.NoError(t, confmap.NewFromStringMap(settings).Unmarshal(cfg))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	cfg.(*healthcheckextension.Config).NetAddr.Endpoint = address

	health, err := factory.Create(t.Context(), extensiontest.NewNopSettings(healthType), cfg)
	require.NoError(t, err)
	require.NoError(t, health.Start(t.Context(), componenttest.NewNopHost()))
	ask := func() {
		answers = append(answers, askFor(t, http.MethodGet, "http://"+address+"/heartbeat"), askFor(t, http.MethodPost, "http://"+address+"/"))
	}
	ask()
	watcher := health.(extensioncapabilities.PipelineWatcher)
	require.NoError(t, watcher.Ready())
	ask()
	require.NoError(t, watcher.NotReady())
	ask()
	require.NoError(t, watcher.Ready())
	ask()
	require.NoError(t, health.Shutdown(t.Context()))
	_, err = net.Dial("tcp", address)
	require.Error(t, err, "it listens no more")
	return answers
}

type answer struct {
	status            int
	contentType, text string
}

// askFor asks for health. Times, which differ, are only checked.
func askFor(t *testing.T, method, url string) answer {
	t.Helper()
	request, err := http.NewRequest(method, url, http.NoBody)
	require.NoError(t, err)
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	text := string(body)
	var health struct{ UpSince, Uptime string }
	if json.Unmarshal(body, &health) == nil && response.StatusCode == http.StatusOK {
		since, err := time.Parse(time.RFC3339Nano, health.UpSince)
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), since, time.Minute)
		uptime, err := time.ParseDuration(health.Uptime)
		require.NoError(t, err)
		assert.Less(t, uptime, time.Minute)
		text = strings.NewReplacer(health.UpSince, "then", health.Uptime, "long").Replace(text)
	}
	return answer{response.StatusCode, response.Header.Get("Content-Type"), text}
}
