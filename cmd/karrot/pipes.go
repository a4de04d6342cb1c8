package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
)

// newFileFactory returns the Collector's provider of files, with one difference: what can be read only once, as a pipe, is
// kept and given again. A start resolves the configuration more than once: to check it, to start, and to explain a failure.
func newFileFactory() confmap.ProviderFactory {
	read := &readOnce{texts: map[string][]byte{}}
	return confmap.NewProviderFactory(func(set confmap.ProviderSettings) confmap.Provider {
		return fileProvider{fileprovider.NewFactory().Create(set), read}
	})
}

// readOnce has what came from files that give their content once, by URI. Each resolver makes a provider of its own, so
// it belongs to the factory.
type readOnce struct {
	mu    sync.Mutex
	texts map[string][]byte
}

type fileProvider struct {
	confmap.Provider
	read *readOnce
}

// Retrieve returns the configuration in a file.
func (p fileProvider) Retrieve(ctx context.Context, uri string, watch confmap.WatcherFunc) (*confmap.Retrieved, error) {
	path := filepath.Clean(strings.TrimPrefix(uri, "file:"))
	p.read.mu.Lock()
	defer p.read.mu.Unlock()
	text, found := p.read.texts[uri]
	if !found {
		if !givesOnce(path) {
			return p.Provider.Retrieve(ctx, uri, watch)
		}
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return p.Provider.Retrieve(ctx, uri, watch) // It has the words for what is wrong.
		}
		p.read.texts[uri] = text
	}
	return confmap.NewRetrievedFromYAML(text)
}

// givesOnce says whether a file may be empty when it is read again. On some systems an open file below /dev goes on where
// it was left.
func givesOnce(path string) bool {
	if strings.HasPrefix(path, "/dev/fd/") || path == "/dev/stdin" {
		return true
	}
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}
