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

	sizes := [][3]int{{200, 50, 0}}
	if os.Getenv("KARROT_E2E_LIMITS") != "" {
		sizes = [][3]int{{1000, 0, 0}, {10_000, 0, 0}, {200, 50, 0}, {1000, 50, 0}, {2000, 50, 0}, {1000, 0, 960}, {200, 50, 300}, {200, 50, 960}}
	}
	for _, way := range []string{"page", "remote write"} {
		for _, size := range sizes {
			groups, partitions, longer := size[0], size[1], strings.Repeat("x", size[2])
			t.Run(fmt.Sprintf("%s, %d groups of %d partitions, names longer by %d bytes", way, groups, partitions, len(longer)), func(t *testing.T) {
				o := options{Configs: []string{"config/karrot.yaml"}, Env: map[string]string{"KARROT_REMOTE_WRITE_ENDPOINT": sink.URL}}
				if way != "page" {
					o.Configs = append(o.Configs, "config/remote-write.yaml", alone)
				}
				k := start(t, o)
				before := k.peak(t)
				for range 3 {
					for i := range groups {
						k.accept(t, ordinary(i, partitions, longer))
					}
					time.Sleep(2 * time.Second) // a hand-over
					if way == "page" {
						status, _ := get(t, k.metrics)
						require.Equal(t, http.StatusOK, status)
					}
				}
				peak := k.peak(t)
				each, unit, names := (peak-before)/int64(groups), "group", 2*len(longer)
				if partitions > 0 {
					each, unit, names = each/int64(partitions), "partition", 3*len(longer)
				}
				t.Logf("figures | %s | %d | %d | %d | %d MB | %.1f KB a %s |", strings.Replace(way, "page", "`/metrics`", 1), groups, groups*partitions, names, peak>>20, float64(each)/1024, unit)
				if partitions > 0 {
					// Names of ordinary length have some hundred bytes here.
					places := 1 + (max(100+names-512, 0)+1535)/1536
					assert.Less(t, each, int64(places)*24<<10, "the receiver's default limits count on less")
				}
				k.stop(t)
			})
		}
	}
}

// ordinary is a notification with names of ordinary length, and longer by so much.
func ordinary(group, partitions int, longer string) []byte {
	number := strconv.Itoa(group)
	var body strings.Builder
	body.WriteString(`{"cluster":"production-east` + longer + `","group":"payments-settlement-consumer-` + number + longer + `","status":"WARN","totallag":123456,"complete":1,"partition_count":` + strconv.Itoa(partitions+1))
	body.WriteString(`,"partitions":[`)
	for i := range partitions {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"topic":"payments.settlement.events-%[1]s%[4]s","partition":%[2]d,"current_lag":1234,"status":"WARN","complete":1,"owner":"/10.1.2.3","client_id":"settlement-1",`+
			`"start":{"offset":1000000,"timestamp":%[3]d,"observedAt":%[3]d,"lag":1200},"end":{"offset":1001000,"timestamp":%[3]d,"observedAt":%[3]d,"lag":1234}}`, number, i, time.Now().UnixMilli(), longer)
	}
	body.WriteString(`]}`)
	return []byte(body.String())
}
