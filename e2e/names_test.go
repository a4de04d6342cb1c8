package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
)

// overlay is a configuration that puts the names of another tool beside ours.
type overlay struct {
	config, pipeline string
	// names are the other tool's metrics by ours.
	names map[string]string
	// labels turns our labels into theirs. A quote within a value is escaped, so it can't be taken for one around it.
	labels *strings.Replacer
}

var (
	burrowNames = overlay{
		config:   "config/names-burrow.yaml",
		pipeline: "metrics/names-burrow",
		names: map[string]string{
			"burrow_group_total_lag":            "burrow_kafka_consumer_lag_total",
			"burrow_group_status":               "burrow_kafka_consumer_status",
			"burrow_partition_status":           "burrow_kafka_topic_partition_status",
			"burrow_partition_lag":              "burrow_kafka_consumer_partition_lag",
			"burrow_partition_committed_offset": "burrow_kafka_consumer_current_offset",
			"burrow_topic_offset":               "burrow_kafka_topic_partition_offset",
		},
		labels: strings.NewReplacer(`,group="`, `,consumer_group="`),
	}
	kafkaLagExporterNames = overlay{
		config:   "config/names-kafka-lag-exporter.yaml",
		pipeline: "metrics/names-kafka-lag-exporter",
		names: map[string]string{
			"burrow_group_total_lag":            "kafka_consumergroup_group_sum_lag",
			"burrow_group_max_lag":              "kafka_consumergroup_group_max_lag",
			"burrow_group_max_time_lag_seconds": "kafka_consumergroup_group_max_lag_seconds",
			"burrow_partition_lag":              "kafka_consumergroup_group_lag",
			"burrow_partition_time_lag_seconds": "kafka_consumergroup_group_lag_seconds",
			"burrow_partition_committed_offset": "kafka_consumergroup_group_offset",
			"burrow_topic_offset":               "kafka_partition_latest_offset",
		},
		labels: strings.NewReplacer(`{cluster="`, `{cluster_name="`),
	}
	namesOverlays = []overlay{burrowNames, kafkaLagExporterNames}
)

// split takes the series apart that karrot.yaml makes and those that are there by the overlay.
func (o *overlay) split(page map[string]float64) (ours, theirs map[string]float64) {
	ours, theirs = map[string]float64{}, map[string]float64{}
	for series, value := range page {
		if strings.HasPrefix(series, "burrow_") && !strings.HasPrefix(series, "burrow_kafka_") {
			ours[series] = value
		} else {
			theirs[series] = value
		}
	}
	return ours, theirs
}

// translate is what the other tool would call our series.
func (o *overlay) translate(ours map[string]float64) map[string]float64 {
	theirs := map[string]float64{}
	for series, value := range ours {
		name, labels, _ := strings.Cut(series, "{")
		if name, found := o.names[name]; found {
			theirs[name+o.labels.Replace("{"+labels)] = value
		}
	}
	return theirs
}

// eventually waits until our series are exactly those wanted, time lags aside, and the others exactly their
// translation. It returns the others.
func (o *overlay) eventually(t *testing.T, k *karrot, within time.Duration, want map[string]float64) map[string]float64 {
	t.Helper()
	var theirs map[string]float64
	waitFor(t, within, func() string {
		var ours map[string]float64
		ours, theirs = o.split(k.series(t))
		return difference(o.translate(ours), theirs) + withoutTimeLags(ours) + difference(want, ours)
	})
	return theirs
}

// recent is a recorded body whose newest commit was a second ago, so that time lags are known.
func recent(t *testing.T, body []byte) []byte {
	t.Helper()
	times := regexp.MustCompile(`"(timestamp|observedAt)":(\d+)`)
	newest := int64(0)
	for _, found := range times.FindAllSubmatch(body, -1) {
		at, err := strconv.ParseInt(string(found[2]), 10, 64)
		require.NoError(t, err)
		newest = max(newest, at)
	}
	require.NotZero(t, newest)
	shift := time.Now().Add(-time.Second).UnixMilli() - newest
	return times.ReplaceAllFunc(body, func(found []byte) []byte {
		key, value, _ := strings.Cut(string(found), ":")
		at, err := strconv.ParseInt(value, 10, 64)
		require.NoError(t, err)
		return fmt.Appendf(nil, "%s:%d", key, at+shift)
	})
}

// Names, labels and values, written out.
func TestNamesOfOneNotification(t *testing.T) {
	for _, test := range []struct {
		overlay
		want map[string]float64
	}{
		{burrowNames, map[string]float64{
			`burrow_kafka_consumer_lag_total{cluster="east",consumer_group="fraud-check"}`:                                   2698,
			`burrow_kafka_consumer_status{cluster="east",consumer_group="fraud-check"}`:                                      2,
			`burrow_kafka_topic_partition_status{cluster="east",consumer_group="fraud-check",partition="0",topic="orders"}`:  2,
			`burrow_kafka_topic_partition_status{cluster="east",consumer_group="fraud-check",partition="1",topic="orders"}`:  2,
			`burrow_kafka_consumer_partition_lag{cluster="east",consumer_group="fraud-check",partition="0",topic="orders"}`:  1321,
			`burrow_kafka_consumer_partition_lag{cluster="east",consumer_group="fraud-check",partition="1",topic="orders"}`:  1344,
			`burrow_kafka_consumer_current_offset{cluster="east",consumer_group="fraud-check",partition="0",topic="orders"}`: 11852,
			`burrow_kafka_consumer_current_offset{cluster="east",consumer_group="fraud-check",partition="1",topic="orders"}`: 12041,
		}},
		{kafkaLagExporterNames, map[string]float64{
			`kafka_consumergroup_group_sum_lag{cluster_name="east",group="fraud-check"}`:                                  2698,
			`kafka_consumergroup_group_max_lag{cluster_name="east",group="fraud-check"}`:                                  1344,
			`kafka_consumergroup_group_max_lag_seconds{cluster_name="east",group="fraud-check"}`:                          onTheClock,
			`kafka_consumergroup_group_lag{cluster_name="east",group="fraud-check",partition="0",topic="orders"}`:         1321,
			`kafka_consumergroup_group_lag{cluster_name="east",group="fraud-check",partition="1",topic="orders"}`:         1344,
			`kafka_consumergroup_group_lag_seconds{cluster_name="east",group="fraud-check",partition="0",topic="orders"}`: onTheClock,
			`kafka_consumergroup_group_lag_seconds{cluster_name="east",group="fraud-check",partition="1",topic="orders"}`: onTheClock,
			`kafka_consumergroup_group_offset{cluster_name="east",group="fraud-check",partition="0",topic="orders"}`:      11852,
			`kafka_consumergroup_group_offset{cluster_name="east",group="fraud-check",partition="1",topic="orders"}`:      12041,
		}},
	} {
		t.Run(test.config, func(t *testing.T) {
			k := start(t, options{Configs: []string{"config/karrot.yaml", test.config}, Env: fast})
			body := recent(t, testdata(t, "notifications", "warn.json"))
			k.accept(t, body)
			known := newest{}
			known.take(read(t, body))
			theirs := test.eventually(t, k, settled, known.series())
			for series, value := range test.want {
				if value == onTheClock {
					test.want[series] = theirs[series]
				}
			}
			require.Empty(t, difference(test.want, theirs))
			_, page := get(t, k.metrics)
			for ours, name := range test.names {
				if ours != "burrow_topic_offset" {
					require.Contains(t, page, "# TYPE "+name+" gauge\n")
				}
			}
			k.stop(t)
		})
	}
}

// Partitions recover and groups come, get worse and better: the other names follow.
func TestNamesFollowTheRecording(t *testing.T) {
	for _, o := range namesOverlays {
		t.Run(o.config, func(t *testing.T) {
			k := start(t, options{Configs: []string{"config/karrot.yaml", o.config}, Env: fast})
			known := newest{}
			seen := map[string]bool{}
			ended := 0
			var before map[string]float64
			for i, r := range sequence(t) {
				k.accept(t, []byte(r.Body))
				known.take(read(t, []byte(r.Body)))
				if i%20 != 0 {
					continue
				}
				now := o.eventually(t, k, settled, known.series())
				for series := range before {
					if _, found := now[series]; !found {
						ended++
					}
				}
				for series := range now {
					name, _, _ := strings.Cut(series, "{")
					seen[name] = true
				}
				before = now
			}
			assert.Greater(t, ended, 20, "series have ended")
			for ours, name := range o.names {
				// No notification has a topic's head, and the recording is too old for a time lag.
				if ours != "burrow_topic_offset" && !strings.Contains(ours, "time_lag") {
					assert.True(t, seen[name], name)
				}
			}
			k.stop(t)
		})
	}
}

// Hundreds of series end in one hand-over, by recovery and by expiry, and leave under all names.
func TestNamesLeave(t *testing.T) {
	env := map[string]string{"KARROT_INTERVAL": "500ms", "KARROT_EXPIRE_AFTER": "4s"}
	for _, o := range namesOverlays {
		t.Run(o.config, func(t *testing.T) {
			k := start(t, options{Configs: []string{"config/karrot.yaml", o.config}, Env: env})
			before := newest{}
			for _, status := range []string{"STOP", "OK"} {
				bodies, all := manyGroups(100, 5, status)
				for group, n := range before {
					again := all[group]
					again.incidents = n.incidents
					all[group] = again
				}
				before = all
				for _, body := range bodies {
					k.accept(t, body)
				}
				theirs := o.eventually(t, k, settled, all.series())
				require.GreaterOrEqual(t, len(theirs), 100)
			}
			o.eventually(t, k, 4*time.Second+settled, map[string]float64{})
			k.stop(t)
		})
	}
}

// head is a point of burrow.topic.offset. Without an offset it is flagged.
type head struct {
	cluster, topic string
	partition      int
	offset         *float64
}

// request is the heads in OTLP, as the receiver would hand them over: those that hold in one Metric, each
// ended one behind them in a Metric of its own.
func request(t *testing.T, heads ...head) []byte {
	t.Helper()
	type (
		value     map[string]string
		attribute struct {
			Key   string `json:"key"`
			Value value  `json:"value"`
		}
		point struct {
			Attributes []attribute `json:"attributes"`
			Time       string      `json:"timeUnixNano"`
			Value      *float64    `json:"asDouble,omitempty"`
			Flags      int         `json:"flags,omitempty"`
		}
		gauge struct {
			Points []point `json:"dataPoints"`
		}
		metric struct {
			Name  string `json:"name"`
			Unit  string `json:"unit"`
			Gauge gauge  `json:"gauge"`
		}
	)
	metrics := []metric{{"burrow.topic.offset", "{offset}", gauge{}}}
	for _, h := range heads {
		p := point{
			Attributes: []attribute{
				{"cluster", value{"stringValue": h.cluster}},
				{"topic", value{"stringValue": h.topic}},
				{"partition", value{"intValue": strconv.Itoa(h.partition)}},
			},
			Time:  strconv.FormatInt(time.Now().UnixNano(), 10),
			Value: h.offset,
		}
		if h.offset != nil {
			metrics[0].Gauge.Points = append(metrics[0].Gauge.Points, p)
			continue
		}
		p.Flags = 1 // no recorded value
		metrics = append(metrics, metric{"burrow.topic.offset", "{offset}", gauge{[]point{p}}})
	}
	type object map[string]any
	body, err := json.Marshal(object{"resourceMetrics": []object{{"scopeMetrics": []object{{"metrics": metrics}}}}})
	require.NoError(t, err)
	return body
}

// startWithHeads starts the overlay with a second receiver, because no notification brings a topic's head, and
// returns what hands heads to it.
func (o *overlay) startWithHeads(t *testing.T) (k *karrot, hand func(...head)) {
	t.Helper()
	endpoint := freePorts(t, 1)[0]
	second := filepath.Join(t.TempDir(), "second.yaml")
	require.NoError(t, os.WriteFile(second, fmt.Appendf(nil, `
receivers:
  otlp:
    protocols:
      http:
        endpoint: %s
service:
  pipelines:
    metrics/prometheus:
      receivers: [burrow, otlp]
    %s:
      receivers: [burrow, otlp]
`, endpoint, o.pipeline), 0o600))
	k = start(t, options{Configs: []string{"config/karrot.yaml", o.config, second}, Env: fast})
	return k, func(heads ...head) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, "http://"+endpoint+"/v1/metrics", strings.NewReader(string(request(t, heads...))))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		status, text := do(t, r)
		require.Equal(t, http.StatusOK, status, text)
	}
}

func TestNamesOfTopics(t *testing.T) {
	for _, o := range namesOverlays {
		t.Run(o.config, func(t *testing.T) {
			k, hand := o.startWithHeads(t)
			body := testdata(t, "notifications", "warn.json")
			k.accept(t, body)
			known := newest{}
			known.take(read(t, body))
			want := known.series()

			var heads, ended []head
			for p := range 10 {
				offset := float64(100 + p)
				heads = append(heads, head{"east", "orders", p, &offset})
				ended = append(ended, head{"east", "orders", p, nil})
				want[fmt.Sprintf(`burrow_topic_offset{cluster="east",partition="%d",topic="orders"}`, p)] = offset
			}
			hand(heads...)
			theirs := o.eventually(t, k, settled, want)
			name := o.names["burrow_topic_offset"]
			labels := o.labels.Replace(`{cluster="east",partition="9",topic="orders"}`)
			require.InDelta(t, 109, theirs[name+labels], 0)
			_, page := get(t, k.metrics)
			require.Contains(t, page, "# TYPE "+name+" gauge\n")

			// All but the last end, and that one goes on in the same hand-over.
			*heads[9].offset = 200
			for p := range 9 {
				delete(want, fmt.Sprintf(`burrow_topic_offset{cluster="east",partition="%d",topic="orders"}`, p))
			}
			want[`burrow_topic_offset{cluster="east",partition="9",topic="orders"}`] = 200
			hand(append(ended[:9:9], heads[9])...)
			o.eventually(t, k, settled, want)
			k.stop(t)
		})
	}
}

// All that Burrow's own page showed at some moment, made from what its API answered at that moment: the same
// series, types and values, with the two differences that are stated.
func TestNamesEqualBurrowsOwnPage(t *testing.T) {
	o := burrowNames
	page := string(testdata(t, "api", "metrics.txt"))
	want := seriesOn(t, strings.Join(regexp.MustCompile(`(?m)^(burrow_|# TYPE burrow_).*\n`).FindAllString(page, -1), ""))
	require.Len(t, want, 469)

	k, hand := o.startWithHeads(t)
	answers, err := filepath.Glob(filepath.Join(root, "testdata", "api", "kafka_*_lag.json"))
	require.NoError(t, err)
	known := map[string]bool{}
	incomplete := map[string]bool{}
	for _, path := range answers {
		var answer struct {
			Error  bool
			Status json.RawMessage
		}
		require.NoError(t, json.Unmarshal(testdata(t, "api", filepath.Base(path)), &answer))
		if answer.Error {
			continue
		}
		k.accept(t, fmt.Appendf(nil, `{"Result":%s}`, answer.Status))

		var group burrow.Result
		require.NoError(t, json.Unmarshal(answer.Status, &group))
		known[label("cluster", group.Cluster)+","+label("consumer_group", group.Group)] = true
		for _, p := range group.Partitions {
			if p.Complete == 1 {
				continue
			}
			labels := fmt.Sprintf("{cluster=%q,consumer_group=%q,partition=\"%d\",topic=%q}", group.Cluster, group.Group, p.Partition, p.Topic)
			incomplete["burrow_kafka_topic_partition_status"+labels] = true
			if p.End != nil {
				incomplete["burrow_kafka_consumer_current_offset"+labels] = true
			}
		}
	}
	topics, err := filepath.Glob(filepath.Join(root, "testdata", "api", "kafka_*_topic_*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, topics)
	for _, path := range topics {
		var answer struct {
			Offsets []float64
			Request struct{ URL string }
		}
		require.NoError(t, json.Unmarshal(testdata(t, "api", filepath.Base(path)), &answer))
		if answer.Offsets == nil {
			continue // the consumers of a topic
		}
		parts := strings.Split(answer.Request.URL, "/") // /v3/kafka/CLUSTER/topic/TOPIC
		require.Len(t, parts, 6)
		for p := range answer.Offsets {
			hand(head{parts[3], parts[5], p, &answer.Offsets[p]})
		}
	}

	// Burrow's API does not answer for a group whose name has a slash.
	maps.DeleteFunc(want, func(series string, _ float64) bool {
		return strings.Contains(series, `consumer_group="back\\slash/and:colon"`)
	})
	require.Len(t, want, 463)
	require.Len(t, known, 28)
	waitFor(t, settled, func() string {
		_, theirs := o.split(k.series(t))
		// Burrow says nothing about the status and the offset of a partition whose window is not full.
		for series := range incomplete {
			if _, found := theirs[series]; !found {
				return "missing   " + series
			}
			delete(theirs, series)
		}
		return difference(want, theirs)
	})
	_, ours := get(t, k.metrics)
	types := regexp.MustCompile(`(?m)^# TYPE burrow_kafka_.*\n`)
	assert.ElementsMatch(t, types.FindAllString(page, -1), types.FindAllString(ours, -1))
	k.stop(t)
}
