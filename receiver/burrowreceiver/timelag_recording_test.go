package burrowreceiver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// TestTimeLagOfTheRecording replays what a real Burrow sent, at its own times. Time lags are never negative or
// infinite, nor wild: longer than anything was written to the topics, or growing faster than time goes by while the
// group does not go back. Burrow asked for heads every second.
func TestTimeLagOfTheRecording(t *testing.T) {
	synctest.Test(t, replayRecording)
}

func replayRecording(t *testing.T) {
	requests := recordedSequence(t)
	var oldest, began int64 = math.MaxInt64, 0
	for _, r := range requests {
		for _, p := range r.told() {
			if p.End.Known() {
				oldest = min(oldest, p.Start.Timestamp)
				began = max(began, p.End.Timestamp-r.millis) // the last commit before a request was made before it
			}
		}
	}
	sink := new(consumertest.MetricsSink)
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), sink)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Shutdown(context.Background())) }()

	type key struct {
		cluster, group, topic string
		partition             int32
	}
	type seen struct {
		lag    float64
		offset int64
		at     time.Time
	}
	last := map[key]seen{}
	known, absent, compared := 0, 0, 0
	for _, request := range requests {
		time.Sleep(time.Until(time.UnixMilli(began + request.millis)))
		require.Empty(t, send(r.webhook, "POST", request.body))
		fresh, _ := r.table.Due()
		require.Len(t, fresh, 1)
		change := r.table.Begin(fresh[0])
		state := change.Group
		longest := float64(time.Now().UnixMilli()-oldest) / 1000
		for i := range state.Group.Partitions {
			p, lag := &state.Group.Partitions[i], state.TimeLag(i)
			if lag == burrow.Unknown {
				absent++
				continue
			}
			known++
			require.GreaterOrEqual(t, lag, 0.0)
			require.LessOrEqual(t, lag, longest)
			require.LessOrEqual(t, lag, state.MaxTimeLag)
			k := key{state.Group.Cluster, state.Group.Group, p.Topic, p.Partition}
			if before, found := last[k]; found && p.End.Offset >= before.offset {
				compared++
				require.LessOrEqual(t, lag-before.lag, time.Since(before.at).Seconds()+2, "%v", k)
			}
			last[k] = seen{lag, p.End.Offset, time.Now()}
		}
		r.table.Finish([]groups.Change{change}, true, time.Now())
	}
	assert.Greater(t, known, 1000)
	assert.Greater(t, compared, 1000)
	assert.Less(t, absent*100, known, "absent")
	t.Logf("%d known, %d absent, %d compared with the one before", known, absent, compared)
}

type recordedRequest struct {
	millis       int64
	body         []byte
	notification *burrow.Notification
}

// told are the partitions that the request speaks of.
func (r *recordedRequest) told() []burrow.PartitionStatus {
	told := slices.Clone(r.notification.Group.Partitions)
	if r.notification.Group.MaxLag != nil {
		told = append(told, *r.notification.Group.MaxLag)
	}
	return told
}

func recordedSequence(t *testing.T) []recordedRequest {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "..", "testdata", "sequence.jsonl.gz"))
	require.NoError(t, err)
	unzipped, err := gzip.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	var requests []recordedRequest
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Millis int64 `json:"t_ms"`
			Body   string
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		n, err := burrow.Decode([]byte(line.Body))
		require.NoError(t, err)
		requests = append(requests, recordedRequest{line.Millis, []byte(line.Body), n})
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, requests)
	return requests
}
