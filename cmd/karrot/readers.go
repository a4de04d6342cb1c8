package main

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configmiddleware"
	"go.opentelemetry.io/collector/config/confignet"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"

	"github.com/lowess/karrot/internal/webserver"
)

const (
	// pagePath is where the exporter has its page.
	pagePath = "/metrics"
	// maxReaders is how many clients get the page of the Prometheus exporter at one moment. Each holds all its series until
	// it has read them, and the exporter has no limit: 60 that do not read took 1.5 GB with 1,000 groups.
	maxReaders = 2
	// readerBlocks is how long a reader may let one write wait while others wait for its place.
	readerBlocks = time.Second
	// readerWaits is how long one waits for a place; Prometheus gives up after 10 s by default.
	readerWaits = 10 * time.Second
	// readerLooks is how often who waits looks for a reader that blocks.
	readerLooks = 100 * time.Millisecond
	// lastRead is how long the end of the process waits for readers, however slowly they read. A page can be asked for again.
	lastRead = 2 * time.Second
)

// boundPage puts the limits of readers and of connections on the page for Prometheus.
func boundPage(page exporter.Factory) exporter.Factory {
	return exporter.NewFactory(page.Type(), page.CreateDefaultConfig,
		exporter.WithMetrics(func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
			configured := *cfg.(*prometheusexporter.Config)
			inner := configured
			inner.ServerConfig = confighttp.ServerConfig{NetAddr: unreachable(), Middlewares: []configmiddleware.Config{{ID: pageID}}, ReadHeaderTimeout: readerBlocks}
			e, err := page.CreateMetrics(ctx, set, &inner)
			return &boundedPage{Metrics: e, port: port{set.ID, configured.ServerConfig, set.TelemetrySettings, readerWaits}}, err
		}, page.MetricsStability()))
}

// boundedPage is the exporter behind a server of our own. The exporter's server has neither a limit of connections nor an end at
// which it does not wait for slow readers, and nothing of it can be set. So it gets an address at which nobody asks, and the
// page is taken from it.
type boundedPage struct {
	exporter.Metrics
	port port
	open *openPort
}

func (e *boundedPage) Start(ctx context.Context, host component.Host) error {
	taken := &pageTaker{}
	if err := e.Metrics.Start(ctx, pageHost{host, taken}); err != nil {
		return err
	}
	var err error
	e.open, err = e.port.open(ctx, host, newReaders().wrap(taken.page))
	return err
}

func (e *boundedPage) Shutdown(ctx context.Context) error {
	e.open.close(ctx, lastRead)
	return e.Metrics.Shutdown(ctx)
}

// unreachable is an address for a server that nobody asks. On Linux it is no port, and has another name at each start.
func unreachable() confignet.AddrConfig {
	if runtime.GOOS == "linux" {
		return confignet.AddrConfig{Transport: confignet.TransportTypeUnix, Endpoint: "@karrot-" + rand.Text()}
	}
	return confignet.AddrConfig{Transport: confignet.TransportTypeTCP, Endpoint: "127.0.0.1:0"}
}

var pageType = component.MustNewType("prometheus")

// pageID is no type that a configuration could name.
var pageID = component.MustNewIDWithName("page", "prometheus")

type pageHost struct {
	component.Host
	taker *pageTaker
}

func (h pageHost) GetExtensions() map[component.ID]component.Component {
	extensions := maps.Clone(h.Host.GetExtensions())
	if extensions == nil {
		extensions = map[component.ID]component.Component{}
	}
	extensions[pageID] = h.taker
	return extensions
}

// pageTaker is a middleware that takes the page of a server, and leaves it none.
type pageTaker struct {
	component.StartFunc
	component.ShutdownFunc
	page http.Handler
}

var _ extensionmiddleware.HTTPServer = (*pageTaker)(nil)

// GetHTTPHandler is called when the server is made.
func (t *pageTaker) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, page http.Handler) (http.Handler, error) {
		t.page = page
		return http.NotFoundHandler(), nil
	}, nil
}

// readers bounds the requests that are answered at one moment. One that finds no place waits, and makes those give up theirs
// that have not taken what was written to them for a while.
type readers struct {
	places chan struct{}

	mu     sync.Mutex
	active map[*reader]struct{}
}

func newReaders() *readers {
	return &readers{places: make(chan struct{}, maxReaders), active: map[*reader]struct{}{}}
}

// wrap bounds the readers of a page.
func (l *readers) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == pagePath {
			webserver.Keep(r.Context())
		}
		if !l.enter(r.Context()) {
			w.Header().Set("Connection", "close")
			http.Error(w, "Too many clients read this page at once", http.StatusServiceUnavailable)
			return
		}
		defer func() { <-l.places }()
		one := &reader{ResponseWriter: w, readers: l}
		l.set(func() { l.active[one] = struct{}{} })
		defer l.set(func() { delete(l.active, one) })
		next.ServeHTTP(one, r)
	})
}

func (l *readers) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// enter waits for a place.
func (l *readers) enter(ctx context.Context) bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, readerWaits)
	defer cancel()
	look := time.NewTicker(readerLooks)
	defer look.Stop()
	for {
		select {
		case l.places <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		case now := <-look.C:
			l.cut(now)
		}
	}
}

// cut ends the answers of those that do not read.
func (l *readers) cut(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for one := range l.active {
		if !one.writing.IsZero() && now.Sub(one.writing) >= readerBlocks {
			// A server without connections, in tests, has no deadline.
			_ = http.NewResponseController(one.ResponseWriter).SetWriteDeadline(now)
		}
	}
}

// reader is one answer.
type reader struct {
	http.ResponseWriter
	readers *readers
	// writing is when the write began that is under way; zero if none is. The mutex of readers guards it.
	writing time.Time
}

// Write ends the answer when its reader is gone or was cut. The exporter would write an error to the log for each.
func (r *reader) Write(p []byte) (int, error) {
	r.readers.set(func() { r.writing = time.Now() })
	defer r.readers.set(func() { r.writing = time.Time{} })
	n, err := r.ResponseWriter.Write(p)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// Unwrap is for http.ResponseController.
func (r *reader) Unwrap() http.ResponseWriter { return r.ResponseWriter }
