package chain

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	brw "github.com/lowess/karrot/e2e/internal/burrow"
	"github.com/lowess/karrot/e2e/internal/run"
)

var settingsReport = flag.Bool("settings-report", false, "measure what Burrow's settings detect, and write it into docs/operating.md")

const (
	// settledIn is longer than the longest window of the settings: ten commits, 15 s apart.
	settledIn = 180 * time.Second
	// breaksFor is how long the broken groups are watched.
	breaksFor = 300 * time.Second
	// breaksApart sets the copies of a scenario apart, so that they do not meet Burrow's clocks at the same moment.
	breaksApart = 3300 * time.Millisecond
	copies      = 3
)

// burrowSettings are the values that decide what a Burrow detects, in seconds.
type burrowSettings struct{ intervals, minDistance, offsetRefresh, expireCache int }

// compared are the settings of the report. Each has a Burrow of its own, at the same Kafka.
var compared = []burrowSettings{
	{10, 1, 30, 10},
	{10, 1, 10, 10},
	{10, 10, 10, 10},
	{10, 10, 10, 1},
	{10, 5, 5, 1},
	{10, 10, 5, 1},
	{10, 15, 5, 1},
	{10, 10, 2, 1},
	{20, 5, 2, 1},
}

// troubles are what becomes of a group that was healthy.
var troubles = []struct {
	name string
	// rule takes the place of the consumer's; nil stops it.
	rule func() commitRule
}{
	{"stop", nil},
	{"stall", func() commitRule { return hold }},
	{"slow, 60%", func() commitRule { return advance(6) }},
	{"slow, 80%", func() commitRule { return advance(8) }},
}

// healthy loads and consumers, which Burrow should call OK all the time.
var healthyLoads = []struct {
	name, about string
	load        func(second int) int
	interval    time.Duration
	rule        func() commitRule
}{
	{"steady", "about 10 records a second, read at once", unevenLoad, time.Second, func() commitRule { return follow }},
	{"late", "the same, committed 15 s after it was read", unevenLoad, time.Second, func() commitRule { return behind(15) }},
	{"batch", "the same, committed every 20 s", unevenLoad, 20 * time.Second, func() commitRule { return follow }},
	{"sporadic", "60 records each 90 s, committed once, 40 s after they were read", burstsOf(1, 90), time.Second, func() commitRule { return changed(behind(40)) }},
	{"bursty", "60 a second for 15 s of each 75 s, read at 30 a second", burstsOf(15, 75), time.Second, func() commitRule { return advance(30) }},
	{"long bursts", "60 a second for 40 s of each 150 s, read at 30 a second", burstsOf(40, 150), time.Second, func() commitRule { return advance(30) }},
	{"longest bursts", "60 a second for 80 s of each 240 s, read at 30 a second", burstsOf(80, 240), time.Second, func() commitRule { return advance(30) }},
}

// nameOf is the group, and the topic, of one copy of a scenario.
func nameOf(scenario string, copied int) string {
	return strings.NewReplacer(" ", "-", ",", "", "%", "").Replace(scenario) + "-" + strconv.Itoa(copied)
}

func unevenLoad(int) int { return 5 + rand.IntN(11) }

func burstsOf(length, period int) func(int) int {
	return func(second int) int {
		switch {
		case second%period < length:
			return 60
		case length == 1:
			return 0
		}
		return rand.IntN(2)
	}
}

// behind commits what was read so many commits ago.
func behind(n int) commitRule {
	read := map[partitionKey][]int64{}
	return func(p partitionKey, position, committed int64) (int64, bool) {
		read[p] = append(read[p], position)
		if len(read[p]) <= n {
			return committed, false
		}
		next := read[p][0]
		read[p] = read[p][1:]
		return next, true
	}
}

// changed commits nothing twice.
func changed(rule commitRule) commitRule {
	return func(p partitionKey, position, committed int64) (int64, bool) {
		next, ok := rule(p, position, committed)
		return next, ok && next != committed
	}
}

// verdicts of one Burrow on one group, by the API once a second and by notifications.
type verdicts struct{ polled, notified []verdict }

// watch keeps what Burrows say.
type watch struct {
	mu  sync.Mutex
	all map[watchKey]*verdicts
}

type watchKey struct {
	burrow int
	group  string
}

func (w *watch) add(i int, by string, r *brw.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := watchKey{i, r.Group}
	if w.all[k] == nil {
		w.all[k] = &verdicts{}
	}
	v := verdict{time.Now(), by, r.Status}
	if by == "poll" {
		w.all[k].polled = append(w.all[k].polled, v)
	} else {
		w.all[k].notified = append(w.all[k].notified, v)
	}
}

// TestSettings lets Burrows with different settings watch the same groups, and measures how long each takes to tell of trouble,
// and what it tells of healthy groups. Times are those of production: nothing is made shorter.
func TestSettings(t *testing.T) {
	if !*settingsReport {
		t.Skip("run make chain-settings: it takes ten minutes")
	}
	c := startKafkaAlone(t)
	w := &watch{all: map[watchKey]*verdicts{}}
	apis := startBurrows(t, c, w)

	var names []string
	broken := map[string]*consumer{}
	for _, trouble := range troubles {
		for i := range copies {
			name := nameOf(trouble.name, i)
			names = append(names, name)
			broken[name] = startGroup(t, c, name, unevenLoad, time.Second, follow)
		}
	}
	for _, load := range healthyLoads {
		for i := range copies {
			name := nameOf(load.name, i)
			names = append(names, name)
			startGroup(t, c, name, load.load, load.interval, load.rule())
		}
	}
	for i, api := range apis {
		begin(t, func(ctx context.Context) { every(ctx, time.Second, func() { askAll(ctx, w, i, api, names) }) })
	}
	c.at(t, settledIn)
	settled := time.Now()
	brokeAt := map[string]time.Time{}
	for i := range copies {
		c.at(t, settledIn+time.Duration(i)*breaksApart)
		for _, trouble := range troubles {
			name := nameOf(trouble.name, i)
			brokeAt[name] = time.Now()
			if trouble.rule == nil {
				broken[name].stop()
			} else {
				broken[name].set(trouble.rule())
			}
		}
	}
	c.at(t, settledIn+breaksFor)
	w.mu.Lock()
	defer w.mu.Unlock()
	trouble, healthy := settingsTables(t, w, settled, brokeAt)
	t.Log("\n" + trouble + "\n" + healthy)
	page := filepath.Join(repository, "docs", "operating.md")
	writeBetween(t, page, "make chain-settings, trouble", trouble)
	writeBetween(t, page, "make chain-settings, healthy", healthy)
}

// startKafkaAlone is a chain without Burrow, Karrot and Prometheus.
func startKafkaAlone(t *testing.T) *chain {
	t.Helper()
	a := run.Addresses(t, 3)
	s := &servers{kafkaAddress: a[0], controllerAddress: a[1], zookeeperAddress: a[2], dir: run.KeepOnFailure(t, filepath.Join(repository, "build", "e2e-chain"))}
	s.formatKafka(t)
	s.startKafka(t)
	s.startZooKeeper(t)
	s.waitForKafka(t)
	s.zookeeper.Listens(t, startTime, s.zookeeperAddress)
	return &chain{servers: s, t: t, admin: newAdmin(t, s.kafkaAddress), truth: startTruth(t, s.kafkaAddress), begun: time.Now()}
}

// startBurrows starts one for each of the compared settings.
func startBurrows(t *testing.T, c *chain, w *watch) (apis []string) {
	t.Helper()
	var started []*run.Process
	for i, settings := range compared {
		a := run.Addresses(t, 2)
		apis = append(apis, a[0])
		serve(t, a[1], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var n struct{ Event brw.Notification }
			if err == nil && json.Unmarshal(body, &n) == nil {
				w.add(i, "notification", &n.Event.Result)
			}
		}))
		started = append(started, startBurrowWith(t, c, "burrow-"+strconv.Itoa(i), settings, a[0], a[1]))
	}
	for i, p := range started {
		p.Ready(t, startTime, "http://"+apis[i]+"/burrow/admin/ready")
	}
	return apis
}

// startBurrowWith starts a Burrow with the shipped configuration, but for settings.
func startBurrowWith(t *testing.T, c *chain, name string, settings burrowSettings, api, webhook string) *run.Process {
	t.Helper()
	shipped := filepath.Join(repository, "config", "burrow")
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(shipped, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := read("burrow.toml")
	quoted := func(address string) string { return "[ " + strconv.Quote(address) + " ]" }
	dir := c.folder(t, name)
	path := strconv.Quote(c.write(t, name+"/notification.tmpl", read("notification.tmpl")))
	webhook = strconv.Quote("http://" + webhook + "/")
	for _, change := range []struct{ section, key, value string }{
		{"zookeeper", "servers", quoted(c.zookeeperAddress)},
		// One lock each: all of them notify.
		{"zookeeper", "root-path", strconv.Quote("/" + name)},
		{"cluster.local", "servers", quoted(c.kafkaAddress)},
		{"cluster.local", "topic-refresh", strconv.Itoa(topicRefresh)},
		{"consumer.local", "servers", quoted(c.kafkaAddress)},
		{"httpserver.default", "address", strconv.Quote(api)},
		{"notifier.karrot", "url-open", webhook},
		{"notifier.karrot", "url-close", webhook},
		{"notifier.karrot", "template-open", path},
		{"notifier.karrot", "template-close", path},
		{"cluster.local", "offset-refresh", strconv.Itoa(settings.offsetRefresh)},
		{"storage.default", "intervals", strconv.Itoa(settings.intervals)},
		{"storage.default", "min-distance", strconv.Itoa(settings.minDistance)},
		{"evaluator.default", "expire-cache", strconv.Itoa(settings.expireCache)},
	} {
		var err error
		if text, err = setKey(text, change.section, change.key, change.value); err != nil {
			t.Fatal(err)
		}
	}
	c.write(t, name+"/burrow.toml", text)
	return run.Program{Name: name, Path: built(t, "BURROW", "build/burrow"), Args: []string{"--config-dir", dir}, Dir: dir}.Start(t)
}

// TestRefreshCost measures what offset-refresh costs Burrow and a broker that has all partitions of a large cluster.
func TestRefreshCost(t *testing.T) {
	if !*settingsReport {
		t.Skip("run make chain-settings")
	}
	const topics, each, watched = 8, 250, time.Minute
	c := startKafkaAlone(t)
	for i := range topics {
		ctx, cancel := context.WithTimeout(t.Context(), startTime)
		if _, err := c.admin.CreateTopic(ctx, each, 1, nil, "wide-"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	rests(t, 30*time.Second) // until Kafka has done with it
	rows := [][]string{{"offset-refresh", "Burrow", "broker"}}
	percent := func(used time.Duration) string { return fmt.Sprintf("%.1f%%", 100*used.Seconds()/watched.Seconds()) }
	for _, refresh := range []int{30, 10, 5, 2} {
		a := run.Addresses(t, 2)
		p := startBurrowWith(t, c, "burrow-"+strconv.Itoa(refresh), burrowSettings{10, 10, refresh, 1}, a[0], a[1])
		p.Ready(t, startTime, "http://"+a[0]+"/burrow/admin/ready")
		rests(t, 10*time.Second)
		broker, own := c.kafka.CPU(t), p.CPU(t)
		rests(t, watched)
		rows = append(rows, []string{strconv.Itoa(refresh), percent(p.CPU(t) - own), percent(c.kafka.CPU(t) - broker)})
		p.Stop(t)
	}
	report := markdown(rows)
	t.Log("\n" + report)
	writeBetween(t, filepath.Join(repository, "docs", "operating.md"), "make chain-settings, the cost", report)
}

// startGroup starts a topic of one partition with a load, and the group that reads it.
func startGroup(t *testing.T, c *chain, name string, load func(second int) int, interval time.Duration, rule commitRule) *consumer {
	t.Helper()
	c.createTopic(t, name, 1, nil)
	c.load(t, name, 1, func(_, second int) int { return load(second) })
	return c.consume(t, name, interval, rule, name)
}

// askAll asks one Burrow about all groups.
func askAll(ctx context.Context, w *watch, i int, api string, groups []string) {
	client := http.Client{Timeout: 2 * time.Second}
	for _, group := range groups {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+api+"/v3/kafka/"+cluster+"/consumer/"+group+"/status", http.NoBody)
		if err != nil {
			return
		}
		response, err := client.Do(request)
		if err != nil {
			continue // it is counted by what is missing
		}
		var answer struct{ Status brw.Result }
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if err == nil && response.StatusCode == http.StatusOK {
			w.add(i, "poll", &answer.Status)
		}
	}
}

// settingsTables are how long trouble takes to be told, and what is told of healthy groups.
func settingsTables(t *testing.T, w *watch, settled time.Time, brokeAt map[string]time.Time) (trouble, healthy string) {
	t.Helper()
	columns := []string{"intervals", "min-distance", "offset-refresh", "expire-cache"}
	told, alarms := slices.Clone(columns), slices.Clone(columns)
	for _, trouble := range troubles {
		told = append(told, trouble.name)
	}
	for _, load := range healthyLoads {
		alarms = append(alarms, load.name)
	}
	toldRows, alarmRows := [][]string{told}, [][]string{alarms}
	for i, settings := range compared {
		name := []string{strconv.Itoa(settings.intervals), strconv.Itoa(settings.minDistance), strconv.Itoa(settings.offsetRefresh), strconv.Itoa(settings.expireCache)}
		row := slices.Clone(name)
		for _, trouble := range troubles {
			var polled, notified []float64
			stayed := 0.0
			for n := range copies {
				group := nameOf(trouble.name, n)
				v := w.all[watchKey{i, group}]
				if v == nil || len(v.polled) < int(breaksFor/time.Second) || len(v.notified) == 0 {
					t.Fatalf("Burrow %d told too little of %s: %v", i, group, v)
				}
				first, share := firstBad(v.polled, brokeAt[group])
				polled, stayed = append(polled, first), stayed+share/copies
				first, _ = firstBad(v.notified, brokeAt[group])
				notified = append(notified, first)
			}
			row = append(row, fmt.Sprintf("%s / %s / %.0f%%", times(polled), times(notified), 100*stayed))
		}
		toldRows = append(toldRows, row)
		row = slices.Clone(name)
		for _, load := range healthyLoads {
			count, bad, all := 0, 0, 0
			for n := range copies {
				v := w.all[watchKey{i, nameOf(load.name, n)}]
				if v == nil {
					t.Fatalf("Burrow %d told nothing of %s", i, load.name)
				}
				c, b, a := falseAlarms(v.polled, settled)
				count, bad, all = count+c, bad+b, all+a
			}
			row = append(row, fmt.Sprintf("%d (%.0f%%)", count, 100*float64(bad)/float64(max(1, all))))
		}
		alarmRows = append(alarmRows, row)
	}
	return markdown(toldRows), markdown(alarmRows)
}

// falseAlarms counts how often a verdict was not OK when the one before was, and how many were not of how many.
func falseAlarms(verdicts []verdict, from time.Time) (count, bad, all int) {
	before := "OK"
	for _, v := range verdicts {
		if v.at.Before(from) {
			continue
		}
		all++
		if v.status != "OK" {
			bad++
			if before == "OK" {
				count++
			}
		}
		before = v.status
	}
	return count, bad, all
}

// markdown is a table whose first row is its head.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("--:|", len(row)) + "\n")
		}
	}
	return b.String()
}

// firstBad is how many seconds after a moment the first verdict was not OK, below 0 for never, and the share of those from there on that were not.
func firstBad(all []verdict, from time.Time) (seconds, share float64) {
	all = slices.Clone(all)
	all = slices.DeleteFunc(all, func(v verdict) bool { return v.at.Before(from) })
	first := slices.IndexFunc(all, func(v verdict) bool { return v.status != "OK" })
	if first < 0 {
		return -1, 0
	}
	bad := 0
	for _, v := range all[first:] {
		if v.status != "OK" {
			bad++
		}
	}
	return all[first].at.Sub(from).Seconds(), float64(bad) / float64(len(all)-first)
}

// times shows the shortest and the longest of them; "never" counts for those that are below 0.
func times(all []float64) string {
	slices.Sort(all)
	never := 0
	for never < len(all) && all[never] < 0 {
		never++
	}
	if never == len(all) {
		return "never"
	}
	text := fmt.Sprintf("%.0f to %.0f", all[never], all[len(all)-1])
	if never > 0 {
		text += fmt.Sprintf(", %d of %d never", never, len(all))
	}
	return text
}

// writeBetween replaces what stands between the marks of a command in a page.
func writeBetween(t *testing.T, page, command, text string) {
	t.Helper()
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin := "<!-- begin: written by " + command + " -->\n"
	const end = "<!-- end -->\n"
	before, rest, found := strings.Cut(string(old), begin)
	if !found {
		t.Fatalf("%s has no %s", page, begin)
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		t.Fatalf("%s has no %s behind %s", page, end, begin)
	}
	if err := os.WriteFile(page, []byte(before+begin+text+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}
