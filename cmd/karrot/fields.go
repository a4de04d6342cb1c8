package main

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/service"
)

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

// isField says whether a key is a field of its component, and not a name in a map of labels or headers.
func (c *checker) isField(path []string) bool {
	_, found := c.fieldsOf(path[:len(path)-1])[path[len(path)-1]]
	return found
}

// fieldsOf returns the fields that a section can have, nil if they are not known.
func (c *checker) fieldsOf(section []string) map[string]reflect.Type {
	factories, err := c.set.Factories()
	if err != nil {
		return nil
	}
	var t reflect.Type
	switch {
	case len(section) == 0:
		return sections
	case len(section) > 1 && section[0] == "service" && section[1] == "telemetry":
		t, section = reflect.TypeOf(factories.Telemetry.CreateDefaultConfig()), section[2:]
	case section[0] == "service":
		t, section = sections["service"], section[1:]
	case len(section) > 1:
		factory := factoryOf(&factories, section[0], section[1])
		if factory == nil {
			return nil
		}
		t, section = reflect.TypeOf(factory.CreateDefaultConfig()), section[2:]
	default:
		return nil
	}
	for _, key := range section {
		if t = typeBelow(t, key); t == nil {
			return nil
		}
	}
	return structFields(t)
}

// sections are the fields of a whole configuration. What is below IDs depends on their types.
var sections = map[string]reflect.Type{
	"receivers": nil, "processors": nil, "exporters": nil, "connectors": nil, "extensions": nil, "service": reflect.TypeFor[service.Config](),
}

// factoryOf returns the factory of a component, nil if there is none.
func factoryOf(factories *otelcol.Factories, section, id string) (factory component.Factory) {
	kind, err := component.NewType(typeOf(id))
	if err != nil {
		return nil
	}
	found := false
	switch section {
	case "receivers":
		factory, found = factories.Receivers[kind]
	case "processors":
		factory, found = factories.Processors[kind]
	case "exporters":
		factory, found = factories.Exporters[kind]
	case "connectors":
		factory, found = factories.Connectors[kind]
	case "extensions":
		factory, found = factories.Extensions[kind]
	}
	if !found {
		return nil // and not a nil factory of one kind
	}
	return factory
}

// typeBelow is the type of what stands under a key, nil if nothing can.
func typeBelow(t reflect.Type, key string) reflect.Type {
	switch t = unwrapped(t); t.Kind() {
	case reflect.Map, reflect.Slice:
		return t.Elem()
	default:
		return structFields(t)[key]
	}
}

// unwrapped is a type without the pointer to it, and without configoptional.Optional around it.
func unwrapped(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if get, found := reflect.PointerTo(t).MethodByName("Get"); found && get.Type.NumIn() == 1 && get.Type.NumOut() == 1 && get.Type.Out(0).Kind() == reflect.Pointer {
		return get.Type.Out(0).Elem()
	}
	return t
}

// structFields returns the fields of a struct by the names that they have in a configuration.
func structFields(t reflect.Type) map[string]reflect.Type {
	t = unwrapped(t)
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
