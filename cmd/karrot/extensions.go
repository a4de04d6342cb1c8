package main

import (
	"context"
	"maps"
	"slices"

	"go.opentelemetry.io/collector/confmap"
)

// newExtensionsFactory returns a converter that adds to service::extensions what is defined and what a component in a
// pipeline names as its authenticator or its storage. Without it such a configuration does not start. With it two
// overlays can each bring an extension, although a list in a later file replaces that of an earlier one.
func newExtensionsFactory() confmap.ConverterFactory {
	return confmap.NewConverterFactory(func(confmap.ConverterSettings) confmap.Converter { return extensions{} })
}

type extensions struct{}

// Convert changes the configuration in place.
func (extensions) Convert(_ context.Context, conf *confmap.Conf) error {
	all := conf.ToStringMap()
	listed, ok := at(all, "service", "extensions").([]any)
	if !ok && at(all, "service", "extensions") != nil {
		return nil // The Collector says what is wrong with it.
	}
	defined, _ := all["extensions"].(map[string]any)
	named := map[string]bool{}
	for _, component := range inPipelines(all) {
		namedExtensions(component, named)
	}
	n := len(listed)
	for _, id := range slices.Sorted(maps.Keys(named)) {
		if _, found := defined[id]; found && !slices.Contains(listed, any(id)) {
			listed = append(listed, id)
		}
	}
	if len(listed) == n {
		return nil
	}
	return conf.Merge(confmap.NewFromStringMap(map[string]any{"service": map[string]any{"extensions": listed}}))
}

// inPipelines returns the configurations of the components that some pipeline uses.
func inPipelines(all map[string]any) []any {
	var components []any
	pipelines, _ := at(all, "service", "pipelines").(map[string]any)
	for _, pipeline := range pipelines {
		for _, kind := range []string{"receivers", "processors", "exporters"} {
			ids, _ := at(pipeline, kind).([]any)
			for _, id := range ids {
				if id, ok := id.(string); ok {
					components = append(components, at(all, kind, id), at(all, "connectors", id))
				}
			}
		}
	}
	return components
}

// namedExtensions collects the IDs of the extensions that a part of a configuration names.
func namedExtensions(part any, named map[string]bool) {
	switch part := part.(type) {
	case map[string]any:
		for key, value := range part {
			if key == "headers" {
				continue // Its keys are names of headers.
			}
			if id, ok := value.(string); ok && (key == "authenticator" || key == "storage") {
				named[id] = true
			}
			namedExtensions(value, named)
		}
	case []any:
		for _, value := range part {
			namedExtensions(value, named)
		}
	}
}

// at returns what stands in a part of a configuration under keys, or nil.
func at(part any, keys ...string) any {
	for _, key := range keys {
		m, _ := part.(map[string]any)
		part = m[key]
	}
	return part
}
