package burrowreceiver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

func loadBody(b *testing.B, name string) []byte {
	b.Helper()
	body, err := os.ReadFile(filepath.Join("..", "..", "testdata", "load", name))
	require.NoError(b, err)
	return body
}

// BenchmarkNotification is a request from the handler on: read, decode, table, answer.
func BenchmarkNotification(b *testing.B) {
	for _, name := range []string{"small.json", "partitions-100.json"} {
		b.Run(name, func(b *testing.B) {
			body := loadBody(b, name)
			sink := new(consumertest.MetricsSink)
			r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), sink)
			require.NoError(b, err)
			defer func() { require.NoError(b, r.Shutdown(context.Background())) }()
			request := httptest.NewRequest(http.MethodPost, defaultPath, nil)
			reader := bytes.NewReader(body)
			request.Body, request.ContentLength = readCloser{reader}, int64(len(body))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				recorder := &answer{}
				r.webhook.ServeHTTP(recorder, request)
				if recorder.code != http.StatusOK {
					b.Fatal(recorder.code)
				}
			}
			r.emitters[0].emit(context.Background(), time.Now(), false)
			n, err := burrow.Decode(body)
			require.NoError(b, err)
			// The time lags are there if the machine's clock is past the commits.
			require.GreaterOrEqual(b, sink.DataPointCount(), 11+3*len(n.Group.Partitions), "all points arrived")
		})
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

type answer struct {
	header http.Header
	code   int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(code int)        { a.code = code }

// BenchmarkMapping is one hand-over of 10,000 groups with 4 listed partitions each: all new, all
// changed, all ended.
func BenchmarkMapping(b *testing.B) {
	const n, partitions = 10_000, 4
	var changes []groups.Change
	for i := range n {
		g := burrow.GroupStatus{Cluster: "c", Group: fmt.Sprintf("group-%05d", i), Status: burrow.StatusErr, TotalLag: 1, Complete: 1, PartitionCount: 10}
		for p := range int32(partitions) {
			g.Partitions = append(g.Partitions, burrow.PartitionStatus{
				Topic: "topic", Partition: p, Status: burrow.StatusStop, CurrentLag: 5, End: burrow.Commit{Offset: 7}, Complete: burrow.Unknown,
			})
		}
		g.MaxLag = &g.Partitions[0]
		state := &groups.State{TimeLags: []float64{1, 2, 3, 4}, MaxTimeLag: 4}
		at := time.Unix(1_800_000_000, 0)
		state.Group, state.Received = g, at
		changes = append(changes, groups.Change{Cluster: g.Cluster, Name: g.Group, Group: state, At: at})
	}
	const points = n * (12 + 4*partitions)
	ended := func(c *groups.Change) {
		c.Ended.Group = c.Group.Series()
		for i, p := range c.Group.Group.Partitions {
			c.Ended.Partitions = append(c.Ended.Partitions, groups.PartitionKinds{Topic: p.Topic, Partition: p.Partition, Kinds: c.Group.PartitionSeries(i)})
		}
		c.Group = nil
	}
	for name, form := range map[string]func(*groups.Change){"live": func(*groups.Change) {}, "ended": ended} {
		b.Run(name, func(b *testing.B) {
			mine := append([]groups.Change(nil), changes...)
			for i := range mine {
				form(&mine[i])
			}
			mapper := &metricsMapper{cfg: metadata.DefaultMetricsBuilderConfig(), set: receivertest.NewNopSettings(metadata.Type)}
			b.ReportAllocs()
			got := 0
			for b.Loop() {
				got = 0
				next := mine
				begin := func(groups.Ref) groups.Change {
					c := next[0]
					next = next[1:]
					return c
				}
				for refs := make([]groups.Ref, n); len(refs) > 0; {
					var payloads []pmetric.Metrics
					_, payloads, refs = mapper.build(begin, refs, maxPoints)
					for _, md := range payloads {
						got += md.DataPointCount()
					}
				}
			}
			require.Equal(b, points, got)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/group")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
		})
	}
}
