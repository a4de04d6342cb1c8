package burrowreceiver

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var timeLagReport = flag.Bool("timelag-report", false, "print the report on time lag and write it into docs")

const (
	timeLagDocs = "../../docs/time-lag"
	simLength   = 7200
	simSeeds    = 2
)

// simErrors are differences from the truth in seconds, without their sign.
type simErrors struct {
	n, bounds, absent int
	// median, p95 and worst leave lower bounds out, all does not.
	median, p95, worst, all float64
	// above is by how much a lower bound is above the truth at worst.
	above float64
}

func errorsOf(answers []simAnswer) simErrors {
	e := simErrors{n: len(answers)}
	var known, all []float64
	for _, a := range answers {
		if a.absent {
			e.absent++
			continue
		}
		all = append(all, math.Abs(a.answer-a.truth))
		if a.bound {
			e.bounds++
			e.above = max(e.above, a.answer-a.truth)
			continue
		}
		known = append(known, math.Abs(a.answer-a.truth))
	}
	quantile := func(sorted []float64, percent int) float64 {
		if len(sorted) == 0 {
			return math.NaN()
		}
		return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
	}
	slices.Sort(known)
	slices.Sort(all)
	e.median, e.p95, e.worst, e.all = quantile(known, 50), quantile(known, 95), quantile(known, 100), quantile(all, 95)
	return e
}

func (e *simErrors) known() int { return e.n - e.absent - e.bounds }

// of takes the answers on the group, or those on partitions.
func of(group bool, answers []simAnswer) []simAnswer {
	return slices.DeleteFunc(slices.Clone(answers), func(a simAnswer) bool { return (a.partition == simWhole) != group })
}

// The settings of the report: Burrow's defaults with short windows, and those of config/burrow/burrow.toml, without and with polling.
var (
	simAlone        = simSettings{refresh: 10 * time.Second, cache: 10 * time.Second, distance: time.Second, others: 10 * time.Second}
	simPoll         = polledEvery(simAlone, 10, 10)
	simShippedAlone = simSettings{refresh: 5 * time.Second, cache: time.Second, distance: 10 * time.Second, others: 10 * time.Second}
	simShipped      = polledEvery(simShippedAlone, 10, 10)
)

// polledEvery adds polling, in seconds.
func polledEvery(s simSettings, poll, heads int) simSettings {
	s.poll, s.heads = time.Duration(poll)*time.Second, time.Duration(heads)*time.Second
	s.others = s.poll
	return s
}

func (s simSettings) String() string {
	return fmt.Sprintf("offset-refresh %s, poll %s, heads %s", s.refresh, s.poll, s.heads)
}

// TestShippedSettings holds the settings of the report to config/burrow/burrow.toml.
func TestShippedSettings(t *testing.T) {
	shipped, err := os.ReadFile("../../config/burrow/burrow.toml")
	require.NoError(t, err)
	lines := strings.Split(string(shipped), "\n")
	for key, value := range map[string]time.Duration{
		"offset-refresh": simShippedAlone.refresh, "min-distance": simShippedAlone.distance, "expire-cache": simShippedAlone.cache,
	} {
		assert.Contains(t, lines, fmt.Sprintf("%s=%.0f", key, value.Seconds()))
	}
	assert.Contains(t, lines, fmt.Sprintf("intervals=%d", simWindow))
}

// simJob is runs of one scenario with the same settings.
type simJob struct {
	scenario *simScenario
	settings simSettings
}

// simulateAll does the jobs, on all processors, and adds up the runs of each.
func simulateAll(t *testing.T, jobs []simJob, seeds uint64) (results map[simJob]*simRun, firsts map[simJob]simRun) {
	t.Helper()
	results, firsts = map[simJob]*simRun{}, map[simJob]simRun{}
	runs := make([][]simRun, len(jobs))
	t.Run("runs", func(t *testing.T) {
		var mu sync.Mutex
		for i, job := range jobs {
			runs[i] = make([]simRun, seeds)
			for seed := range seeds {
				t.Run(fmt.Sprintf("%s, %s, %d", job.scenario.name, job.settings, seed), func(t *testing.T) {
					t.Parallel()
					run := simulate(t, job.scenario, job.settings, simLength, seed)
					mu.Lock()
					defer mu.Unlock()
					runs[i][seed] = run
				})
			}
		}
	})
	for i, job := range jobs {
		sum := &simRun{}
		for _, run := range runs[i] {
			sum.fresh = append(sum.fresh, run.fresh...)
			sum.standing = append(sum.standing, run.standing...)
			sum.exporter = append(sum.exporter, run.exporter...)
			sum.quotient = append(sum.quotient, run.quotient...)
			sum.exporterStanding = append(sum.exporterStanding, run.exporterStanding...)
		}
		results[job], firsts[job] = sum, runs[i][0]
	}
	return results, firsts
}

// TestTimeLagAgainstTheTruth holds the answers to what is reached, and docs/time-lag.md to what is measured.
func TestTimeLagAgainstTheTruth(t *testing.T) {
	var jobs []simJob
	for i := range simScenarios {
		jobs = append(jobs, simJob{&simScenarios[i], simAlone}, simJob{&simScenarios[i], simPoll})
	}
	results, firsts := simulateAll(t, jobs, simSeeds)
	if t.Failed() {
		return
	}
	plots := map[string][]byte{}
	for i := range simScenarios {
		s := &simScenarios[i]
		alone, polled := firsts[simJob{s, simAlone}], firsts[simJob{s, simPoll}]
		plots[s.name+".svg"] = plot(s, &alone, &polled)
		holdAlone(t, s, simAlone, results[simJob{s, simAlone}])
		holdPolled(t, s, simPoll, results[simJob{s, simPoll}])
	}
	tables := map[string]string{
		"fresh":      freshTable(results, simAlone, simPoll),
		"standing":   standingTable(results),
		"partitions": partitionTable(results),
	}
	if *timeLagReport {
		tables["shipped"] = shippedTable(t)
		tables["settings"] = settingsTable(t)
	}
	writeOrCompare(t, tables, plots)
}

// holdAlone demands, of notifications alone, a median error of one offset-refresh and a p95 of two, where no less is said to be
// reached, and lower bounds that are none above the truth but for the age of heads, for clocks and for what notifications do not tell.
func holdAlone(t *testing.T, s *simScenario, settings simSettings, run *simRun) {
	t.Helper()
	refresh := settings.refresh.Seconds()
	hold(t, s, settings, run, s.alone.or(simReached{refresh, 2 * refresh}), s.aloneAbove)
}

// holdPolled demands a median error of 2 s and a p95 of 10 s.
func holdPolled(t *testing.T, s *simScenario, settings simSettings, run *simRun) {
	t.Helper()
	hold(t, s, settings, run, s.polled.or(simReached{2, 10}), 0)
}

func hold(t *testing.T, s *simScenario, settings simSettings, run *simRun, reached simReached, above float64) {
	t.Helper()
	for _, group := range []bool{false, true} {
		e := errorsOf(of(group, run.fresh))
		name := fmt.Sprintf("%s, %s, group %v", s.name, settings, group)
		assert.LessOrEqual(t, e.above, max(above, settings.refresh.Seconds()+s.clocks()), name)
		few := 20
		if above > 0 {
			few = 10 // the first head of a new topic says nothing
		}
		assert.LessOrEqual(t, e.absent*few, e.n, name)
		if e.known() == 0 {
			continue
		}
		assert.LessOrEqual(t, e.median, reached.median, name)
		assert.LessOrEqual(t, e.p95, reached.p95, name)
	}
}

func seconds(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}

func share(part, all int) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(all))
}

func (e *simErrors) errors() string {
	return seconds(e.median) + " / " + seconds(e.p95) + " / " + seconds(e.worst)
}

// known shows a share only where there is something to know it of.
func (e *simErrors) boundsAbove() string {
	if e.bounds == 0 {
		return "0% | -"
	}
	return share(e.bounds, e.n) + " | " + seconds(e.above)
}

// freshTable is on the group's time lag at the moments at which it comes.
func freshTable(results map[simJob]*simRun, withoutPolling, withPolling simSettings) string {
	var b strings.Builder
	b.WriteString("| Scenario | alone | lower bounds | most above | polled | lower bounds | most above | with bounds, p95 | kle | kle absent | lag ÷ rate | absent |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range simScenarios {
		s := &simScenarios[i]
		polled := results[simJob{s, withPolling}]
		a, p := errorsOf(of(true, results[simJob{s, withoutPolling}].fresh)), errorsOf(of(true, polled.fresh))
		k, q := errorsOf(of(true, polled.exporter)), errorsOf(polled.quotient)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", s.name, a.errors(), a.boundsAbove(),
			p.errors(), p.boundsAbove(), seconds(p.all), k.errors(), share(k.absent, k.n), q.errors(), share(q.absent, q.n))
	}
	return b.String()
}

// standingTable is on the group's time lag as it stands on the page at each second.
func standingTable(results map[simJob]*simRun) string {
	var b strings.Builder
	b.WriteString("| Scenario | alone | absent | polled | absent | kle | absent |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|\n")
	for i := range simScenarios {
		s := &simScenarios[i]
		polled := results[simJob{s, simPoll}]
		a, p, k := errorsOf(results[simJob{s, simAlone}].standing), errorsOf(polled.standing), errorsOf(polled.exporterStanding)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", s.name, a.errors(), share(a.absent, a.n),
			p.errors(), share(p.absent, p.n), k.errors(), share(k.absent, k.n))
	}
	return b.String()
}

// partitionTable is on the time lags of partitions at the moments at which they come: of those that notifications list, and of all.
func partitionTable(results map[simJob]*simRun) string {
	var b strings.Builder
	b.WriteString("| Scenario | alone: n | alone | lower bounds | most above | polled | lower bounds | most above | absent | kle |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range simScenarios {
		s := &simScenarios[i]
		polled := results[simJob{s, simPoll}]
		a, p, k := errorsOf(of(false, results[simJob{s, simAlone}].fresh)), errorsOf(of(false, polled.fresh)), errorsOf(of(false, polled.exporter))
		bounds := a.boundsAbove()
		if a.n == 0 {
			bounds = "- | -"
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s | %s |\n", s.name, a.n, a.errors(), bounds,
			p.errors(), p.boundsAbove(), share(p.absent, p.n), k.errors())
	}
	return b.String()
}

// shippedTable is what freshTable is, with the settings of config/burrow/burrow.toml.
func shippedTable(t *testing.T) string {
	t.Helper()
	var jobs []simJob
	for i := range simScenarios {
		jobs = append(jobs, simJob{&simScenarios[i], simShippedAlone}, simJob{&simScenarios[i], simShipped})
	}
	results, _ := simulateAll(t, jobs, simSeeds)
	for i := range simScenarios {
		hold(t, &simScenarios[i], simShipped, results[simJob{&simScenarios[i], simShipped}], simReached{2, 10}, 0)
	}
	return freshTable(results, simShippedAlone, simShipped)
}

// settingsTable is on other settings: all scenarios together, and the worst of them.
func settingsTable(t *testing.T) string {
	t.Helper()
	var all []simSettings
	for _, refresh := range []int{2, 5, 10, 30} {
		s := simShippedAlone
		s.refresh = time.Duration(refresh) * time.Second
		all = append(all, s)
		for _, times := range [][2]int{{5, 0}, {5, 5}, {10, 0}, {10, 5}, {10, 10}, {30, 0}, {30, 10}, {30, 30}} {
			all = append(all, polledEvery(s, times[0], times[1]))
		}
	}
	var jobs []simJob
	for _, settings := range all {
		for i := range simScenarios {
			jobs = append(jobs, simJob{&simScenarios[i], settings})
		}
	}
	results, _ := simulateAll(t, jobs, 1)
	var b strings.Builder
	b.WriteString("| offset-refresh | poll | heads | fresh: median | p95 | highest median | highest p95 | standing: median | p95 |\n")
	b.WriteString("|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	row := func(name string, settings simSettings, fresh, standing func(*simRun) []simAnswer) {
		var allFresh, allStanding []simAnswer
		var median, p95 float64
		var medianOf, p95Of string
		for i := range simScenarios {
			s := &simScenarios[i]
			run := results[simJob{s, settings}]
			answers := of(true, fresh(run))
			allFresh, allStanding = append(allFresh, answers...), append(allStanding, standing(run)...)
			e := errorsOf(answers)
			if e.median > median {
				median, medianOf = e.median, s.name
			}
			if e.p95 > p95 {
				p95, p95Of = e.p95, s.name
			}
		}
		f, st := errorsOf(allFresh), errorsOf(allStanding)
		fmt.Fprintf(&b, "| %s | %s | %s | %s %s | %s %s | %s | %s |\n", name,
			seconds(f.median), seconds(f.p95), seconds(median), medianOf, seconds(p95), p95Of, seconds(st.median), seconds(st.p95))
	}
	for _, settings := range all {
		poll, heads := "-", "-"
		if settings.poll > 0 {
			poll, heads = settings.poll.String(), settings.heads.String()
		}
		if settings.heads == 0 && settings.poll > 0 {
			heads = "with polls"
		}
		row(fmt.Sprintf("%s | %s | %s", settings.refresh, poll, heads), settings,
			func(r *simRun) []simAnswer { return r.fresh }, func(r *simRun) []simAnswer { return r.standing })
	}
	for _, every := range []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second} {
		i := slices.IndexFunc(all, func(s simSettings) bool { return s.poll == every })
		row(fmt.Sprintf("kle | %s | %[1]s", every), all[i],
			func(r *simRun) []simAnswer { return r.exporter }, func(r *simRun) []simAnswer { return r.exporterStanding })
	}
	return b.String()
}

// writeOrCompare writes tables and pictures into the docs, or compares those that it is given.
func writeOrCompare(t *testing.T, tables map[string]string, plots map[string][]byte) {
	t.Helper()
	const path, end = timeLagDocs + ".md", "<!-- end -->\n"
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	page := string(file)
	for name, table := range tables {
		before, rest, found := strings.Cut(page, "<!-- begin: "+name+", written by make timelag-report -->\n")
		require.True(t, found, name)
		old, after, found := strings.Cut(rest, end)
		require.True(t, found, name)
		if *timeLagReport {
			fmt.Println(table)
			page = strings.TrimSuffix(page, rest) + table + end + after
			continue
		}
		if runtime.GOARCH == "amd64" { // others compute with fused operations, which can change a last digit
			assert.Equal(t, old, table, "%s: run make timelag-report", name)
		}
		_ = before
	}
	if *timeLagReport {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o644))
	}
	for name, svg := range plots {
		path := filepath.Join(timeLagDocs, name)
		if *timeLagReport {
			require.NoError(t, os.WriteFile(path, svg, 0o644))
			continue
		}
		old, err := os.ReadFile(path)
		require.NoError(t, err)
		if runtime.GOARCH == "amd64" {
			// Not assert.Equal, which would print both.
			assert.True(t, bytes.Equal(old, svg), "%s: run make timelag-report", name)
		}
	}
}
