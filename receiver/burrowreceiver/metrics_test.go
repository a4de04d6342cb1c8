package burrowreceiver

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// randomGroup leaves every field that can be unknown unknown now and then.
func randomGroup(random *rand.Rand, name string) burrow.GroupStatus {
	pick := func(n int64) int64 {
		if random.IntN(3) == 0 {
			return burrow.Unknown
		}
		return random.Int64N(n)
	}
	g := burrow.GroupStatus{
		Cluster: "c", Group: name, Status: burrow.StatusErr, TotalLag: random.Int64N(1000),
		Complete: float64(pick(2)), PartitionCount: burrow.Unknown,
	}
	for number := range int32(6) {
		if random.IntN(2) == 0 {
			continue
		}
		p := burrow.PartitionStatus{
			Topic: "t" + strconv.Itoa(random.IntN(2)), Partition: number, CurrentLag: random.Int64N(1000),
			Status: burrow.Status(random.IntN(8) - 1), Complete: float64(pick(2)),
			Start: burrow.Commit{Offset: pick(100), Timestamp: 1 + random.Int64N(5000), Lag: pick(100)},
			End:   burrow.Commit{Offset: pick(100), Timestamp: 1 + random.Int64N(5000), Lag: pick(100)},
		}
		if random.IntN(2) == 0 {
			p.Owner, p.ClientID = strconv.Itoa(random.IntN(2)), strconv.Itoa(random.IntN(2))
		}
		g.Partitions = append(g.Partitions, p)
	}
	// In the order that Decode gives: first t0, then t1.
	var ordered []burrow.PartitionStatus
	for _, topic := range []string{"t0", "t1"} {
		for _, p := range g.Partitions {
			if p.Topic == topic {
				ordered = append(ordered, p)
			}
		}
	}
	g.Partitions = ordered
	if random.IntN(2) == 0 {
		g.PartitionCount = int64(len(g.Partitions)) + random.Int64N(3)
	}
	if len(g.Partitions) > 0 && random.IntN(2) == 0 {
		g.MaxLag = &g.Partitions[0]
	}
	return g
}

// However groups change, what a backend has after a hand-over is what it would have if it had been
// told of nothing but the newest states.
func TestBackendFollowsTheNewestState(t *testing.T) {
	cfg := metadata.DefaultMetricsBuilderConfig()
	cfg.Metrics.BurrowPartitionOwner.Enabled = true
	cfg.Metrics.BurrowPartitionComplete.Enabled = true
	cfg.Metrics.BurrowPartitionLastCommitTimestamp.Enabled = true
	cfg.Metrics.BurrowGroupStatus.Enabled = false
	mapper := &metricsMapper{cfg: cfg, set: receivertest.NewNopSettings(metadata.Type), start: time.Unix(1, 0)}
	random := rand.New(rand.NewPCG(3, 4))
	table := groups.New(groups.Limits{MaxGroups: 5, MaxPartitions: 100, ExpireAfter: 4 * time.Second})
	held, newest := backend{}, map[string]*groups.State{}
	ended := 0
	for second := range 3000 {
		now := time.Unix(int64(second+10), 0)
		for range random.IntN(3) {
			n := &burrow.Notification{Group: randomGroup(random, strconv.Itoa(random.IntN(5)))}
			require.NoError(t, table.Update(n, now))
			newest[n.Group.Group] = &groups.State{Notification: *n, Received: now}
		}
		for name, state := range newest {
			if now.Sub(state.Received) >= 4*time.Second {
				delete(newest, name)
				ended++
			}
		}
		table.Expire(now)
		changes := table.Collect()
		if len(changes) == 0 {
			continue
		}
		for _, c := range changes {
			if c.Current != nil { // with the time lags, which depend on all that came before
				require.Equal(t, newest[c.Last().Group.Group].Notification, c.Current.Notification)
				newest[c.Last().Group.Group] = c.Current
			}
		}
		held.take(t, mapper.build(changes, nil))
		table.Commit(changes)

		var fresh []groups.Change[groups.State]
		for _, state := range newest {
			fresh = append(fresh, groups.Change[groups.State]{Current: state, At: now})
		}
		want := backend{}
		if len(fresh) > 0 {
			want.take(t, mapper.build(fresh, nil))
		}
		require.Equal(t, want, held, "second %d", second)
		require.Len(t, held, table.Stats().Series)
	}
	assert.Greater(t, ended, 100)
}

func TestPartitionCountsAddUp(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	counted := 0
	for range 1000 {
		g := randomGroup(random, "g")
		if !countable(&g) {
			continue
		}
		counted++
		var sum int64
		for _, n := range partitionCounts(&g) {
			assert.GreaterOrEqual(t, n, int64(0))
			sum += n
		}
		assert.Equal(t, g.PartitionCount, sum)
	}
	assert.Greater(t, counted, 100)
}
