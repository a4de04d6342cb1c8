package burrowreceiver

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestDeriveLimits(t *testing.T) {
	for memory, want := range map[uint64][2]int{
		0:              {1_500, 3_000},
		256 << 20:      {1_500, 3_640},
		512 << 20:      {1_820, 7_281},
		1 << 30:        {3_640, 14_563},
		4 << 30:        {14_563, 58_254},
		16 << 30:       {20_000, 233_016},
		1 << 50:        {20_000, 1_000_000},
		math.MaxUint64: {20_000, 1_000_000},
	} {
		maxGroups, maxPartitions := deriveLimits(memory)
		assert.Equal(t, want, [2]int{maxGroups, maxPartitions}, "%d MiB", memory>>20)
	}
}

func TestAvailableMemory(t *testing.T) {
	assert.Greater(t, availableMemory(), uint64(64<<20))
	before := debug.SetMemoryLimit(100 << 20)
	defer debug.SetMemoryLimit(before)
	assert.EqualValues(t, 100<<20, availableMemory(), "GOMEMLIMIT")
}
