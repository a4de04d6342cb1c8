package main

import (
	"context"
	"os"
	"strings"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
)

// newEnvFactory returns the Collector's provider of variables, with one difference: a variable that is set but empty has
// the default, as if it were unset. That is what :- means in a shell, and what OpenTelemetry asks of empty variables.
func newEnvFactory() confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(set confmap.ProviderSettings) confmap.Provider {
		return envProvider{envprovider.NewFactory().Create(set)}
	})
}

type envProvider struct{ confmap.Provider }

// Retrieve returns the value of a variable, or its default.
func (p envProvider) Retrieve(ctx context.Context, uri string, watch confmap.WatcherFunc) (*confmap.Retrieved, error) {
	name, fallback, found := strings.Cut(strings.TrimPrefix(uri, "env:"), ":-")
	if value, set := os.LookupEnv(name); found && set && value == "" {
		return confmap.NewRetrievedFromYAML([]byte(fallback))
	}
	return p.Provider.Retrieve(ctx, uri, watch)
}
