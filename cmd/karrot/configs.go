package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lowess/karrot/config"
)

// defaultConfig is the configuration that stands alone.
const defaultConfig = config.Scheme + ":" + config.Default

// withBase puts the default configuration in front of overlays of ours, and in the place of none at all. A file that
// comes first is taken for a whole configuration.
func withBase(configs []string) []string {
	switch {
	case len(configs) == 0:
		return []string{defaultConfig}
	case strings.HasPrefix(configs[0], config.Scheme+":") && !slices.Contains(configs, defaultConfig):
		return slices.Insert(slices.Clone(configs), 0, defaultConfig)
	}
	return configs
}

// configFlag keeps what --config is given until all of it is known.
type configFlag struct {
	pflag.Value // the Collector's own, which can be added to and not read

	given []string
}

// Set keeps one more value.
func (f *configFlag) Set(value string) error {
	f.given = append(f.given, value)
	return nil
}

// putBaseFirst lets a command of the Collector run with withBase of what --config is given.
func putBaseFirst(command *cobra.Command) {
	flag := command.Flags().Lookup("config")
	if flag == nil {
		return
	}
	configs := &configFlag{Value: flag.Value}
	flag.Value = configs
	next := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		for _, value := range withBase(configs.given) {
			if err := configs.Value.Set(value); err != nil {
				return err
			}
		}
		return next(command, args)
	}
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
