package burrowreceiver

import (
	"errors"
	"fmt"
	"regexp"
)

// FilterConfig chooses names by regular expressions, which match anywhere unless they are anchored.
type FilterConfig struct {
	// Include takes the names that match one of the expressions; all, if there are none.
	Include []string `mapstructure:"include"`
	// Exclude leaves out names that match one of the expressions, of those that are included.
	Exclude []string `mapstructure:"exclude"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// filter is a FilterConfig, compiled.
type filter struct{ include, exclude []*regexp.Regexp }

// compile returns the filter. field is where it stands in the configuration.
func (c *FilterConfig) compile(field string) (filter, error) {
	include, errInclude := compileAll(field+".include", c.Include)
	exclude, errExclude := compileAll(field+".exclude", c.Exclude)
	return filter{include, exclude}, errors.Join(errInclude, errExclude)
}

func compileAll(field string, expressions []string) ([]*regexp.Regexp, error) {
	var compiled []*regexp.Regexp
	var errs []error
	for i, expression := range expressions {
		re, err := regexp.Compile(expression)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s[%d] must be a regular expression (RE2), got %q: %w", field, i, expression, err))
			continue
		}
		compiled = append(compiled, re)
	}
	return compiled, errors.Join(errs...)
}

func (f *filter) takes(name string) bool {
	return (len(f.include) == 0 || matchesAny(f.include, name)) && !matchesAny(f.exclude, name)
}

func matchesAny(expressions []*regexp.Regexp, name string) bool {
	for _, re := range expressions {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

// filters are those of the receiver.
type filters struct{ clusters, groups, topics filter }

// takesGroup says whether what is told of a group is taken.
func (f *filters) takesGroup(cluster, group string) bool {
	return f.clusters.takes(cluster) && f.groups.takes(group)
}

func (c *Config) filters() (filters, error) {
	clusters, errClusters := c.Clusters.compile("clusters")
	groups, errGroups := c.Groups.compile("groups")
	var topics filter
	var errTopics error
	if c.API.HasValue() {
		topics, errTopics = c.API.Get().Topics.compile("api.topics")
	}
	return filters{clusters, groups, topics}, errors.Join(errClusters, errGroups, errTopics)
}
