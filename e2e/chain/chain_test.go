package chain

import (
	"context"
	"flag"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lowess/karrot/e2e/internal/prom"
	"github.com/lowess/karrot/e2e/internal/run"
)

// chain is servers with producers, consumers and the truth about them.
type chain struct {
	*servers
	// t is that of the whole chain: producers and consumers outlive the scenario that started them.
	t         *testing.T
	admin     *kadm.Client
	truth     *truth
	producers list[*producer]
	consumers list[*consumer]
	groups    list[*group]
	begun     time.Time
	// still is when everything was made to stand still.
	still time.Time
	// outageBegan is when the last outage began.
	outageBegan time.Time

	mu       sync.Mutex
	lastPage prom.Page
	lastAt   time.Time
}

// TestMain lets all scenarios run at the same time, which the number of processors would limit.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "100"); err != nil {
		panic(err)
	}
	m.Run()
}

func startChain(t *testing.T, burrows int, expireAfter time.Duration, pace pace) *chain {
	t.Helper()
	c := &chain{servers: startServers(t, burrows, expireAfter, pace), t: t}
	c.admin = newAdmin(t, c.kafkaAddress)
	c.truth = startTruth(t, c.kafkaAddress)
	c.begun = time.Now()
	return c
}

// page is Karrot's, at most a quarter of a second old: many tests ask for it at the same time.
func (c *chain) page(t testing.TB) (prom.Page, error) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.lastAt) < 250*time.Millisecond {
		return c.lastPage, nil
	}
	text, err := prom.Fetch(t.Context(), "http://"+c.pageAddress+"/metrics")
	if err != nil {
		return nil, err
	}
	c.lastPage, err = prom.Parse(text)
	c.lastAt = time.Now()
	return c.lastPage, err
}

// query asks Prometheus about now.
func (c *chain) query(t testing.TB, query string) []prom.Series {
	t.Helper()
	result, err := prom.Query(t.Context(), "http://"+c.prometheusAddress, query, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// group is a consumer group under test.
type group struct {
	*chain
	name string
	// within is the limit of the median error of its time lags, in seconds.
	within float64
}

func (c *chain) group(name string) *group {
	g := &group{chain: c, name: name, within: 1}
	c.groups.add(g)
	return g
}

// id names a series of the group.
func (g *group) id(name string, labels ...string) string {
	all := map[string]string{"cluster": cluster, "group": g.name}
	for i := 0; i < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return prom.ID(name, all)
}

// until waits until a series of the group has a value.
func (g *group) until(t testing.TB, within time.Duration, want float64, name string, labels ...string) {
	t.Helper()
	id := g.id(name, labels...)
	run.Until(t, within, fmt.Sprintf("%s is %v", id, want), func() error {
		page, err := g.page(t)
		if err != nil {
			return err
		}
		if value, found := page[id]; !found {
			return fmt.Errorf("there is no %s", id)
		} else if value != want {
			return fmt.Errorf("it is %v", value)
		}
		return nil
	})
}

// Burrow's words for the numbers of burrow_group_status and burrow_partition_status.
const (
	statusOK, statusWarn, statusErr       = 1, 2, 3
	statusStop, statusStall, statusRewind = 4, 5, 6
)

// series lists those on the page of which all the parts are in the name.
func (c *chain) series(t testing.TB, parts ...string) ([]string, error) {
	t.Helper()
	page, err := c.page(t)
	var found []string
	for id := range page {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(id, part) }) {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found, err
}

// untilGone waits until the page has no series with all the parts in its name, and then until Prometheus has none, which
// may take a scrape and no longer.
func (c *chain) untilGone(t testing.TB, within time.Duration, selector string, parts ...string) {
	t.Helper()
	run.Until(t, within, fmt.Sprintf("series with %v are gone", parts), func() error {
		found, err := c.series(t, parts...)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("there are %d, as %s", len(found), found[0])
		}
		return err
	})
	time.Sleep(2 * scrapeEvery * time.Second) // what is tested is that no more time passes
	if ghosts := c.query(t, selector); len(ghosts) > 0 {
		t.Errorf("Prometheus has %d series with %v that are not on the page, as %v", len(ghosts), parts, ghosts[0])
	}
}

// at waits until so much time has passed since the chain began: scenarios keep step, and what they do falls before or
// after Burrow's first notifications, a minute after its start.
func (c *chain) at(t testing.TB, since time.Duration) {
	t.Helper()
	select {
	case <-time.After(time.Until(c.begun.Add(since))):
	case <-t.Context().Done():
		t.FailNow()
	}
}

// events compares what happened to the group, but for changes of severity, with what should have, and with its count.
func (g *group) events(t testing.TB, want ...string) {
	t.Helper()
	opened := 0
	for _, name := range want {
		if name == "opened" {
			opened++
		}
	}
	// Events and page come by different ways.
	err := run.Wait(t.Context(), 5*time.Second, func() error {
		events := g.incidents.of(g.name)
		if got := names(agreed(events)); !slices.Equal(got, want) {
			return fmt.Errorf("events of %s: %v, not %v; all: %v; Burrow said %v", g.name, got, want, events, g.told.of(g.name))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	events := g.incidents.of(g.name)
	if problems := contradictions(events); len(problems) > 0 {
		t.Errorf("events of %s: %s; all: %v", g.name, strings.Join(problems, ", "), events)
	}
	opened += (len(events) - len(agreed(events))) / 2
	page, err := g.page(t)
	if err != nil {
		t.Error(err)
		return
	}
	id := g.id("burrow_group_incidents_total")
	if count, found := page[id]; !found {
		t.Errorf("there is no %s", id)
	} else if count != float64(opened) {
		t.Errorf("%s is %v, and should be %d; events: %v", id, count, opened, g.incidents.of(g.name))
	}
	duration := g.id("burrow_group_incident_duration_seconds")
	if _, found := page[duration]; found != (len(want) > 0 && want[len(want)-1] == "opened") {
		t.Errorf("%s is there: %v; events %v", duration, found, g.incidents.of(g.name))
	}
}

// samples are those that Prometheus scraped of a series of the group, if there are any.
func (g *group) samples(t testing.TB, name string) []prom.Point {
	t.Helper()
	result := g.query(t, fmt.Sprintf(`%s{cluster=%q,group=%q}[20m]`, name, cluster, g.name))
	if len(result) > 1 {
		t.Fatalf("%s of %s is %d series", name, g.name, len(result))
	}
	if len(result) == 0 {
		return nil
	}
	return result[0].Points
}

// checkLag compares all total lags that Prometheus scraped with what Kafka said, as old as they may be.
func (g *group) checkLag(t testing.TB) {
	t.Helper()
	checked := 0
	var worst []string
	for _, point := range g.samples(t, "burrow_group_total_lag") {
		smallest, largest, ok := g.truth.lag(g.name, point.At.Add(-staleness), point.At.Add(time.Second))
		if !ok {
			continue
		}
		checked++
		if point.Value < float64(smallest) || point.Value > float64(largest) {
			worst = append(worst, fmt.Sprintf("at %s %v, not within %d to %d", point.At.Format("15:04:05"), point.Value, smallest, largest))
		}
	}
	if checked < 20 {
		t.Errorf("only %d total lags of %s could be compared", checked, g.name)
	}
	if len(worst) > 0 {
		t.Errorf("%d of %d total lags of %s were wrong: %s", len(worst), checked, g.name, strings.Join(worst[:min(5, len(worst))], "; "))
	}
}

// checkGaps demands that a series is there at each scrape from its first to its last, and to the last scrape of all
// unless it has ended.
//
// What was missing before an outage began is not told again.
func (g *group) checkGaps(t testing.TB, ended bool, names ...string) {
	t.Helper()
	scrapes := g.query(t, `up{job="karrot"}[20m]`)
	if len(scrapes) != 1 {
		t.Fatalf("Prometheus has no scrapes of Karrot: %v", scrapes)
	}
	told := 0
	for _, name := range names {
		for _, series := range g.query(t, fmt.Sprintf(`%s{cluster=%q,group=%q}[20m]`, name, cluster, g.name)) {
			there := map[int64]bool{}
			for _, point := range series.Points {
				there[point.At.UnixMilli()] = true
			}
			first, last := series.Points[0].At, series.Points[len(series.Points)-1].At
			var missing []string
			for _, scrape := range scrapes[0].Points {
				if scrape.Value == 1 && !scrape.At.Before(first) && scrape.At.After(g.outageBegan) && (!ended || !scrape.At.After(last)) && !there[scrape.At.UnixMilli()] {
					missing = append(missing, scrape.At.Format("15:04:05"))
				}
			}
			// Between the two queries there may have been a scrape.
			if n := len(missing); n > 0 && missing[n-1] == scrapes[0].Points[len(scrapes[0].Points)-1].At.Format("15:04:05") && n == 1 {
				continue
			}
			if len(missing) > 0 {
				if told++; told > 3 {
					continue
				}
				t.Errorf("%s was missing at %d of %d scrapes: %v", prom.ID(name, series.Labels), len(missing), len(there)+len(missing), missing)
			}
		}
	}
	if told > 3 {
		t.Errorf("and %d more series of %s", told-3, g.name)
	}
}

// onlyStatus demands that the group had no other status in any scrape.
func (g *group) onlyStatus(t testing.TB, want float64) {
	t.Helper()
	points := g.samples(t, "burrow_group_status")
	for _, point := range points {
		if point.Value != want {
			t.Errorf("status of %s at %s: %v; Burrow said %v", g.name, point.At.Format("15:04:05"), point.Value, g.told.of(g.name))
			return
		}
	}
	if len(points) == 0 {
		t.Errorf("%s has no status", g.name)
	}
}

// deviations of a time lag from the truth, in seconds.
type deviations struct {
	// standing is at each scrape: what stood on the page less what was true at that moment.
	standing []float64
	// fresh is the same, at those scrapes at which the value had changed.
	fresh []float64
	// bounds are, as in wrong, the fresh values that are lower bounds. They are in none of the others.
	bounds []float64
	// missing is at how many scrapes, from the first value on, there was none.
	missing int
	// wrong is how far a fresh value is from everything that was true as long ago as Burrow's answer can be old.
	wrong []float64
}

func (g *group) errorsOf(t testing.TB) (e deviations) {
	t.Helper()
	last := math.NaN()
	points := g.samples(t, "burrow_group_max_time_lag_seconds")
	if len(points) > 0 {
		first, end := points[0].At, points[len(points)-1].At
		e.missing = max(0, int(end.Sub(first).Round(scrapeEvery*time.Second)/(scrapeEvery*time.Second))+1-len(points))
	}
	bound := map[int64]bool{}
	for _, point := range g.samples(t, "burrow_group_time_lag_is_lower_bound") {
		bound[point.At.UnixMilli()] = point.Value == 1
	}
	for _, point := range points {
		if !(point.Value >= 0) || math.IsInf(point.Value, 0) {
			t.Errorf("time lag of %s at %s: %v", g.name, point.At.Format("15:04:05"), point.Value)
			continue
		}
		changed := point.Value != last
		last = point.Value
		want, ok := g.truth.timeLag(g.name, point.At)
		if !ok || !g.still.IsZero() && point.At.After(g.still) {
			continue
		}
		difference := point.Value - want.Seconds()
		if bound[point.At.UnixMilli()] {
			if changed {
				e.bounds = append(e.bounds, g.wrong(point.At, point.Value))
			}
			continue
		}
		e.standing = append(e.standing, difference)
		if changed {
			e.fresh = append(e.fresh, difference)
			e.wrong = append(e.wrong, g.wrong(point.At, point.Value))
		}
	}
	return e
}

// wrong is the distance of a time lag to the nearest that was true in the time that Burrow's answer can be old.
func (g *group) wrong(at time.Time, value float64) float64 {
	const step = 250 * time.Millisecond
	smallest, largest := math.Inf(1), math.Inf(-1)
	for age := time.Duration(0); age <= g.pace.oldest(); age += step {
		if want, ok := g.truth.timeLag(g.name, at.Add(-age)); ok {
			smallest, largest = min(smallest, want.Seconds()), max(largest, want.Seconds())
		}
	}
	return value - min(max(value, smallest), largest)
}

// spread is the median, the 95th percentile and the worst of the sizes of errors, and the median with its sign.
func spread(differences []float64) (bias, median, p95, worst float64) {
	if len(differences) == 0 {
		return math.NaN(), math.NaN(), math.NaN(), math.NaN()
	}
	signed := slices.Sorted(slices.Values(differences))
	sizes := make([]float64, len(differences))
	for i, e := range differences {
		sizes[i] = math.Abs(e)
	}
	sort.Float64s(sizes)
	at := func(q float64) float64 { return sizes[int(q*float64(len(sizes)-1))] }
	return signed[(len(signed)-1)/2], at(0.5), at(0.95), at(1)
}

// timeLagTable is the error of each group's time lag.
func (c *chain) timeLagTable(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tat each scrape\t\t\t\t\tchanged\t\t\t\t\tbeyond its age\t\t\t\t")
	fmt.Fprintln(w, "group\tn\tbias\tmedian\tp95\tworst\tn\tbias\tmedian\tp95\tworst\tbias\tmedian\tp95\tworst\t")
	groups := c.groups.all()
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	for _, g := range groups {
		e := g.errorsOf(t)
		fmt.Fprintf(w, "%s\t", g.name)
		for i, differences := range [][]float64{e.standing, e.fresh, e.wrong} {
			if i < 2 {
				fmt.Fprintf(w, "%d\t", len(differences))
			}
			bias, median, p95, worst := spread(differences)
			fmt.Fprintf(w, "%.1f\t%.1f\t%.1f\t%.1f\t", bias, median, p95, worst)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	return text.String()
}

// differs compares a group at rest, exactly.
func (g *group) differs(page prom.Page) string {
	var total, most int64
	partitions := g.truth.now(g.name)
	id := g.id("burrow_group_total_lag")
	value, found := page[id]
	if !g.truth.knows(g.name) {
		if found {
			return "Kafka does not know it any more"
		}
		return ""
	}
	slash := strings.Contains(g.name, "/")
	for p, offsets := range partitions {
		committed, head := offsets[0], offsets[1]
		total += max(0, head-committed)
		most = max(most, head-committed)
		labels := []string{"topic", p.topic, "partition", strconv.Itoa(int(p.partition))}
		for name, want := range map[string]int64{"burrow_partition_committed_offset": committed, "burrow_partition_lag": max(0, head-committed)} {
			got, found := page[g.id(name, labels...)]
			if slash && !found {
				continue
			}
			if !found || got != float64(want) {
				return fmt.Sprintf("%s is %v (there: %v), and Kafka says %d", g.id(name, labels...), got, found, want)
			}
		}
		topic := prom.ID("burrow_topic_offset", map[string]string{"cluster": cluster, "topic": p.topic, "partition": strconv.Itoa(int(p.partition))})
		if got, found := page[topic]; !found || got != float64(head) {
			return fmt.Sprintf("%s is %v (there: %v), and Kafka says %d", topic, got, found, head)
		}
	}
	if got, found := page[g.id("burrow_group_max_lag")]; !found || got != float64(most) {
		return fmt.Sprintf("%s is %v (there: %v), and Kafka says %d", g.id("burrow_group_max_lag"), got, found, most)
	}
	if other, found := page[prom.ID("burrow_group_total_lag", map[string]string{"cluster": mirror, "group": g.name})]; !found || other != float64(total) {
		return fmt.Sprintf("in cluster %s the total lag is %v (there: %v), and Kafka says %d", mirror, other, found, total)
	}
	if !found || value != float64(total) {
		return fmt.Sprintf("%s is %v (there: %v), and Kafka says %d", id, value, found, total)
	}
	return ""
}

// hasHoles reads a topic from its beginning and says whether offsets are missing.
func (c *chain) hasHoles(t testing.TB, topic string) bool {
	t.Helper()
	client := newClient(t, c.kafkaAddress, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	next, holes := int64(0), false
	client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
		holes = holes || r.Offset != next
		next = r.Offset + 1
	})
	return holes
}
