package burrowreceiver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

var timeLagReport = flag.Bool("timelag-report", false, "print the report on time lag and write it into docs")

const (
	timeLagDocs = "../../docs/time-lag"
	simLength   = 7200
	simSeeds    = 4
)

// simRow is a line of the report.
type simRow struct {
	scenario *simScenario
	refresh  time.Duration
	kind     string
	ours     simErrors
	theirs   simErrors
}

// simErrors are differences from the truth in seconds, without their sign.
type simErrors struct {
	n, bounds, absent  int
	median, p95, worst float64
	// above is by how much a lower bound is above the truth at worst.
	above float64
}

func errorsOf(answers []simAnswer) simErrors {
	e := simErrors{n: len(answers)}
	var all []float64
	for _, a := range answers {
		switch {
		case a.absent:
			e.absent++
		case a.bound:
			e.bounds++
			e.above = max(e.above, a.answer-a.truth)
		default:
			all = append(all, math.Abs(a.answer-a.truth))
		}
	}
	if len(all) == 0 {
		e.median, e.p95, e.worst = math.NaN(), math.NaN(), math.NaN()
		return e
	}
	slices.Sort(all)
	e.median, e.p95, e.worst = all[len(all)/2], all[len(all)*95/100], all[len(all)-1]
	return e
}

// kindOf takes the answers on partitions or those on the group.
func kindOf(kind string, answers []simAnswer) []simAnswer {
	return slices.DeleteFunc(slices.Clone(answers), func(a simAnswer) bool { return (a.partition < 0) != (kind == "group") })
}

// TestTimeLagAgainstTheTruth holds the answers to the wanted accuracy, and docs/time-lag.md to what is measured.
func TestTimeLagAgainstTheTruth(t *testing.T) {
	var rows []simRow
	plots := map[string][]byte{}
	for i := range simScenarios {
		s := &simScenarios[i]
		for _, refresh := range []time.Duration{10 * time.Second, 30 * time.Second} {
			var runs simRun
			for seed := range uint64(simSeeds) {
				run := simulate(t, s, refresh, simLength, seed)
				runs.ours = append(runs.ours, run.ours...)
				runs.theirs = append(runs.theirs, run.theirs...)
				if seed == 0 && refresh == 10*time.Second {
					plots[s.name+".svg"] = plot(s, &run)
				}
			}
			for _, kind := range []string{"partition", "group"} {
				row := simRow{s, refresh, kind, errorsOf(kindOf(kind, runs.ours)), errorsOf(kindOf(kind, runs.theirs))}
				if row.ours.n > 0 {
					rows = append(rows, row)
				}
			}
		}
	}
	for i := range rows {
		holdToWanted(t, &rows[i])
	}
	writeOrCompare(t, rows, plots)
}

// holdToWanted demands a median error of one offset-refresh and a p95 of two, and lower bounds that are none
// above the truth but for the age of heads. A load that changes between two notifications can't be seen, so bursts
// are measured by the distance of notifications.
func holdToWanted(t *testing.T, row *simRow) {
	t.Helper()
	name := fmt.Sprintf("%s, %s, %s", row.scenario.name, row.refresh, row.kind)
	e, refresh := row.ours, row.refresh.Seconds()
	assert.LessOrEqual(t, e.above, refresh, name)
	assert.LessOrEqual(t, e.absent*20, e.n, name)
	if e.bounds+e.absent == e.n {
		return
	}
	median, p95 := refresh, 2*refresh
	if row.scenario.bursty {
		median, p95 = 60, 120
	}
	assert.LessOrEqual(t, e.median, median, name)
	assert.LessOrEqual(t, e.p95, p95, name)
	assert.LessOrEqual(t, e.worst, 120+refresh, name)
}

const (
	reportBegin = "<!-- begin: written by make timelag-report -->\n"
	reportEnd   = "<!-- end -->\n"
)

func writeOrCompare(t *testing.T, rows []simRow, plots map[string][]byte) {
	t.Helper()
	report := table(rows)
	page, err := os.ReadFile(timeLagDocs + ".md")
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(page), reportBegin)
	require.True(t, found)
	old, after, found := strings.Cut(rest, reportEnd)
	require.True(t, found)
	if *timeLagReport {
		fmt.Print(report)
		require.NoError(t, os.WriteFile(timeLagDocs+".md", []byte(before+reportBegin+report+reportEnd+after), 0o644))
		for name, svg := range plots {
			require.NoError(t, os.WriteFile(filepath.Join(timeLagDocs, name), svg, 0o644))
		}
		return
	}
	if runtime.GOARCH != "amd64" {
		return // others compute with fused operations, which can change a last digit
	}
	assert.Equal(t, old, report, "run make timelag-report")
	for name, svg := range plots {
		old, err := os.ReadFile(filepath.Join(timeLagDocs, name))
		require.NoError(t, err)
		assert.Equal(t, string(old), string(svg), "%s: run make timelag-report", name)
	}
}

func table(rows []simRow) string {
	var b strings.Builder
	b.WriteString("| Scenario | offset-refresh | of | n | median | p95 | worst | lower bounds | most above | absent | kle median | kle p95 | kle worst | kle absent |\n")
	b.WriteString("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	number := func(v float64) string {
		if math.IsNaN(v) {
			return "-"
		}
		return fmt.Sprintf("%.1f", v)
	}
	share := func(part, all int) string { return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(all)) }
	for _, r := range rows {
		above := "-"
		if r.ours.bounds > 0 {
			above = number(r.ours.above)
		}
		fmt.Fprintf(&b, "| %s | %.0f s | %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.scenario.name, r.refresh.Seconds(), r.kind, r.ours.n,
			number(r.ours.median), number(r.ours.p95), number(r.ours.worst), share(r.ours.bounds, r.ours.n), above, share(r.ours.absent, r.ours.n),
			number(r.theirs.median), number(r.theirs.p95), number(r.theirs.worst), share(r.theirs.absent, r.theirs.n))
	}
	return b.String()
}

// plot draws the truth and the answers of one run, for the whole group.
func plot(s *simScenario, run *simRun) []byte {
	const width, height, left, right, top, bottom = 800, 320, 70, 20, 60, 50
	answers := kindOf("group", run.ours)
	highest := 1.0
	for _, a := range run.truth {
		highest = max(highest, a.truth)
	}
	for _, a := range answers {
		highest = max(highest, a.answer)
	}
	step := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, factor := range []float64{5, 2} {
		if highest/step*factor <= 10 { // not more than ten lines
			step /= factor
			break
		}
	}
	highest = math.Ceil(highest/step) * step
	x := func(second float64) float64 { return left + second/simLength*(width-left-right) }
	y := func(lag float64) float64 { return height - bottom - lag/highest*(height-top-bottom) }

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`+"\n", width, height)
	fmt.Fprintf(&b, `<title>Time lag, %s</title>`+"\n", s.name)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="14" font-weight="bold">%s</text>`+"\n", left, s.name)
	for lag := 0.0; lag <= highest; lag += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(lag), width-right, left-6, y(lag)+4, lag)
	}
	for second := 0.0; second <= simLength; second += 600 {
		fmt.Fprintf(&b, `<path d="M%.1f %dv5" stroke="#222"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x(second), height-bottom, x(second), height-bottom+18, second/60)
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#222"/>`+"\n", left, top, height-bottom, width-right)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">time (minutes)</text>`+"\n", (left+width-right)/2, height-10)
	fmt.Fprintf(&b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">time lag (seconds)</text>`+"\n", (top+height-bottom)/2)

	b.WriteString(`<path fill="none" stroke="#888" stroke-width="2" d="`)
	for i, a := range run.truth {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, x(a.at), y(a.truth))
	}
	b.WriteString(`"/>` + "\n")
	known, bound := `fill="#c2410c"`, `fill="#fff" stroke="#1d4ed8" stroke-width="1.5"`
	for _, a := range answers {
		style := known
		if a.bound {
			style = bound
		}
		if !a.absent {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" %s/>`+"\n", x(a.at), y(a.answer), style)
		}
	}
	fmt.Fprintf(&b, `<path d="M%d 36h24" stroke="#888" stroke-width="2"/><text x="%d" y="40">truth</text>`+"\n", left, left+30)
	fmt.Fprintf(&b, `<circle cx="%d" cy="36" r="3" %s/><text x="%d" y="40">burrow.group.max_time_lag</text>`+"\n", left+90, known, left+100)
	fmt.Fprintf(&b, `<circle cx="%d" cy="36" r="3" %s/><text x="%d" y="40">the same, a lower bound</text>`+"\n", left+290, bound, left+300)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// TestTimeLagOfTheRecording replays what a real Burrow sent, at its own times. Time lags are never negative or
// infinite, nor wild: longer than anything was written to the topics, or growing faster than time goes by while the
// group does not go back. Burrow asked for heads every second.
func TestTimeLagOfTheRecording(t *testing.T) {
	synctest.Test(t, replayRecording)
}

func replayRecording(t *testing.T) {
	requests := recordedSequence(t)
	var oldest, began int64 = math.MaxInt64, 0
	for _, r := range requests {
		for _, p := range r.told() {
			if p.End.Known() {
				oldest = min(oldest, p.Start.Timestamp)
				began = max(began, p.End.Timestamp-r.millis) // the last commit before a request was made before it
			}
		}
	}
	sink := new(consumertest.MetricsSink)
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config), sink)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Shutdown(context.Background())) }()

	type key struct {
		cluster, group, topic string
		partition             int32
	}
	type seen struct {
		lag    float64
		offset int64
		at     time.Time
	}
	last := map[key]seen{}
	known, absent, compared := 0, 0, 0
	for _, request := range requests {
		time.Sleep(time.Until(time.UnixMilli(began + request.millis)))
		require.Empty(t, send(r.webhook, "POST", request.body))
		fresh, _ := r.table.Due()
		require.Len(t, fresh, 1)
		change := r.table.Begin(fresh[0])
		state := change.Group
		longest := float64(time.Now().UnixMilli()-oldest) / 1000
		for i := range state.Group.Partitions {
			p, lag := &state.Group.Partitions[i], state.TimeLag(i)
			if lag == burrow.Unknown {
				absent++
				continue
			}
			known++
			require.GreaterOrEqual(t, lag, 0.0)
			require.LessOrEqual(t, lag, longest)
			require.LessOrEqual(t, lag, state.MaxTimeLag)
			k := key{state.Group.Cluster, state.Group.Group, p.Topic, p.Partition}
			if before, found := last[k]; found && p.End.Offset >= before.offset {
				compared++
				require.LessOrEqual(t, lag-before.lag, time.Since(before.at).Seconds()+2, "%v", k)
			}
			last[k] = seen{lag, p.End.Offset, time.Now()}
		}
		r.table.Finish([]groups.Change{change}, true, time.Now())
	}
	assert.Greater(t, known, 1000)
	assert.Greater(t, compared, 1000)
	assert.Less(t, absent*100, known, "absent")
	t.Logf("%d known, %d absent, %d compared with the one before", known, absent, compared)
}

type recordedRequest struct {
	millis       int64
	body         []byte
	notification *burrow.Notification
}

// told are the partitions that the request speaks of.
func (r *recordedRequest) told() []burrow.PartitionStatus {
	told := slices.Clone(r.notification.Group.Partitions)
	if r.notification.Group.MaxLag != nil {
		told = append(told, *r.notification.Group.MaxLag)
	}
	return told
}

func recordedSequence(t *testing.T) []recordedRequest {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "..", "testdata", "sequence.jsonl.gz"))
	require.NoError(t, err)
	unzipped, err := gzip.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	var requests []recordedRequest
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Millis int64 `json:"t_ms"`
			Body   string
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		n, err := burrow.Decode([]byte(line.Body))
		require.NoError(t, err)
		requests = append(requests, recordedRequest{line.Millis, []byte(line.Body), n})
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, requests)
	return requests
}
