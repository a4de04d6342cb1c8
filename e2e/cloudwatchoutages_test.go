package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// sample is a value of the probe's total lag that a CloudWatch has taken.
type sample struct {
	lag          int
	at, received time.Time
}

// cloudwatch is one of the two imitations.
type cloudwatch interface {
	set(mode cloudwatchMode)
	leave()
	comeBack(t testing.TB)
	env(more map[string]string) map[string]string
	samples(t testing.TB) []sample
}

const probe = "probe"

func (c *cloudwatchLogs) samples(t testing.TB) []sample {
	t.Helper()
	var found []sample
	for _, event := range c.recorded() {
		d, err := decodeDocument([]byte(event.Message))
		require.NoError(t, err, event.Message)
		if lag, isNumber := d.root["burrow.group.total_lag"].(float64); isNumber && d.root["group"] == probe {
			found = append(found, sample{int(lag), time.UnixMilli(d.timestamp), event.Received})
		}
	}
	return found
}

func (c *cloudwatchMetrics) samples(testing.TB) []sample {
	var found []sample
	for _, p := range c.recorded() {
		if p.metric == "burrow.group.total_lag" && p.attributes["group"] == probe {
			found = append(found, sample{int(p.value), p.at, p.received})
		}
	}
	return found
}

// outages are what can go wrong, by their names in docs/cloudwatch.md, in its order.
var outages = []struct {
	name string
	mode cloudwatchMode
	away bool
	// signal is sent to Karrot in the middle of the outage; it is started again later, still in the outage.
	signal syscall.Signal
}{
	{name: "can't be reached", away: true},
	{name: "does not answer", mode: cloudwatchHangs},
	{name: "takes it, and the answer is lost", mode: cloudwatchLosesAnswers},
	{name: "unavailable (503)", mode: cloudwatchUnavailable},
	{name: "fails (500)", mode: cloudwatchFails},
	{name: "throttles", mode: cloudwatchThrottles},
	{name: "refuses (permissions)", mode: cloudwatchRefuses},
	{name: "can't be reached; Karrot is stopped and started", away: true, signal: syscall.SIGTERM},
	{name: "can't be reached; Karrot is killed and started", away: true, signal: syscall.SIGKILL},
}

// outageColumns are the configurations, by their names in docs/cloudwatch.md, in its order.
var outageColumns = []string{"cloudwatch.yaml", "cloudwatch-durable.yaml", "cloudwatch-otlp.yaml", onDisk}

const (
	onDisk = "cloudwatch-otlp.yaml, queue on disk"
	// asInMemory is the cell where it makes no difference where the queue is, as Karrot goes on.
	asInMemory = "the same"
)

// outageRun is one Karrot with a CloudWatch of its own.
type outageRun struct {
	column  string
	outage  int
	cw      cloudwatch
	options options
	k       *karrot // nil while it is stopped
	posted  map[int][2]time.Time
	during  map[int]bool
}

func newOutageRun(t *testing.T, column string, outage int) *outageRun {
	t.Helper()
	r := &outageRun{column: column, outage: outage, posted: map[int][2]time.Time{}, during: map[int]bool{}}
	more := map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_INTERVAL": "200ms", "KARROT_STORAGE_DIRECTORY": t.TempDir(),
	}
	if file, _, _ := strings.Cut(column, ", "); strings.Contains(file, "otlp") {
		metrics := newCloudwatchMetrics(t)
		r.cw, r.options.Configs = metrics, metrics.configs(t)
		if column == onDisk {
			r.options.Configs = append(r.options.Configs, "config/storage.yaml")
			more["KARROT_QUEUE_STORAGE"] = "file_storage"
		}
	} else {
		r.cw, r.options.Configs = newCloudwatchLogs(t), []string{"config/karrot.yaml", "config/" + file}
	}
	r.options.Env = r.cw.env(more)
	r.k = launch(t, r.options)
	return r
}

// post sends the probe with a lag that tells it from all others.
func (r *outageRun) post(t *testing.T, lag int, during bool) {
	t.Helper()
	if r.k == nil {
		return
	}
	e := evaluation{Cluster: "east", Group: probe, TotalLag: uint64(lag)}
	begin := time.Now()
	r.k.accept(t, e.body(t))
	r.posted[lag], r.during[lag] = [2]time.Time{begin, time.Now()}, during
}

// handedOver waits until the probe is on the page: a newer one cannot take its place any more.
func (r *outageRun) handedOver(t *testing.T, lag int) {
	t.Helper()
	if r.k == nil {
		return
	}
	waitFor(t, 30*time.Second, func() string {
		if shown := r.k.series(t)[fmt.Sprintf(`burrow_group_total_lag{cluster="east",group=%q}`, probe)]; shown != float64(lag) {
			return fmt.Sprintf("%s: the page shows %v, not %d", r, shown, lag)
		}
		return ""
	})
}

// missing are the probes that have not arrived.
func (r *outageRun) missing(t *testing.T) []int {
	t.Helper()
	missing := maps.Clone(r.posted)
	for _, s := range r.cw.samples(t) {
		delete(missing, s.lag)
	}
	return slices.Sorted(maps.Keys(missing))
}

func (r *outageRun) String() string { return outages[r.outage].name + ", " + r.column }

const (
	outagesFile  = "cloudwatch.md"
	outagesBegin = "<!-- written by make cloudwatch-outages -->\n"
)

// documentedOutages reads the table of docs/cloudwatch.md: the first word of each cell by row and column.
func documentedOutages(t *testing.T) map[string]map[string]string {
	t.Helper()
	_, table, _ := writtenPart(t, outagesFile, outagesBegin)
	documented := map[string]map[string]string{}
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != len(outageColumns)+1 {
			continue
		}
		words := map[string]string{}
		for i, cell := range cells[1:] {
			words[outageColumns[i]], _, _ = strings.Cut(cell, ",")
		}
		documented[cells[0]] = words
	}
	return documented
}

// What is lost, and what comes late, while CloudWatch is away: one Karrot for each configuration and kind of outage, all
// of them at the same time. What docs/cloudwatch.md says must be what happens. KARROT_E2E_OUTAGE is how long it is away;
// KARROT_E2E_WRITE writes the table instead.
func TestCloudWatchOutages(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("KARROT_E2E_OUTAGE"), "12s"))
	require.NoError(t, err)
	var runs []*outageRun
	for outage := range outages {
		for _, column := range outageColumns {
			if column != onDisk || outages[outage].signal != 0 {
				runs = append(runs, newOutageRun(t, column, outage))
			}
		}
	}
	for _, r := range runs {
		r.k.ready(t)
	}
	lag := 0
	post := func(during bool) {
		lag++
		for _, r := range runs {
			r.post(t, lag, during)
		}
		for _, r := range runs {
			r.handedOver(t, lag)
		}
	}
	arrived := func(within time.Duration, which func(*outageRun) bool, what func(*outageRun) []int) {
		waitFor(t, within, func() string {
			var problems []string
			for _, r := range runs {
				if which(r) {
					if missing := what(r); len(missing) > 0 {
						problems = append(problems, fmt.Sprintf("%s: missing %v of %d", r, missing, lag))
					}
				}
			}
			return strings.Join(problems, "\n")
		})
	}
	all := func(*outageRun) bool { return true }
	post(false)
	arrived(30*time.Second, all, func(r *outageRun) []int { return r.missing(t) })

	for _, r := range runs {
		if o := outages[r.outage]; o.away {
			r.cw.leave()
		} else {
			r.cw.set(o.mode)
		}
	}
	begin := time.Now()
	signalled, started := false, false
	for time.Since(begin) < length {
		next := time.Now().Add(time.Second)
		switch since := time.Since(begin); {
		case !signalled && since > length/3:
			signalled = true
			time.Sleep(500 * time.Millisecond) // the page may have the last probe before the queue has it
			signalAll(t, runs)
		case !started && since > 2*length/3:
			started = true
			startAll(t, runs)
		}
		post(true)
		time.Sleep(time.Until(next))
	}
	require.True(t, started)
	end := time.Now()
	for _, r := range runs {
		if outages[r.outage].away {
			r.cw.comeBack(t)
		} else {
			r.cw.set(cloudwatchWorks)
		}
	}
	post(false)
	last := lag

	write := os.Getenv("KARROT_E2E_WRITE") != ""
	documented := documentedOutages(t)
	if write {
		time.Sleep(90 * time.Second) // three times the longest pause between two attempts
	} else {
		require.Len(t, documented, len(outages)+1)
		arrived(75*time.Second, all, func(r *outageRun) []int {
			missing := r.missing(t)
			if documented[outages[r.outage].name][r.column] == "late" {
				return missing
			}
			return slices.DeleteFunc(missing, func(lag int) bool { return lag != last })
		})
	}
	t.Logf("%d Karrots, %s after the end of the outage", len(runs), time.Since(end).Round(time.Second))

	cells := map[string]map[string]string{}
	for _, r := range runs {
		name := outages[r.outage].name
		if cells[name] == nil {
			cells[name] = map[string]string{}
		}
		cells[name][r.column] = r.outcome(t, end)
		if !write {
			word, _, _ := strings.Cut(cells[name][r.column], ",")
			assert.Equal(t, documented[name][r.column], word, "%s: docs/cloudwatch.md, and what happened", r)
		}
	}
	table := outageTable(cells)
	t.Logf("\n%s", table)
	if write {
		writePart(t, outagesFile, outagesBegin, fmt.Sprintf("%s\nAn outage of %.0f s, a probe each second.\n", table, length.Seconds()))
	}
	for _, r := range runs {
		r.k.terminate(t)
	}
	for _, r := range runs {
		r.k.ended(t)
	}
}

// outcome is the cell of the table. Nothing may arrive with a wrong time.
func (r *outageRun) outcome(t *testing.T, end time.Time) string {
	t.Helper()
	times, latest := map[int]int{}, time.Duration(0)
	for _, s := range r.cw.samples(t) {
		posted, found := r.posted[s.lag]
		require.True(t, found, "%s: a lag that was never sent: %d", r, s.lag)
		assert.False(t, s.at.Before(posted[0].Truncate(time.Millisecond)) || s.at.After(posted[1]),
			"%s: what was posted at %s has the time %s", r, posted[0], s.at)
		times[s.lag]++
		if r.during[s.lag] {
			latest = max(latest, s.received.Sub(end))
		}
	}
	sent, lost, twice := 0, 0, false
	for lag := range r.posted {
		if r.during[lag] {
			sent++
			if times[lag] == 0 {
				lost++
			}
			twice = twice || times[lag] > 1
		}
	}
	if lost > 0 {
		return fmt.Sprintf("lost, %d of %d", lost, sent)
	}
	cell := fmt.Sprintf("late, all %d, %.0f s after the end", sent, latest.Seconds())
	if twice {
		cell += ", some more than once"
	}
	return cell
}

func signalAll(t *testing.T, runs []*outageRun) {
	t.Helper()
	for _, r := range runs {
		if signal := outages[r.outage].signal; signal != 0 {
			require.NoError(t, r.k.cmd.Process.Signal(signal))
		}
	}
	for _, r := range runs {
		if signal := outages[r.outage].signal; signal == syscall.SIGTERM {
			r.k.ended(t)
			r.k = nil
		} else if signal != 0 {
			<-r.k.exited
			r.k = nil
		}
	}
}

func startAll(t *testing.T, runs []*outageRun) {
	t.Helper()
	var started []*outageRun
	for _, r := range runs {
		if r.k == nil {
			r.k = launch(t, r.options)
			started = append(started, r)
		}
	}
	for _, r := range started {
		r.k.ready(t)
	}
}

func outageTable(cells map[string]map[string]string) string {
	lines := []string{"| CloudWatch | " + strings.Join(outageColumns, " | ") + " |", "|---" + strings.Repeat("|---", len(outageColumns)) + "|"}
	for _, o := range outages {
		row := []string{o.name}
		for _, column := range outageColumns {
			row = append(row, cmp.Or(cells[o.name][column], asInMemory))
		}
		lines = append(lines, "| "+strings.Join(row, " | ")+" |")
	}
	return strings.Join(lines, "\n") + "\n"
}

// cloudwatch-durable.yaml has the processors of cloudwatch.yaml under their names, and its exporter: whoever changes one of
// them, here or in an overlay, changes both.
func TestCloudWatchDurableSendsTheSame(t *testing.T) {
	type file struct {
		Processors, Exporters, Receivers map[string]any
	}
	read := func(name string) file {
		text, err := os.ReadFile(filepath.Join(root, "config", name))
		require.NoError(t, err)
		var f file
		require.NoError(t, yaml.Unmarshal(text, &f))
		return f
	}
	direct, durable := read("cloudwatch.yaml"), read("cloudwatch-durable.yaml")
	delete(direct.Processors, "batch/cloudwatch")
	assert.Equal(t, direct.Processors, durable.Processors)
	assert.Equal(t, direct.Exporters["awsemf/cloudwatch"], durable.Exporters["awsemf/cloudwatch-durable"])
	for _, use := range regexp.MustCompile(`\$\{env:KARROT_CLOUDWATCH_LOOPBACK:-([^}]*)\}`).FindAllStringSubmatch(fmt.Sprint(durable), -1) {
		assert.Equal(t, "localhost:4319", use[1], "on the loopback interface only")
	}
}

// A queue that is full refuses the receiver, which keeps the newest state of each group and hands it over when there is room.
func TestCloudWatchDurableFull(t *testing.T) {
	t.Parallel()
	const queueSize = 300_000
	small := filepath.Join(t.TempDir(), "small.yaml")
	require.NoError(t, os.WriteFile(small, []byte("exporters: {otlp_grpc/cloudwatch: {"+
		"retry_on_failure: {initial_interval: 1s, max_interval: 2s}, sending_queue: {queue_size: "+strconv.Itoa(queueSize)+", batch: {min_size: 50000, max_size: 100000}}}}"), 0o600))
	dir := t.TempDir()
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/cloudwatch-durable.yaml", small}, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_INTERVAL": "200ms", "KARROT_STORAGE_DIRECTORY": dir,
	})})
	cw.leave()
	const groups = 200
	round, full := 0, false
	for ; !full; round++ {
		require.Less(t, round, 50, "the queue is never full")
		for i := range groups {
			e := evaluation{Cluster: "east", Group: fmt.Sprintf("group-%03d", i), TotalLag: uint64(round)}
			k.accept(t, e.body(t))
		}
		full = scrape(t, k.telemetry)[`otelcol_exporter_enqueue_failed_metric_points_total{exporter="otlp_grpc/cloudwatch"}`] > 0
	}
	own := scrape(t, k.telemetry)
	size, capacity := own[`otelcol_exporter_queue_size{data_type="metrics",exporter="otlp_grpc/cloudwatch"}`], own[`otelcol_exporter_queue_capacity{data_type="metrics",exporter="otlp_grpc/cloudwatch"}`]
	assert.InDelta(t, queueSize, capacity, 0)
	assert.Greater(t, size, 0.5*capacity)
	assert.LessOrEqual(t, size, capacity)
	file, err := os.Stat(filepath.Join(dir, "exporter_otlp_grpc_cloudwatch_metrics"))
	require.NoError(t, err)
	t.Logf("figures: a queue of %.0f bytes holds %.0f points of %.0f bytes; its file has %d bytes", capacity,
		own[`otelcol_receiver_accepted_metric_points_total{receiver="burrow",transport="http"}`], size, file.Size())
	cw.comeBack(t)
	newest := map[any]float64{}
	waitFor(t, 60*time.Second, func() string {
		clear(newest)
		for _, d := range cw.documents(t) {
			if lag, isNumber := d.root["burrow.group.total_lag"].(float64); isNumber {
				newest[d.root["group"]] = max(newest[d.root["group"]], lag)
			}
		}
		behind := 0
		for i := range groups {
			if newest[fmt.Sprintf("group-%03d", i)] != float64(round-1) {
				behind++
			}
		}
		if behind > 0 {
			return fmt.Sprintf("%d groups without their newest state", behind)
		}
		return ""
	})
	k.stop(t)
}

// The receiver of the loop takes what its exporter sends, and nothing that costs much more memory than that: a message
// above its limit, plain or unpacked, is refused, and so is HTTP/1.1, which is all that a browser speaks to such a port.
func TestCloudWatchLoopbackLimits(t *testing.T) {
	t.Parallel()
	loopback := freePorts(t, 1)[0]
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/cloudwatch-durable.yaml"}, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_LOOPBACK": loopback, "KARROT_STORAGE_DIRECTORY": t.TempDir(),
	})})
	connection, err := grpc.NewClient(loopback, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { require.NoError(t, connection.Close()) }()
	export := func(bytes int, more ...grpc.CallOption) codes.Code {
		metrics := pmetric.NewMetrics()
		metric := metrics.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		metric.SetName("burrow.group.total_lag")
		metric.SetDescription(strings.Repeat("x", bytes))
		point := metric.SetEmptyGauge().DataPoints().AppendEmpty()
		point.SetIntValue(1)
		point.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
		point.Attributes().PutStr("cluster", "east")
		point.Attributes().PutStr("group", probe)
		_, err := pmetricotlp.NewGRPCClient(connection).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics), more...)
		return status.Code(err)
	}
	assert.Equal(t, codes.OK, export(10_000_000), "as large as the exporter's largest batch")
	assert.Equal(t, codes.ResourceExhausted, export(13<<20))
	assert.Equal(t, codes.ResourceExhausted, export(200<<20, grpc.UseCompressor(gzip.Name)), "200 KB that unpack to 200 MiB")
	code, text := get(t, "http://"+loopback+"/v1/metrics")
	assert.Zero(t, code, text)
	k.stop(t)
}

// What CloudWatch never takes is given up in the end, is counted then, and what is behind it arrives.
func TestCloudWatchDurableGivesUp(t *testing.T) {
	t.Parallel()
	impatient := filepath.Join(t.TempDir(), "impatient.yaml")
	require.NoError(t, os.WriteFile(impatient, []byte("exporters: {otlp_grpc/cloudwatch: {"+
		"retry_on_failure: {initial_interval: 1s, max_interval: 1s, max_elapsed_time: 3s}}}"), 0o600))
	cw := newCloudwatchLogs(t)
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/cloudwatch-durable.yaml", impatient}, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_STORAGE_DIRECTORY": t.TempDir(),
	})})
	cw.set(cloudwatchRefuses)
	e := evaluation{Cluster: "east", Group: probe, TotalLag: 1}
	k.accept(t, e.body(t))
	failed := func(exporter string) float64 {
		sum := 0.0
		for id, value := range scrape(t, k.telemetry) {
			if strings.HasPrefix(id, fmt.Sprintf("otelcol_exporter_send_failed_metric_points_total{exporter=%q", exporter)) {
				sum += value
			}
		}
		return sum
	}
	waitFor(t, 20*time.Second, func() string {
		if lost, attempted := failed("otlp_grpc/cloudwatch"), failed("awsemf/cloudwatch-durable"); lost == 0 || attempted == 0 {
			return fmt.Sprintf("given up: %v, failed attempts: %v", lost, attempted)
		}
		return ""
	})
	cw.set(cloudwatchWorks)
	e.TotalLag = 2
	k.accept(t, e.body(t))
	waitFor(t, 30*time.Second, func() string {
		if samples := cw.samples(t); len(samples) == 0 || samples[len(samples)-1].lag != 2 {
			return fmt.Sprint(samples)
		}
		return ""
	})
	k.stop(t)
}

// In a rolling restart the Karrot before holds the file until it has ended. The next one waits for it.
func TestCloudWatchDurableWaitsForItsFile(t *testing.T) {
	t.Parallel()
	cw := newCloudwatchLogs(t)
	o := options{Configs: []string{"config/karrot.yaml", "config/cloudwatch-durable.yaml"}, Env: cw.env(map[string]string{
		"KARROT_CLOUDWATCH_INTERVAL": "1", "KARROT_STORAGE_DIRECTORY": t.TempDir(),
	})}
	before := start(t, o)
	after := launch(t, o)
	time.Sleep(3 * time.Second) // three times what file_storage waits by default
	require.False(t, after.hasExited(), after.log())
	before.stop(t)
	after.ready(t)
	e := evaluation{Cluster: "east", Group: probe, TotalLag: 1}
	after.accept(t, e.body(t))
	cw.expect(t, 0, e.documents())
	after.stop(t)
}
