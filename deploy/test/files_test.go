package deploy

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// artefacts returns the text of everything in deploy/ but its tests, and of the pages about it, by path.
func artefacts(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, top := range []string{"deploy", "docs/runbooks", "docs/deploying.md"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && path == filepath.Join(root, "deploy", "test") {
				return filepath.SkipDir
			}
			if entry.IsDir() || strings.HasSuffix(path, ".tgz") {
				return nil
			}
			text, err := os.ReadFile(path)
			out[path] = string(text)
			return err
		}))
	}
	require.NotEmpty(t, out)
	return out
}

// variablesOfConfigs are those that a file in config/ reads.
func variablesOfConfigs(t testing.TB) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	paths, err := filepath.Glob(root + "/config/*.yaml")
	require.NoError(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`\$\{env:(KARROT_\w+)`).FindAllStringSubmatch(string(text), -1) {
			out[found[1]] = true
		}
	}
	require.NotEmpty(t, out)
	return out
}

// kind is a kind of name that artefacts use, and what is known of it.
type kind struct {
	name string
	// pattern finds a name, and its first group is the name.
	pattern *regexp.Regexp
	known   func(name string) bool
	// in says in which files the pattern means this kind; nil is all.
	in func(path string) bool
}

// problems are the names in a text that are not known.
func (k kind) problems(path, text string) []string {
	if k.in != nil && !k.in(path) {
		return nil
	}
	var out []string
	for _, found := range k.pattern.FindAllStringSubmatch(text, -1) {
		if !k.known(found[1]) {
			out = append(out, fmt.Sprintf("%s names the %s %s, which is not there", path, k.name, found[1]))
		}
	}
	return out
}

// spoil changes the first name of this kind in a text. It returns "" when there is none.
func (k kind) spoil(path, text string) string {
	if k.in != nil && !k.in(path) {
		return ""
	}
	found := k.pattern.FindStringSubmatchIndex(text)
	if found == nil {
		return ""
	}
	name := text[found[2]:found[3]]
	switch last := name[len(name)-1]; {
	case strings.Trim(name, "0123456789") == "":
		name = "6" + name[1:]
	case last >= 'A' && last <= 'Z':
		name = name[:len(name)-1] + "Q"
	default:
		name = name[:len(name)-1] + "q"
	}
	return text[:found[2]] + name + text[found[3]:]
}

// checkKinds looks for unknown names in all artefacts, and sees that each kind is missed in each artefact that has it.
func checkKinds(t *testing.T, kinds ...kind) {
	t.Helper()
	for _, k := range kinds {
		spoilt := 0
		for path, text := range artefacts(t) {
			for _, problem := range k.problems(path, text) {
				assert.Fail(t, problem)
			}
			if worse := k.spoil(path, text); worse != "" {
				spoilt++
				assert.NotEmpty(t, k.problems(path, worse), "%s: nobody misses a wrong %s", path, k.name)
			}
		}
		assert.Positive(t, spoilt, "no artefact names a %s", k.name)
	}
}

// portsOfOthers are those of other programs, by the number.
var portsOfOthers = map[string]string{
	"80": "the Service, as the first Karrot's", "53": "DNS", "2049": "NFS, of EFS", "8000": "Burrow's API", "9092": "Kafka", "9093": "Kafka's controller, Alertmanager", "9090": "Prometheus",
	"9095": "whoever Alertmanager tells", "2181": "ZooKeeper", "3000": "Grafana", "4318": "a collector, by OTLP",
}

// What artefacts name is there: variables, files, overlays, ports, alerts, values of the chart, parameters of templates.
func TestNamedThingsExist(t *testing.T) {
	variables := variablesOfConfigs(t)
	exists := func(path string) bool {
		_, err := os.Stat(existing(filepath.Join(root, path)))
		return err == nil
	}
	config := func(name string) bool { return exists("config/" + name + ".yaml") }
	ports := map[string]bool{}
	for _, file := range []string{"karrot", "cloudwatch-durable"} {
		text, err := os.ReadFile(root + "/config/" + file + ".yaml")
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`KARROT_\w+:-(?:localhost:)?(\d{4,5})\}`).FindAllStringSubmatch(string(text), -1) {
			ports[found[1]] = true
		}
	}
	require.Len(t, ports, 5)
	alerts := map[string]bool{}
	for _, r := range allRules(readRules(t)) {
		alerts[r.Alert] = true
	}
	markdown := func(path string) bool { return filepath.Ext(path) == ".md" }
	var schema map[string]any
	text, err := os.ReadFile(root + "/deploy/helm/karrot/values.schema.json")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &schema))
	checkKinds(t,
		kind{"variable", regexp.MustCompile(`\b(KARROT_[A-Z0-9_]*[A-Z0-9])\b`), func(name string) bool { return variables[name] || karrot1Variables[name] }, nil},
		kind{"variable of Go or AWS", regexp.MustCompile(`\b((?:AWS_|GOMEM|GOGC|GOMAX)[A-Z_]*[A-Z])\b`), func(name string) bool {
			return slices.Contains([]string{"GOMEMLIMIT", "AWS_REGION", "AWS_DEFAULT_REGION"}, name)
		}, nil},
		kind{"file", regexp.MustCompile(`\b((?:config|deploy|docs)/[\w/.-]*\w)(?:[^\w{-]|$)`), exists, nil},
		kind{"component", regexp.MustCompile(`[^\w/]((?:components|overlays)/[\w-]+)`), func(name string) bool { return exists("deploy/kubernetes/" + name) }, nil},
		kind{"overlay", regexp.MustCompile(`\bkarrot:([a-z][a-z0-9-]*)`), config, nil},
		kind{"overlay of the chart", regexp.MustCompile(`\boverlays?[:=] ?\[?([a-z][a-z0-9-]*)`), config, nil},
		kind{"port", regexp.MustCompile(`(?i)(?:\bports?["':= ]+|:)(\d{2,5})(?:\.?(?:[^\w.]|$))`), func(name string) bool {
			return ports[name] || portsOfOthers[name] != "" || name == "10001" // the user of the image
		}, nil},
		kind{"alert", regexp.MustCompile(`\b((?:KafkaConsumer|KafkaCluster|Karrot)[A-Z]\w*)`), func(name string) bool { return alerts[name] }, nil},
		kind{
			"value", regexp.MustCompile("[^\\w./-]((?:" + strings.Join(valuesOfChart(schema), "|") + `)(?:\.[a-zA-Z]\w*)+)`), func(name string) bool { return isValue(schema, name, variables) },
			func(path string) bool {
				return slices.Contains([]string{"README.md", "UPGRADING.md", "NOTES.txt", "_helpers.tpl", "values.yaml", "deploying.md"}, filepath.Base(path)) && !strings.Contains(path, "/compose/")
			},
		},
		kind{"parameter", regexp.MustCompile(`\s([A-Z][A-Za-z]+)=`), func(name string) bool { return parametersOfTemplates(t)[name] }, markdown},
		kind{"link", regexp.MustCompile(`\]\((\w[^):#]*)`), nil, markdown}.below(t),
	)
}

// below makes a kind of links, which are relative to the file that has them.
func (k kind) below(t *testing.T) kind {
	t.Helper()
	pages := map[string]bool{}
	for path, text := range artefacts(t) {
		if !k.in(path) {
			continue
		}
		for _, found := range k.pattern.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(existing(filepath.Join(filepath.Dir(path), found[1]))); err == nil {
				pages[found[1]] = true
			}
		}
	}
	k.known = func(name string) bool { return pages[name] }
	return k
}

// valuesOfChart are the names of the schema's top level, without those that are names of other things too.
func valuesOfChart(schema map[string]any) []string {
	properties, _ := schema["properties"].(map[string]any)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return name == "karrot" || name == "burrow" || name == "config" })
}

// isValue says whether a path names a value. Variables are known by their names.
func isValue(schema map[string]any, path string, variables map[string]bool) bool {
	if slices.Contains([]string{".yaml", ".json", ".md"}, filepath.Ext(path)) || strings.HasPrefix(path, "service.beta.kubernetes") {
		return true
	}
	if name, found := strings.CutPrefix(path, "env."); found {
		return variables[name] || strings.HasPrefix(name, "AWS_")
	}
	if path == "strategy.type" {
		return true // Kubernetes' own
	}
	for name := range strings.SplitSeq(path, ".") {
		properties, _ := schema["properties"].(map[string]any)
		inner, found := properties[name].(map[string]any)
		if !found {
			return false
		}
		schema = inner
	}
	return true
}

func parametersOfTemplates(t testing.TB) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(root + "/deploy/cloudwatch/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	out := map[string]bool{}
	for _, path := range paths {
		var template struct {
			Parameters map[string]yaml.Node `yaml:"Parameters"`
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(text, &template))
		for name := range template.Parameters {
			out[name] = true
		}
	}
	return out
}

// karrot1Variables are read by nothing any more; the chart says what to do about them.
var karrot1Variables = map[string]bool{"KARROT_REPORTERS": true}

// existing is the path of a file, or of a file in it when it is a folder.
func existing(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) == 0 {
		return filepath.Join(path, "nothing")
	}
	return existing(filepath.Join(path, entries[0].Name()))
}
