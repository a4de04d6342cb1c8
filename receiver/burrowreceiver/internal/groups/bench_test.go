package groups

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// body is a notification of a group with n stopped partitions, as long as Burrow's.
func body(group string, n int) []byte {
	var list []string
	for p := range n {
		list = append(list, fmt.Sprintf(`{"topic":"ledger.settlement.v2","partition":%d,"owner":"/10.42.1.%d","client_id":"settlement-writer-%d","status":"STOP",`+
			`"start":{"offset":68515593,"timestamp":1763800000335,"observedAt":1763800000359,"lag":1828},`+
			`"end":{"offset":68559228,"timestamp":1763800600351,"observedAt":1763800600370,"lag":6261},"current_lag":6534,"complete":1}`, p, p/8, p/8))
	}
	return fmt.Appendf(nil, `{"cluster":"payments-eu","group":%q,"status":"ERR","complete":1,"partitions":[%s],"partition_count":%d,"maxlag":null,"totallag":5}`, group, strings.Join(list, ","), n)
}

// BenchmarkMemory fills the table with decoded notifications, commits them and reports what is held.
func BenchmarkMemory(b *testing.B) {
	const groups, partitions = 2000, 50
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		table := New(Limits{MaxGroups: groups, MaxPartitions: groups * partitions, ExpireAfter: time.Hour})
		for g := range groups {
			n, err := burrow.Decode(body(fmt.Sprintf("consumer-group-%04d", g), partitions))
			if err != nil {
				b.Fatal(err)
			}
			if err := table.Update(n, start); err != nil {
				b.Fatal(err)
			}
		}
		table.Commit(collect(table, start))
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/(groups*partitions), "B/partition")
		require.Equal(b, Stats{Groups: groups, Partitions: groups * partitions}, table.Stats())
		b.StartTimer()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkUpdate replaces the state of one of 10,000 groups.
func BenchmarkUpdate(b *testing.B) {
	table, notifications := full(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := table.Update(notifications[i%len(notifications)], start); err != nil {
			b.Fatal(err)
		}
		i++
	}
	require.Equal(b, Stats{Groups: len(notifications), Partitions: 4 * len(notifications)}, table.Stats())
}

// BenchmarkCollect looks for the one group of 10,000 that has changed, and commits it.
func BenchmarkCollect(b *testing.B) {
	table, notifications := full(b)
	table.Commit(collect(table, start))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := table.Update(notifications[i%len(notifications)], start); err != nil {
			b.Fatal(err)
		}
		i++
		changes := collect(table, start)
		if len(changes) != 1 {
			b.Fatal(len(changes))
		}
		table.Commit(changes)
	}
}

func full(b *testing.B) (*Table, []*burrow.Notification) {
	b.Helper()
	const groups = 10_000
	table := New(Limits{MaxGroups: groups, MaxPartitions: 4 * groups, ExpireAfter: time.Hour})
	var notifications []*burrow.Notification
	for g := range groups {
		n := notification(fmt.Sprintf("consumer-group-%05d", g), 1, 0, 1, 2, 3)
		notifications = append(notifications, n)
		require.NoError(b, table.Update(n, start))
	}
	return table, notifications
}
