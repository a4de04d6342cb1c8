package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lowess/karrot/e2e/internal/prom"
	"github.com/lowess/karrot/e2e/internal/run"
)

// outages are a part of the chain each that goes away and comes back.
var outages = []struct {
	name string
	// away makes the part go away and come back, and does its work in between.
	away func(t *testing.T, c *chain, between func())
}{
	{"zookeeper-away", zookeeperAway},
	{"burrow-killed", burrowKilled},
	{"kafka-away", kafkaAway},
	// Burrow notifies of nothing in its first minute, so this comes when no other outage waits for notifications.
	{"burrow-restarted", burrowRestarted},
	{"karrot-killed", karrotKilled},
}

// pair are two groups of which one breaks and the other one recovers while a part of the chain is away.
type pair struct {
	breaks, recovers     *group
	breaking, recovering *consumer
}

// TestOutages takes one part of a chain away after the other. Groups that nothing happens to keep every series and have
// no event; groups that break or recover meanwhile have one event each.
func TestOutages(t *testing.T) {
	t.Parallel()
	// Burrow notifies of nothing in the minute after its start: longer than that.
	c := startChain(t, 2, 2*time.Minute, quick)
	steady, _ := ordinary(t, c, "steady", 2)
	c.createTopic(t, "steady.slash", 1, nil)
	c.produce(t, "steady.slash", 1, rate, 1)
	c.consume(t, "steady/slash", commitEvery, follow, "steady.slash")
	slash := c.group("steady/slash")
	stuck, stuckMember := ordinary(t, c, "stuck", 2)
	pairs := map[string]*pair{}
	for _, outage := range outages {
		p := &pair{}
		p.breaks, p.breaking = ordinary(t, c, "breaks-in-"+outage.name, 1)
		p.recovers, p.recovering = ordinary(t, c, "recovers-in-"+outage.name, 1)
		pairs[outage.name] = p
	}
	c.at(t, 10*time.Second)
	stuckMember.stop()
	for _, p := range pairs {
		p.recovering.set(hold)
	}
	stuck.until(t, found, 2, "burrow_group_partitions", "status", "stop")
	slash.until(t, 90*time.Second, statusOK, "burrow_group_status")
	for _, p := range pairs {
		p.recovers.until(t, found, statusErr, "burrow_group_status")
		c.notified(t, p.recovers, 1)
		c.notified(t, p.breaks, 1)
	}
	c.notified(t, stuck, 1)

	check := func(t *testing.T) {
		t.Helper()
		steady.onlyStatus(t, statusOK)
		steady.events(t)
		slash.onlyStatus(t, statusOK)
		slash.events(t)
		stuck.events(t, "opened")
		for _, g := range []*group{steady, stuck} {
			g.checkGaps(t, false, groupSeries...)
		}
		slash.checkGaps(t, false, "burrow_group_status", "burrow_group_total_lag")
	}
	t.Run("before", check)
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			p := pairs[outage.name]
			p.breaks.events(t)
			p.recovers.events(t, "opened")
			begun := time.Now()
			c.outageBegan = begun
			outage.away(t, c, func() {
				p.breaking.set(hold)
				p.recovering.set(follow)
			})
			p.recovers.until(t, 2*found, statusOK, "burrow_group_status")
			p.breaks.until(t, 2*found, statusErr, "burrow_group_status")
			c.settle(t)
			check(t)
			p.breaks.events(t, "opened")
			p.recovers.events(t, "opened", "ended")
			for _, g := range []*group{p.breaks, p.recovers} {
				g.checkGaps(t, false, "burrow_group_status", "burrow_group_total_lag", "burrow_group_incidents_total")
			}
			t.Logf("%s took %s", outage.name, time.Since(begun).Round(time.Second))
		})
	}
	t.Run("after", func(t *testing.T) {
		// Nothing of what happened in one outage was undone by a later one.
		for _, p := range pairs {
			if len(names(c.incidents.of(p.breaks.name))) > 0 {
				p.breaks.events(t, "opened")
				p.recovers.events(t, "opened", "ended")
			}
		}
		c.told.checkRefused(t)
	})
}

// notified waits until n more notifications of a group than now have passed.
func (c *chain) notified(t testing.TB, g *group, n int) {
	t.Helper()
	before := c.told.count(g.name, "notification")
	run.Until(t, found, "Burrow notifies of "+g.name, func() error {
		if c.told.count(g.name, "notification") < before+n {
			return errors.New("not yet")
		}
		return nil
	})
}

// settle waits until two more polls have passed. After one Karrot may still wait for a second one that says the same.
func (c *chain) settle(t testing.TB) {
	t.Helper()
	before := c.told.count("steady", "poll")
	run.Until(t, found, "Karrot polls Burrow", func() error {
		if n := c.told.count("steady", "poll") - before; n < 3 {
			return fmt.Errorf("%d polls", n)
		}
		return nil
	})
}

// rests waits out the time of an outage.
func rests(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.FailNow()
	}
}

// Karrot's own metrics that tell what is away: docs/operating.md has them by outage.
const (
	apiFailures      = "otelcol_receiver_burrow_api_failures_total"
	lastNotification = "otelcol_receiver_burrow_last_notification_timestamp_seconds"
	lastMoved        = "otelcol_receiver_burrow_last_moved_timestamp_seconds"
)

// own is one of Karrot's own metrics.
func (c *chain) own(t testing.TB, name string) float64 {
	t.Helper()
	text, err := prom.Fetch(t.Context(), "http://"+c.telemetryAddress+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := prom.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for id, value := range page {
		if strings.HasPrefix(id, name+"{") {
			return value
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// tellsAsEver demands that Burrow is asked and notifies as if nothing had happened.
func (c *chain) tellsAsEver(t testing.TB, failures float64) {
	t.Helper()
	if now, silent := c.own(t, apiFailures), c.since(t, lastNotification); now != failures || silent > 2*notifyEvery*time.Second {
		t.Errorf("%v requests to Burrow's API failed, and its last notification was %s ago", now-failures, silent)
	}
}

// since is how long ago the time was that one of Karrot's own metrics tells.
func (c *chain) since(t testing.TB, name string) time.Duration {
	t.Helper()
	return time.Since(time.UnixMilli(int64(1000 * c.own(t, name))))
}

// zookeeperAway kills ZooKeeper. The Burrow that has the lock keeps it.
func zookeeperAway(t *testing.T, c *chain, between func()) {
	failures := c.own(t, apiFailures)
	c.zookeeper.Kill(t)
	between()
	rests(t, 15*time.Second)
	c.tellsAsEver(t, failures)
	if age := c.since(t, lastMoved); age > staleness {
		t.Errorf("nothing has moved for %s, without ZooKeeper", age)
	}
	c.startZooKeeper(c.t)
	c.zookeeper.Listens(t, startTime, c.zookeeperAddress)
}

// burrowRestarted restarts the Burrow that Karrot polls, and then the other one.
func burrowRestarted(t *testing.T, c *chain, between func()) {
	c.burrows[0].Stop(t)
	between()
	c.pollWaits(t)
	c.startBurrow(c.t, 0)
	c.waitForBurrow(t, 0)
	c.settle(t)
	c.burrows[1].Stop(t)
	c.startBurrow(c.t, 1)
	c.waitForBurrow(t, 1)
}

// burrowKilled kills the Burrow that Karrot polls. The other one must take over before it comes back.
func burrowKilled(t *testing.T, c *chain, between func()) {
	// The other one knows no group, and tells nothing, before it has run for a minute.
	c.notifies(t, 1)
	failures := c.own(t, apiFailures)
	c.burrows[0].Kill(t)
	between()
	steady := &group{chain: c, name: "steady"}
	c.notified(t, steady, 3)
	c.pollWaits(t)
	// The proxy waits for eight seconds, and then the request has failed.
	run.Until(t, found, "requests fail", func() error {
		if c.own(t, apiFailures) == failures {
			return errors.New("none did")
		}
		return nil
	})
	c.pollWaits(t)
	c.startBurrow(c.t, 0)
	c.waitForBurrow(t, 0)
}

// pollWaits waits until Karrot asks a Burrow that is not there, so that this poll has Burrow's first answer.
func (c *chain) pollWaits(t testing.TB) {
	t.Helper()
	run.Until(t, 3*pollEvery*time.Second, "Karrot asks a Burrow that is away", func() error {
		if !c.told.someWait() {
			return errors.New("it does not")
		}
		return nil
	})
}

// notifies waits until a Burrow would notify if it had the lock.
func (c *chain) notifies(t testing.TB, i int) {
	t.Helper()
	const silence = 65 * time.Second
	rests(t, time.Until(c.burrows[i].started.Add(silence)))
}

// kafkaAway kills Kafka for half a minute. Groups that are to stay OK have read everything before: Burrow calls others
// stopped, and rightly so.
func kafkaAway(t *testing.T, c *chain, between func()) {
	pause := func(paused bool) {
		for _, p := range c.producers.all() {
			p.pause(paused)
		}
	}
	pause(true)
	run.Until(t, found, "consumers and Burrow catch up", func() error {
		page, err := c.page(t)
		if err != nil {
			return err
		}
		for _, name := range []string{"steady", "steady/slash"} {
			g := &group{chain: c, name: name}
			if problem := g.differs(page); problem != "" {
				return fmt.Errorf("%s: %s", name, problem)
			}
			if lag := page[g.id("burrow_group_total_lag")]; lag != 0 {
				return fmt.Errorf("%s: lag %v", name, lag)
			}
		}
		return nil
	})
	failures := c.own(t, apiFailures)
	c.kafka.Kill(t)
	between()
	rests(t, 30*time.Second)
	c.tellsAsEver(t, failures)
	if age := c.since(t, lastMoved); age < 25*time.Second {
		t.Errorf("without Kafka, something has moved %s ago", age)
	}
	c.startKafka(c.t)
	c.waitForKafka(t)
	pause(false)
}

// karrotKilled kills Karrot, which has its storage when it comes back.
func karrotKilled(t *testing.T, c *chain, between func()) {
	between()
	before, err := prom.Fetch(context.Background(), "http://"+c.pageAddress+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	c.karrot.Kill(t)
	c.startKarrot(c.t)
	c.waitForKarrot(t)
	// Everything is there from the first page on, with the counts of before.
	var after prom.Page
	run.Until(t, 5*time.Second, "the page is there again", func() error {
		text, err := prom.Fetch(context.Background(), "http://"+c.pageAddress+"/metrics")
		if err != nil {
			return err
		}
		if after, err = prom.Parse(text); err == nil && len(after) == 0 {
			err = errors.New("it is empty")
		}
		return err
	})
	was, err := prom.Parse(before)
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	for id, value := range was {
		got, found := after[id]
		switch {
		// Heads are not stored, and come with the first poll. So do time lags.
		case !found && !strings.Contains(id, "_time_lag_") && !strings.HasPrefix(id, "burrow_topic_offset"):
			problems = append(problems, id+" is missing")
		case found && strings.HasPrefix(id, "burrow_group_incidents_total") && got != value:
			problems = append(problems, fmt.Sprintf("%s is %v, was %v", id, got, value))
		}
	}
	if slices.Sort(problems); len(problems) > 0 {
		t.Errorf("of %d series after the restart: %s", len(was), strings.Join(problems[:min(10, len(problems))], ", "))
	}
}
