package burrowreceiver

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap/confmaptest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata/cases")

const recorded = "../../testdata/notifications"

// TestCases runs every folder of testdata/cases: steps.txt has one step a line, either a method and a body
// (of the folder, else of the recorded notifications) or "wait" and a duration. After each step, ten seconds
// after the last one, there is a hand-over. NN.answer.txt is what Burrow is told if it is not 200, NN.metrics.yaml what the pipelines get;
// NN.logs.txt the records of incidents; where a file is missing, nothing was told or handed over.
func TestCases(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join("testdata", "cases", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runCase(t, folder) })
		})
	}
}

func runCase(t *testing.T, folder string) {
	t.Helper()
	sink, logs := new(consumertest.MetricsSink), new(consumertest.LogsSink)
	set := receivertest.NewNopSettings(metadata.Type)
	set.BuildInfo.Version = "test"
	r, err := newMetricsReceiver(set, caseConfig(t, folder), sink)
	require.NoError(t, err)
	r.addLogs(logs)
	defer func() { require.NoError(t, r.Shutdown(context.Background())) }()

	text, err := os.ReadFile(filepath.Join(folder, "steps.txt"))
	require.NoError(t, err)
	steps := strings.Split(strings.TrimSpace(string(text)), "\n")
	sleepUntilRecorded(t, folder, steps)
	held := backend{}
	for i, step := range steps {
		verb, object, _ := strings.Cut(step, " ")
		answer := ""
		if verb == "wait" {
			pause, err := time.ParseDuration(object)
			require.NoError(t, err)
			time.Sleep(pause)
		} else {
			time.Sleep(10 * time.Second)
			answer = send(r.webhook.guard(r.webhook), strings.ToUpper(verb), caseBody(t, folder, object))
		}
		sink.Reset()
		logs.Reset()
		for _, e := range r.emitters {
			require.True(t, e.emit(context.Background(), time.Now(), false))
		}

		name := filepath.Join(folder, fmt.Sprintf("%02d", i+1))
		compare(t, name+".answer.txt", []byte(answer))
		var metrics []byte
		for _, md := range sink.AllMetrics() {
			metrics, err = golden.MarshalMetricsYAML(md)
			require.NoError(t, err)
			held.take(t, md)
		}
		compare(t, name+".metrics.yaml", metrics)
		var records []string
		for _, ld := range logs.AllLogs() {
			records = append(records, describeLogs(t, ld)...)
		}
		compare(t, name+".logs.txt", []byte(strings.Join(records, "")))
		assert.Len(t, held, r.table.Stats().Series, "step %d: own telemetry counts the series that live", i+1)
	}
}

var commitTime = regexp.MustCompile(`"timestamp":(\d+)`)

// sleepUntilRecorded brings the clock of the bubble to a second after the newest commit in the bodies, so that none is from the future.
func sleepUntilRecorded(t *testing.T, folder string, steps []string) {
	t.Helper()
	var newest int64
	for _, step := range steps {
		verb, object, _ := strings.Cut(step, " ")
		if verb == "wait" {
			continue
		}
		for _, match := range commitTime.FindAllSubmatch(caseBody(t, folder, object), -1) {
			at, err := strconv.ParseInt(string(match[1]), 10, 64)
			require.NoError(t, err)
			newest = max(newest, at)
		}
	}
	time.Sleep(time.Until(time.UnixMilli(newest + 1000)))
}

func caseConfig(t *testing.T, folder string) *Config {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	path := filepath.Join(folder, "config.yaml")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		conf, err := confmaptest.LoadConf(path)
		require.NoError(t, err)
		require.NoError(t, conf.Unmarshal(cfg))
	}
	require.NoError(t, cfg.Validate())
	return cfg
}

func caseBody(t *testing.T, folder, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(folder, name))
	if errors.Is(err, os.ErrNotExist) {
		body, err = os.ReadFile(filepath.Join(recorded, name))
	}
	require.NoError(t, err)
	return body
}

// send returns the answer as text, nothing for 200 without a body.
func send(h http.Handler, method string, body []byte) string {
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequest(method, defaultPath, bytes.NewReader(body)))
	if recorder.Code == http.StatusOK && recorder.Body.Len() == 0 {
		return ""
	}
	return strconv.Itoa(recorder.Code) + " " + recorder.Body.String()
}

func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if len(got) == 0 {
			_ = os.Remove(path)
			return
		}
		require.NoError(t, os.WriteFile(path, got, 0o600))
		return
	}
	want, err := os.ReadFile(path)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	assert.Equal(t, string(want), string(got), path)
}

// describeLogs writes a record as lines that can be read: severity, event, body, attributes.
func describeLogs(t *testing.T, ld plog.Logs) []string {
	t.Helper()
	var lines []string
	require.Equal(t, 1, ld.ResourceLogs().Len())
	scope := ld.ResourceLogs().At(0).ScopeLogs().At(0)
	require.Equal(t, metadata.ScopeName, scope.Scope().Name())
	for _, record := range scope.LogRecords().All() {
		lines = append(lines, fmt.Sprintf("%s %s %s\n  %s\n", record.Timestamp().AsTime().Format(time.TimeOnly), record.SeverityText(), record.EventName(), record.Body().Str()))
		for key, value := range record.Attributes().All() {
			lines = append(lines, fmt.Sprintf("  %s: %s\n", key, value.AsString()))
		}
	}
	return lines
}

// backend holds what a backend has after every payload: the series that live, with their values.
type backend map[string]string

// take applies a payload as the Prometheus exporter does, and demands the shape that it needs: live
// points first, then every ended one in a Metric of its own.
func (s backend) take(t *testing.T, md pmetric.Metrics) {
	t.Helper()
	require.Equal(t, 1, md.ResourceMetrics().Len())
	require.Equal(t, 1, md.ResourceMetrics().At(0).ScopeMetrics().Len())
	ended, live := false, map[string]bool{}
	for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		for _, point := range numbers(metric).All() {
			id := seriesID(metric.Name(), point)
			require.NotZero(t, point.Timestamp(), id)
			if point.Flags().NoRecordedValue() {
				ended = true
				require.Equal(t, 1, numbers(metric).Len(), "%s shares a Metric", id)
				require.False(t, live[id], "%s lives and ends in one payload", id)
				require.Contains(t, s, id, "%s ends and was not there", id)
				delete(s, id)
				continue
			}
			require.False(t, ended, "%s stands behind an ended series", id)
			require.False(t, live[id], "%s stands twice in a payload", id)
			live[id] = true
			s[id] = pointValue(point)
		}
	}
}

// show applies a payload as the Prometheus exporter does, whatever its shape.
func (s backend) show(md pmetric.Metrics) {
	for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		for _, point := range numbers(metric).All() {
			if id := seriesID(metric.Name(), point); point.Flags().NoRecordedValue() {
				delete(s, id)
			} else {
				s[id] = pointValue(point)
			}
		}
	}
}

func seriesID(metric string, point pmetric.NumberDataPoint) string {
	id := []string{metric}
	for key, value := range point.Attributes().All() {
		id = append(id, fmt.Sprintf("%s=%q", key, value.AsString()))
	}
	return strings.Join(id, " ")
}

func pointValue(point pmetric.NumberDataPoint) string {
	if point.ValueType() == pmetric.NumberDataPointValueTypeInt {
		return strconv.FormatInt(point.IntValue(), 10)
	}
	return strconv.FormatFloat(point.DoubleValue(), 'g', -1, 64)
}
