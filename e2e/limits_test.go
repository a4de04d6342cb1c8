//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What limits cost in memory: a partition that is held, with its series on a page that is scraped and with remote
// write alone. `make bench-limits` runs it with more of them and shows the figures.
func TestLimitsInMemory(t *testing.T) {
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(sink.Close)
	alone := filepath.Join(t.TempDir(), "alone.yaml")
	require.NoError(t, os.WriteFile(alone, []byte("service: {pipelines: {metrics/prometheus: {exporters: [nop]}}}\nexporters: {nop: }\n"), 0o600))

	sizes := [][2]int{{200, 50}}
	if os.Getenv("KARROT_E2E_LIMITS") != "" {
		sizes = [][2]int{{1000, 0}, {10_000, 0}, {200, 50}, {1000, 50}, {2000, 50}}
	}
	for _, way := range []string{"page", "remote write"} {
		for _, size := range sizes {
			groups, partitions := size[0], size[1]
			t.Run(fmt.Sprintf("%s, %d groups of %d partitions", way, groups, partitions), func(t *testing.T) {
				o := options{Configs: []string{"config/karrot.yaml"}, Env: map[string]string{"KARROT_REMOTE_WRITE_ENDPOINT": sink.URL}}
				if way != "page" {
					o.Configs = append(o.Configs, "config/remote-write.yaml", alone)
				}
				k := start(t, o)
				before := k.peak(t)
				for range 3 {
					for i := range groups {
						k.accept(t, ordinary(i, partitions))
					}
					time.Sleep(2 * time.Second) // a hand-over
					if way == "page" {
						status, _ := get(t, k.metrics)
						require.Equal(t, http.StatusOK, status)
					}
				}
				peak := k.peak(t)
				each, unit := (peak-before)/int64(groups), "group"
				if partitions > 0 {
					each, unit = each/int64(partitions), "partition"
				}
				t.Logf("figures | %s | %d | %d | %d MB | %.1f KB a %s |", strings.Replace(way, "page", "`/metrics`", 1), groups, groups*partitions, peak>>20, float64(each)/1024, unit)
				if partitions > 0 {
					assert.Less(t, each, int64(24<<10), "the receiver's default limits count on less")
				}
				k.stop(t)
			})
		}
	}
}

// ordinary is a notification with names of ordinary length.
func ordinary(group, partitions int) []byte {
	number := strconv.Itoa(group)
	var body strings.Builder
	body.WriteString(`{"cluster":"production-east","group":"payments-settlement-consumer-` + number + `","status":"WARN","totallag":123456,"complete":1,"partition_count":` + strconv.Itoa(partitions+1))
	body.WriteString(`,"partitions":[`)
	for i := range partitions {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"topic":"payments.settlement.events-%s","partition":%d,"current_lag":1234,"status":"WARN","complete":1,"owner":"/10.1.2.3","client_id":"settlement-1",`+
			`"start":{"offset":1000000,"timestamp":%[3]d,"observedAt":%[3]d,"lag":1200},"end":{"offset":1001000,"timestamp":%[3]d,"observedAt":%[3]d,"lag":1234}}`, number, i, time.Now().UnixMilli())
	}
	body.WriteString(`]}`)
	return []byte(body.String())
}
