package burrow

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// full is what encoding/json needs to read everything that Decode reads.
type full struct {
	Event struct {
		Cluster, Group, ID string
		Start              time.Time
		Extras             map[string]string
		Result             struct {
			Cluster        string          `json:"cluster"`
			Group          string          `json:"group"`
			Status         string          `json:"status"`
			Complete       float32         `json:"complete"`
			Partitions     []fullPartition `json:"partitions"`
			PartitionCount int             `json:"partition_count"`
			MaxLag         *fullPartition  `json:"maxlag"`
			TotalLag       uint64          `json:"totallag"`
		}
	}
}

type fullPartition struct {
	Topic      string      `json:"topic"`
	Partition  int32       `json:"partition"`
	Owner      string      `json:"owner"`
	ClientID   string      `json:"client_id"`
	Status     string      `json:"status"`
	Start      *fullCommit `json:"start"`
	End        *fullCommit `json:"end"`
	CurrentLag uint64      `json:"current_lag"`
	Complete   float32     `json:"complete"`
}

type fullCommit struct {
	Offset     int64   `json:"offset"`
	Timestamp  int64   `json:"timestamp"`
	ObservedAt int64   `json:"observedAt"`
	Lag        *uint64 `json:"lag"`
}

// BenchmarkDecode reads the same bytes with Decode and with encoding/json.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"small.json", "partitions-100.json"} {
		body, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "testdata", "load", name))
		require.NoError(b, err)
		want, err := reference(body)
		require.NoError(b, err)
		b.Run(name+"/ours", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			var n *Notification
			for b.Loop() {
				n, err = Decode(body)
			}
			require.NoError(b, err)
			require.Equal(b, want, n)
		})
		b.Run(name+"/encoding_json", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			var n full
			for b.Loop() {
				n = full{}
				err = json.Unmarshal(body, &n)
			}
			require.NoError(b, err)
			require.Len(b, n.Event.Result.Partitions, len(want.Group.Partitions))
		})
	}
}
