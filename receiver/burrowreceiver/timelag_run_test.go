package burrowreceiver

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// simSettings are those of Burrow and of Karrot.
type simSettings struct {
	// refresh, cache and distance are Burrow's offset-refresh, expire-cache and min-distance.
	refresh, cache, distance time.Duration
	// poll and heads are Karrot's api.collection_interval and api.offsets_interval; without poll there are notifications alone, without
	// heads they come with the polls.
	poll, heads time.Duration
	// others is how often the other methods ask Kafka.
	others time.Duration
}

// simAnswer is a time lag beside the truth, in seconds.
type simAnswer struct {
	at            float64
	partition     int // simWhole for the group
	truth, answer float64
	absent        bool
	bound         bool // it is a lower bound
}

const simWhole = -1

// appendTo adds an answer to others, unless there is no truth to hold it against.
func (a *simAnswer) appendTo(answers []simAnswer) []simAnswer {
	if a.truth == burrow.Unknown {
		return answers
	}
	return append(answers, *a)
}

// simRun is what one run gives.
type simRun struct {
	// fresh are the receiver's answers when it gave them, standing are those that stood on the page each second.
	fresh, standing []simAnswer
	// exporter and quotient are the other methods' when they gave them, exporterStanding what stood each second.
	exporter, quotient, exporterStanding []simAnswer
}

// simulation is one run that is under way.
type simulation struct {
	t        *testing.T
	scenario *simScenario
	settings simSettings
	random   *rand.Rand
	epoch    time.Time
	now      int64

	consumers [simPartitions]*simConsumer
	committed [simPartitions]int64
	topic     int // which making of the topic it is
	burrow    *simBurrow

	receiver *burrowReceiver
	poller   *poller // nil without polling
	sink     *consumertest.MetricsSink
	// page is what the receiver's metrics say, by partition.
	page map[int]float64

	polled *simResult // what the API told of the group last

	heard  [simPartitions]int64
	lowest [simPartitions]int64 // of the heads that the receiver was told of
	// bound says of a partition that the true moment is before all that the receiver was told.
	bound [simPartitions]bool
	// wholeBound is what the page says of the group.
	wholeBound bool

	exporters [simPartitions]simExporter
	quotient  simQuotient
	exported  simAnswer // of the group, the last

	run simRun
}

func simulate(t *testing.T, scenario *simScenario, settings simSettings, length int, seed uint64) (run simRun) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sink := new(consumertest.MetricsSink)
		cfg := createDefaultConfig().(*Config)
		cfg.Metrics.BurrowGroupTimeLagIsLowerBound.Enabled = true
		if settings.poll > 0 {
			api := cfg.API.GetOrInsertDefault()
			api.CollectionInterval, api.OffsetsInterval = settings.poll, settings.heads
		}
		r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), cfg, sink)
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Shutdown(context.Background())) }()
		s := &simulation{
			t: t, scenario: scenario, settings: settings, receiver: r, sink: sink, page: map[int]float64{},
			random: rand.New(rand.NewPCG(seed, uint64(settings.refresh))), epoch: time.Now(),
		}
		if settings.poll > 0 {
			api, err := burrow.NewAPI(&http.Client{Transport: s}, "http://burrow", 1<<20, burrow.APILimits{MaxPartitions: simPartitions})
			require.NoError(t, err)
			s.poller = newPollerOf(r, api)
		}
		s.play(length)
		run = s.run
	})
	return run
}

// due says that something that happens again and again is to happen now.
func due(next *int64, now int64, every time.Duration) bool {
	if every == 0 || now < *next {
		return false
	}
	*next += every.Milliseconds()
	return true
}

func (s *simulation) play(length int) {
	s.burrow = &simBurrow{
		epoch: s.epoch.UnixMilli() + s.scenario.burrowClock, skew: s.scenario.brokerClock - s.scenario.burrowClock, settings: &s.settings,
	}
	for p := range s.consumers {
		log := writeLog(s.random, s.scenario, p, -simBefore, length)
		s.consumers[p] = &simConsumer{number: p, log: log, position: log.head(0)}
		s.committed[p] = s.consumers[p].position
		s.lowest[p] = math.MaxInt64
	}
	s.refresh()
	phase := func(every time.Duration) int64 {
		if every == 0 {
			return 0
		}
		return s.random.Int64N(every.Milliseconds())
	}
	refreshAt, otherAt, notifyAt := phase(s.settings.refresh), phase(s.settings.others), 120_000+s.random.Int64N(simInterval)
	pollAt, headsAt := phase(s.settings.poll), phase(headsTick)
	tick := headsTick
	if s.settings.heads == 0 {
		tick = 0
	}
	const step = 50
	for ; s.now < int64(length)*1000; s.now += step {
		if at := int(s.now / 1000); s.now%1000 == 0 && s.scenario.recreated != nil && s.scenario.recreated(at) {
			s.recreate(at+5, length)
		}
		if due(&refreshAt, s.now, s.settings.refresh) {
			s.refresh()
		}
		s.consume(step)
		if due(&otherAt, s.now, s.settings.others) {
			s.askKafka()
		}
		if due(&headsAt, s.now, tick) {
			s.waitUntilNow()
			s.poller.pollHeads(context.Background())
		}
		if due(&pollAt, s.now, s.settings.poll) {
			s.pollGroup()
		}
		if s.now >= notifyAt {
			notifyAt += simInterval + s.random.Int64N(100)
			if s.random.IntN(4) == 0 {
				notifyAt += simInterval
			}
			s.notify()
		}
		if s.now%1000 == 0 {
			s.emit()
			s.look()
		}
	}
}

func (s *simulation) recreate(from, length int) {
	s.topic++
	for p, c := range s.consumers {
		c.log = writeLog(s.random, s.scenario, p, from, length)
		c.position, s.committed[p] = 0, burrow.Unknown
		s.lowest[p] = math.MaxInt64
		if !s.scenario.unnoticed {
			s.burrow.forget(p)
		}
	}
}

// refresh is Burrow asking for heads.
func (s *simulation) refresh() {
	for p, c := range s.consumers {
		s.burrow.poll(p, simHead{c.log.head(s.now), s.topic})
	}
}

// consume lets the group commit in each partition at a moment of its own in the second, with some unrest.
func (s *simulation) consume(step int64) {
	second := int(s.now / 1000)
	for p, c := range s.consumers {
		if due := int64(300 * p); s.now%1000 < due || s.now%1000 < due+step && s.random.IntN(2) == 0 || c.second == second {
			continue
		}
		c.second = second
		if s.scenario.consume(c, second) {
			s.committed[p] = c.position
			s.burrow.commit(p, c.position, s.now, s.now+step)
		}
	}
}

func (s *simulation) seconds() float64 { return float64(s.now) / 1000 }

// truth of a partition, or of the worst for simWhole; burrow.Unknown if there is no commit.
func (s *simulation) truth(partition int) float64 {
	if partition != simWhole {
		if s.committed[partition] == burrow.Unknown {
			return burrow.Unknown
		}
		return s.consumers[partition].log.lag(s.committed[partition], s.now)
	}
	worst := float64(burrow.Unknown)
	for p := range s.consumers {
		worst = max(worst, s.truth(p))
	}
	return worst
}

// askKafka lets the other methods work. They have exact heads and commits.
func (s *simulation) askKafka() {
	worst := simAnswer{at: s.seconds(), partition: simWhole, truth: s.truth(simWhole)}
	quotient := worst
	var total, committed int64
	for p, c := range s.consumers {
		a := simAnswer{at: s.seconds(), partition: p, truth: s.truth(p)}
		head := c.log.head(s.now)
		lag, ok := s.exporters[p].poll(s.now, head, max(0, s.committed[p]))
		a.answer, a.absent = lag, !ok
		worst.answer = max(worst.answer, lag)
		worst.absent = worst.absent || !ok
		s.run.exporter = a.appendTo(s.run.exporter)
		total, committed = total+head-max(0, s.committed[p]), committed+max(0, s.committed[p])
	}
	s.exported = worst
	s.run.exporter = worst.appendTo(s.run.exporter)
	lag, ok := s.quotient.poll(s.now, total, committed)
	quotient.answer, quotient.absent = lag, !ok
	s.run.quotient = quotient.appendTo(s.run.quotient)
}

// waitUntilNow brings the receiver's clock to where the simulation is.
func (s *simulation) waitUntilNow() time.Time {
	time.Sleep(time.Until(s.epoch.Add(time.Duration(s.now) * time.Millisecond)))
	return time.Now()
}

// pollGroup is a poll of everything.
func (s *simulation) pollGroup() {
	begin := s.waitUntilNow()
	s.polled = nil
	s.poller.poll(context.Background(), begin)
	s.emit()
	if s.polled == nil {
		return // Burrow does not know the group
	}
	for _, p := range s.polled.all {
		if p.End != nil {
			s.answered(p.Partition)
		}
	}
	s.answered(simWhole)
}

// notify is a notification through the webhook.
func (s *simulation) notify() {
	result := s.burrow.evaluate(s.now)
	if result.MaxLag.End == nil {
		return
	}
	s.waitUntilNow()
	require.Empty(s.t, send(s.receiver.webhook, "POST", result.notification(s.t)))
	told := result.Partitions
	if result.MaxLag.Status == "OK" {
		told = append(slices.Clip(told), result.MaxLag)
	}
	s.evaluated(told)
	s.emit()
	s.answered(simWhole)
	if s.settings.poll > 0 {
		return
	}
	for _, p := range told {
		if p.Status != "OK" {
			s.answered(p.Partition)
		}
	}
}

// told notes a head that the receiver was told of.
func (s *simulation) told(partition int, head simHead) {
	if head.ofTopic == s.topic {
		s.lowest[partition] = min(s.lowest[partition], head.offset)
	}
}

// evaluated notes what the receiver was told of heads, and of which partitions the true moment is before all of it.
func (s *simulation) evaluated(partitions []*simStatus) {
	for _, p := range partitions {
		if p.End == nil {
			continue
		}
		n := p.Partition
		if s.now-s.heard[n] >= defaultExpireAfter.Milliseconds() {
			s.lowest[n] = math.MaxInt64
		}
		s.heard[n] = s.now
		for _, c := range []*simCommit{p.Start, p.End} {
			s.told(n, simHead{c.Offset + *c.Lag, c.ofTopic})
		}
		s.told(n, simHead{p.End.Offset + p.CurrentLag, p.head.ofTopic})
		s.bound[n] = p.CurrentLag > 0 && p.End.Offset < s.lowest[n]
	}
}

// emit hands over, and reads what the page says then: the group at simWhole.
func (s *simulation) emit() {
	s.sink.Reset()
	require.True(s.t, s.receiver.emitters[0].emit(context.Background(), time.Now(), false))
	for _, md := range s.sink.AllMetrics() {
		for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
			switch metric.Name() {
			case "burrow.partition.time_lag", "burrow.group.max_time_lag":
				s.read(metric.Gauge().DataPoints())
			case "burrow.group.time_lag_is_lower_bound":
				for _, point := range metric.Gauge().DataPoints().All() {
					s.wholeBound = point.IntValue() == 1 // and 0 when it ends
				}
			}
		}
	}
}

func (s *simulation) read(points pmetric.NumberDataPointSlice) {
	for _, point := range points.All() {
		partition := simWhole
		if v, ok := point.Attributes().Get("partition"); ok {
			partition = int(v.Int())
		}
		if point.Flags().NoRecordedValue() {
			delete(s.page, partition)
			continue
		}
		v := point.DoubleValue()
		require.True(s.t, v >= 0 && !math.IsInf(v, 0), "%s, %v: a time lag of %v at %v", s.scenario.name, s.settings, v, s.seconds())
		s.page[partition] = v
	}
}

func (s *simulation) onPage(partition int) simAnswer {
	lag, ok := s.page[partition]
	a := simAnswer{at: s.seconds(), partition: partition, truth: s.truth(partition), answer: lag, absent: !ok, bound: s.wholeBound}
	if partition != simWhole {
		a.bound = s.bound[partition]
	}
	return a
}

func (s *simulation) answered(partition int) {
	a := s.onPage(partition)
	s.run.fresh = a.appendTo(s.run.fresh)
}

// look notes what stands on the page, and what the other method said last.
func (s *simulation) look() {
	// Before all of them have said something for the first time there is nothing to compare.
	if s.now < 240_000 {
		return
	}
	standing := s.onPage(simWhole)
	s.run.standing = standing.appendTo(s.run.standing)
	other := s.exported
	other.at, other.truth = standing.at, standing.truth
	s.run.exporterStanding = other.appendTo(s.run.exporterStanding)
}
