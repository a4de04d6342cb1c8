//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/prom"
)

const (
	// partitionsOfAGroup is how many each group of these tests reads, of a topic that five groups share.
	partitionsOfAGroup = 10
	// listedPartitions are those of a group in trouble that a notification lists. One group in fifty is in trouble.
	listedPartitions = 3
	oneInTrouble     = 50
	// seriesOfAGroup are those of a group that is OK, without its partitions.
	seriesOfAGroup = 13
)

// What Karrot takes for some groups: by webhook, where each group is notified once a minute, and by polling every
// 30 s, with /metrics scraped every 15 s and with remote write alone. `make bench-size` runs it for a minute each with up to
// 10,000 groups and shows the figures of docs/sizing.md.
func TestSizes(t *testing.T) {
	sizes, window, poll := []int{50}, 3*time.Second, "1s"
	measured := os.Getenv("KARROT_E2E_SIZES") != ""
	if measured {
		sizes, window, poll = []int{100, 2000, 10_000}, time.Minute, "30s"
	}
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(sink.Close)
	for _, way := range []string{"webhook", "polling", "polling, remote write"} {
		for _, groups := range sizes {
			t.Run(fmt.Sprintf("%s, %d groups", way, groups), func(t *testing.T) {
				o := options{Configs: []string{"config/karrot.yaml"}, Env: map[string]string{"KARROT_REMOTE_WRITE_ENDPOINT": sink.URL}}
				topics := (groups + 4) / 5
				want := groups*seriesOfAGroup + groups/oneInTrouble*(1+listedPartitions*4)
				if strings.HasPrefix(way, "polling") {
					o.Configs = append(o.Configs, "config/api.yaml")
					o.Env["KARROT_BURROW_API"], o.Env["KARROT_BURROW_API_INTERVAL"] = livingBurrow(t, groups).URL, poll
					want = groups*seriesOfAGroup + groups/oneInTrouble + groups*partitionsOfAGroup*4 + topics*partitionsOfAGroup
				}
				scraped := !strings.HasSuffix(way, "remote write")
				if !scraped {
					o.Configs = append(o.Configs, "config/remote-write.yaml", overlayFile(t, "service: {pipelines: {metrics/prometheus: {exporters: [nop]}}}\nexporters: {nop: }\n"))
				}
				k := start(t, o)
				notify := func(over time.Duration) {
					begin := time.Now()
					for i := range groups {
						time.Sleep(time.Until(begin.Add(over * time.Duration(i) / time.Duration(groups))))
						k.accept(t, evaluated(i, time.Now()))
					}
				}
				if way == "webhook" {
					notify(0)
				}
				// A time lag needs two heads. With polling that is the second poll.
				held := func() float64 { return scrape(t, k.telemetry)[`otelcol_receiver_burrow_series{receiver="burrow"}`] }
				waitFor(t, 2*time.Minute, func() string {
					if n := held(); n < 0.9*float64(want) {
						return fmt.Sprintf("%v series of %d", n, want)
					}
					return ""
				})

				before, begin := k.processorTime(t), time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					if way == "webhook" {
						notify(window)
					}
				}()
				var scrapes []time.Duration // of the processors
				quickest, size, failed := window, 0, 0
				for end := begin.Add(window); time.Now().Before(end); time.Sleep(min(window/4, max(0, time.Until(end)))) {
					if scraped {
						used, asked := k.processorTime(t), time.Now()
						text, err := prom.Fetch(t.Context(), k.metrics)
						if err != nil && measured {
							failed++ // the exporter gives a reader 30 s
							continue
						}
						require.NoError(t, err)
						scrapes = append(scrapes, k.processorTime(t)-used)
						quickest, size = min(quickest, time.Since(asked)), len(text)
					}
				}
				<-done
				load := 100 * (k.processorTime(t) - before).Seconds() / time.Since(begin).Seconds()
				scraping := "- | - | -"
				switch {
				case scraped && len(scrapes) == 0:
					scraping = "none of its scrapes came to an end in 30 s | |"
				case scraped:
					slices.Sort(scrapes)
					scraping = fmt.Sprintf("%.1f MB | %.2f s | %.2f s", float64(size)/1e6, scrapes[len(scrapes)/2].Seconds(), quickest.Seconds())
					if failed > 0 {
						scraping += fmt.Sprintf(", and %d failed", failed)
					}
				}
				t.Logf("figures | %s | %d | %.0f | %.1f %% | %d MB | %s |", way, groups, held(), load, k.peak(t)>>20, scraping)
				assert.LessOrEqual(t, held(), float64(want), "series")
				assert.Greater(t, held(), 0.9*float64(want), "series")
				k.stop(t)
			})
		}
	}
}

// processorTime is what the process has used of the processors so far.
func (k *karrot) processorTime(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.cmd.Process.Pid))
	require.NoError(t, err)
	// The name, in brackets, may have spaces. Behind it, utime and stime are the 12th and 13th field.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// state is the JSON of partition i of a group at a moment: 100 messages a second arrive, and are committed unless the group is in trouble.
func state(group, i int, now time.Time) string {
	head := now.Unix() * 100
	committed, status, lag := head-100, "OK", 100
	if group%oneInTrouble == oneInTrouble-1 && i < listedPartitions {
		committed, status, lag = head-5000, "WARN", 5000
	}
	return fmt.Sprintf(`{"topic":"payments.settlement.events-%d","partition":%d,"owner":"/10.1.2.3","client_id":"settlement-1","status":%q,`+
		`"start":{"offset":%d,"timestamp":%[5]d,"observedAt":%[5]d,"lag":%[7]d},"end":{"offset":%[8]d,"timestamp":%[6]d,"observedAt":%[6]d,"lag":%[7]d},"current_lag":%[7]d,"complete":1}`,
		group/5, i, status, committed-1000, now.Add(-11*time.Second).UnixMilli(), now.Add(-time.Second).UnixMilli(), lag, committed)
}

// result is the evaluation of a group, with its first partitions.
func result(group, partitions int, now time.Time) string {
	listed := make([]string, partitions)
	for i := range listed {
		listed[i] = state(group, i, now)
	}
	status, total := "OK", partitionsOfAGroup*100
	if group%oneInTrouble == oneInTrouble-1 {
		status, total = "WARN", listedPartitions*5000+(partitionsOfAGroup-listedPartitions)*100
	}
	return fmt.Sprintf(`{"cluster":"east","group":"payments-settlement-consumer-%d","status":%q,"complete":1,"partition_count":%d,"partitions":[%s],"maxlag":%s,"totallag":%d}`,
		group, status, partitionsOfAGroup, strings.Join(listed, ","), state(group, 0, now), total)
}

// evaluated is the notification of a group: it lists what is not OK.
func evaluated(group int, now time.Time) []byte {
	listed := 0
	if group%oneInTrouble == oneInTrouble-1 {
		listed = listedPartitions
	}
	return []byte(result(group, listed, now))
}

// livingBurrow answers for groups that read and commit all the time.
func livingBurrow(t testing.TB, groups int) *httptest.Server {
	t.Helper()
	names, topics := make([]string, groups), make([]string, (groups+4)/5)
	for i := range names {
		names[i] = fmt.Sprintf("%q", fmt.Sprintf("payments-settlement-consumer-%d", i))
	}
	for i := range topics {
		topics[i] = fmt.Sprintf("%q", fmt.Sprintf("payments.settlement.events-%d", i))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		switch parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v3/kafka"), "/"); {
		case len(parts) == 1:
			_, _ = io.WriteString(w, `{"error":false,"clusters":["east"]}`)
		case len(parts) == 3 && parts[2] == "consumer":
			_, _ = fmt.Fprintf(w, `{"error":false,"consumers":[%s]}`, strings.Join(names, ","))
		case len(parts) == 3 && parts[2] == "topic":
			_, _ = fmt.Fprintf(w, `{"error":false,"topics":[%s]}`, strings.Join(topics, ","))
		case len(parts) == 5 && parts[4] == "lag":
			group, err := strconv.Atoi(parts[3][strings.LastIndex(parts[3], "-")+1:])
			if err != nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = fmt.Fprintf(w, `{"error":false,"status":%s}`, result(group, partitionsOfAGroup, now))
		default: // the heads of a topic
			heads := strings.TrimSuffix(strings.Repeat(strconv.FormatInt(now.Unix()*100, 10)+",", partitionsOfAGroup), ",")
			_, _ = fmt.Fprintf(w, `{"error":false,"offsets":[%s]}`, heads)
		}
	}))
	t.Cleanup(server.Close)
	return server
}
