// Package config holds the configurations that come with Karrot, and gives them to a Collector as karrot:NAME.
//
// The files are those of this folder. A manifest of ocb takes the provider by
// `gomod: github.com/lowess/karrot` and `import: github.com/lowess/karrot/config`.
package config

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/confmap"
)

const (
	// Scheme stands before the name of a configuration.
	Scheme = "karrot"
	// Default is the configuration that stands alone. All others are overlays, which add to it.
	Default = "karrot"
)

//go:embed *.yaml burrow
var files embed.FS

// Names are those of the configurations, in order.
func Names() []string {
	paths, _ := fs.Glob(files, "*.yaml") // the pattern is well formed
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = strings.TrimSuffix(path, ".yaml")
	}
	slices.Sort(names) // a dot comes behind a dash
	return names
}

// Read returns the text of a configuration, or of a file for Burrow such as burrow/notification.tmpl.
func Read(name string) ([]byte, error) {
	if strings.HasPrefix(name, "burrow/") {
		if text, err := files.ReadFile(name); err == nil {
			return text, nil
		}
	}
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no %s:%s in this binary, only %s", Scheme, name, strings.Join(Names(), ", "))
	}
	return text, nil
}

// Summary is the first sentence of a configuration's comment, up to a colon.
func Summary(name string) (string, error) {
	text, err := Read(name)
	if err != nil {
		return "", err
	}
	var words []string
	for line := range strings.Lines(string(text)) {
		comment, found := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !found {
			break
		}
		words = append(words, strings.Fields(comment)...)
		for i, word := range words {
			if end := strings.TrimRight(word, ".:"); end != word {
				return strings.Join(append(words[:i:i], end), " "), nil
			}
		}
	}
	return strings.Join(words, " "), nil
}

// NewFactory returns the factory of the provider.
func NewFactory() confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return provider{} })
}

type provider struct{}

// Retrieve returns the configuration that a URI such as karrot:cloudwatch names.
func (provider) Retrieve(_ context.Context, uri string, _ confmap.WatcherFunc) (*confmap.Retrieved, error) {
	name, found := strings.CutPrefix(uri, Scheme+":")
	if !found {
		return nil, fmt.Errorf("the scheme of %q is not %s", uri, Scheme)
	}
	text, err := Read(name)
	if err != nil {
		return nil, err
	}
	return confmap.NewRetrievedFromYAML(text)
}

// Scheme is what URIs of the provider begin with.
func (provider) Scheme() string { return Scheme }

// Shutdown does nothing: the provider holds nothing.
func (provider) Shutdown(context.Context) error { return nil }
