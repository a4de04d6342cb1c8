// Program karrot is the Collector distribution with the receiver for Burrow.
//
// ocb writes the components and the module files beside this file (builder-config.yaml). This file is written by hand,
// because what ocb writes has no place for commands, for a default configuration and for a version from the linker.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"

	"github.com/lowess/karrot/config"
)

// version is set by the linker: make build.
var version = "1.0.0-dev"

func main() {
	if err := run(settings()); err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+err.Error())
		os.Exit(1)
	}
}

// runInteractive runs a command. On Windows, run calls it unless the process is a service.
func runInteractive(set otelcol.CollectorSettings) error {
	return newCommand(set).Execute()
}

func settings() otelcol.CollectorSettings {
	return otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{
			Command:     "karrot",
			Description: "Karrot: an OpenTelemetry Collector that turns Burrow notifications into metrics",
			Version:     version,
		},
		Factories: boundedComponents,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			// A Windows service has no command that puts it there.
			URIs:          []string{defaultConfig},
			DefaultScheme: "env",
			ProviderFactories: []confmap.ProviderFactory{
				newEnvFactory(), newFileFactory(), yamlprovider.NewFactory(), config.NewFactory(),
			},
			ConverterFactories: []confmap.ConverterFactory{newExtensionsFactory()},
		}},
		ProviderModules: map[string]string{
			"env":         moduleOf("go.opentelemetry.io/collector/confmap/provider/envprovider"),
			"file":        moduleOf("go.opentelemetry.io/collector/confmap/provider/fileprovider"),
			"yaml":        moduleOf("go.opentelemetry.io/collector/confmap/provider/yamlprovider"),
			config.Scheme: moduleOf("github.com/lowess/karrot"),
		},
	}
}

// moduleOf returns a module that is linked in, with its version, as a manifest of ocb names it.
func moduleOf(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return path
	}
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path })
	if i < 0 {
		return path
	}
	return path + " " + info.Deps[i].Version
}

// newCommand returns the Collector's command, with a default configuration and with commands of our own.
func newCommand(set otelcol.CollectorSettings) *cobra.Command {
	root := otelcol.NewCommand(set)
	root.Long = set.BuildInfo.Description + ".\n\nWithout --config it starts with " + defaultConfig + ", and polls Burrow if KARROT_BURROW_API names its API."
	root.SilenceErrors = true
	line := &commandLine{}
	check := newCheckCommand(set, line, root)
	for _, command := range append(root.Commands(), root) {
		collectors := line.readInto(command)
		if collectors == nil {
			continue
		}
		next := command.RunE
		command.RunE = func(command *cobra.Command, args []string) error {
			for _, uri := range line.uris() {
				if err := collectors.Set(uri); err != nil {
					return err
				}
			}
			if command.Name() != "print-config" {
				if err := unusable(command.Context(), set, line.uris()); err != nil {
					return err
				}
			}
			return explain(command.Context(), set, line.uris(), next(command, args), command == root)
		}
	}
	root.AddCommand(newConfigsCommand(), check, newHealthCheckCommand())
	return root
}
