// Command demo replays the recorded traffic of a real Burrow into a karrot of its own, and prints what
// can then be read from its page of metrics.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/lowess/karrot/e2e/internal/local"
)

func main() {
	bin := flag.String("bin", "../bin/karrot", "the binary")
	top := flag.String("root", "..", "the top of the repository")
	speed := flag.Float64("speed", 20, "how many times as fast as it was recorded")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := demo(ctx, *bin, *top, *speed); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	stop()
}

func demo(ctx context.Context, bin, top string, speed float64) error {
	if speed <= 0 {
		return fmt.Errorf("-speed must be above 0, got %v", speed)
	}
	requests, err := local.Sequence(top)
	if err != nil {
		return err
	}
	k, err := startKarrot(ctx, bin, top)
	if err != nil {
		return err
	}
	err = k.show(ctx, requests, speed)
	if stopErr := k.stop(); stopErr != nil {
		err = errors.Join(err, stopErr)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, k.output.String())
	}
	fmt.Println("Karrot has stopped cleanly.")
	return nil
}

type karrot struct {
	*local.Karrot
	output bytes.Buffer
	exited chan error
}

func startKarrot(ctx context.Context, bin, top string) (*karrot, error) {
	// Stopped by its own signal, not by the context's.
	prepared, err := local.Command(context.WithoutCancel(ctx), bin, top)
	if err != nil {
		return nil, err
	}
	k := &karrot{Karrot: prepared, exited: make(chan error, 1)}
	k.Stdout, k.Stderr = &k.output, &k.output
	// An interrupt from the terminal reaches only the demo, which then stops the binary.
	k.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := k.Start(); err != nil {
		return nil, fmt.Errorf("%w (make build makes the binary)", err)
	}
	go func() { k.exited <- k.Wait() }()
	for range 200 {
		if _, err := get(ctx, k.Health); err == nil {
			return k, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("karrot does not get healthy"), k.stop(), errors.New(k.output.String()))
}

func (k *karrot) stop() error {
	if err := k.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-k.exited:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("karrot does not stop"), k.Process.Kill())
	}
}

func (k *karrot) show(ctx context.Context, requests []local.Request, speed float64) error {
	length := time.Duration(requests[len(requests)-1].Millis) * time.Millisecond
	fmt.Printf("Replaying %d notifications, %s of a real Burrow, %v times as fast.\nMeanwhile: %s\n",
		len(requests), length.Round(time.Second), speed, k.Metrics)
	begin := time.Now()
	step := 0
	for i, r := range requests {
		due := time.Duration(float64(r.Millis) * float64(time.Millisecond) / speed)
		select {
		case <-time.After(due - time.Since(begin)):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := post(ctx, k.Webhook, r.Body); err != nil {
			return fmt.Errorf("notification %d: %w", i+1, err)
		}
		if done := 10 * (i + 1) / len(requests); done > step {
			step = done
			fmt.Printf("%3d%%  %4d notifications answered with 200\n", 10*done, i+1)
		}
	}
	time.Sleep(2 * time.Second) // two hand-overs
	text, err := get(ctx, k.Metrics)
	if err != nil {
		return err
	}
	return table(os.Stdout, text)
}

func post(ctx context.Context, url, body string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	_, err = do(r)
	return err
}

func get(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	return do(r)
}

func do(r *http.Request) (string, error) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

var statuses = map[float64]string{0: "NOTFOUND", 1: "OK", 2: "WARN", 3: "ERR", 4: "STOP", 5: "STALL", 6: "REWIND"}

// table prints a line for each group on the page.
func table(w io.Writer, page string) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		return err
	}
	type group struct{ cluster, name string }
	bad := map[group][]string{}
	for _, m := range families["burrow_partition_status"].GetMetric() {
		g := group{label(m, "cluster"), label(m, "group")}
		bad[g] = append(bad[g], fmt.Sprintf("%s/%s %s", label(m, "topic"), label(m, "partition"), statuses[m.GetGauge().GetValue()]))
	}
	lags := map[group]float64{}
	for _, m := range families["burrow_group_total_lag"].GetMetric() {
		lags[group{label(m, "cluster"), label(m, "group")}] = m.GetGauge().GetValue()
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nCLUSTER\tGROUP\tSTATUS\tTOTAL LAG\tBAD PARTITIONS")
	for _, m := range families["burrow_group_status"].GetMetric() {
		g := group{label(m, "cluster"), label(m, "group")}
		list := bad[g]
		slices.Sort(list)
		if len(list) > 3 {
			list = append(list[:3], fmt.Sprintf("and %d more", len(bad[g])-3))
		}
		name := strings.NewReplacer("\t", `\t`, "\n", `\n`).Replace(g.name)
		fmt.Fprintf(out, "%s\t%s\t%s\t%.0f\t%s\n", g.cluster, name, statuses[m.GetGauge().GetValue()], lags[g], strings.Join(list, ", "))
	}
	fmt.Fprintln(out)
	return out.Flush()
}

func label(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}
