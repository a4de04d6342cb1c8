package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What alerts are made of is there before anything has happened: times with that of the start, counters with 0. A source that is off has none.
func TestOwnTelemetryIsThereFromTheStart(t *testing.T) {
	const (
		contact = "otelcol_receiver_burrow_last_contact_timestamp_seconds"
		poll    = "otelcol_receiver_burrow_api_last_complete_poll_timestamp_seconds"
	)
	off := overlayFile(t, "receivers: {burrow: {webhook: {enabled: false}}}")
	for name, tc := range map[string]struct {
		configs []string
		times   []string
	}{
		"webhook": {times: []string{contact + `{receiver="burrow",source="webhook"}`}},
		"polling": {
			configs: []string{"config/api.yaml", off},
			times:   []string{contact + `{receiver="burrow",source="api"}`, poll + `{receiver="burrow"}`},
		},
		"both": {
			configs: []string{"config/api.yaml"},
			times:   []string{contact + `{receiver="burrow",source="api"}`, contact + `{receiver="burrow",source="webhook"}`, poll + `{receiver="burrow"}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := float64(time.Now().Unix())
			env := map[string]string{}
			if len(tc.configs) > 0 {
				env["KARROT_BURROW_API"] = "http://127.0.0.1:1" // nothing answers there
			}
			k := start(t, options{Configs: append([]string{"config/karrot.yaml"}, tc.configs...), Env: env})
			after := float64(time.Now().Unix() + 1)
			own := scrape(t, k.telemetry)
			var times []string
			for _, id := range slices.Sorted(maps.Keys(own)) {
				if strings.HasPrefix(id, contact) || strings.HasPrefix(id, poll) {
					times = append(times, id)
					assert.GreaterOrEqual(t, own[id], before, id)
					assert.LessOrEqual(t, own[id], after, id)
				}
			}
			slices.Sort(tc.times)
			assert.Equal(t, tc.times, times)
			for _, outcome := range []string{"accepted", "filtered", "syntax", "form", "field", "too_large", "unreadable", "unauthenticated", "busy", "table_full"} {
				count, found := own[`otelcol_receiver_burrow_notifications_total{outcome="`+outcome+`",receiver="burrow"}`]
				require.True(t, found, outcome)
				assert.Zero(t, count, outcome)
			}
			_, found := own[`otelcol_receiver_burrow_handover_failures_total{receiver="burrow"}`]
			assert.True(t, found)
			k.stop(t)
		})
	}
}
