package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lowess/karrot/config"
)

// defaultConfig is the configuration that stands alone.
const defaultConfig = config.Scheme + ":" + config.Default

// commandLine is what --config and --set were given.
type commandLine struct{ configs, sets []string }

// uris are the configurations that are asked for, in their order.
func (l *commandLine) uris() []string {
	uris := withBase(l.configs)
	for _, set := range l.sets {
		uris = append(uris, setURI(set))
	}
	return uris
}

// names are the configurations without values.
func (l *commandLine) names() []string {
	names := withBase(l.configs)
	for i, name := range names {
		names[i] = shownURI(name)
	}
	for _, set := range l.sets {
		field, _, _ := strings.Cut(set, "=")
		names = append(names, "--set "+strings.TrimSpace(field))
	}
	return names
}

var yamlField = regexp.MustCompile(`^yaml:([\w./-]+(?:::[\w./-]+)*: )?`)

// shownURI is the URI of a configuration without values, which may be secrets.
func shownURI(uri string) string {
	if field := yamlField.FindString(uri); field != "" {
		return field + "..."
	}
	return uri
}

// withBase puts the default configuration in front of overlays of ours, which it would undo behind them, and in the place of none at all. A file that
// comes first is taken for a whole configuration.
func withBase(configs []string) []string {
	switch {
	case len(configs) == 0:
		return []string{defaultConfig}
	case strings.HasPrefix(configs[0], config.Scheme+":") && configs[0] != defaultConfig:
		others := slices.DeleteFunc(slices.Clone(configs), func(c string) bool { return c == defaultConfig })
		return slices.Insert(others, 0, defaultConfig)
	}
	return slices.Clone(configs)
}

var metricSwitch = regexp.MustCompile(`^(.+)\.metrics\.(burrow\.[a-z_.]+)\.(enabled)$`)

// setURI is what --set gives, as the Collector has it, with one difference: a metric can be named, although there are
// dots in its name.
func setURI(set string) string {
	key, value, _ := strings.Cut(set, "=")
	key = strings.TrimSpace(key)
	metric := ""
	if parts := metricSwitch.FindStringSubmatch(key); parts != nil {
		key, metric = parts[1]+".metrics", "::"+parts[2]+"::"+parts[3]
	}
	return "yaml:" + strings.ReplaceAll(key, ".", "::") + metric + ": " + strings.TrimSpace(value)
}

// values keeps what a flag is given.
type values struct{ given *[]string }

// Set keeps one more value.
func (v values) Set(value string) error {
	*v.given = append(*v.given, value)
	return nil
}

// String is what the help shows.
func (v values) String() string { return "" }

// Type is what the help shows.
func (v values) Type() string { return "string" }

// sets are the values of --set.
type sets struct{ values }

// Set keeps one more value.
func (s sets) Set(value string) error {
	if !strings.Contains(value, "=") {
		return fmt.Errorf("must be a key and a value as in receivers.burrow.interval=2s, got %q", value)
	}
	return s.values.Set(value)
}

// readInto keeps what the flags --config and --set of a command of the Collector are given, and returns the
// Collector's own --config, which can be added to but not read; nil if the command has none.
func (l *commandLine) readInto(command *cobra.Command) pflag.Value {
	flag, set := command.Flags().Lookup("config"), command.Flags().Lookup("set")
	if flag == nil || set == nil {
		return nil
	}
	collectors := flag.Value
	flag.Value, set.Value = values{&l.configs}, sets{values{&l.sets}}
	flag.Usage, flag.DefValue = "`configuration` in the binary as karrot:NAME, or a file; can be given again, and what comes later wins", ""
	set.Usage = "`field=value` of the configuration, as in receivers.burrow.interval=2s; can be given again"
	if gates := command.Flags().Lookup("feature-gates"); gates != nil {
		gates.DefValue = "" // very long; karrot featuregate shows it
	}
	return collectors
}

func newConfigsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "configs [name]",
		Short: "Lists the configurations in this binary, or prints one of them",
		Long: `Lists the configurations in this binary, or prints one of them: karrot configs cloudwatch.
The files for Burrow are there too: karrot configs burrow/notification.tmpl, karrot configs burrow/burrow.toml.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 1 {
				text, err := config.Read(strings.TrimPrefix(args[0], config.Scheme+":"))
				if err != nil {
					return err
				}
				_, err = command.OutOrStdout().Write(text)
				return err
			}
			table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, name := range config.Names() {
				summary, err := config.Summary(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(table, "%s:%s\t%s\n", config.Scheme, name, summary)
			}
			return table.Flush()
		},
	}
}
