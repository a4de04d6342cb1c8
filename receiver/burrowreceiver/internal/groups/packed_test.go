package groups

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is packed is what was there, or, where it has no place, what is missed least: the first and the last point stay.
func TestPackedHistories(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, step := range []int64{1, 100, 10_000, 1 << 30, math.MaxInt64 / 40} {
		var packed packedHistory
		var h headHistory
		want := 0
		for i := range 40 {
			packed.open(&h)
			before := append([]headPoint{}, h.points...)
			h.add(headPoint{step*int64(i) + random.Int64N(step), at(60*i).UnixMilli() + random.Int64N(1000)})
			h.told, h.toldAt, h.asked, h.askedAt, h.followed = step, 1, 7*step, 3, true
			grown := append([]headPoint{}, h.points...)
			packed.close(&h)
			var again headHistory
			packed.open(&again)
			require.Subset(t, grown, again.points)
			require.Equal(t, grown[0], again.points[0])
			require.Equal(t, grown[len(grown)-1], again.points[len(again.points)-1])
			require.GreaterOrEqual(t, len(again.points), min(len(before), 3))
			require.Equal(t, headHistory{points: again.points, told: step, toldAt: 1, asked: 7 * step, askedAt: 3, followed: true}, again)
			want = max(want, len(again.points))
		}
		t.Logf("steps of %d a minute: %d points", step, want)
	}
}

// The points around the group that is furthest behind are kept, however many come.
func TestPointsOfTheFurthestBehindAreKept(t *testing.T) {
	var packed packedHistory
	var h headHistory
	for i := range int64(500) {
		packed.open(&h)
		if i > 21 {
			h.asked, h.askedAt = 4_321, unixSeconds(at(int(10*i)).UnixMilli())
		}
		h.add(headPoint{10 * i * i, at(int(10 * i)).UnixMilli()}) // ever faster
		packed.close(&h)
	}
	passed, bound, ok := h.passed(4_321, headPoint{})
	assert.True(t, ok)
	assert.False(t, bound)
	assert.InDelta(t, 207.8, float64(passed-at(0).UnixMilli())/1000, 0.1)
}

func TestHistoriesOfATopic(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	var list histories
	there := map[int32]bool{}
	for range 300 {
		number := random.Int32N(1000)
		if there[number] {
			require.Equal(t, number, list.get(number).number)
			continue
		}
		require.Nil(t, list.get(number))
		var history *packedHistory
		list, history = list.insert(number)
		history.told = int64(number)
		there[number] = true
	}
	require.Len(t, list, len(there))
	for i := range list {
		require.True(t, i == 0 || list[i-1].number < list[i].number)
		require.EqualValues(t, list[i].number, list[i].told)
	}
}
