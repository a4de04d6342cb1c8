package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Chromium starts Debian's Chromium, without a window; CHROMIUM names another one. Cancel ends it.
func Chromium(ctx context.Context) (context.Context, context.CancelFunc, error) {
	path := os.Getenv("CHROMIUM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("chromium"); err != nil {
			return nil, nil, errors.New("chromium must be there (apt-get install chromium), or CHROMIUM must name one")
		}
	}
	options := append([]chromedp.ExecAllocatorOption{}, chromedp.DefaultExecAllocatorOptions[:]...)
	options = append(options, chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("lang", "en-US"),
		// What Chromium asks for itself must not be taken for the page's requests.
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("force-color-profile", "srgb"))
	allocator, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	if err := chromedp.Do(browser); err != nil {
		cancelBrowser()
		cancelAllocator()
		return nil, nil, err
	}
	return browser, func() { cancelBrowser(); cancelAllocator() }, nil
}

// Looks sets the size of the window and the color scheme, light or dark.
func Looks(ctx context.Context, width, height int64, scheme string) error {
	_, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500,
	})
	if err != nil {
		return err
	}
	_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	return err
}
