package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/otelcol"

	"github.com/lowess/karrot/internal/address"
)

func newCheckCommand(set otelcol.CollectorSettings, line *commandLine, root *cobra.Command) *cobra.Command {
	command := &cobra.Command{
		Use:   "check",
		Short: "Says what would keep a configuration from working here: fields, files, ports, addresses",
		Long: `Says what would keep a configuration from working on this machine, a line for each, with the field, its variable and what
would be right: fields, extensions, files, directories, ports, addresses, the region. It starts nothing, so it is for before
the start: the ports of a Karrot that runs are in use. Exit code 1 if something is wrong.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			uris := line.uris()
			set.ConfigProviderSettings.ResolverSettings.URIs = uris
			found := findings(command.Context(), set, uris, dryRun(command.Context(), set), here{files: true, ports: true})
			for _, hint := range found.hints {
				fmt.Fprintln(command.OutOrStdout(), "Hint: "+hint)
			}
			if len(found.mistakes) > 0 {
				return errors.New(strings.Join(found.mistakes, "\nError: "))
			}
			fmt.Fprintln(command.OutOrStdout(), "OK: nothing is wrong with "+strings.Join(line.names(), ", "))
			return nil
		},
	}
	command.Flags().AddFlagSet(root.Flags())
	return command
}

// dryRun is what `karrot validate` does.
func dryRun(ctx context.Context, set otelcol.CollectorSettings) error {
	collector, err := otelcol.NewCollector(set)
	if err != nil {
		return err
	}
	return collector.DryRun(ctx)
}

// found is what a check has found.
type found struct {
	mistakes []string // keep it from working
	hints    []string // may be meant so
	// translated says that the mistakes have all that the Collector said.
	translated bool
}

// here is what to look at on this machine.
type here struct{ files, ports bool }

// findings says what is wrong with a configuration, on this machine too as far as look says. failure is what the
// Collector says of it, or nil.
func findings(ctx context.Context, set otelcol.CollectorSettings, uris []string, failure error, look here) found {
	c, err := newChecker(ctx, set, uris)
	if err != nil {
		if mistake := noConfiguration(ctx, resolverSettings(set, uris)); mistake != "" {
			return found{mistakes: []string{mistake}, translated: true}
		}
		return found{mistakes: []string{oneLine(err.Error())}}
	}
	c.active = c.components()
	if c.base() {
		c.translate(failure)
		c.extensions()
		c.addresses()
		c.log()
		if look.files {
			c.files()
			c.certificates()
			c.directories()
		}
		if look.ports {
			c.ports()
		}
	}
	c.environment(uris)
	return c.found
}

// checker looks for mistakes in one configuration.
type checker struct {
	found

	set    otelcol.CollectorSettings
	all    map[string]any    // the configuration
	fields map[string]string // where fields have their values from, as written: ${env:...}
	active []part
	seen   map[string]bool
}

// newChecker resolves a configuration. An error says that there is none.
func newChecker(ctx context.Context, set otelcol.CollectorSettings, uris []string) (*checker, error) {
	settings := resolverSettings(set, uris)
	resolver, err := confmap.NewResolver(settings)
	if err != nil {
		return nil, err
	}
	conf, err := resolver.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	return &checker{set: set, all: conf.ToStringMap(), fields: variables(ctx, settings), seen: map[string]bool{}}, nil
}

func resolverSettings(set otelcol.CollectorSettings, uris []string) confmap.ResolverSettings {
	settings := set.ConfigProviderSettings.ResolverSettings
	settings.URIs = uris
	return settings
}

// part is a piece of the configuration and where it stands.
type part struct {
	path  []string
	value any
}

// mistake notes one for a field, which is enough to begin with.
func (c *checker) mistake(path []string, format string, args ...any) {
	field := c.name(path)
	if !c.seen[field] {
		c.seen[field] = true
		c.mistakes = append(c.mistakes, field+" "+fmt.Sprintf(format, args...))
	}
}

// name is a field, with its variable.
func (c *checker) name(path []string) string {
	field := strings.Join(path, "::")
	if variable := variableIn(c.fields[field]); variable != "" {
		return field + " (" + variable + ")"
	}
	return field
}

// base says whether there is a configuration that can stand alone.
func (c *checker) base() bool {
	for _, kind := range []string{"receivers", "exporters"} {
		if m, isMap := c.all[kind].(map[string]any); len(m) == 0 && (isMap || c.all[kind] == nil) {
			c.mistakes = append(c.mistakes, kind+" are missing: an overlay adds to a whole configuration, which must come before it, as in --config "+defaultConfig+" --config my.yaml")
			return false
		}
	}
	return true
}

// components are those that run: in a pipeline, or extensions that are listed.
func (c *checker) components() []part {
	ids := map[string][]string{}
	pipelines, _ := at(c.all, "service", "pipelines").(map[string]any)
	for _, pipeline := range pipelines {
		for _, kind := range []string{"receivers", "processors", "exporters"} {
			list, _ := at(pipeline, kind).([]any)
			for _, id := range list {
				ids[kind] = append(ids[kind], fmt.Sprint(id))
			}
		}
	}
	list, _ := at(c.all, "service", "extensions").([]any)
	for _, id := range list {
		ids["extensions"] = append(ids["extensions"], fmt.Sprint(id))
	}
	var parts []part
	for _, kind := range slices.Sorted(maps.Keys(ids)) {
		slices.Sort(ids[kind])
		for _, id := range slices.Compact(ids[kind]) {
			defined, _ := c.all[kind].(map[string]any)
			if value, found := defined[id]; found {
				parts = append(parts, part{[]string{kind, id}, value})
			} else if kind == "extensions" {
				c.mistake([]string{"extensions", id}, "is listed in service::extensions and not defined: define it, or take it from the list")
			}
		}
	}
	return parts
}

// every calls look for each value below a part.
func every(path []string, value any, look func(path []string, value any)) {
	look(path, value)
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			every(append(slices.Clone(path), key), value[key], look)
		}
	case []any:
		for i, item := range value {
			every(append(slices.Clone(path), strconv.Itoa(i)), item, look)
		}
	}
}

// typeOf is the type in an ID: burrow of burrow/east.
func typeOf(id string) string {
	kind, _, _ := strings.Cut(id, "/")
	return kind
}

func (c *checker) extensions() {
	defined, _ := c.all["extensions"].(map[string]any)
	listed, _ := at(c.all, "service", "extensions").([]any)
	for _, p := range c.active {
		every(p.path, p.value, func(path []string, value any) {
			id, ok := value.(string)
			if key := path[len(path)-1]; !ok || key != "authenticator" && key != "storage" || !c.isField(path) {
				return
			}
			if _, found := defined[id]; !found {
				c.mistake(path, "names the extension %s, which is not defined%s", id, overlayFor(id))
			}
		})
	}
	for _, id := range slices.Sorted(maps.Keys(defined)) {
		if !slices.Contains(listed, any(id)) {
			c.hints = append(c.hints, "extensions::"+id+" is defined, but nothing starts it: list it in service::extensions, or take it away")
		}
	}
}

// overlayFor is the way to an extension that is defined in an overlay of ours.
func overlayFor(id string) string {
	switch id {
	case "file_storage":
		return ": add --config karrot:storage"
	case "basicauth/burrow", "bearertokenauth/prometheus":
		return ": add --config karrot:secure"
	}
	return ": define it under extensions"
}

// addresses are those that are sent to.
func (c *checker) addresses() {
	for _, p := range c.active {
		kind := typeOf(p.path[1])
		if p.path[0] != "exporters" || kind != "otlp_http" && kind != "otlphttp" && kind != "prometheusremotewrite" {
			continue
		}
		keys := []string{"metrics_endpoint", "logs_endpoint"}
		if at(p.value, keys[0]) == nil && at(p.value, keys[1]) == nil {
			keys = []string{"endpoint"}
		}
		for _, key := range keys {
			value, _ := at(p.value, key).(string)
			if u, err := url.Parse(value); value != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
				c.mistake(append(slices.Clone(p.path), key), "must be a URL that begins with http:// or https://, got %q", address.WithoutSecrets(value))
			}
		}
	}
}

// log looks at what the Collector takes as it is until it makes its logger.
func (c *checker) log() {
	path := []string{"service", "telemetry", "logs", "encoding"}
	if encoding, _ := at(c.all, path...).(string); encoding != "" && encoding != "console" && encoding != "json" {
		c.mistake(path, "must be console or json, got %q", encoding)
	}
}

// files are those that must be readable.
func (c *checker) files() {
	for _, p := range c.active {
		every(p.path, p.value, func(path []string, value any) {
			key := path[len(path)-1]
			file, ok := value.(string)
			isFile := strings.HasSuffix(key, "_file") || key == "filename" || key == "file" && path[len(path)-2] == "htpasswd"
			if !ok || file == "" || !isFile || !c.isField(path) {
				return
			}
			if err := readable(file); err != nil {
				c.mistake(path, "must be a file that this user%s can read, got %q: %s", userID(), file, cause(err))
			}
		})
	}
}

// ofKey are the errors of crypto/tls about a key alone.
var ofKey = regexp.MustCompile(`in key input|for the private key|failed to parse private key|unknown private key type`)

// certificates are those that must belong to their keys.
func (c *checker) certificates() {
	for _, p := range c.active {
		every(p.path, p.value, func(path []string, value any) {
			certificate, _ := at(value, "cert_file").(string)
			key, _ := at(value, "key_file").(string)
			if readable(certificate) != nil || readable(key) != nil {
				return // which is said already, or there is none
			}
			_, err := tls.LoadX509KeyPair(certificate, key)
			switch {
			case err == nil:
			case ofKey.MatchString(err.Error()):
				c.mistake(append(slices.Clone(path), "key_file"), "must be a private key in PEM without a password, got %q: %s", key, cause(err))
			default:
				c.mistake(append(slices.Clone(path), "cert_file"), "must be a certificate in PEM and belong to key_file, got %q: %s", certificate, cause(err))
			}
		})
	}
}

// userID is who runs this, where users have numbers.
func userID() string {
	if id := os.Getuid(); id >= 0 {
		return fmt.Sprintf(" (uid %d)", id)
	}
	return ""
}

func readable(path string) error {
	if path == "" {
		return os.ErrNotExist
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("is a directory")
	case !info.Mode().IsRegular():
		return nil // To open a pipe can take for ever.
	}
	file, err := os.Open(path) //nolint:gosec // who writes the configuration names its files
	if err != nil {
		return err
	}
	return file.Close()
}

// cause leaves out of an error what stands beside it.
func cause(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
		var call *os.SyscallError
		var name *net.DNSError
		switch {
		case errors.As(err, &call):
			err = call.Err
		case errors.As(err, &name):
			return name.Err
		}
	}
	return oneLine(err.Error())
}

// directories are those of storages.
func (c *checker) directories() {
	for _, p := range c.active {
		directory, _ := at(p.value, "directory").(string)
		if p.path[0] != "extensions" || typeOf(p.path[1]) != "file_storage" || directory == "" {
			continue
		}
		create, _ := at(p.value, "create_directory").(bool)
		if err := writable(directory, create); err != nil {
			c.mistake(append(slices.Clone(p.path), "directory"),
				"must be a directory that this user%s can write, got %q: %s; in a container, mount a volume there that belongs to this user", userID(), directory, err)
		}
	}
}

// writable says why a directory can't be written, or made.
func writable(directory string, create bool) error {
	info, err := os.Stat(directory)
	if errors.Is(err, os.ErrNotExist) && create && filepath.Dir(directory) != directory {
		if _, err := os.Lstat(directory); err == nil {
			return fmt.Errorf("%s is a link to something that does not exist", directory)
		}
		return writable(filepath.Dir(directory), true)
	}
	if err != nil {
		return errors.New(cause(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory", directory)
	}
	probe, err := os.CreateTemp(directory, ".karrot-check-*")
	if err != nil {
		return fmt.Errorf("%s in %s", cause(err), directory)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	return writableFiles(directory)
}

// ofStorage are the names that file_storage gives to its files.
var ofStorage = regexp.MustCompile(`^(receiver|processor|exporter|extension|connector)_`)

// writableFiles says why a file of a storage can't be written that is there already.
func writableFiles(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(directory, e.Name())
		if info, err := os.Stat(path); !ofStorage.MatchString(e.Name()) || err != nil || !info.Mode().IsRegular() {
			continue
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // who writes the configuration names its files
		if err != nil {
			return fmt.Errorf("%s in %s", cause(err), path)
		}
		_ = file.Close() // nothing was written
	}
	return nil
}
