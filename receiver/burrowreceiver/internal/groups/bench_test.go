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

// body is a notification of a group with n partitions of a topic of its own, as long as Burrow's. The partitions
// move, and the load changes, so that every notification has something new to tell of each head.
func body(group string, n, minute int) []byte {
	end := start.Add(time.Duration(minute)*time.Minute - time.Second).UnixMilli()
	committed := 68515593 + 1000*minute + 10*minute*minute%700
	var list []string
	for p := range n {
		list = append(list, fmt.Sprintf(`{"topic":"ledger.settlement.%s","partition":%d,"owner":"/10.42.1.%d","client_id":"settlement-writer-%d","status":"WARN",`+
			`"start":{"offset":%d,"timestamp":%d,"observedAt":%d,"lag":6061},`+
			`"end":{"offset":%d,"timestamp":%d,"observedAt":%d,"lag":6261},"current_lag":6534,"complete":1}`, group, p, p/8, p/8,
			committed-500, end-9000, (end-9000)/1000*1000, committed, end, end/1000*1000))
	}
	return fmt.Appendf(nil, `{"cluster":"payments-eu","group":%q,"status":"WARN","complete":1,"partitions":[%s],"partition_count":%d,"maxlag":null,"totallag":5}`, group, strings.Join(list, ","), n)
}

func update(b *testing.B, table *Table, minute int, body []byte) {
	b.Helper()
	n, err := burrow.Decode(body)
	if err != nil {
		b.Fatal(err)
	}
	if err := table.Update(n, at(60*minute)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMemory fills the table with decoded notifications, each partition of which has a head and a full history
// of its own, commits them and reports what is held.
func BenchmarkMemory(b *testing.B) {
	const groups, partitions = 2000, 50
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		table := New(Limits{MaxGroups: groups, MaxPartitions: groups * partitions, ExpireAfter: time.Hour})
		for minute := range 8 {
			for g := range groups {
				update(b, table, minute, body(fmt.Sprintf("consumer-group-%04d", g), partitions, minute))
			}
			table.Finish(collect(table, at(60*minute)), true, at(60*minute))
		}
		b.StopTimer()
		held := float64(heap()-before) / (groups * partitions)
		b.ReportMetric(held, "B/partition")
		require.LessOrEqual(b, held, 300.0)
		points := 0
		require.Equal(b, groups*partitions, table.heads.count)
		for _, topic := range table.heads.topics {
			for i := range topic.partitions {
				points += len(pointsOf(&topic.partitions[i]))
			}
		}
		b.ReportMetric(float64(points)/(groups*partitions), "points/history")
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

// BenchmarkUpdateWide replaces the state of a group with 100 listed partitions: one notification after the other
// with new heads, and one that repeats the same.
func BenchmarkUpdateWide(b *testing.B) {
	const partitions = 100
	for name, minutes := range map[string]int{"new": 1000, "same": 1} {
		b.Run(name, func(b *testing.B) {
			table := New(Limits{MaxGroups: 1, MaxPartitions: partitions, ExpireAfter: time.Hour})
			var notifications []*burrow.Notification
			for minute := range minutes {
				n, err := burrow.Decode(body("g", partitions, minute))
				require.NoError(b, err)
				notifications = append(notifications, n)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i%minutes == 0 && minutes > 1 {
					table = New(table.limits)
				}
				if err := table.Update(notifications[i%minutes], at(60*(i%minutes))); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkExpire looks through a million histories, which happens a few times within ExpireAfter.
func BenchmarkExpire(b *testing.B) {
	const topics, partitions = 20_000, 50
	h := newHeads(Limits{MaxPartitions: topics * partitions, ExpireAfter: time.Hour})
	for t := range topics {
		for p := range int32(partitions) {
			h.history("c", &burrow.PartitionStatus{Topic: fmt.Sprintf("topic-%05d", t), Partition: p}, start.UnixMilli())
		}
	}
	for b.Loop() {
		h.swept = time.Time{}
		h.expire(start)
	}
	require.Equal(b, topics*partitions, h.count)
}

// BenchmarkCollect looks for the one group of 10,000 that has changed, and commits it.
func BenchmarkCollect(b *testing.B) {
	table, notifications := full(b)
	table.Finish(collect(table, start), true, start)
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
		table.Finish(changes, true, start)
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
