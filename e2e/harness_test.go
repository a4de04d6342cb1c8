// Package e2e tests the built binary from outside: through its webhook, its pages, its exporters and its signals.
//
// KARROT_BIN names the binary; `make e2e` builds it first.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/prom"
	"github.com/lowess/karrot/e2e/internal/run"
)

// root is the top of the repository.
const root = ".."

// startTimeout is generous: it is spent only when something is wrong.
const startTimeout = 30 * time.Second

func binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("KARROT_BIN")
	if path == "" {
		path = filepath.Join(root, "bin", "karrot")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	require.FileExists(t, path, "build the binary first: make build")
	return path
}

type options struct {
	// Configs are paths below the top of the repository, or absolute, or configurations in the binary (karrot:NAME).
	Configs []string
	// Env is added to an environment without any KARROT_ or AWS_ variable.
	Env map[string]string
	// Args come behind the --config flags.
	Args []string
}

// karrot is a running binary.
type karrot struct {
	webhook, metrics, health, telemetry string // URLs

	cmd    *exec.Cmd
	output *lockedBuffer
	exited chan struct{}
}

// command prepares the binary with ports of its own.
func command(t testing.TB, o options) *karrot {
	t.Helper()
	ports := freePorts(t, 5)
	env := map[string]string{
		"KARROT_ENDPOINT":            ports[0],
		"KARROT_PROMETHEUS_ENDPOINT": ports[1],
		"KARROT_HEALTH_ENDPOINT":     ports[2],
		"KARROT_TELEMETRY_PORT":      ports[3][strings.LastIndex(ports[3], ":")+1:],
		"KARROT_CLOUDWATCH_LOOPBACK": ports[4],
		// Nothing here may wait for a metadata service.
		"AWS_EC2_METADATA_DISABLED": "true",
	}
	maps.Copy(env, o.Env)

	var args []string
	for _, config := range o.Configs {
		if !filepath.IsAbs(config) && !strings.Contains(config, ":") {
			config = filepath.Join(root, config)
		}
		args = append(args, "--config", config)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	k := &karrot{
		webhook:   "http://" + env["KARROT_ENDPOINT"] + "/burrow",
		metrics:   "http://" + env["KARROT_PROMETHEUS_ENDPOINT"] + "/metrics",
		health:    "http://" + env["KARROT_HEALTH_ENDPOINT"] + "/heartbeat",
		telemetry: "http://localhost:" + env["KARROT_TELEMETRY_PORT"] + "/metrics",
		cmd:       exec.CommandContext(ctx, binary(t), append(args, o.Args...)...),
		output:    &lockedBuffer{},
		exited:    make(chan struct{}),
	}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "KARROT_") && !strings.HasPrefix(variable, "AWS_") {
			k.cmd.Env = append(k.cmd.Env, variable)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		k.cmd.Env = append(k.cmd.Env, name+"="+env[name])
	}
	k.cmd.Stdout, k.cmd.Stderr = k.output, k.output
	return k
}

// start runs the binary and returns once it is healthy. It is stopped with the test.
func start(t testing.TB, o options) *karrot {
	t.Helper()
	k := command(t, o)
	begin(t, k)
	return k
}

// begin runs a prepared binary and returns once it is healthy.
func begin(t testing.TB, k *karrot) {
	t.Helper()
	k.run(t)
	k.ready(t)
}

// launch runs the binary and does not wait for it.
func launch(t testing.TB, o options) *karrot {
	t.Helper()
	k := command(t, o)
	k.run(t)
	return k
}

func (k *karrot) run(t testing.TB) {
	t.Helper()
	require.NoError(t, k.cmd.Start())
	go func() {
		defer close(k.exited)
		_ = k.cmd.Wait() // the exit code is read from ProcessState
	}()
	t.Cleanup(func() {
		if !k.hasExited() {
			_ = k.cmd.Process.Kill()
			<-k.exited
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", strings.Join(k.cmd.Args, " "), k.log())
		}
	})
}

// ready waits until it is healthy.
func (k *karrot) ready(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		require.False(t, k.hasExited(), "the binary ended:\n%s", k.log())
		if status, _ := get(t, k.health); status == http.StatusOK {
			// The Collector takes SIGTERM only a moment after its extensions run. Before that it would just die.
			time.Sleep(50 * time.Millisecond)
			return
		}
		require.True(t, time.Now().Before(deadline), "not healthy in time")
		time.Sleep(20 * time.Millisecond)
	}
}

func (k *karrot) hasExited() bool {
	select {
	case <-k.exited:
		return true
	default:
		return false
	}
}

func (k *karrot) log() string { return k.output.String() }

// post sends a notification as Burrow does and returns the answer.
func (k *karrot) post(t testing.TB, body []byte) (status int, text string) {
	t.Helper()
	return k.send(t, http.MethodPost, body)
}

func (k *karrot) send(t testing.TB, method string, body []byte) (status int, text string) {
	t.Helper()
	request, err := http.NewRequest(method, k.webhook, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	return do(t, request)
}

// accept posts a notification that must be answered with 200.
func (k *karrot) accept(t testing.TB, body []byte) {
	t.Helper()
	status, text := k.post(t, body)
	require.Equal(t, http.StatusOK, status, text)
}

// series reads /metrics: value by `name{label="value",...}`, labels in order.
func (k *karrot) series(t testing.TB) map[string]float64 {
	t.Helper()
	return scrape(t, k.metrics)
}

// eventually waits until the series on /metrics are exactly those wanted.
func (k *karrot) eventually(t testing.TB, within time.Duration, want map[string]float64) {
	t.Helper()
	waitFor(t, within, func() string {
		page := k.series(t)
		return withoutTimeLags(page) + difference(want, page)
	})
}

// withoutTimeLags takes the time lags and moments out of a page, and what is known with the second poll: what they are, and whether they are
// known, depends on the machine's clock. It returns what cannot be right with any clock.
func withoutTimeLags(page map[string]float64) string {
	var problems []string
	companions := map[string]string{
		"burrow_partition_time_lag_seconds": "burrow_partition_lag",
		"burrow_group_max_time_lag_seconds": "burrow_group_status",

		"burrow_group_last_commit_timestamp_seconds": "burrow_group_status",
		"burrow_group_last_notification_seconds":     "burrow_group_status",
		"burrow_group_partitions_ahead":              "burrow_group_status",
	}
	for series, value := range page {
		name, labels, _ := strings.Cut(series, "{")
		companion := companions[name]
		if companion == "" {
			continue
		}
		delete(page, series)
		if _, found := page[companion+"{"+labels]; !found {
			problems = append(problems, "too many  "+series+"\n")
		}
		if !(value >= 0 && value < math.Inf(1)) {
			problems = append(problems, fmt.Sprintf("different %s is %v\n", series, value))
		}
	}
	slices.Sort(problems)
	return strings.Join(problems, "")
}

// waitFor polls until problem returns nothing.
func waitFor(t testing.TB, within time.Duration, problem func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		last := problem()
		if last == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s:\n%s", within, last)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// terminate asks the binary to end.
func (k *karrot) terminate(t testing.TB) {
	t.Helper()
	require.NoError(t, k.cmd.Process.Signal(syscall.SIGTERM))
}

// stop ends the binary as an orchestrator does and demands a clean exit.
func (k *karrot) stop(t testing.TB) {
	t.Helper()
	k.terminate(t)
	k.ended(t)
}

// ended waits for a clean exit after SIGTERM.
func (k *karrot) ended(t testing.TB) {
	t.Helper()
	select {
	case <-k.exited:
	case <-time.After(startTimeout):
		t.Fatal("still running after SIGTERM")
	}
	require.Zero(t, k.cmd.ProcessState.ExitCode(), k.log())
}

func get(t testing.TB, url string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

var client = &http.Client{Timeout: 30 * time.Second}

func do(t testing.TB, request *http.Request) (status int, text string) {
	t.Helper()
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func scrape(t testing.TB, url string) map[string]float64 {
	t.Helper()
	status, text := get(t, url)
	require.Equal(t, http.StatusOK, status, text)
	return seriesOn(t, text)
}

// seriesOn reads a page in Prometheus' text format.
func seriesOn(t testing.TB, text string) map[string]float64 {
	t.Helper()
	page, err := prom.Parse(text)
	require.NoError(t, err)
	for id, value := range page {
		if dependsOnTheClock(id) {
			require.GreaterOrEqual(t, value, 0.0, id)
			require.False(t, math.IsInf(value, 0) || math.IsNaN(value), id)
			page[id] = onTheClock
		}
	}
	return page
}

// difference lists the first lines in which two sets of series differ, or nothing.
func difference(want, got map[string]float64) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, found := got[name]; !found {
			lines = append(lines, "missing   "+name)
		} else if value != want[name] {
			lines = append(lines, fmt.Sprintf("different %s is %v, not %v", name, value, want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, found := want[name]; !found {
			lines = append(lines, "too many  "+name)
		}
	}
	if len(lines) > 20 {
		lines = append(lines[:20], fmt.Sprintf("and %d more", len(lines)-20))
	}
	return strings.Join(lines, "\n")
}

// freePorts returns loopback addresses that nobody else gets before the test ends.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	return run.Addresses(t, n)
}

// testdata reads a file below testdata at the top of the repository.
func testdata(t testing.TB, elem ...string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(append([]string{root, "testdata"}, elem...)...))
	require.NoError(t, err)
	return body
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
