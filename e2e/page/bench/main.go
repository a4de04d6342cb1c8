// Command bench measures the page of the built binary with many groups: what it weighs, when it is painted, and what
// open pages cost the webhook.
package main

import (
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/lowess/karrot/e2e/page/internal/browser"
)

func main() {
	bin := flag.String("bin", "../../bin/karrot", "the binary")
	top := flag.String("root", "../..", "the top of the repository")
	groups := flag.Int("groups", 10_000, "how many groups")
	rate := flag.Int("rate", 200, "notifications a second; each group once a minute are 167 for 10,000 groups")
	pages := flag.Int("pages", 100, "open pages")
	length := flag.Duration("length", 20*time.Second, "of each of the rounds")
	rounds := flag.Int("rounds", 3, "rounds with pages and without, in turns")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, *bin, *top, *groups, *rate, *pages, *length, *rounds)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, bin, top string, groups, rate, pages int, length time.Duration, rounds int) error {
	k, err := browser.Start(ctx, bin, top, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = k.Kill() }()
	for i := range groups {
		if err := k.Post(ctx, notification(i, 0)); err != nil {
			return err
		}
	}
	if err := weigh(ctx, k); err != nil {
		return err
	}
	if err := paint(ctx, k); err != nil {
		return err
	}
	fmt.Printf("\n| %d notifications a second | p50 | p99 | highest | CPU of a core | bytes a second to each page |\n|---|---|---|---|---|---|\n", rate)
	for round := range rounds {
		for _, open := range []int{0, pages} {
			if err := load(ctx, k, groups, rate, open, length, round); err != nil {
				return err
			}
		}
	}
	return k.Stop()
}

// notification of one group in 20 is WARN and lists three partitions.
func notification(i, round int) string {
	status, partitions := "OK", ""
	if i%20 == 0 {
		status = "WARN"
		var list []string
		for n := range 3 {
			list = append(list, fmt.Sprintf(`{"topic":"orders.of-region-%d","partition":%d,"owner":"/192.0.2.11","client_id":"worker-%d","status":"WARN","current_lag":%d,"complete":1,`+
				`"start":{"offset":1000,"timestamp":%d,"observedAt":%d,"lag":5},"end":{"offset":%d,"timestamp":%d,"observedAt":%d,"lag":%d}}`,
				i/10, n, n, 100+round, time.Now().Add(-time.Minute).UnixMilli(), time.Now().Add(-time.Minute).UnixMilli(),
				2000+round, time.Now().UnixMilli(), time.Now().UnixMilli(), 100+round))
		}
		partitions = strings.Join(list, ",")
	}
	return fmt.Sprintf(`{"Event":{"ID":"","Result":{"cluster":"east","group":"billing-service-%d","status":%q,"complete":1,"partition_count":12,"totallag":%d,"partitions":[%s]}}}`,
		i, status, 100*(i%97)+round, partitions)
}

// weigh prints the size of answers and how long they take.
func weigh(ctx context.Context, k *browser.Karrot) error {
	fmt.Println("| | bytes | bytes, gzip | ms (median of 20) |\n|---|---|---|---|")
	for _, path := range []string{"", "api/v1/groups", "api/v1/groups?status=trouble", "api/v1/groups/east/billing-service-0", "groups/east/billing-service-0"} {
		var took []time.Duration
		var plain, zipped int64
		for i := range 20 {
			// Each answer is of a table that has changed, so that none comes from what is kept.
			if err := k.Post(ctx, notification(0, i)); err != nil {
				return err
			}
			begin := time.Now()
			n, unzipped, err := fetch(ctx, k.Root+path)
			if err != nil {
				return err
			}
			took, zipped, plain = append(took, time.Since(begin)), n, unzipped
		}
		slices.Sort(took)
		fmt.Printf("| `/%s` | %d | %d | %.1f |\n", path, plain, zipped, ms(took[len(took)/2]))
	}
	return nil
}

// fetch returns how large a zipped answer is, and what it unzips to.
func fetch(ctx context.Context, address string) (zipped, plain int64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	count := &counter{Reader: response.Body}
	reader, err := gzip.NewReader(count)
	if err != nil {
		return 0, 0, err
	}
	plain, err = io.Copy(io.Discard, reader)
	return count.n.Load(), plain, err
}

type counter struct {
	io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// paint prints when a browser shows the page.
func paint(ctx context.Context, k *browser.Karrot) error {
	chromium, cancel, err := browser.Chromium(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var first, all []float64
	for range 5 {
		tab, closeTab := chromedp.NewContext(chromium)
		err := chromedp.Do(tab, chromedp.Navigate(k.Root))
		if err != nil {
			closeTab()
			return err
		}
		for {
			// The button that shows more is there once the script has all groups.
			done, err := chromedp.Run(tab, chromedp.Evaluate[bool](`!!document.getElementById('more') && !document.getElementById('more').hidden`))
			if err != nil {
				closeTab()
				return err
			}
			if done {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		now, err := chromedp.Run(tab, chromedp.Evaluate[float64]("performance.now()"))
		if err == nil {
			var painted float64
			painted, err = chromedp.Run(tab, chromedp.Evaluate[float64](`performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1`))
			first, all = append(first, painted), append(all, now)
		}
		closeTab()
		if err != nil {
			return err
		}
	}
	slices.Sort(first)
	slices.Sort(all)
	fmt.Printf("\nChromium, median of 5: first paint %.0f ms after the navigation began, live with all groups %.0f ms.\n", first[2], all[2])
	return nil
}

// load posts notifications at a fixed rate, with so many open pages, and prints what the webhook took.
func load(ctx context.Context, k *browser.Karrot, groups, rate, pages int, length time.Duration, round int) error {
	streams, closeStreams := context.WithCancel(ctx)
	defer closeStreams()
	var reading sync.WaitGroup
	var received atomic.Int64
	ready := make(chan error, pages)
	for range pages {
		reading.Go(func() { ready <- stream(streams, k.Root+"events", &received) })
	}
	time.Sleep(time.Second)
	if len(ready) > 0 {
		return <-ready
	}
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	count := int(length.Seconds() * float64(rate))
	took := make([]time.Duration, count)
	errs := make(chan error, count)
	var posting sync.WaitGroup
	cpuBefore, bytesBefore, begin := cpu(k.Process.Pid), received.Load(), time.Now()
	for i := range count {
		<-ticker.C
		posting.Go(func() {
			body := notification(i*7919%groups, round+1)
			begin := time.Now()
			errs <- k.Post(ctx, body)
			took[i] = time.Since(begin)
		})
	}
	posting.Wait()
	elapsed := time.Since(begin)
	if len(ready) > 0 {
		return fmt.Errorf("%d of %d pages were cut off: %w", len(ready), pages, <-ready)
	}
	used := cpu(k.Process.Pid) - cpuBefore
	perPage := "0"
	if pages > 0 {
		perPage = fmt.Sprintf("%.0f", float64(received.Load()-bytesBefore)/elapsed.Seconds()/float64(pages))
	}
	for range count {
		if err := <-errs; err != nil {
			return err
		}
	}
	slices.Sort(took)
	fmt.Printf("| %d open pages | %.2f ms | %.2f ms | %.2f ms | %.1f %% | %s |\n", pages, ms(took[count/2]), ms(took[count*99/100]), ms(took[count-1]),
		100*used.Seconds()/elapsed.Seconds(), perPage)
	closeStreams()
	reading.Wait()
	return nil
}

// stream reads events, as they come over the wire, until the context ends.
func stream(ctx context.Context, address string, received *atomic.Int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("events: %s", response.Status)
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := response.Body.Read(buffer)
		received.Add(int64(n))
		if err != nil {
			return fmt.Errorf("a stream ended: %w", err)
		}
	}
}

// cpu is the time that a process has used, in steps of 10 ms.
func cpu(pid int) time.Duration {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
