package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/otelcol"

	"github.com/lowess/karrot/config"
)

// unusable says which addresses to send to can't be used. The Collector starts with them, and then sends nothing.
func unusable(ctx context.Context, set otelcol.CollectorSettings, uris []string) error {
	settings := set.ConfigProviderSettings.ResolverSettings
	settings.URIs = uris
	resolver, err := confmap.NewResolver(settings)
	if err != nil {
		return nil //nolint:nilerr // the Collector says what is wrong
	}
	conf, err := resolver.Resolve(ctx)
	if err != nil {
		return nil //nolint:nilerr // the Collector says what is wrong
	}
	c := &checker{set: set, all: conf.ToStringMap(), fields: variables(ctx, settings), seen: map[string]bool{}}
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

// variables returns the values that have variables or files in them, as they are written, by field.
func variables(ctx context.Context, settings confmap.ResolverSettings) map[string]string {
	providers := map[string]confmap.Provider{}
	for _, factory := range settings.ProviderFactories {
		provider := factory.Create(settings.ProviderSettings)
		providers[provider.Scheme()] = provider
	}
	merged := confmap.New()
	for _, uri := range settings.URIs {
		scheme, _, found := strings.Cut(uri, ":")
		if !found || len(scheme) == 1 {
			scheme, uri = "file", "file:"+uri
		}
		provider := providers[scheme]
		if provider == nil {
			continue // The resolver says so.
		}
		retrieved, err := provider.Retrieve(ctx, uri, nil)
		if err != nil {
			continue
		}
		conf, err := retrieved.AsConf()
		if err != nil || merged.Merge(conf) != nil {
			continue
		}
	}
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
	typeName       = regexp.MustCompile(`^[a-z]\w*\.[A-Z]\w*$`)
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
		key, rest := match[1], match[2]
		if kind := unknownType.FindStringSubmatch(rest); kind != nil {
			types := slices.Sorted(slices.Values(strings.Fields(kind[3])))
			hint := ", which has " + strings.Join(types, ", ")
			if other := closest(kind[1], types); other != "" {
				hint = ": did you mean " + other + "?"
			}
			c.mistake([]string{key, kind[2]}, "has a type that is not in this binary%s", hint)
			continue
		}
		id, unknown := errorComponent.FindStringSubmatch(rest), invalidKeys.FindStringSubmatch(rest)
		switch {
		case id != nil:
			path = []string{key, id[1]}
		case strings.HasPrefix(rest, "decoding failed"):
			if strings.HasPrefix(key, "service") {
				path = nil
			}
			if key != "" {
				path = append(path, strings.Split(key, ".")...)
			}
		case unknown != nil:
			where := path
			if key != "" && !typeName.MatchString(key) {
				where = append(slices.Clone(path), key)
			}
			for name := range strings.SplitSeq(unknown[1], ", ") {
				field := c.find(where, name)
				c.mistake(field, "is no field%s", c.nearest(field))
			}
		default:
			c.badValue(c.find(path, strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(key), ".")...), rest)
		}
	}
}

// find returns the field that an error means: the text does not say where a section ends, so some of path may be left
// over from the section before.
func (c *checker) find(path []string, keys ...string) []string {
	component := min(2, len(path))
	for i := component; i <= len(path); i++ {
		if field := slices.Concat(path[:component], path[i:], keys); c.has(field) {
			return field
		}
	}
	return slices.Concat(path, keys)
}

// has says whether a field is written.
func (c *checker) has(path []string) bool {
	var part any = c.all
	for _, key := range path {
		switch in := part.(type) {
		case map[string]any:
			value, found := in[key]
			if !found {
				return false
			}
			part = value
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(in) {
				return false
			}
			part = in[i]
		default:
			return false
		}
	}
	return true
}

// value is what is written in a field.
func (c *checker) value(path []string) any {
	var value any
	every(nil, c.all, func(at []string, v any) {
		if slices.Equal(at, path) {
			value = v
		}
	})
	return value
}

// badValue says of a value what would be right.
func (c *checker) badValue(field []string, problem string) {
	got := fmt.Sprint(c.value(field))
	switch {
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

// nearest is the way out for a field that does not exist.
func (c *checker) nearest(field []string) string {
	known := slices.Sorted(maps.Keys(c.fieldsOf(field[:len(field)-1])))
	unknown := field[len(field)-1]
	if name := closest(unknown, known); name != "" {
		return ": did you mean " + name + "?"
	}
	if len(known) > 0 && len(known) <= 30 {
		return ", the fields there are " + strings.Join(known, ", ")
	}
	return ""
}

// fieldsOf returns the fields that a section of a component can have.
func (c *checker) fieldsOf(section []string) map[string]reflect.Type {
	if len(section) < 2 {
		return nil
	}
	factories, err := c.set.Factories()
	if err != nil {
		return nil
	}
	kind, err := component.NewType(typeOf(section[1]))
	if err != nil {
		return nil
	}
	var factory component.Factory
	switch section[0] {
	case "receivers":
		factory = factories.Receivers[kind]
	case "processors":
		factory = factories.Processors[kind]
	case "exporters":
		factory = factories.Exporters[kind]
	case "connectors":
		factory = factories.Connectors[kind]
	case "extensions":
		factory = factories.Extensions[kind]
	}
	if factory == nil {
		return nil
	}
	fields := structFields(reflect.TypeOf(factory.CreateDefaultConfig()))
	for _, key := range section[2:] {
		t, found := fields[key]
		if !found {
			return nil
		}
		fields = structFields(t)
	}
	return fields
}

// structFields returns the fields of a struct by the names that they have in a configuration.
func structFields(t reflect.Type) map[string]reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	// configoptional.Optional
	if get, found := reflect.PointerTo(t).MethodByName("Get"); found && get.Type.NumIn() == 1 && get.Type.NumOut() == 1 && get.Type.Out(0).Kind() == reflect.Pointer {
		t = get.Type.Out(0).Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("mapstructure"), ",")
		if strings.Contains(options, "squash") {
			maps.Copy(fields, structFields(field.Type))
		} else if name != "" && name != "-" {
			fields[name] = field.Type
		}
	}
	return fields
}

// closest returns the name that a misspelt one most likely means, or nothing.
func closest(name string, names []string) string {
	best, least := "", max(2, len(name)/4)+1
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance counts the letters that must be put in, taken out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Kubernetes sets such variables for a Service that is named karrot.
var ofService = regexp.MustCompile(`^KARROT_(\w+_)?(SERVICE_|PORT$|PORT_\d)`)

// environment looks for variables that are set and do nothing.
func (c *checker) environment() {
	used := map[string]bool{}
	for _, text := range c.fields {
		if strings.Contains(text, "${file:") {
			return // What that file uses is not known here.
		}
		for _, match := range variableRegexp.FindAllStringSubmatch(text, -1) {
			used[match[1]] = true
		}
	}
	in := map[string][]string{}
	for _, name := range config.Names() {
		text, err := config.Read(name)
		if err != nil {
			continue
		}
		for _, match := range variableRegexp.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(in[match[1]], config.Scheme+":"+name) {
				in[match[1]] = append(in[match[1]], config.Scheme+":"+name)
			}
		}
	}
	for _, assignment := range slices.Sorted(slices.Values(os.Environ())) {
		name, value, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, "KARROT_") || value == "" || used[name] || ofService.MatchString(name) {
			continue
		}
		if configs := in[name]; configs != nil {
			c.hints = append(c.hints, name+" is set, but it is only for "+strings.Join(configs, ", "))
			continue
		}
		hint := name + " is set, but no configuration uses it"
		if other := closest(name, slices.Sorted(maps.Keys(in))); other != "" {
			hint += ": did you mean " + other + "?"
		}
		c.hints = append(c.hints, hint)
	}
}
