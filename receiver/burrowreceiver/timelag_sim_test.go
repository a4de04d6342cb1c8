package burrowreceiver

import (
	"container/ring"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// Everything here happens at known times, in milliseconds since the simulation began: messages are written, a group
// commits every second, Burrow asks for heads every offset-refresh and sends a notification every minute or two.
const (
	simPartitions = 3
	simWindow     = 10   // intervals of Burrow's storage
	simDistance   = 1000 // its min-distance
	simInterval   = 60_000
	simTopicName  = "orders"
	simGroupName  = "orders-writer"
)

// simScenario is a kind of load and of consumer.
type simScenario struct {
	name, about string
	// bursty loads change faster than notifications come.
	bursty bool
	// rate is how many messages are written to a partition in a second.
	rate func(r *rand.Rand, partition, second int) int
	// consume moves the group's position in a partition; without a commit it returns false.
	consume func(c *simConsumer, second int) bool
	// recreated is the second in which the topic is deleted and made again; 0 for never.
	recreated int
}

// simConsumer is the group in one partition.
type simConsumer struct {
	number, second int
	log            *simLog
	position       int64
}

// behind moves to where the head was so many seconds ago.
func (c *simConsumer) behind(seconds int) bool {
	c.position = max(c.position, c.log.head(1000*int64(c.second-seconds)))
	return true
}

// atMost moves by at most n messages.
func (c *simConsumer) atMost(n int64) bool {
	c.position = min(c.position+n, c.log.head(1000*int64(c.second)))
	return true
}

// rewind moves back to where the head was so many seconds ago.
func (c *simConsumer) rewind(seconds int) bool {
	c.position = c.log.head(1000 * int64(c.second-seconds))
	return true
}

var simScenarios = []simScenario{
	{
		name: "steady", about: "constant load; the partitions are read 20, 40 and 60 s late",
		rate:    func(_ *rand.Rand, partition, _ int) int { return 40 + 10*partition },
		consume: func(c *simConsumer, _ int) bool { return c.behind(20 + 20*c.number) },
	},
	{
		name: "bursty", bursty: true, about: "bursts of up to a minute every few minutes, read at a third of their speed",
		rate: func(r *rand.Rand, partition, second int) int {
			const period = 240
			length := 20 + 20*partition
			if second%period/length != 1 {
				return r.IntN(2)
			}
			return 280 + r.IntN(40)
		},
		consume: func(c *simConsumer, _ int) bool { return c.atMost(100) },
	},
	{
		name: "idle-then-busy", about: "no message for 10 minutes, then load for 10, which is read 5% too slowly",
		rate: func(r *rand.Rand, _, second int) int {
			if second/600%2 == 0 {
				return 0
			}
			return 90 + r.IntN(21)
		},
		consume: func(c *simConsumer, _ int) bool { return c.atMost(95 - 10*int64(c.number)) },
	},
	{
		name: "growing", about: "the load is a quarter more than the group can read",
		rate:    func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, _ int) bool { return c.atMost(40) },
	},
	{
		name: "stalled", about: "the group commits the same offsets for 20 minutes of each hour, then catches up",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, second int) bool {
			if second%3600 >= 600 && second%3600 < 1800 {
				return true
			}
			return c.atMost(120)
		},
	},
	{
		name: "stopped", about: "the group stops committing for 30 minutes of each hour, then catches up",
		rate: func(r *rand.Rand, _, second int) int { return int(60+40*math.Sin(float64(second)/300)) + r.IntN(10) },
		consume: func(c *simConsumer, second int) bool {
			return (second%3600 < 900 || second%3600 >= 2700) && c.atMost(400)
		},
	},
	{
		name: "rewind", about: "the group goes back by 10 minutes, later to before anything that Burrow spoke of, and reads again at twice the load",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, second int) bool {
			switch second {
			case 2000:
				return c.rewind(600)
			case 4500:
				return c.rewind(4500 + 1000)
			}
			return c.atMost(110)
		},
	},
	{
		name: "recreated", about: "the topic is deleted and made again while the group is behind",
		rate:      func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume:   func(c *simConsumer, _ int) bool { return c.atMost(40 + 2*int64(c.number)) },
		recreated: 3000,
	},
}

// simLog is what was written to one partition. Loads begin a while before the simulation, so that there is something to rewind to.
type simLog struct {
	begin int64   // ms of the first second
	heads []int64 // at the begin of each second
}

const simBefore = 3600

// head is the head at a moment.
func (l *simLog) head(at int64) int64 {
	at -= l.begin
	if at <= 0 {
		return 0
	}
	second := int(at / 1000)
	if second >= len(l.heads)-1 {
		return l.heads[len(l.heads)-1]
	}
	// Within a second, messages come at equal distances.
	n := float64(l.heads[second+1] - l.heads[second])
	return l.heads[second] + int64(n*float64(at%1000)/1000)
}

// written is when the message with the offset was.
func (l *simLog) written(offset int64) int64 {
	second := sort.Search(len(l.heads), func(i int) bool { return l.heads[i] > offset }) - 1
	n := float64(l.heads[second+1] - l.heads[second])
	return l.begin + int64(second)*1000 + int64(math.Ceil(1000*float64(offset-l.heads[second]+1)/n))
}

// The wire, with Burrow's keys.
type simCommit struct {
	Offset     int64  `json:"offset"`
	Timestamp  int64  `json:"timestamp"`
	ObservedAt int64  `json:"observedAt"`
	Lag        *int64 `json:"lag"`

	ofTopic int // which making of the topic the lag was computed with
}

type simStatus struct {
	Topic      string     `json:"topic"`
	Partition  int        `json:"partition"`
	Status     string     `json:"status"`
	Start      *simCommit `json:"start"`
	End        *simCommit `json:"end"`
	CurrentLag int64      `json:"current_lag"`
	Complete   float64    `json:"complete"`
}

type simResult struct {
	Cluster    string       `json:"cluster"`
	Group      string       `json:"group"`
	Status     string       `json:"status"`
	Complete   float64      `json:"complete"`
	Partitions []*simStatus `json:"partitions"`
	Count      int          `json:"partition_count"`
	MaxLag     *simStatus   `json:"maxlag"`
	TotalLag   int64        `json:"totallag"`
}

// simBurrow is Burrow's storage and evaluator for one group.
type simBurrow struct {
	epoch   int64                     // unix ms of the begin of the simulation
	commits [simPartitions]*ring.Ring // points at the oldest, as in Burrow
	heads   [simPartitions][]simHead  // the newest simWindow
}

type simHead struct {
	offset  int64
	ofTopic int
}

func (b *simBurrow) head(partition int) simHead {
	return b.heads[partition][len(b.heads[partition])-1]
}

func (b *simBurrow) poll(partition int, h simHead) {
	b.heads[partition] = append(b.heads[partition], h)
	b.heads[partition] = b.heads[partition][max(0, len(b.heads[partition])-simWindow):]
}

// forget is what happens when Kafka deletes the group's commits along with the topic.
func (b *simBurrow) forget(partition int) { b.commits[partition] = nil }

// commit stores a commit that was made at one moment and seen at another.
func (b *simBurrow) commit(partition int, offset, at, seen int64) {
	if b.commits[partition] == nil {
		b.commits[partition] = ring.New(simWindow)
	}
	h := b.head(partition)
	lag := max(0, h.offset-offset)
	c := &simCommit{Offset: offset, Timestamp: b.epoch + at, ObservedAt: (b.epoch + seen) / 1000 * 1000, Lag: &lag, ofTopic: h.ofTopic}
	if last, ok := b.commits[partition].Prev().Value.(*simCommit); ok && c.Timestamp-last.Timestamp < simDistance {
		c.Timestamp = last.Timestamp
		b.commits[partition].Prev().Value = c
		return
	}
	b.commits[partition].Value = c
	b.commits[partition] = b.commits[partition].Next()
}

// evaluate gives Burrow's result and, for the tests, every partition.
func (b *simBurrow) evaluate(now int64) (*simResult, []*simStatus) {
	result := &simResult{Cluster: "c", Group: simGroupName, Status: "OK", Partitions: []*simStatus{}, Count: simPartitions}
	var all []*simStatus
	full := 0
	for partition := range simPartitions {
		s := &simStatus{Topic: simTopicName, Partition: partition, Status: "OK"}
		var window []*simCommit
		if b.commits[partition] != nil {
			b.commits[partition].Do(func(v any) {
				if c, ok := v.(*simCommit); ok {
					window = append(window, c)
				}
			})
		}
		if len(window) > 0 {
			s.Start, s.End = window[0], window[len(window)-1]
			s.CurrentLag = max(0, b.head(partition).offset-s.End.Offset)
			s.Complete = float64(len(window)) / simWindow
			s.Status = b.status(partition, window, s.CurrentLag, now)
		}
		if s.Complete == 1 {
			full++
		}
		if s.Status != "OK" {
			result.Partitions = append(result.Partitions, s)
			if s.Status != "WARN" {
				result.Status = "ERR"
			} else if result.Status == "OK" {
				result.Status = "WARN"
			}
		}
		if result.MaxLag == nil || s.CurrentLag > result.MaxLag.CurrentLag {
			result.MaxLag = s
		}
		result.TotalLag += s.CurrentLag
		all = append(all, s)
	}
	result.Complete = float64(full) / simPartitions
	return result, all
}

// status has Burrow's rules, in Burrow's order, with allowed-lag 0 and minimum-complete 0.
func (b *simBurrow) status(partition int, window []*simCommit, currentLag, now int64) string {
	if currentLag == 0 {
		return "OK"
	}
	first, last := window[0], window[len(window)-1]
	recentlyZero := false
	for _, h := range b.heads[partition] {
		recentlyZero = recentlyZero || h.offset <= last.Offset
	}
	if (b.epoch+now)/1000*1000-last.Timestamp > last.Timestamp-first.Timestamp && !recentlyZero {
		return "STOP"
	}
	everZero, moved, fell, rewound := *first.Lag == 0, false, false, false
	for i := 1; i < len(window); i++ {
		c, before := window[i], window[i-1]
		everZero = everZero || *c.Lag == 0
		moved = moved || c.Offset != before.Offset
		fell = fell || *c.Lag < *before.Lag
		if c.Offset < before.Offset && !rewound { // only the first one counts
			rewound = true
			if !slices.ContainsFunc(window[i:], func(c *simCommit) bool { return c.Offset >= before.Offset }) {
				return "REWIND"
			}
		}
	}
	switch {
	case everZero:
		return "OK"
	case !moved:
		return "STALL"
	case !fell:
		return "WARN"
	}
	return "OK"
}

// simAnswer is a time lag beside the truth, in seconds.
type simAnswer struct {
	at            float64
	partition     int // -1 for the group
	truth, answer float64
	absent        bool
	bound         bool // the true moment is before the history
}

// simRun is what one run gives: of the receiver, and of the other method at its last poll before.
type simRun struct {
	ours, theirs []simAnswer
	truth        []simAnswer // of the group, every ten seconds
}

func simulate(t *testing.T, scenario *simScenario, refresh time.Duration, length int, seed uint64) (run simRun) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { run = simulateInBubble(t, scenario, refresh, length, seed) })
	return run
}

func simulateInBubble(t *testing.T, scenario *simScenario, refresh time.Duration, length int, seed uint64) (run simRun) {
	t.Helper()
	sink := new(consumertest.MetricsSink)
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), sink)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Shutdown(context.Background())) }()

	random := rand.New(rand.NewPCG(seed, uint64(refresh)))
	epoch := time.Now()
	burrow := &simBurrow{epoch: epoch.UnixMilli()}
	var consumers [simPartitions]*simConsumer
	var committed [simPartitions]int64
	for p := range consumers {
		consumers[p] = &simConsumer{number: p, log: writeLog(random, scenario, p, -simBefore, length)}
		consumers[p].position = consumers[p].log.head(0)
		committed[p] = consumers[p].position
	}
	var heard [simPartitions]int64
	var lowest [simPartitions]int64 // of the heads that the receiver was told of
	for p := range lowest {
		lowest[p] = math.MaxInt64
	}
	var other [simPartitions]simOther
	var otherNow [simPartitions + 1]simAnswer
	topic := 0

	truth := func(p int, at int64) float64 {
		if l := consumers[p].log; committed[p] < l.head(at) {
			return float64(at-l.written(committed[p])) / 1000
		}
		return 0
	}

	refreshMs := refresh.Milliseconds()
	pollAt := random.Int64N(refreshMs)
	otherAt := random.Int64N(30_000)
	notifyAt := 120_000 + random.Int64N(simInterval)
	for p := range simPartitions {
		burrow.poll(p, simHead{consumers[p].log.head(0), topic})
	}
	for now := int64(0); now < int64(length)*1000; now += 50 {
		if scenario.recreated > 0 && now == int64(scenario.recreated)*1000 {
			topic++
			for p := range consumers {
				consumers[p].log = writeLog(random, scenario, p, scenario.recreated+5, length)
				consumers[p].position, committed[p] = 0, 0
				lowest[p] = math.MaxInt64
				burrow.forget(p)
			}
		}
		if now >= pollAt {
			for p := range simPartitions {
				burrow.poll(p, simHead{consumers[p].log.head(now), topic})
			}
			pollAt += refreshMs
		}
		second := int(now / 1000)
		for p, c := range consumers {
			// Each partition has its own moment in the second, with some unrest.
			if due := int64(300 * p); now%1000 < due || now%1000 < due+50 && random.IntN(2) == 0 || c.second == second {
				continue
			}
			c.second = second
			if scenario.consume(c, second) {
				committed[p] = c.position
				burrow.commit(p, c.position, now, now+50)
			}
		}
		if now%10_000 == 0 {
			worst := simAnswer{at: float64(now) / 1000}
			for p := range consumers {
				worst.truth = max(worst.truth, truth(p, now))
			}
			run.truth = append(run.truth, worst)
		}
		if now >= otherAt {
			otherAt += 30_000
			worst := simAnswer{at: float64(now) / 1000, partition: -1}
			for p, c := range consumers {
				otherNow[p] = simAnswer{at: float64(now) / 1000, partition: p, truth: truth(p, now)}
				lag, ok := other[p].poll(now, c.log.head(now), committed[p])
				otherNow[p].answer, otherNow[p].absent = lag, !ok
				worst.truth = max(worst.truth, otherNow[p].truth)
				worst.answer = max(worst.answer, lag)
				worst.absent = worst.absent || !ok
			}
			otherNow[simPartitions] = worst
		}
		if now < notifyAt {
			continue
		}
		notifyAt += simInterval + random.Int64N(100)
		if random.IntN(4) == 0 {
			notifyAt += simInterval
		}
		result, all := burrow.evaluate(now)
		if result.MaxLag.End == nil {
			continue // Burrow does not know the group
		}
		time.Sleep(time.Until(epoch.Add(time.Duration(now+5) * time.Millisecond)))
		body, err := json.Marshal(map[string]any{"Event": map[string]any{"Result": result}})
		require.NoError(t, err)
		require.Empty(t, send(r.webhook, "POST", body))
		sink.Reset()
		require.True(t, r.emitters[0].emit(context.Background(), time.Now(), false))
		require.Len(t, sink.AllMetrics(), 1)
		answers := timeLags(sink.AllMetrics()[0])

		worst := simAnswer{at: float64(now) / 1000, partition: -1}
		for p := range all {
			worst.truth = max(worst.truth, truth(p, now))
		}
		told := result.Partitions
		if result.MaxLag.Status == "OK" {
			told = append(slices.Clip(told), result.MaxLag)
		}
		for _, s := range told {
			if now-heard[s.Partition] >= 300_000 {
				lowest[s.Partition] = math.MaxInt64
			}
			heard[s.Partition] = now
			for _, c := range []*simCommit{s.Start, s.End} {
				if c.ofTopic == topic {
					lowest[s.Partition] = min(lowest[s.Partition], c.Offset+*c.Lag)
				}
			}
			if burrow.head(s.Partition).ofTopic == topic {
				lowest[s.Partition] = min(lowest[s.Partition], s.End.Offset+s.CurrentLag)
			}
			bound := s.CurrentLag > 0 && s.End.Offset < lowest[s.Partition]
			if result.MaxLag == s {
				worst.bound = worst.bound || bound
			}
			if s.Status == "OK" {
				continue
			}
			worst.bound = worst.bound || bound
			a := simAnswer{at: float64(now) / 1000, partition: s.Partition, truth: truth(s.Partition, now), bound: bound}
			lag, ok := answers[s.Partition]
			a.answer, a.absent = lag, !ok
			run.ours = append(run.ours, a)
			run.theirs = append(run.theirs, otherNow[s.Partition])
		}
		lag, ok := answers[-1]
		worst.answer, worst.absent = lag, !ok
		run.ours = append(run.ours, worst)
		run.theirs = append(run.theirs, otherNow[simPartitions])
	}
	return run
}

func writeLog(r *rand.Rand, scenario *simScenario, partition, from, to int) *simLog {
	l := &simLog{begin: 1000 * int64(from), heads: []int64{0}}
	for second := from; second < to+10; second++ {
		// The load repeats before the simulation.
		l.heads = append(l.heads, l.heads[len(l.heads)-1]+int64(scenario.rate(r, partition, second+simBefore)))
	}
	return l
}

// timeLags reads the time lags by partition, and that of the group at -1.
func timeLags(md pmetric.Metrics) map[int]float64 {
	lags := map[int]float64{}
	for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		if metric.Name() != "burrow.partition.time_lag" && metric.Name() != "burrow.group.max_time_lag" {
			continue
		}
		for _, point := range metric.Gauge().DataPoints().All() {
			if point.Flags().NoRecordedValue() {
				continue
			}
			partition := -1
			if v, ok := point.Attributes().Get("partition"); ok {
				partition = int(v.Int())
			}
			lags[partition] = point.DoubleValue()
		}
	}
	return lags
}

// simOther is the method of kafka-lag-exporter: it asks for head and commit itself, every 30 s, keeps 60 points,
// interpolates from the newest on, and extrapolates what is older than all.
type simOther struct{ heads, times []float64 }

func (o *simOther) poll(now, head, committed int64) (seconds float64, ok bool) {
	const size = 60
	h, at := float64(head), float64(now)/1000
	n := len(o.heads)
	switch {
	case n > 0 && h < o.heads[n-1]: // refused
	case n > 1 && h == o.heads[n-1] && h == o.heads[n-2]:
		o.times[n-1] = at
	default:
		o.heads, o.times = append(o.heads, h), append(o.times, at)
		if n++; n > size {
			o.heads, o.times, n = o.heads[1:], o.times[1:], size
		}
	}
	c := float64(committed)
	if c == o.heads[n-1] {
		return 0, true
	}
	if n < 2 {
		return 0, false
	}
	line := func(i, j int) float64 {
		return o.times[i] + (o.times[j]-o.times[i])*(c-o.heads[i])/(o.heads[j]-o.heads[i])
	}
	predicted := line(0, n-1)
	for i := n - 2; i >= 0; i-- {
		if o.heads[i] <= c && c <= o.heads[i+1] {
			if predicted = line(i, i+1); o.heads[i] == o.heads[i+1] {
				predicted = o.times[i+1]
			}
			break
		}
	}
	seconds = at - predicted
	return seconds, !math.IsNaN(seconds) && !math.IsInf(seconds, 0)
}
