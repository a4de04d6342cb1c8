package burrowreceiver

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// FuzzWebhook sends two bodies to a receiver: whatever they are, the answer is a known one, 200 means
// that the pipelines get points, and anything else that nothing has changed.
func FuzzWebhook(f *testing.F) {
	var bodies [][]byte
	for _, glob := range []string{"*.json", "forms/*"} {
		found, err := filepath.Glob(filepath.Join(recorded, glob))
		require.NoError(f, err)
		for _, path := range found {
			body, err := os.ReadFile(path)
			require.NoError(f, err)
			bodies = append(bodies, body)
		}
	}
	require.NotEmpty(f, bodies)
	for i, body := range bodies {
		f.Add(http.MethodPost, body, bodies[(i+1)%len(bodies)])
	}
	f.Add(http.MethodGet, []byte("{}"), []byte("[]"))

	known := []int{http.StatusOK, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusServiceUnavailable}
	f.Fuzz(func(t *testing.T, method string, first, second []byte) {
		sink := new(consumertest.MetricsSink)
		cfg := createDefaultConfig().(*Config)
		cfg.Metrics.BurrowPartitionOwner.Enabled = true
		cfg.MaxGroups, cfg.MaxPartitions = 1, 100
		r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), cfg, sink)
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Shutdown(context.Background())) }()

		held := backend{}
		for i, body := range [][]byte{first, second} {
			recorder := httptest.NewRecorder()
			request := httptest.NewRequest(http.MethodPost, defaultPath, bytes.NewReader(body))
			request.Method = method
			r.webhook.guard(r.webhook).ServeHTTP(recorder, request)
			require.True(t, slices.Contains(known, recorder.Code), "%d", recorder.Code)

			sink.Reset()
			require.True(t, r.emitters[0].emit(context.Background(), time.Now(), false))
			if recorder.Code != http.StatusOK {
				require.Empty(t, sink.AllMetrics())
				continue
			}
			require.Len(t, sink.AllMetrics(), 1, "body %d", i)
			held.take(t, sink.AllMetrics()[0])
			require.Len(t, held, r.table.Stats().Series)
		}
	})
}
