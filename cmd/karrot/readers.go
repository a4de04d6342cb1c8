package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configmiddleware"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"go.opentelemetry.io/collector/otelcol"
)

const (
	// maxReaders is how many clients get the page of the Prometheus exporter at one moment. Each holds all its series until
	// it has read them, and the exporter has no limit: 60 that do not read took 1.5 GB with 1,000 groups.
	maxReaders = 2
	// readerBlocks is how long a reader may let one write wait while others wait for its place, or the end of the process does.
	readerBlocks = time.Second
	// readerWaits is how long one waits for a place; Prometheus gives up after 10 s by default.
	readerWaits = 10 * time.Second
	// readerLooks is how often who waits looks for a reader that blocks.
	readerLooks = 100 * time.Millisecond
)

// boundedComponents are the components of the distribution, with a limit of readers on the page for Prometheus.
func boundedComponents() (otelcol.Factories, error) {
	factories, err := components()
	if err != nil {
		return factories, err
	}
	page := prometheusexporter.NewFactory()
	factories.Exporters[page.Type()] = exporter.NewFactory(page.Type(), page.CreateDefaultConfig,
		exporter.WithMetrics(func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
			bounded := *cfg.(*prometheusexporter.Config)
			bounded.Middlewares = append(slices.Clip(bounded.Middlewares), configmiddleware.Config{ID: readersID})
			e, err := page.CreateMetrics(ctx, set, &bounded)
			return &boundedExporter{Metrics: e, readers: newReaders()}, err
		}, page.MetricsStability()))
	return factories, nil
}

// readersID is no type that a configuration could name.
var readersID = component.MustNewIDWithName("readers", "prometheus")

// boundedExporter gives its server the readers as a middleware.
type boundedExporter struct {
	exporter.Metrics
	readers *readers
}

func (e *boundedExporter) Start(ctx context.Context, host component.Host) error {
	return e.Metrics.Start(ctx, readersHost{host, e.readers})
}

// Shutdown waits for the answers that are under way, except those whose clients do not read: the server would give each of
// them all of its write_timeout.
func (e *boundedExporter) Shutdown(ctx context.Context) error {
	ended := make(chan struct{})
	var cutting sync.WaitGroup
	defer cutting.Wait()
	defer close(ended)
	cutting.Go(func() {
		look := time.NewTicker(readerLooks)
		defer look.Stop()
		for {
			select {
			case <-ended:
				return
			case now := <-look.C:
				e.readers.cut(now)
			}
		}
	})
	return e.Metrics.Shutdown(ctx)
}

type readersHost struct {
	component.Host
	readers *readers
}

func (h readersHost) GetExtensions() map[component.ID]component.Component {
	extensions := maps.Clone(h.Host.GetExtensions())
	if extensions == nil {
		extensions = map[component.ID]component.Component{}
	}
	extensions[readersID] = h.readers
	return extensions
}

// readers bounds the requests that are answered at one moment. One that finds no place waits, and makes those give up theirs
// that have not taken what was written to them for a while.
type readers struct {
	component.StartFunc
	component.ShutdownFunc
	places chan struct{}

	mu     sync.Mutex
	active map[*reader]struct{}
}

var _ extensionmiddleware.HTTPServer = (*readers)(nil)

func newReaders() *readers {
	return &readers{places: make(chan struct{}, maxReaders), active: map[*reader]struct{}{}}
}

// GetHTTPHandler wraps what the exporter serves, behind its authentication.
func (l *readers) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) { return l.wrap(next), nil }, nil
}

func (l *readers) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
