package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/burrow"
)

// overlay is a configuration that puts the names of another tool beside ours.
type overlay struct {
	config string
	// names are the other tool's metrics by ours.
	names map[string]string
	// labels turns our labels into theirs. A quote within a value is escaped, so it can't be taken for one around it.
	labels *strings.Replacer
}

var (
	burrowNames = overlay{
		config: "config/names-burrow.yaml",
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
		config: "config/names-kafka-lag-exporter.yaml",
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

// heads is a Burrow whose API knows the heads of topics and no groups, as no notification brings a head.
type heads struct {
	mu     sync.Mutex
	topics map[string]map[string][]float64 // cluster, topic, partition
}

func (h *heads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := map[string]any{"error": false}
	switch parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/"); len(parts) {
	case 2: // v3/kafka
		answer["clusters"] = slices.Collect(maps.Keys(h.topics))
	case 4: // v3/kafka/CLUSTER/topic and .../consumer
		answer["consumers"], answer["topics"] = []string{}, slices.Collect(maps.Keys(h.topics[parts[2]]))
	case 5: // v3/kafka/CLUSTER/topic/TOPIC
		answer["offsets"] = h.topics[parts[2]][parts[4]]
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// startWithHeads starts the overlay with an API beside the webhook.
func (o *overlay) startWithHeads(t *testing.T, h *heads) *karrot {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	env := maps.Clone(fast)
	env["KARROT_BURROW_API"], env["KARROT_BURROW_API_INTERVAL"] = server.URL, "1s"
	return start(t, options{Configs: []string{"config/karrot.yaml", "config/api.yaml", o.config, allTopics(t)}, Env: env})
}

// polled is enough for some polls and what follows from them.
const polled = 15 * time.Second

func TestNamesOfTopics(t *testing.T) {
	for _, o := range namesOverlays {
		t.Run(o.config, func(t *testing.T) {
			h := &heads{topics: map[string]map[string][]float64{"east": {}}}
			series := func(topic int) string {
				return fmt.Sprintf(`burrow_topic_offset{cluster="east",partition="0",topic="orders-%d"}`, topic)
			}
			body := testdata(t, "notifications", "warn.json")
			known := newest{}
			known.take(read(t, body))
			want := known.series()
			for topic := range 10 {
				h.topics["east"][fmt.Sprintf("orders-%d", topic)] = []float64{float64(100 + topic)}
				want[series(topic)] = float64(100 + topic)
			}
			k := o.startWithHeads(t, h)
			k.accept(t, body)
			theirs := o.eventually(t, k, polled, want)
			name := o.names["burrow_topic_offset"]
			labels := o.labels.Replace(`{cluster="east",partition="0",topic="orders-9"}`)
			require.InDelta(t, 109, theirs[name+labels], 0)
			_, page := get(t, k.metrics)
			require.Contains(t, page, "# TYPE "+name+" gauge\n")

			// Some end, and another one goes on.
			h.mu.Lock()
			for topic := range 4 {
				delete(h.topics["east"], fmt.Sprintf("orders-%d", topic))
				delete(want, series(topic))
			}
			h.topics["east"]["orders-9"] = []float64{200}
			want[series(9)] = 200
			h.mu.Unlock()
			o.eventually(t, k, polled, want)
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

	h := &heads{topics: map[string]map[string][]float64{}}
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
		if h.topics[parts[3]] == nil {
			h.topics[parts[3]] = map[string][]float64{}
		}
		h.topics[parts[3]][parts[5]] = answer.Offsets
	}
	k := o.startWithHeads(t, h)
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
	// Burrow's API does not answer for a group whose name has a slash.
	maps.DeleteFunc(want, func(series string, _ float64) bool {
		return strings.Contains(series, `consumer_group="back\\slash/and:colon"`)
	})
	require.Len(t, want, 463)
	require.Len(t, known, 28)
	waitFor(t, polled, func() string {
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
