package burrowreceiver

import (
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// bytesPerPartition is what a listed partition costs with its series on the page of the Prometheus exporter, while
	// it is scraped, at the most that `make bench-limits` may find.
	bytesPerPartition = 24 << 10
	// partitionsPerGroup is how many partitions' memory the series of a group take.
	partitionsPerGroup = 2

	minDefaultPartitions = 3_000
	maxDefaultPartitions = 1_000_000
	maxDefaultGroups     = 20_000

	// assumedMemory is used where the memory can't be found out.
	assumedMemory = 1 << 30
)

// deriveLimits returns defaults for max_groups and max_partitions that fit in half of the memory: a third of that half for
// groups, the rest for partitions.
func deriveLimits(memory uint64) (maxGroups, maxPartitions int) {
	partitions := int(min(memory/2/bytesPerPartition, 10*maxDefaultPartitions))
	maxPartitions = min(max(partitions*2/3, minDefaultPartitions), maxDefaultPartitions)
	maxGroups = min(max(partitions/3/partitionsPerGroup, minDefaultPartitions/partitionsPerGroup), maxDefaultGroups)
	return maxGroups, maxPartitions
}

// availableMemory is what the process may use: GOMEMLIMIT, the container's limit or the machine's memory, whichever
// is least.
func availableMemory() uint64 {
	least := uint64(math.MaxUint64)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		least = uint64(limit) //nolint:gosec // a limit is not negative
	}
	for _, provider := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if limit, err := provider(); err == nil && limit > 0 {
			least = min(least, limit)
		}
	}
	if least == math.MaxUint64 {
		return assumedMemory
	}
	return least
}
