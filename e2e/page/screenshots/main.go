// Command screenshots makes the pictures of the page in the documentation, from the recorded traffic.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/lowess/karrot/e2e/internal/local"
	"github.com/lowess/karrot/e2e/page/internal/browser"
)

// recordedAt is when the first request of the traffic arrived, by the commits in it.
var recordedAt = time.UnixMilli(1_795_355_214_000)

func main() {
	bin := flag.String("bin", "../../bin/karrot", "the binary")
	top := flag.String("root", "../..", "the top of the repository")
	to := flag.String("to", "../../docs/page", "the folder of the pictures")
	live := flag.Duration("live", 40*time.Second, "how much of the traffic is replayed as fast as it was recorded; what comes before is replayed at once")
	until := flag.Duration("until", 200*time.Second, "the moment of the traffic that is shown")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *top, *to, *live, *until); err != nil {
		fmt.Fprintln(os.Stderr, "screenshots:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

func run(ctx context.Context, bin, top, to string, live, until time.Duration) error {
	k, err := browser.Start(ctx, bin, top, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = k.Kill() }()
	chromium, cancel, err := browser.Chromium(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	if err := take(chromium, k.Root, to, "empty", 1280, "light"); err != nil {
		return err
	}
	if err := replay(ctx, k, top, live, until); err != nil {
		return err
	}
	for _, width := range []int64{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			if err := take(chromium, k.Root, to, "groups", width, scheme); err != nil {
				return err
			}
		}
	}
	if err := take(chromium, k.Root+"?status=trouble&open_cluster=east&open=warehouse-etl", to, "open", 1280, "light"); err != nil {
		return err
	}
	if err := take(chromium, k.Root+"groups/east/warehouse-etl", to, "group", 1280, "dark"); err != nil {
		return err
	}
	if err := take(chromium, k.Root+"groups/east/warehouse-etl", to, "group", 390, "light"); err != nil {
		return err
	}
	return k.Stop()
}

// replay posts the traffic up to a moment, its end at the pace at which it was recorded.
func replay(ctx context.Context, k *browser.Karrot, top string, live, until time.Duration) error {
	requests, err := local.Sequence(top)
	if err != nil {
		return err
	}
	begin := time.Now()
	shift := begin.Add(live - until).Sub(recordedAt)
	for _, r := range requests {
		at := time.Duration(r.Millis) * time.Millisecond
		if at > until {
			return nil
		}
		select {
		case <-time.After(time.Until(begin.Add(at - (until - live)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := k.Post(ctx, browser.Shift(r.Body, shift)); err != nil {
			return err
		}
	}
	return nil
}

func take(chromium context.Context, address, to, name string, width int64, scheme string) error {
	tab, cancel := chromedp.NewContext(chromium)
	defer cancel()
	bounded, cancelBounded := context.WithTimeout(tab, time.Minute)
	defer cancelBounded()
	height := int64(860)
	if width < 500 {
		height = 844
	}
	if err := chromedp.Do(bounded); err != nil {
		return err
	}
	if err := browser.Looks(bounded, width, height, scheme); err != nil {
		return err
	}
	err := chromedp.Do(bounded,
		chromedp.Navigate(address),
		chromedp.WaitVisible(chromedp.CSS(`[data-state="live"]`)),
		chromedp.Sleep(1500*time.Millisecond), // what is open is loaded, fonts are there
	)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	picture, err := chromedp.Run(bounded, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	file := filepath.Join(to, fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
	fmt.Println(file)
	return os.WriteFile(file, picture, 0o600)
}
