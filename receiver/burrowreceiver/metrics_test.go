package burrowreceiver

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
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
			Start: burrow.Commit{Offset: pick(100), Timestamp: 5000, Lag: pick(100)},
			End:   burrow.Commit{Offset: pick(100), Timestamp: 5000, Lag: pick(100)},
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
	table := groups.New(groups.Limits{MaxGroups: 5, MaxPartitions: 100, ExpireAfter: 4 * time.Second, Owners: true})
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
		fresh, refused := table.Due()
		require.Empty(t, refused)
		if len(fresh) == 0 {
			continue
		}
		changes := handOverTo(t, mapper, table.Begin, fresh, held)
		for _, c := range changes {
			if c.Group != nil { // with the time lags, which depend on all that came before
				require.Equal(t, newest[c.Name].Notification, c.Group.Notification)
				newest[c.Name] = c.Group
			}
		}
		table.Finish(changes, true, now)

		want, all := backend{}, []*groups.State{}
		for _, state := range newest {
			all = append(all, state)
		}
		begin := func(groups.Ref) groups.Change {
			state := all[0]
			all = all[1:]
			return groups.Change{Cluster: state.Group.Cluster, Name: state.Group.Group, Group: state, At: now}
		}
		handOverTo(t, mapper, begin, make([]groups.Ref, len(all)), want)
		require.Equal(t, want, held, "second %d", second)
		require.Len(t, held, table.Stats().Series)
	}
	assert.Greater(t, ended, 100)
}

// handOverTo turns refs into metrics, as many times as it takes, and gives them to a backend.
func handOverTo(t *testing.T, mapper *metricsMapper, begin func(groups.Ref) groups.Change, refs []groups.Ref, held backend) (changes []groups.Change) {
	t.Helper()
	for len(refs) > 0 {
		var begun []groups.Change
		var payloads []pmetric.Metrics
		begun, payloads, refs = mapper.build(begin, refs, maxPoints)
		require.NotEmpty(t, begun)
		changes = append(changes, begun...)
		for _, md := range payloads {
			held.take(t, md)
		}
	}
	return changes
}

// A hand-over has some maxPoints points, whole groups if they are not larger, and loses none.
func TestHandOversAreBounded(t *testing.T) {
	mapper := &metricsMapper{cfg: metadata.DefaultMetricsBuilderConfig(), set: receivertest.NewNopSettings(metadata.Type), start: time.Unix(1, 0)}
	table := groups.New(groups.Limits{MaxGroups: 100, MaxPartitions: 100_000, ExpireAfter: time.Minute})
	add := func(name string, partitions int32, status burrow.Status) {
		g := burrow.GroupStatus{Cluster: "c", Group: name, Status: status, Complete: 1, PartitionCount: int64(partitions)}
		for p := range partitions {
			g.Partitions = append(g.Partitions, burrow.PartitionStatus{Topic: "t", Partition: p, Status: status, Complete: burrow.Unknown, End: burrow.Commit{Offset: 1, Timestamp: 1}})
		}
		require.NoError(t, table.Update(&burrow.Notification{Group: g}, time.Unix(100, 0)))
	}
	for i := range 40 {
		add(fmt.Sprintf("group-%02d", i), 300, burrow.StatusStop)
	}
	add("large", 20_000, burrow.StatusStop)
	held := backend{}
	sizes := func(refs []groups.Ref) (batches, payloads int) {
		for len(refs) > 0 {
			begun, mds, others := mapper.build(table.Begin, refs, maxPoints)
			refs = others
			batches++
			for _, md := range mds {
				payloads++
				require.LessOrEqual(t, md.DataPointCount(), maxPoints+300*4+20)
				held.show(md)
			}
			table.Finish(begun, true, time.Unix(100, 0))
		}
		return batches, payloads
	}
	fresh, _ := table.Due()
	batches, payloads := sizes(fresh)
	assert.Equal(t, 5, batches)
	assert.Greater(t, payloads, batches, "the large one alone does not go into one hand-over")
	assert.Len(t, held, table.Stats().Series)
	assert.Greater(t, len(held), 90_000)

	table.Expire(time.Unix(200, 0))
	fresh, _ = table.Due()
	batches, _ = sizes(fresh)
	assert.Greater(t, batches, 4, "ends count too")
	assert.Empty(t, held)
}

func TestPartitionCountsAddUp(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	counted := 0
	for range 1000 {
		g := randomGroup(random, "g")
		if (&groups.State{Notification: burrow.Notification{Group: g}}).Series()&groups.PartitionCountSeries == 0 {
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
