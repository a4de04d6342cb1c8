package fakekafka

// Behavior says what a group commits for one partition: n counts its commits from 0, last is what it
// committed before and head the partition's end. Without ok the group commits nothing this time.
type Behavior func(n int, last, head int64) (offset int64, ok bool)

// KeepUp commits everything. Burrow: OK, no lag.
func KeepUp(_ int, _, head int64) (int64, bool) { return head, true }

// Sawtooth lags, and catches up a little again and again. Burrow: OK, with lag.
func Sawtooth(n int, last, head int64) (int64, bool) {
	return max(last, head-50+int64(n%8)*5), true
}

// FallBehind commits, but less than is produced. Burrow: WARN.
func FallBehind(_ int, last, head int64) (int64, bool) { return min(head, last+1), true }

// Stuck commits the same offset for ever. Burrow: STALL.
func Stuck(_ int, last, _ int64) (int64, bool) { return last, true }

// GoBack commits ever smaller offsets. Burrow: REWIND.
func GoBack(_ int, last, _ int64) (int64, bool) { return max(0, last-1), true }

// Fail keeps up for a while and then commits no more. Burrow: STOP.
func Fail(n int, _, head int64) (int64, bool) { return head, n < 12 }

// Flap falls behind and keeps up by turns, each for longer than Burrow's window of ten commits.
// Burrow: WARN and OK by turns.
func Flap(n int, last, head int64) (int64, bool) {
	if n%36 < 22 {
		return FallBehind(n, last, head)
	}
	return KeepUp(n, last, head)
}

// All lets a group behave in the same way in n partitions.
func All(n int32, behavior Behavior) map[int32]Behavior {
	partitions := make(map[int32]Behavior, n)
	for p := range n {
		partitions[p] = behavior
	}
	return partitions
}
