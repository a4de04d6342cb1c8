// Command benchhttp measures the CPU time that servers spend on a notification, all of them in one
// interleaved run, because machines are noisy and only ratios of the same minutes mean something.
//
//	bare        net/http, and encoding/json into full structs
//	confighttp  the Collector's HTTP server with its instrumentation, discarding the body
//	karrot      the built binary with config/karrot.yaml
//
// and any server that -other names.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/lowess/karrot/e2e/internal/burrow"
	"github.com/lowess/karrot/e2e/internal/local"
	"github.com/lowess/karrot/e2e/internal/run"
)

func main() {
	serve := flag.String("serve", "", "be a server: bare or confighttp")
	address := flag.String("address", "", "where that server listens")
	var c campaign
	flag.StringVar(&c.bin, "bin", "../bin/karrot", "the binary")
	flag.StringVar(&c.top, "root", "..", "the top of the repository")
	flag.IntVar(&c.rounds, "rounds", 7, "rounds")
	flag.IntVar(&c.connections, "connections", 8, "connections that send without a pause")
	flag.DurationVar(&c.length, "length", 2*time.Second, "length of a round with one server and one body")
	flag.StringVar(&c.other, "other", "", "one more server, already running: name=url,pid[+pid...]")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *serve != "" {
		err = server(ctx, *serve, *address)
	} else {
		err = c.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchhttp:", err)
		os.Exit(1)
	}
	stop()
}

func bare(w http.ResponseWriter, r *http.Request) {
	// Into everything that Burrow sends.
	var e struct{ Event burrow.Notification }
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Event.Result.Group == "" {
		http.Error(w, "bad", http.StatusBadRequest)
	}
}

func discard(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, "bad", http.StatusBadRequest)
	}
}

func server(ctx context.Context, kind, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	var s *http.Server
	switch kind {
	case "bare":
		s = &http.Server{Handler: http.HandlerFunc(bare), ReadHeaderTimeout: time.Minute}
	case "confighttp":
		cfg := confighttp.NewDefaultServerConfig()
		// As in a collector: metrics have an SDK behind them, traces have none.
		telemetry := componenttest.NewNopTelemetrySettings()
		telemetry.MeterProvider = metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
		s, err = cfg.ToServer(ctx, nil, telemetry, http.HandlerFunc(discard))
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("-serve must be bare or confighttp, got %q", kind)
	}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type campaign struct {
	ports               []*run.Port
	bin, top, other     string
	rounds, connections int
	length              time.Duration
}

// target is a server under load.
type target struct {
	name, url string
	pids      []int
	stop      func()
}

// sample is a round with one target and one body.
type sample struct {
	cpu       time.Duration // of the server, per notification
	p50, p99  time.Duration
	perSecond float64
}

func (c *campaign) run(ctx context.Context) error {
	targets, err := c.start(ctx)
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(os.Stdout, "%d rounds of %s, %d connections, median of the rounds; ratios are those of each round\n", c.rounds, c.length, c.connections)
	fmt.Fprintln(out, "body\tserver\tCPU µs/notification\tbare/this\tconfighttp/this\tnotifications/s\tp50 ms\tp99 ms\t")
	for _, name := range []string{"small.json", "partitions-100.json"} {
		body, err := os.ReadFile(filepath.Join(c.top, "testdata", "load", name))
		if err != nil {
			return err
		}
		samples := map[string][]sample{}
		for range c.rounds {
			for _, t := range targets {
				s, err := c.round(ctx, t, body)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				samples[t.name] = append(samples[t.name], s)
			}
		}
		for _, t := range targets {
			mine := samples[t.name]
			ratio := func(of string) float64 {
				return median(mine, func(i int) float64 { return float64(samples[of][i].cpu) / float64(mine[i].cpu) })
			}
			ms := func(value func(sample) time.Duration) float64 {
				return median(mine, func(i int) float64 { return value(mine[i]).Seconds() * 1e3 })
			}
			fmt.Fprintf(out, "%s\t%s\t%.1f\t%.2f\t%.2f\t%.0f\t%.2f\t%.2f\t\n", name, t.name,
				1e3*ms(func(s sample) time.Duration { return s.cpu }), ratio("bare"), ratio("confighttp"),
				median(mine, func(i int) float64 { return mine[i].perSecond }),
				ms(func(s sample) time.Duration { return s.p50 }), ms(func(s sample) time.Duration { return s.p99 }))
		}
	}
	return out.Flush()
}

func median(samples []sample, value func(int) float64) float64 {
	var values []float64
	for i := range samples {
		values = append(values, value(i))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (c *campaign) start(ctx context.Context) ([]target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, kind := range []string{"bare", "confighttp"} {
		// Held until this program ends.
		port, err := run.Hold()
		if err != nil {
			return targets, err
		}
		c.ports = append(c.ports, port)
		address := port.Address()
		t, err := launch(ctx, kind, "http://"+address+"/burrow", exec.CommandContext(ctx, self, "-serve", kind, "-address", address))
		if err != nil {
			return targets, err
		}
		targets = append(targets, t)
	}
	karrot, err := local.Command(ctx, c.bin, c.top)
	if err != nil {
		return targets, err
	}
	karrot.Env = append(karrot.Env, "KARROT_LOG=error")
	t, err := launch(ctx, "karrot", karrot.Webhook, karrot.Cmd)
	if err != nil {
		return targets, err
	}
	targets = append(targets, t)
	if c.other == "" {
		return targets, nil
	}
	t, err = parseOther(c.other)
	return append(targets, t), err
}

func launch(ctx context.Context, name, url string, cmd *exec.Cmd) (target, error) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return target{}, err
	}
	t := target{name: name, url: url, pids: []int{cmd.Process.Pid}, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}}
	for range 100 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return t, err
		}
		if response, err := http.DefaultClient.Do(r); err == nil {
			return t, response.Body.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.stop()
	return t, fmt.Errorf("%s does not listen", name)
}

func parseOther(text string) (target, error) {
	name, rest, _ := strings.Cut(text, "=")
	url, list, found := strings.Cut(rest, ",")
	if !found {
		return target{stop: func() {}}, fmt.Errorf("-other must be name=url,pid[+pid...], got %q", text)
	}
	t := target{name: name, url: url, stop: func() {}}
	for pid := range strings.SplitSeq(list, "+") {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return t, err
		}
		t.pids = append(t.pids, n)
	}
	return t, nil
}

// round sends without a pause for the length of a round.
func (c *campaign) round(ctx context.Context, t target, body []byte) (sample, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: c.connections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	before, err := cpuTime(t.pids)
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	var mu sync.Mutex
	var latencies []time.Duration
	var failure error
	var senders sync.WaitGroup
	for range c.connections {
		senders.Go(func() {
			var mine []time.Duration
			var err error
			for err == nil && time.Since(begin) < c.length {
				sent := time.Now()
				err = post(ctx, client, t.url, body)
				mine = append(mine, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, mine...)
			failure = errors.Join(failure, err)
		})
	}
	senders.Wait()
	elapsed := time.Since(begin)
	after, err := cpuTime(t.pids)
	if err = errors.Join(failure, err); err != nil {
		return sample{}, err
	}
	slices.Sort(latencies)
	n := len(latencies)
	return sample{
		cpu: (after - before) / time.Duration(n), perSecond: float64(n) / elapsed.Seconds(),
		p50: latencies[n/2], p99: latencies[n*99/100],
	}, nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// cpuTime is the user and system time that processes have used. Linux only; a clock tick is 10 ms.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return 0, err
		}
		// The name, in brackets, may have spaces. Behind it, utime and stime are the 12th and 13th field.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum, nil
}
