package chain

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

var timeLagReport = flag.Bool("timelag-report", false, "measure time lags with real intervals, and write them into docs/time-lag.md")

// The moments of the report.
const (
	lagsBegin = 40 * time.Second
	lagsBack  = 190 * time.Second
	lagsEnd   = 240 * time.Second
)

// lagScenarios are loads and consumers, and what becomes of them.
var lagScenarios = []struct {
	name, about string
	play        func(*testing.T, *chain) *group
}{
	{"steady", "read at once", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, _ := c.lagGroup(t, "lag-steady", 3, evenly, follow)
		return g
	}},
	{"late", "committed 15 s after it was read", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, _ := c.lagGroup(t, "lag-late", 1, evenly, behind(15))
		return g
	}},
	{"slow", "from then on, a third of the load is not read", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, member := c.lagGroup(t, "lag-slow", 2, evenly, follow)
		c.at(t, lagsBegin)
		member.set(advance(7))
		return g
	}},
	{"stopped", "stops for two and a half minutes", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, member := c.lagGroup(t, "lag-stopped", 3, evenly, follow)
		c.at(t, lagsBegin)
		member.stop()
		c.at(t, lagsBack)
		c.consume(t, g.name, commitEvery, follow, g.name)
		return g
	}},
	{"stalled", "commits the same offsets for two and a half minutes", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, member := c.lagGroup(t, "lag-stalled", 3, evenly, follow)
		c.at(t, lagsBegin)
		member.set(hold)
		c.at(t, lagsBack)
		member.set(follow)
		return g
	}},
	{"rewound", "goes back by 1,000 records, and reads them at twice the load", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, member := c.lagGroup(t, "lag-rewound", 2, evenly, follow)
		c.at(t, lagsBegin+20*time.Second)
		member.set(rewind(1000, advance(20)))
		return g
	}},
	{"bursty", "60 a second for 15 s of each 75 s, read at 30 a second", func(t *testing.T, c *chain) *group {
		t.Helper()
		bursts := burstsOf(15, 75)
		g, _ := c.lagGroup(t, "lag-bursty", 1, func(_, second int) int { return bursts(second) }, advance(30))
		return g
	}},
	{"uneven", "50, 5 and a twentieth of a record a second, committed 5, 15 and 60 s after they were read", func(t *testing.T, c *chain) *group {
		t.Helper()
		rules := []commitRule{behind(5), behind(15), behind(60)}
		g, _ := c.lagGroup(t, "lag-uneven", 3, func(partition, _ int) int {
			return []int{45 + rand.IntN(11), 2 + rand.IntN(7), oneIn(20)}[partition]
		}, func(p partitionKey, position, committed int64) (int64, bool) {
			return rules[p.partition](p, position, committed)
		})
		return g
	}},
	{"transactional", "transactions of a second, each third one aborted; stops for two and a half minutes", func(t *testing.T, c *chain) *group {
		t.Helper()
		const name = "lag-transactional"
		c.createTopic(t, name, 2, nil)
		c.produceTransactions(t, name, 2, time.Second, 5)
		member := c.consume(t, name, commitEvery, follow, name)
		c.at(t, lagsBegin)
		member.stop()
		c.at(t, lagsBack)
		c.consume(t, name, commitEvery, follow, name)
		return c.group(name)
	}},
	{"wide", "24 partitions, each fourth of which is stalled for two and a half minutes", func(t *testing.T, c *chain) *group {
		t.Helper()
		g, member := c.lagGroup(t, "lag-wide", 24, func(_, _ int) int { return 1 + rand.IntN(5) }, follow)
		c.at(t, lagsBegin)
		member.set(func(p partitionKey, position, committed int64) (int64, bool) {
			if p.partition%4 == 3 {
				return committed, true
			}
			return position, true
		})
		c.at(t, lagsBack)
		member.set(follow)
		return g
	}},
	{"recreated", "the topic is deleted, and recreated at once, twice; committed 15 s after it was read", func(t *testing.T, c *chain) *group {
		t.Helper()
		return c.recreatedGroup(t, "lag-recreated", []time.Duration{70 * time.Second, 150 * time.Second}, 0, 2, 2)
	}},
	{"fewer", "the topic is deleted, and recreated after 20 s with a third of its partitions; committed 15 s after it was read", func(t *testing.T, c *chain) *group {
		t.Helper()
		return c.recreatedGroup(t, "lag-fewer", []time.Duration{70 * time.Second}, 20*time.Second, 3, 1)
	}},
}

// recreatedGroup is a group whose topic is recreated at some moments, and is not there for some time before.
func (c *chain) recreatedGroup(t *testing.T, name string, moments []time.Duration, away time.Duration, partitions, after int32) *group {
	t.Helper()
	c.createTopic(t, name, partitions, nil)
	p, member := c.load(t, name, partitions, evenly), c.consume(t, name, commitEvery, behind(15), name)
	for _, moment := range moments {
		c.at(t, moment)
		p.stop()
		member.stop()
		c.deleteTopic(t, name)
		rests(t, away)
		c.createTopic(t, name, after, nil)
		p = c.load(t, name, after, evenly)
		c.untilForgotten(t, name, name)
		member = c.consume(t, name, commitEvery, behind(15), name)
	}
	return c.group(name)
}

func evenly(_, second int) int { return unevenLoad(second) }

func oneIn(seconds int) int {
	if rand.IntN(seconds) == 0 {
		return 1
	}
	return 0
}

// lagGroup starts a topic with a load and the group that reads it.
func (c *chain) lagGroup(t *testing.T, name string, partitions int32, load func(partition, second int) int, rule commitRule) (*group, *consumer) {
	t.Helper()
	c.createTopic(t, name, partitions, nil)
	c.load(t, name, partitions, load)
	return c.group(name), c.consume(t, name, commitEvery, rule, name)
}

// TestTimeLags measures time lags with everything as it is shipped, but for polling every 10 s. Burrow looks for new topics more often, because
// they are made after its start.
func TestTimeLags(t *testing.T) {
	if !*timeLagReport {
		t.Skip("run make chain-timelag: it takes five minutes")
	}
	c := startChain(t, 1, 5*time.Minute, pace{topicRefresh: topicRefresh, pollEvery: 10})
	groups := make([]*group, len(lagScenarios))
	t.Run("scenarios", func(t *testing.T) {
		for i, scenario := range lagScenarios {
			t.Run(scenario.name, func(t *testing.T) {
				t.Parallel()
				groups[i] = scenario.play(t, c)
				c.at(t, lagsEnd)
			})
		}
	})
	c.told.checkRefused(t)
	rows := [][]string{{"Scenario", "", "n", "fresh: median", "p95", "worst", "lower bounds", "most above", "standing: median", "p95", "worst", "missing"}}
	for i, scenario := range lagScenarios {
		if groups[i] == nil {
			t.FailNow()
		}
		e := groups[i].errorsOf(t)
		_, median, p95, worst := spread(e.fresh)
		_, standing, standing95, standingWorst := spread(e.standing)
		above := "-"
		if len(e.bounds) > 0 {
			above = fmt.Sprintf("%.1f", max(0, slices.Max(e.bounds)))
		}
		number := func(v float64) string { return fmt.Sprintf("%.1f", v) }
		rows = append(rows, []string{
			scenario.name, scenario.about, strconv.Itoa(len(e.fresh)), number(median), number(p95), number(worst), strconv.Itoa(len(e.bounds)), above,
			number(standing), number(standing95), number(standingWorst), strconv.Itoa(e.missing),
		})
	}
	report := markdown(rows)
	t.Log("\n" + report)
	writeBetween(t, filepath.Join(repository, "docs", "time-lag.md"), "make chain-timelag", report)
}
