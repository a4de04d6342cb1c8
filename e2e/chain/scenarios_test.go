package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lowess/karrot/e2e/internal/prom"
	"github.com/lowess/karrot/e2e/internal/run"
)

const (
	// rate is the time between two records of a partition.
	rate = 200 * time.Millisecond
	// turn is when consumers begin to behave badly: before Burrow's first notification, so that polls see it first.
	turn = 20 * time.Second
	// back is when they behave again: after the first notifications, 60 to 70 s after Burrow's start.
	back = 75 * time.Second
	// end is when the scenarios have been watched for long enough.
	end = 115 * time.Second
	// found is how long Burrow and Karrot may need to see what has changed: ten heads or ten commits, a poll, and the
	// verdict's time in Burrow's cache.
	found = 45 * time.Second
)

// TestChain has one scenario a group or two, all at the same time in one chain.
func TestChain(t *testing.T) {
	t.Parallel()
	c := startChain(t, 1, 40*time.Second, quick)
	t.Run("scenarios", func(t *testing.T) {
		for _, scenario := range []struct {
			name string
			play func(*testing.T, *chain)
		}{
			{"healthy", healthy},
			{"slow", slow},
			{"stopped", stopped},
			{"stalled", stalled},
			{"rewound", rewound},
			{"wide", wide},
			{"transactional", transactional},
			{"compacted", compacted},
			{"bursty", bursty},
			{"sparse", sparse},
			{"away", away},
			{"group-deleted", groupDeleted},
			{"topic-recreated", topicRecreated},
			{"names", oddNames},
			{"nothing-committed", nothingCommitted},
			{"one-variable", oneVariable},
		} {
			t.Run(scenario.name, func(t *testing.T) {
				t.Parallel()
				scenario.play(t, c)
			})
		}
	})
	t.Run("rest", func(t *testing.T) { rest(t, c) })
	t.Run("time-lag", func(t *testing.T) { checkTimeLags(t, c) })
	c.told.checkRefused(t)
}

// ordinary starts a producer and a group of one consumer on a topic of the same name.
func ordinary(t *testing.T, c *chain, name string, partitions int32) (*group, *consumer) {
	t.Helper()
	c.createTopic(t, name, partitions, nil)
	c.produce(t, name, partitions, rate, 1)
	return c.group(name), c.consume(t, name, commitEvery, follow, name)
}

// oneVariable starts a second Karrot that is told nothing but where Burrow's API is. A minute later it has the group, and
// all that Burrow tells of it.
func oneVariable(t *testing.T, c *chain) {
	g, _ := ordinary(t, c, "one-variable", 2)
	g.until(t, found, 1, "burrow_group_complete_ratio")
	a := run.Addresses(t, 4)
	_, telemetryPort, _ := strings.Cut(a[3], ":")
	second := run.Program{
		Name: "karrot-one-variable", Path: built(t, "KARROT_BIN", "bin/karrot"), Dir: c.dir,
		Env: []string{
			"KARROT_BURROW_API=http://" + c.burrows[0].api,
			// So that it can run beside the other one.
			"KARROT_ENDPOINT=" + a[0], "KARROT_PROMETHEUS_ENDPOINT=" + a[1], "KARROT_HEALTH_ENDPOINT=" + a[2], "KARROT_TELEMETRY_PORT=" + telemetryPort,
		},
	}.Start(t)
	run.Until(t, time.Minute, "the group is on /metrics of the second Karrot", func() error {
		if second.Exited() {
			return errors.New("it has ended")
		}
		text, err := prom.Fetch(t.Context(), "http://"+a[1]+"/metrics")
		if err != nil {
			return err
		}
		page, err := prom.Parse(text)
		if err != nil {
			return err
		}
		for _, id := range []string{
			g.id("burrow_group_status"), g.id("burrow_group_total_lag"), g.id("burrow_partition_lag", "topic", g.name, "partition", "0"),
			g.id("burrow_partition_lag", "topic", g.name, "partition", "1"),
		} {
			if _, found := page[id]; !found {
				return fmt.Errorf("there is no %s", id)
			}
		}
		return nil
	})
}

func healthy(t *testing.T, c *chain) {
	g, _ := ordinary(t, c, "healthy", 3)
	g.until(t, found, 1, "burrow_group_complete_ratio")
	g.until(t, found, 3, "burrow_group_partitions", "status", "ok")
	c.at(t, end)
	g.onlyStatus(t, statusOK)
	g.events(t)
	g.checkLag(t)
	g.checkGaps(t, false, append(slices.Clone(groupSeries), timeLagSeries...)...)
}

// timeLagSeries are there as soon as heads are known, with polling.
var timeLagSeries = []string{"burrow_group_max_time_lag_seconds", "burrow_partition_time_lag_seconds"}

// groupSeries are those that a group has as long as it is known.
var groupSeries = []string{
	"burrow_group_status", "burrow_group_total_lag", "burrow_group_max_lag", "burrow_group_complete_ratio", "burrow_group_partitions",
	"burrow_group_incidents_total", "burrow_partition_status", "burrow_partition_lag", "burrow_partition_committed_offset",
}

// badSeries are those that a stopped or stalled group has in addition.
var badSeries = append(slices.Clone(groupSeries), "burrow_group_incident_duration_seconds", "burrow_group_max_time_lag_seconds", "burrow_partition_time_lag_seconds")

func slow(t *testing.T, c *chain) {
	c.createTopic(t, "slow", 2, nil)
	c.produce(t, "slow", 2, rate, 1)
	// Burrow calls a group slow if its lag falls at no commit. So the commits are further apart than the heads.
	c.consume(t, "slow", 2*offsetRefresh*time.Second, advance(4), "slow")
	g := c.group("slow")
	g.until(t, found, statusWarn, "burrow_group_status")
	g.until(t, found, 2, "burrow_group_partitions", "status", "warn")
	c.at(t, end)
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

func stopped(t *testing.T, c *chain) {
	g, member := ordinary(t, c, "stopped", 3)
	c.at(t, turn)
	member.stop()
	g.until(t, found, 3, "burrow_group_partitions", "status", "stop")
	g.until(t, found, statusErr, "burrow_group_status")
	for partition := range 3 {
		g.until(t, found, statusStop, "burrow_partition_status", "topic", "stopped", "partition", strconv.Itoa(partition))
	}
	c.at(t, end)
	g.until(t, time.Second, 3, "burrow_group_partitions", "status", "stop")
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, badSeries...)
}

func stalled(t *testing.T, c *chain) {
	g, member := ordinary(t, c, "stalled", 3)
	c.at(t, turn)
	member.set(hold)
	g.until(t, found, 3, "burrow_group_partitions", "status", "stall")
	g.until(t, found, statusErr, "burrow_group_status")
	c.at(t, end)
	g.until(t, time.Second, 3, "burrow_group_partitions", "status", "stall")
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, badSeries...)
}

func rewound(t *testing.T, c *chain) {
	g, member := ordinary(t, c, "rewound", 2)
	g.until(t, found, statusOK, "burrow_group_status")
	c.at(t, 2*turn)
	// Before the old offset is reached again, in 25 s, some commits pass.
	member.set(rewind(100, advance(4)))
	g.until(t, found, 2, "burrow_group_partitions", "status", "rewind")
	g.until(t, found, statusErr, "burrow_group_status")
	c.at(t, back)
	member.set(follow)
	g.until(t, found, statusOK, "burrow_group_status")
	c.at(t, end)
	events := g.incidents.of(g.name)
	if problems := contradictions(events); len(problems) > 0 {
		t.Errorf("%v in %v", problems, events)
	}
	// Burrow may find it OK between the rewinding and the catching up. At least one incident was, and none is.
	if got := names(events); len(got) < 2 || got[0] != "opened" || got[len(got)-1] != "ended" {
		t.Errorf("events: %v", events)
	}
	g.events(t, names(events)...)
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

// wide has many partitions of two topics, of which each fourth one is stalled.
func wide(t *testing.T, c *chain) {
	const many, few = 24, 2
	c.createTopic(t, "wide.many", many, nil)
	c.createTopic(t, "wide.few", few, nil)
	c.produce(t, "wide.many", many, 2*rate, 1)
	c.produce(t, "wide.few", few, rate, 1)
	member := c.consume(t, "wide", commitEvery, follow, "wide.many", "wide.few")
	g := c.group("wide")
	c.at(t, turn)
	member.set(func(p partitionKey, position, committed int64) (int64, bool) {
		if p.topic == "wide.many" && p.partition%4 == 3 {
			return committed, true
		}
		return position, true
	})
	g.until(t, found, many/4, "burrow_group_partitions", "status", "stall")
	c.at(t, end)
	for partition := range many {
		want := float64(statusOK)
		if partition%4 == 3 {
			want = statusStall
		}
		g.until(t, time.Second, want, "burrow_partition_status", "topic", "wide.many", "partition", strconv.Itoa(partition))
	}
	g.until(t, time.Second, many/4, "burrow_group_partitions", "status", "stall")
	g.until(t, time.Second, many+few-many/4, "burrow_group_partitions", "status", "ok")
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

func transactional(t *testing.T, c *chain) {
	c.createTopic(t, "transactional", 2, nil)
	c.produceTransactions(t, "transactional", 2, time.Second, 5)
	c.consume(t, "transactional", commitEvery, follow, "transactional")
	g := c.group("transactional")
	g.until(t, found, 2, "burrow_group_partitions", "status", "ok")
	c.at(t, end)
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
	if problems := contradictions(g.incidents.of(g.name)); len(problems) > 0 {
		t.Error(problems)
	}
}

func compacted(t *testing.T, c *chain) {
	c.createTopic(t, "compacted", 1, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "3000", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "5000",
	})
	c.produce(t, "compacted", 1, rate, 1)
	c.consume(t, "compacted", 2*offsetRefresh*time.Second, advance(4), "compacted")
	g := c.group("compacted")
	g.until(t, found, statusWarn, "burrow_group_status")
	c.at(t, end)
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
	if !c.hasHoles(t, "compacted") {
		t.Error("Kafka compacted nothing, so nothing was tested")
	}
}

func bursty(t *testing.T, c *chain) {
	c.createTopic(t, "bursty", 1, nil)
	c.produce(t, "bursty", 1, 15*time.Second, 80)
	c.consume(t, "bursty", commitEvery, advance(10), "bursty")
	g := c.group("bursty")
	g.until(t, found, 1, "burrow_group_partitions", "status", "ok")
	c.at(t, end)
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

// sparse has a record only now and then, and its consumer stops.
func sparse(t *testing.T, c *chain) {
	c.createTopic(t, "sparse", 1, nil)
	c.produce(t, "sparse", 1, 8*time.Second, 1)
	member := c.consume(t, "sparse", commitEvery, follow, "sparse")
	g := c.group("sparse")
	// When a single record was written is known to half the distance of two heads, 5 s at the least with the shipped api.offsets_interval.
	g.within = 2.5
	g.until(t, found, statusOK, "burrow_group_status")
	c.at(t, 2*turn)
	member.stop()
	g.until(t, found+20*time.Second, statusErr, "burrow_group_status")
	c.at(t, end)
	g.events(t, "opened")
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

// away has a consumer that leaves, and comes back after Burrow has notified of it.
func away(t *testing.T, c *chain) {
	g, member := ordinary(t, c, "away", 2)
	c.at(t, turn)
	member.stop()
	g.until(t, found, 2, "burrow_group_partitions", "status", "stop")
	c.at(t, back)
	g.until(t, time.Second, 2, "burrow_group_partitions", "status", "stop")
	g.events(t, "opened")
	c.consume(t, "away", commitEvery, follow, "away")
	g.until(t, found, statusOK, "burrow_group_status")
	c.at(t, end)
	g.until(t, time.Second, 2, "burrow_group_partitions", "status", "ok")
	g.events(t, "opened", "ended")
	g.checkLag(t)
	g.checkGaps(t, false, groupSeries...)
}

func groupDeleted(t *testing.T, c *chain) {
	bad, badMember := ordinary(t, c, "deleted.bad", 2)
	good, goodMember := ordinary(t, c, "deleted.good", 2)
	c.at(t, turn)
	badMember.stop()
	bad.until(t, found, statusErr, "burrow_group_status")
	good.until(t, found, statusOK, "burrow_group_status")
	c.at(t, back)
	goodMember.stop()
	for _, g := range []*group{bad, good} {
		c.deleteGroup(t, g.name)
	}
	for _, g := range []*group{bad, good} {
		// Two polls must lack it, and one may just have been.
		c.untilGone(t, 3*pollEvery*time.Second+5*time.Second, fmt.Sprintf(`{group=%q}`, g.name), fmt.Sprintf(`group=%q`, g.name))
	}
	c.at(t, end)
	for _, g := range []*group{bad, good} {
		if found, err := c.series(t, fmt.Sprintf(`group=%q`, g.name)); err != nil || len(found) > 0 {
			t.Errorf("%s came back: %v %v", g.name, found, err)
		}
		g.checkGaps(t, true, groupSeries...)
	}
	events := c.incidents.of(bad.name)
	if got := names(events); !slices.Equal(got, []string{"opened", "ended"}) {
		t.Errorf("events of %s: %v", bad.name, events)
	} else if last := events[len(events)-1]; last.endedBy != "gone" {
		t.Errorf("%s ended by %q", bad.name, last.endedBy)
	}
	if events := c.incidents.of(good.name); len(events) > 0 {
		t.Errorf("events of %s: %v", good.name, events)
	}
}

// topicRecreated has a topic that is deleted and made again, and begins at offset 0 again, beside one that stays.
func topicRecreated(t *testing.T, c *chain) {
	g := c.group("recreated")
	c.createTopic(t, "recreated.stays", 1, nil)
	c.createTopic(t, "recreated.gone", 4, nil)
	c.produce(t, "recreated.stays", 1, rate, 1)
	p := c.produce(t, "recreated.gone", 4, rate, 1)
	member := c.consume(t, g.name, commitEvery, follow, "recreated.stays", "recreated.gone")
	g.until(t, found, 5, "burrow_group_partitions", "status", "ok")
	g.until(t, found, statusOK, "burrow_partition_status", "topic", "recreated.gone", "partition", "3")

	c.at(t, 2*turn)
	p.stop()
	member.stop()
	c.deleteTopic(t, "recreated.gone")
	member = c.consume(t, g.name, commitEvery, follow, "recreated.stays")
	c.untilGone(t, 2*topicRefresh*time.Second+3*pollEvery*time.Second+5*time.Second, `{topic="recreated.gone"}`, `topic="recreated.gone"`)
	g.until(t, found, 1, "burrow_group_partitions", "status", "ok")

	member.stop()
	c.createTopic(t, "recreated.gone", 2, nil)
	c.produce(t, "recreated.gone", 2, rate, 1)
	c.consume(t, g.name, commitEvery, follow, "recreated.stays", "recreated.gone")
	g.until(t, found, 3, "burrow_group_partitions", "status", "ok")
	g.until(t, found, statusOK, "burrow_partition_status", "topic", "recreated.gone", "partition", "1")
	c.at(t, end)
	if found, err := c.series(t, `topic="recreated.gone"`, `partition="3"`); err != nil || len(found) > 0 {
		t.Errorf("a partition that is not there any more: %v %v", found, err)
	}
	g.onlyStatus(t, statusOK)
	g.events(t)
}

func oddNames(t *testing.T, c *chain) {
	groups := map[string]string{
		"team.orders-v2_x":      "names.dots-and_dashes",
		"Заказы":                "names.cyrillic",
		"with space":            "names.space",
		`quo"te\back`:           "names.quote",
		"percent%20+plus&and=?": "names.percent",
		// Burrow's API has no address for it. It is known from notifications.
		"team/orders": "names.slash",
	}
	for name, topic := range groups {
		c.createTopic(t, topic, 1, nil)
		c.produce(t, topic, 1, 2*rate, 1)
		c.consume(t, name, commitEvery, follow, topic)
	}
	for name := range groups {
		g := c.group(name)
		g.until(t, 90*time.Second, statusOK, "burrow_group_status")
		g.until(t, found, 1, "burrow_group_partitions", "status", "ok")
	}
	c.at(t, end)
	for name, topic := range groups {
		g := &group{chain: c, name: name}
		g.onlyStatus(t, statusOK)
		g.checkLag(t)
		g.events(t)
		g.checkGaps(t, false, "burrow_group_status", "burrow_group_total_lag", "burrow_group_partitions")
		if name != "team/orders" {
			g.until(t, time.Second, statusOK, "burrow_partition_status", "topic", topic, "partition", "0")
		}
	}
}

// nothingCommitted has a member and no commit: there is nothing to be said about it.
func nothingCommitted(t *testing.T, c *chain) {
	c.createTopic(t, "nothing", 1, nil)
	c.produce(t, "nothing", 1, rate, 1)
	member := c.consume(t, "nothing", commitEvery, silent, "nothing")
	c.at(t, end)
	member.stop()
	if series := c.query(t, `count_over_time({group="nothing"}[20m])`); len(series) > 0 {
		t.Errorf("a group that has never committed has series, as %v", series[0])
	}
}

// checkTimeLags publishes how far time lags were from the truth.
func checkTimeLags(t *testing.T, c *chain) {
	t.Logf("in seconds, what was in Prometheus less the truth from Kafka: at each scrape, where it had changed, and how far\n"+
		"that was from everything that was true in the time that Burrow's answer may have been old\n%s", c.timeLagTable(t))
	for _, g := range c.groups.all() {
		e := g.errorsOf(t)
		if _, median, p95, _ := spread(e.wrong); len(e.wrong) > 0 && (median > g.within || p95 > 5) {
			t.Errorf("time lag of %s: median error %.1f s, p95 %.1f s", g.name, median, p95)
		}
	}
}

// rest makes everything stand still. Then Karrot and Kafka must say exactly the same.
func rest(t *testing.T, c *chain) {
	for _, p := range c.producers.all() {
		p.pause(true)
	}
	for _, m := range c.consumers.all() {
		m.set(hold)
	}
	c.still = time.Now()
	compare := func() error {
		page, err := c.page(t)
		if err != nil {
			return err
		}
		for _, g := range c.groups.all() {
			if problem := g.differs(page); problem != "" {
				return fmt.Errorf("%s: %s", g.name, problem)
			}
		}
		return nil
	}
	run.Until(t, 2*staleness+20*time.Second, "Karrot says what Kafka says", compare)
	t.Logf("Karrot said the same as Kafka of %d groups %s after the last record", len(c.groups.all()), time.Since(c.still).Round(100*time.Millisecond))
	// Another poll and notification change nothing.
	ctx, cancel := context.WithTimeout(t.Context(), (pollEvery+expireCache+notifyEvery)*time.Second)
	defer cancel()
	every(ctx, 500*time.Millisecond, func() {
		if err := compare(); err != nil {
			t.Error(err)
			cancel()
		}
	})
}
