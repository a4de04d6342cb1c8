package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/otelcol"
	"go.uber.org/zap"

	"github.com/lowess/karrot/config"
)

// unusable says which addresses to send to can't be used. The Collector starts with them, and then sends nothing.
func unusable(ctx context.Context, set otelcol.CollectorSettings, uris []string) error {
	c, err := newChecker(ctx, set, uris)
	if err != nil {
		return nil //nolint:nilerr // the Collector says what is wrong
	}
	c.active, c.mistakes = c.components(), nil // what is not defined, the Collector says
	c.addresses()
	if len(c.mistakes) == 0 {
		return nil
	}
	return errors.New(strings.Join(c.mistakes, "\nError: "))
}

// explain says what a check finds, in a line for each, behind or in place of an error of the Collector. started says that
// it comes from a start.
func explain(ctx context.Context, set otelcol.CollectorSettings, uris []string, err error, started bool) error {
	if err == nil {
		return nil
	}
	text := oneLine(err.Error())
	// A start that failed otherwise may still hold ports of its own.
	found := findings(ctx, set, uris, err, here{files: started, ports: started && strings.Contains(text, "listen ")})
	var lines []string
	if !found.translated {
		lines = append(lines, text)
	}
	for _, mistake := range found.mistakes {
		if !strings.Contains(text, mistake) {
			lines = append(lines, mistake)
		}
	}
	return explained{strings.Join(lines, "\nError: "), err}
}

type explained struct {
	text  string
	cause error
}

// Error has a line for each mistake.
func (e explained) Error() string { return e.text }

// Unwrap returns what the Collector said.
func (e explained) Unwrap() error { return e.cause }

// oneLine puts a text of several lines into one.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}

var variableRegexp = regexp.MustCompile(`\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?:\}|:-)`)

// variableIn is the first variable in a value as it is written.
func variableIn(value string) string {
	if match := variableRegexp.FindStringSubmatch(value); match != nil {
		return match[1]
	}
	return ""
}

// retrieveEach retrieves each configuration of its own. Those that have no provider, or can't be had, are left out: the resolver says so.
func retrieveEach(ctx context.Context, settings confmap.ResolverSettings, visit func(uri string, retrieved *confmap.Retrieved)) {
	providers := map[string]confmap.Provider{}
	for _, factory := range settings.ProviderFactories {
		provider := factory.Create(confmap.ProviderSettings{Logger: zap.NewNop()})
		providers[provider.Scheme()] = provider
	}
	for _, uri := range settings.URIs {
		scheme, _, found := strings.Cut(uri, ":")
		full := uri
		if !found || len(scheme) == 1 {
			scheme, full = "file", "file:"+uri
		}
		provider := providers[scheme]
		if provider == nil {
			continue
		}
		if retrieved, err := provider.Retrieve(ctx, full, nil); err == nil {
			visit(uri, retrieved)
		}
	}
}

// noConfiguration says which configuration is none, and nothing if all are.
func noConfiguration(ctx context.Context, settings confmap.ResolverSettings) (mistake string) {
	retrieveEach(ctx, settings, func(uri string, retrieved *confmap.Retrieved) {
		_, err := retrieved.AsConf()
		if err == nil || mistake != "" {
			return
		}
		mistake = shownURI(uri) + " must be a configuration in YAML"
		if _, reason, found := strings.Cut(oneLine(err.Error()), ": yaml: "); found {
			mistake += ": " + reason
		} else {
			mistake += ", with receivers, exporters and service at the left margin"
		}
	})
	return mistake
}

// variables returns the values that have variables or files in them, as they are written, by field.
func variables(ctx context.Context, settings confmap.ResolverSettings) map[string]string {
	merged := confmap.New()
	retrieveEach(ctx, settings, func(_ string, retrieved *confmap.Retrieved) {
		if conf, err := retrieved.AsConf(); err == nil {
			_ = merged.Merge(conf) // The resolver says what does not fit.
		}
	})
	fields := map[string]string{}
	every(nil, merged.ToStringMap(), func(path []string, value any) {
		if text, ok := value.(string); ok && strings.Contains(text, "${") {
			fields[strings.Join(path, "::")] = text
		}
	})
	return fields
}

var (
	errorLine      = regexp.MustCompile(`^'([^']*)' (.*)$`)
	errorComponent = regexp.MustCompile(`^error reading configuration for "([^"]+)": `)
	unknownType    = regexp.MustCompile(`^unknown type: "([^"]+)" for id: "([^"]+)" \(valid values: \[(.*)\]\)$`)
	typeName       = regexp.MustCompile(`^[a-z]\w*\.[a-z]*[A-Z]\w*$`)
	invalidKeys    = regexp.MustCompile(`^has invalid keys: (.*)$`)
	inSeconds      = regexp.MustCompile(`^\$\{env:\w+(:-[^}]*)?\}s$`)
	invalid        = regexp.MustCompile(`^(?:invalid configuration: )?((?:receivers|processors|exporters|extensions|connectors)::[^ :]+)(?:::[^ ]+)*: (.+)$`)
	invalidField   = regexp.MustCompile(`^([a-z_]+(?:\.[a-z_]+)*) ((?:must|is|or) .+)$`)
)

// translate says in one line each what an error of the Collector says in several, with field, variable and way out.
func (c *checker) translate(failure error) {
	if failure == nil {
		return
	}
	before := len(c.mistakes)
	c.decoding(failure.Error())
	c.translated = len(c.mistakes) > before || c.validation(failure.Error())
	if strings.Contains(failure.Error(), "GetRegion") {
		for _, p := range c.active {
			if p.path[0] == "exporters" && typeOf(p.path[1]) == "awsemf" {
				c.mistake(p.path, "needs a region of AWS and found none: set AWS_REGION, as in AWS_REGION=eu-central-1")
				c.translated = true
			}
		}
	}
	c.queues(failure.Error())
	if len(c.mistakes) == before {
		c.mistakes = append(c.mistakes, oneLine(failure.Error()))
	}
}

var noDatabase = regexp.MustCompile(`invalid database|file size too small|checksum error|version mismatch`)

// queues says what to do with a file of a storage that is damaged.
func (c *checker) queues(text string) {
	if !noDatabase.MatchString(text) {
		return
	}
	for _, p := range c.active {
		directory, _ := at(p.value, "directory").(string)
		if p.path[0] == "extensions" && typeOf(p.path[1]) == "file_storage" && directory != "" {
			c.mistake(append(slices.Clone(p.path), "directory"),
				"has a file that is no database in %q: remove the file, and what is in it is lost", directory)
		}
	}
}

// validation translates what components say of their own fields, and returns whether that is all of the text.
func (c *checker) validation(text string) (all bool) {
	var path []string
	all = true
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if match := invalid.FindStringSubmatch(line); match != nil {
			path, line = strings.Split(match[1], "::"), match[2]
		}
		if match := invalidField.FindStringSubmatch(line); match != nil && path != nil {
			c.mistake(append(slices.Clone(path), strings.Split(match[1], ".")...), "%s", match[2])
			continue
		}
		all = false
	}
	return all
}

// decoding translates the error of a configuration that can't be read.
func (c *checker) decoding(text string) {
	var path []string
	for line := range strings.Lines(text) {
		match := errorLine.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		keys, rest := dotted(match[1]), match[2]
		if len(keys) > 0 && keys[0] == "service" {
			path = nil
		}
		kind, id, unknown := unknownType.FindStringSubmatch(rest), errorComponent.FindStringSubmatch(rest), invalidKeys.FindStringSubmatch(rest)
		switch {
		case kind != nil:
			c.unknownType(match[1], kind[1], kind[2], strings.Fields(kind[3]))
		case id != nil:
			path = []string{match[1], id[1]}
		case strings.HasPrefix(rest, "decoding failed"):
			path = append(path, keys...)
		case unknown != nil:
			for name := range strings.SplitSeq(unknown[1], ", ") {
				field := c.find(path, append(slices.Clone(keys), name)...)
				c.mistake(field, "is no field%s", c.nearest(field))
			}
		default:
			if field := c.find(path, keys...); len(field) > 0 {
				c.badValue(field, rest)
			}
		}
	}
}

// dotted splits the field of an error, as in a.b[0].c; that of a type in Go is none.
func dotted(field string) []string {
	if typeName.MatchString(field) {
		return nil
	}
	return strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune(".[]", r) })
}

func (c *checker) unknownType(section, kind, id string, types []string) {
	slices.Sort(types)
	hint := ", which has " + strings.Join(types, ", ")
	if other := closest(kind, types); other != "" {
		hint = ": did you mean " + other + "?"
	}
	c.mistake([]string{section, id}, "has a type that is not in this binary%s", hint)
}

// find returns the field that an error means: the text does not say where a section ends, so some of path may be left
// over from the section before.
func (c *checker) find(path []string, keys ...string) []string {
	component := min(2, len(path))
	for i := component; i <= len(path); i++ {
		if field, _, found := c.written(slices.Concat(path[:component], path[i:], keys)); found {
			return field
		}
	}
	return slices.Concat(path, keys)
}

// written follows keys into the configuration, and returns the field that they lead to, with its value.
func (c *checker) written(keys []string) (field []string, value any, found bool) {
	value = c.all
	for len(keys) > 0 {
		n, next := below(value, keys)
		if n == 0 {
			return nil, nil, false
		}
		field = append(field, strings.Join(keys[:n], "."))
		keys, value = keys[n:], next
	}
	return field, value, true
}

// below returns what stands in a part of a configuration under the first keys, and how many those are: names of metrics
// have dots in them, which an error does not tell from those between two keys. It is 0 if nothing stands there.
func below(part any, keys []string) (n int, value any) {
	switch part := part.(type) {
	case map[string]any:
		for n := len(keys); n > 0; n-- {
			if value, found := part[strings.Join(keys[:n], ".")]; found {
				return n, value
			}
		}
	case []any:
		if i, err := strconv.Atoi(keys[0]); err == nil && i >= 0 && i < len(part) {
			return 1, part[i]
		}
	}
	return 0, nil
}

// badValue says of a value what would be right.
func (c *checker) badValue(field []string, problem string) {
	_, value, found := c.written(field)
	got := fmt.Sprint(value)
	switch {
	case !found:
		c.mistake(field, "can't be read: %s", problem)
	case inSeconds.MatchString(c.fields[strings.Join(field, "::")]):
		c.mistake(field, "must be a number of seconds without a unit, as in 30, got %q", strings.TrimSuffix(got, "s"))
	case strings.HasPrefix(problem, "time: "):
		c.mistake(field, "must be a time with its unit as in 30s or 5m, got %q", got)
	case strings.Contains(problem, "unrecognized level"):
		c.mistake(field, "must be DEBUG, INFO, WARN or ERROR, got %q", got)
	case strings.Contains(problem, "expected type 'int'"), strings.Contains(problem, "expected type 'uint"):
		c.mistake(field, "must be a whole number, got %q", got)
	default:
		// The value may be a secret.
		c.mistake(field, "can't be read: %s", problem)
	}
}

// Kubernetes sets such variables for a Service that is named karrot.
var ofService = regexp.MustCompile(`^KARROT_(\w+_)?(SERVICE_|PORT$|PORT_\d)`)

// environment looks for variables that are set and do nothing.
func (c *checker) environment(uris []string) {
	used := map[string]bool{}
	for _, text := range c.fields {
		if strings.Contains(text, "${file:") {
			return // What that file uses is not known here.
		}
		for _, match := range variableRegexp.FindAllStringSubmatch(text, -1) {
			used[match[1]] = true
		}
	}
	users := usersOfVariables()
	for _, assignment := range slices.Sorted(slices.Values(os.Environ())) {
		name, value, _ := strings.Cut(assignment, "=")
		if strings.HasPrefix(name, "KARROT_") && value != "" && !used[name] && !ofService.MatchString(name) {
			c.hints = append(c.hints, name+" is set, but "+whyUnused(name, users, uris))
		}
	}
}

// whyUnused is why a variable does nothing that is set.
func whyUnused(name string, users map[string][]string, uris []string) string {
	var given []string
	for _, uri := range users[name] {
		if slices.Contains(uris, uri) {
			given = append(given, uri)
		}
	}
	switch {
	case len(given) > 0:
		return "a later configuration writes again what it sets in " + strings.Join(given, ", ")
	case users[name] != nil:
		return "it is only for " + strings.Join(users[name], ", ")
	}
	if other := closest(name, slices.Sorted(maps.Keys(users))); other != "" {
		return "no configuration uses it: did you mean " + other + "?"
	}
	return "no configuration uses it"
}

// usersOfVariables are the configurations in this binary that use each variable.
func usersOfVariables() map[string][]string {
	users := map[string][]string{}
	for _, name := range config.Names() {
		text, err := config.Read(name)
		if err != nil {
			continue
		}
		uri := config.Scheme + ":" + name
		for _, match := range variableRegexp.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(users[match[1]], uri) {
				users[match[1]] = append(users[match[1]], uri)
			}
		}
	}
	return users
}
