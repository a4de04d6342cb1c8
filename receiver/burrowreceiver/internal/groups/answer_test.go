package groups

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// In a full table a notification between two polls names a few of a group's partitions, and nobody knows the others one by one. What the
// group is behind stays one number: that of the last poll, until a notification names a partition that is further behind, or the
// group is not behind at all.
func TestTimeLagBetweenPollsInAFullTable(t *testing.T) {
	f := &followed{t, New(Limits{MaxGroups: 5, MaxPartitions: 4, ExpireAfter: 2 * time.Minute})}
	poll := func(second int, group string, g *burrow.GroupStatus) *State {
		g.Group = group
		require.NoError(t, f.table.UpdateFromAPI(g, at(second)))
		return states(f.table)[group]
	}
	// Another group reads the same topic, so that there are histories and few places.
	poll(0, "other", read(burrow.StatusOK, 0, []int64{1000, 1000}, 0, 0))
	for second := 0; second <= 100; second += 10 {
		f.heads(second, 1000+10*int64(second), 1000+10*int64(second), 5)
	}
	all := read(burrow.StatusOK, 100, []int64{1100, 1900, 5}, 900, 100, 0)
	poll(101, "g", read(burrow.StatusOK, 100, []int64{1100, 1900}, 900, 100))
	s := poll(101, "g", all)
	require.Empty(t, s.Group.Partitions)
	require.InDelta(t, 90.95, s.MaxTimeLag, 0)
	since := s.OldestUnreadOfAll()

	notify := func(second int, maxLag *burrow.PartitionStatus, total int64) *State {
		n := notified(all)
		n.Group.MaxLag, n.Group.TotalLag = maxLag, total
		require.NoError(t, f.table.Update(n, at(second)))
		return states(f.table)["g"]
	}
	s = notify(105, &read(burrow.StatusOK, 105, []int64{0, 1900}, 0, 100).Partitions[1], 1000)
	assert.InDelta(t, 90.95, s.MaxTimeLag, 0, "the first one is not named")
	assert.Equal(t, since, s.OldestUnreadOfAll())
	s = notify(110, nil, 1000)
	assert.InDelta(t, 90.95, s.MaxTimeLag, 0, "none is named")
	assert.Equal(t, since, s.OldestUnreadOfAll())
	s = notify(115, &read(burrow.StatusOK, 100, []int64{1100}, 900).Partitions[0], 1000)
	assert.InDelta(t, 104.95, s.MaxTimeLag, 0, "the first one has read nothing since")
	assert.Equal(t, since, s.OldestUnreadOfAll())
	s = notify(120, nil, 1000)
	assert.InDelta(t, 90.95, s.MaxTimeLag, 0, "what is known of all is what the poll told")
	s = notify(125, nil, 0)
	assert.InDelta(t, 0, s.MaxTimeLag, 0, "the group has read everything")
	s = notify(130, nil, 1)
	assert.InDelta(t, 90.95, s.MaxTimeLag, 0)
	s = notify(221, nil, 1)
	assert.InDelta(t, burrow.Unknown, s.MaxTimeLag, 0, "the poll is too old")
}

// Whatever polls and notifications tell, and however full the table is: where not all partitions are known one by one, a group is not less far
// behind, and has no fewer partitions ahead, than the last poll told of all of them, and not further than anybody told.
func TestBetweenPollsNothingFallsBelowTheLastPoll(t *testing.T) {
	held, ahead, restarts, bounds := 0, 0, 0, 0
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 5))
		f := &followed{t, New(Limits{MaxGroups: 5, MaxPartitions: 3, ExpireAfter: 10 * time.Minute})}
		heads, commits := make([]int64, 5), make([]int64, 5)
		committed := make([]int, 5)
		for i := range heads {
			heads[i], commits[i] = 1000, 1000
		}
		var told *State
		for second := 0; second < 2000; second += 1 + random.IntN(6) {
			for i := range heads {
				heads[i] += int64(random.IntN(20))
				if random.IntN(3) == 0 && commits[i] < heads[i] {
					commits[i] += random.Int64N(heads[i] - commits[i] + 1)
					committed[i] = second
				}
			}
			if random.IntN(300) == 0 { // the topic is made again
				for i := range heads {
					heads[i] = int64(random.IntN(10))
				}
			}
			partitions := 2 + random.IntN(2) // it has places for them
			if seed%2 == 0 && second > 50 {
				partitions = 5
			}
			lags := make([]int64, partitions)
			for i := range lags {
				lags[i] = max(0, heads[i]-commits[i])
			}
			g := read(burrow.StatusOK, second, commits[:partitions], lags...)
			var worst *burrow.PartitionStatus
			for i := range g.Partitions {
				p := &g.Partitions[i]
				p.End.Timestamp, p.End.ObservedAt = at(committed[i]).UnixMilli(), at(committed[i]).UnixMilli()
				if random.IntN(4) == 0 {
					p.Status, g.Status = burrow.StatusStop, burrow.StatusErr
				}
				if worst == nil || p.CurrentLag > worst.CurrentLag {
					worst = p
				}
			}
			switch random.IntN(5) {
			case 0:
				if seed%3 == 0 {
					continue // heads are known from evaluations alone, and so are lower bounds
				}
				// It fails for some time after the topic was made again.
				topic := &Topic{Cluster: "c", Name: "t", Offsets: slices.Clone(heads), Received: at(second)}
				_ = f.table.SeeHeads(topic, Read{Since: at(second - 1), Seen: true})
			case 1:
				if s := f.poll(second, g); s.Received.Equal(at(second)) {
					told = s
				}
			case 2:
				if told == nil || random.IntN(20) > 0 {
					continue
				}
				s := current(t, f.table)
				data, err := f.table.Record(s)
				require.NoError(t, err)
				table := New(f.table.limits)
				restored, err := table.Restore(data, s.Times(), at(second))
				if err != nil {
					continue
				}
				require.InDelta(t, s.MaxTimeLag, restored.MaxTimeLag, 0.001)
				require.Equal(t, s.Ahead, restored.Ahead)
				require.Equal(t, s.AtLeast, restored.AtLeast)
				require.WithinDuration(t, s.OldestUnreadOfAll(), restored.OldestUnreadOfAll(), time.Millisecond)
				f.table = table
				restarts++
			default:
				n := notified(g)
				if random.IntN(2) == 0 {
					n.Group.MaxLag = worst
				}
				before := f.table.groups[key{"c", "g"}]
				require.NoError(t, f.table.Update(n, at(second)))
				s := current(t, f.table)
				if told == nil || before == nil || !s.Received.Equal(at(second)) || !s.Polled.IsZero() || s.Received.Sub(told.Received) >= f.table.limits.ExpireAfter {
					continue
				}
				require.GreaterOrEqual(t, s.Ahead, told.Ahead, "seed %d, second %d", seed, second)
				if s.Ahead > 0 {
					ahead++
				}
				if n.Group.TotalLag == 0 {
					require.LessOrEqual(t, s.MaxTimeLag, 0.0)
					continue
				}
				require.GreaterOrEqual(t, s.MaxTimeLag, told.MaxTimeLag, "seed %d, second %d", seed, second)
				if s.MaxTimeLag == told.MaxTimeLag && s.MaxTimeLag > 0 && len(n.Group.Partitions) == 0 && n.Group.MaxLag == nil {
					held++
					require.Equal(t, told.AtLeast, s.AtLeast)
					require.WithinDuration(t, told.OldestUnreadOfAll(), s.OldestUnreadOfAll(), time.Millisecond)
					if s.AtLeast {
						bounds++
					}
				}
				named := New(Limits{MaxGroups: 1, MaxPartitions: 100, ExpireAfter: time.Minute})
				named.heads.topics = f.table.heads.topics
				require.NoError(t, named.Update(n, at(second)))
				alone := current(t, named)
				require.LessOrEqual(t, s.MaxTimeLag, max(told.MaxTimeLag, alone.MaxTimeLag)+0.001, "seed %d, second %d: by nobody told", seed, second)
			}
		}
	}
	t.Log(held, ahead, restarts, bounds)
	require.Positive(t, held)
	require.Positive(t, ahead)
	require.Positive(t, restarts)
	require.Positive(t, bounds)
}
