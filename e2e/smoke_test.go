package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNotificationIsOnThePage(t *testing.T) {
	k := start(t, options{Configs: []string{"config/karrot.yaml"}})
	k.accept(t, testdata(t, "notifications", "warn.json"))
	k.eventually(t, 2*time.Second, map[string]float64{
		`burrow_group_complete_ratio{cluster="east",group="fraud-check"}`:                                    1,
		`burrow_group_incidents_total{cluster="east",group="fraud-check"}`:                                   1,
		`burrow_group_incident_duration_seconds{cluster="east",group="fraud-check"}`:                         onTheClock,
		`burrow_group_max_lag{cluster="east",group="fraud-check"}`:                                           1344,
		`burrow_group_partitions{cluster="east",group="fraud-check",status="ok"}`:                            2,
		`burrow_group_partitions{cluster="east",group="fraud-check",status="rewind"}`:                        0,
		`burrow_group_partitions{cluster="east",group="fraud-check",status="stall"}`:                         0,
		`burrow_group_partitions{cluster="east",group="fraud-check",status="stop"}`:                          0,
		`burrow_group_partitions{cluster="east",group="fraud-check",status="warn"}`:                          2,
		`burrow_group_status{cluster="east",group="fraud-check"}`:                                            2,
		`burrow_group_total_lag{cluster="east",group="fraud-check"}`:                                         2698,
		`burrow_partition_committed_offset{cluster="east",group="fraud-check",partition="0",topic="orders"}`: 11852,
		`burrow_partition_committed_offset{cluster="east",group="fraud-check",partition="1",topic="orders"}`: 12041,
		`burrow_partition_lag{cluster="east",group="fraud-check",partition="0",topic="orders"}`:              1321,
		`burrow_partition_lag{cluster="east",group="fraud-check",partition="1",topic="orders"}`:              1344,
		`burrow_partition_status{cluster="east",group="fraud-check",partition="0",topic="orders"}`:           2,
		`burrow_partition_status{cluster="east",group="fraud-check",partition="1",topic="orders"}`:           2,
	})
	own := scrape(t, k.telemetry)
	assert.InDelta(t, 1, own[`otelcol_receiver_burrow_notifications_total{outcome="accepted",receiver="burrow"}`], 0)
	assert.InDelta(t, len(k.series(t)), own[`otelcol_receiver_burrow_series{receiver="burrow"}`], 0)
	k.stop(t)
	require.Contains(t, k.log(), "The webhook listens for Burrow's notifications")
}
