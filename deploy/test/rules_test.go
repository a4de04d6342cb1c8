package deploy

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// root is the top of the repository.
const root = "../.."

const prometheusDir = root + "/deploy/prometheus"

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string `yaml:"name"`
	Interval string `yaml:"interval,omitempty"`
	Rules    []rule `yaml:"rules"`
}

type rule struct {
	Record        string            `yaml:"record,omitempty"`
	Alert         string            `yaml:"alert,omitempty"`
	Expr          string            `yaml:"expr"`
	For           string            `yaml:"for,omitempty"`
	KeepFiringFor string            `yaml:"keep_firing_for,omitempty"`
	Labels        map[string]string `yaml:"labels,omitempty"`
	Annotations   map[string]string `yaml:"annotations,omitempty"`
}

func (r rule) name() string {
	if r.Alert == "" {
		return r.Record
	}
	return strings.Trim(r.Alert+"/"+r.Labels["severity"], "/")
}

type unitTestFile struct {
	RuleFiles          []string   `yaml:"rule_files"`
	EvaluationInterval string     `yaml:"evaluation_interval"`
	Tests              []unitTest `yaml:"tests"`
}

type unitTest struct {
	Name        string      `yaml:"name"`
	Interval    string      `yaml:"interval"`
	InputSeries []yaml.Node `yaml:"input_series"`
	Alerts      []alertTest `yaml:"alert_rule_test,omitempty"`
	Exprs       []exprTest  `yaml:"promql_expr_test,omitempty"`
}

type alertTest struct {
	EvalTime  string      `yaml:"eval_time"`
	Alertname string      `yaml:"alertname"`
	ExpAlerts []yaml.Node `yaml:"exp_alerts"`
}

type exprTest struct {
	Expr       string      `yaml:"expr"`
	EvalTime   string      `yaml:"eval_time"`
	ExpSamples []yaml.Node `yaml:"exp_samples"`
}

func readYAML[T any](t testing.TB, path string) T {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var out T
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&out), path)
	return out
}

func readRules(t testing.TB) ruleFile {
	t.Helper()
	return readYAML[ruleFile](t, prometheusDir+"/karrot.rules.yaml")
}

func allRules(file ruleFile) []rule {
	var rules []rule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

func readUnitTests(t testing.TB) map[string]unitTestFile {
	t.Helper()
	paths, err := filepath.Glob(prometheusDir + "/tests/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	files := map[string]unitTestFile{}
	for _, path := range paths {
		files[filepath.Base(path)] = readYAML[unitTestFile](t, path)
	}
	return files
}

// tool runs a program that must be installed, and returns its output and whether it ended with 0.
func tool(t testing.TB, dir, name string, args ...string) (output string, ok bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "install Debian's packages prometheus and prometheus-alertmanager")
	command := exec.CommandContext(t.Context(), path, args...)
	command.Dir = dir
	combined, err := command.CombinedOutput()
	return string(combined), err == nil
}

func TestRulesAndExamplesAreValid(t *testing.T) {
	for _, line := range [][]string{
		{"promtool", "check", "rules", "--lint=all", "--lint-fatal", "karrot.rules.yaml"},
		{"promtool", "check", "config", "prometheus.yaml"},
		{"amtool", "check-config", "alertmanager.yaml"},
	} {
		output, ok := tool(t, prometheusDir, line[0], line[1:]...)
		assert.True(t, ok, "%s\n%s", strings.Join(line, " "), output)
	}
}

// The examples scrape both pages of Karrot, by the ports that it has when nothing else is said, and as a job that KarrotDown finds.
func TestScrapeExamples(t *testing.T) {
	config, err := os.ReadFile(root + "/config/karrot.yaml")
	require.NoError(t, err)
	var want []string
	for _, variable := range []string{`KARROT_PROMETHEUS_ENDPOINT:-localhost`, `KARROT_TELEMETRY_PORT`} {
		found := regexp.MustCompile(variable + `:-?(\d+)\}`).FindSubmatch(config)
		require.NotNil(t, found, variable)
		want = append(want, string(found[1]))
	}
	down := slices.IndexFunc(allRules(readRules(t)), func(r rule) bool { return r.Alert == "KarrotDown" })
	require.GreaterOrEqual(t, down, 0)
	job := regexp.MustCompile(`job=~"([^"]*)"`).FindStringSubmatch(allRules(readRules(t))[down].Expr)
	require.NotNil(t, job)
	for _, file := range []string{prometheusDir + "/prometheus.yaml", root + "/deploy/compose/prometheus.yml"} {
		example := readYAML[struct {
			Global        map[string]string `yaml:"global"`
			RuleFiles     []string          `yaml:"rule_files"`
			ScrapeConfigs []struct {
				JobName       string `yaml:"job_name"`
				StaticConfigs []struct {
					Targets []string `yaml:"targets"`
				} `yaml:"static_configs"`
			} `yaml:"scrape_configs"`
			Alerting map[string]any `yaml:"alerting"`
		}](t, file)
		assert.Equal(t, []string{"karrot.rules.yaml"}, example.RuleFiles)
		require.Len(t, example.ScrapeConfigs, 1)
		assert.Regexp(t, "^(?:"+job[1]+")$", example.ScrapeConfigs[0].JobName)
		require.Len(t, example.ScrapeConfigs[0].StaticConfigs, 1)
		var have []string
		hosts := map[string]bool{}
		for _, target := range example.ScrapeConfigs[0].StaticConfigs[0].Targets {
			host, port, _ := strings.Cut(target, ":")
			hosts[host] = true
			have = append(have, port)
		}
		assert.ElementsMatch(t, want, have, file)
		assert.Len(t, hosts, 1, file)
	}
}

func TestRules(t *testing.T) {
	for name := range readUnitTests(t) {
		t.Run(name, func(t *testing.T) {
			output, ok := tool(t, prometheusDir+"/tests", "promtool", "test", "rules", name)
			assert.True(t, ok, output)
		})
	}
}

// TestEveryRuleIsTested breaks each rule in every way that its tests must notice.
func TestEveryRuleIsTested(t *testing.T) {
	requireEveryRuleTested(t, readRules(t), readUnitTests(t))
}

// TestAlertsInTheDocs does the same with the alerts that docs/operating.md prints. Their names are the comments above them.
func TestAlertsInTheDocs(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/operating.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "## What to alert on")
	require.True(t, found)
	block := promqlBlock.FindStringSubmatch(section)
	require.NotNil(t, block)
	group := ruleGroup{Name: "operating"}
	for alert := range strings.SplitSeq(strings.TrimSpace(block[1]), "\n\n") {
		name, expr, _ := strings.Cut(alert, "\n")
		require.True(t, strings.HasPrefix(name, "# "), "an alert begins with what it says: %s", alert)
		group.Rules = append(group.Rules, rule{Alert: strings.TrimPrefix(name, "# "), Expr: expr})
	}
	require.GreaterOrEqual(t, len(group.Rules), 7)
	rules, tests := ruleFile{Groups: []ruleGroup{group}}, readYAML[unitTestFile](t, "testdata/operating.yaml")
	output, ok := promtool(t, rules, tests.Tests)
	require.True(t, ok, output)
	requireEveryRuleTested(t, rules, map[string]unitTestFile{"operating.yaml": tests})
}

// requireEveryRuleTested breaks each rule: it never fires, it always fires, it does not wait, it does not linger.
func requireEveryRuleTested(t *testing.T, rules ruleFile, files map[string]unitTestFile) {
	t.Helper()
	for g, group := range rules.Groups {
		for i, original := range group.Rules {
			t.Run(original.name(), func(t *testing.T) {
				t.Parallel()
				broken := func(change func(*rule)) ruleFile {
					out := ruleFile{Groups: slices.Clone(rules.Groups)}
					out.Groups[g].Rules = slices.Clone(group.Rules)
					change(&out.Groups[g].Rules[i])
					return out
				}
				mine := testsOf(files, original)
				require.NotEmpty(t, mine, "no test names this rule")

				never := broken(func(r *rule) { r.Expr = "vector(0) > 1" })
				assert.False(t, passes(t, never, mine), "no firing case: the tests pass although the rule never gives anything")

				silent := silentTestsOf(t, rules, files, original)
				require.NotEmpty(t, silent, "no case in which the rule has data and stays silent")
				always := broken(func(r *rule) { r.Expr, r.For = "vector(1)", "" })
				assert.False(t, passes(t, always, silent), "no silent case: the tests pass although the rule always gives something")

				if original.For != "" {
					atOnce := broken(func(r *rule) { r.For = "" })
					assert.False(t, passes(t, atOnce, mine), "no test notices when `for` is missing")
				}
				if original.KeepFiringFor != "" {
					short := broken(func(r *rule) { r.KeepFiringFor = "" })
					assert.False(t, passes(t, short, mine), "no test notices when `keep_firing_for` is missing")
				}
			})
		}
	}
}

// testsOf returns the tests that ask for the rule.
func testsOf(files map[string]unitTestFile, r rule) []unitTest {
	var out []unitTest
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, test := range files[name].Tests {
			test.Alerts = slices.DeleteFunc(slices.Clone(test.Alerts), func(a alertTest) bool { return a.Alertname != r.Alert })
			test.Exprs = slices.DeleteFunc(slices.Clone(test.Exprs), func(e exprTest) bool { return e.Expr != r.Record })
			if len(test.Alerts)+len(test.Exprs) > 0 {
				out = append(out, test)
			}
		}
	}
	return out
}

// silentTestsOf returns the tests in which the rule gives nothing at any time although the test has series that it reads.
func silentTestsOf(t testing.TB, rules ruleFile, files map[string]unitTestFile, r rule) []unitTest {
	t.Helper()
	inputs := inputsOf(t, rules, r.Expr)
	return slices.DeleteFunc(testsOf(files, r), func(test unitTest) bool {
		fires := slices.ContainsFunc(test.Alerts, func(a alertTest) bool { return len(a.ExpAlerts) > 0 }) ||
			slices.ContainsFunc(test.Exprs, func(e exprTest) bool { return len(e.ExpSamples) > 0 })
		reads := slices.ContainsFunc(test.InputSeries, func(node yaml.Node) bool {
			var series struct{ Series string }
			require.NoError(t, node.Decode(&series))
			name, _, _ := strings.Cut(series.Series, "{")
			return inputs[name]
		})
		return fires || !reads
	})
}

// inputsOf returns the metrics that an expression reads, with recorded ones replaced by what they are made of.
func inputsOf(t testing.TB, rules ruleFile, expr string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, name := range metricNames(t, expr) {
		out[name] = true
		for _, r := range allRules(rules) {
			if r.Record == name {
				maps.Copy(out, inputsOf(t, rules, r.Expr))
			}
		}
	}
	return out
}

// metricNames returns the names of the metrics that an expression selects.
func metricNames(t testing.TB, expr string) []string {
	t.Helper()
	var names []string
	for _, selector := range selectors(t, expr) {
		require.NotEmpty(t, selector.Name, "a selector without a name in %s", expr)
		names = append(names, selector.Name)
	}
	return names
}

func selectors(t testing.TB, expr string) []*parser.VectorSelector {
	t.Helper()
	parsed, err := parser.ParseExpr(expr)
	require.NoError(t, err, expr)
	var found []*parser.VectorSelector
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			found = append(found, selector)
		}
		return nil
	})
	return found
}

// passes says whether promtool is content with these rules and tests.
func passes(t testing.TB, rules ruleFile, tests []unitTest) bool {
	t.Helper()
	output, ok := promtool(t, rules, tests)
	if !ok {
		// A file that promtool cannot read proves nothing.
		require.Contains(t, output, "got:", output)
	}
	return ok
}

// promtool runs tests of rules.
func promtool(t testing.TB, rules ruleFile, tests []unitTest) (output string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content any) {
		text, err := yaml.Marshal(content)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	write("rules.yaml", rules)
	write("tests.yaml", unitTestFile{RuleFiles: []string{"rules.yaml"}, EvaluationInterval: "1m", Tests: tests})
	return tool(t, dir, "promtool", "test", "rules", "tests.yaml")
}

// kafkaCommand is one to copy, and not the mention of an option.
var kafkaCommand = regexp.MustCompile("`kafka-[a-z-]+\\.sh [^`]*--(?:list|describe)\\b[^`]*`")

func TestEveryAlertHasARunbook(t *testing.T) {
	headings := regexp.MustCompile(`(?m)^## .*$`)
	written := map[string]bool{}
	paths, err := filepath.Glob(root + "/docs/runbooks/*.md")
	require.NoError(t, err)
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		written[name] = true
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), "# "+name+"\n"), "%s has another title", path)
		for _, found := range kafkaCommand.FindAllString(string(text), -1) {
			assert.Contains(t, found, "--bootstrap-server", "%s: the command needs it", path)
		}
		assert.Equal(t, []string{"## Meaning", "## Look first", "## Fix", "## When it is a false alarm"}, headings.FindAllString(string(text), -1), path)
	}
	alerts := map[string]bool{}
	for _, r := range allRules(readRules(t)) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		assert.Equal(t, "https://github.com/lowess/karrot/blob/main/docs/runbooks/"+r.Alert+".md", r.Annotations["runbook_url"])
		assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], r.Alert)
		assert.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
	}
	assert.Equal(t, alerts, written)
}

func TestAlertmanagerRoute(t *testing.T) {
	for _, r := range allRules(readRules(t)) {
		if r.Alert == "" {
			continue
		}
		want := map[string]string{"critical": "pager", "warning": "chat"}[r.Labels["severity"]]
		output, ok := tool(t, prometheusDir, "amtool", "config", "routes", "test", "--config.file=alertmanager.yaml", "--verify.receivers="+want,
			"alertname="+r.Alert, "severity="+r.Labels["severity"], "cluster=east", "group=orders")
		assert.True(t, ok, "%s\n%s", r.name(), output)
	}
}
