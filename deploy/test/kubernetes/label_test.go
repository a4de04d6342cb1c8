package kubernetes

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

const renamed = "kafka_cluster"

// withLabel renders everything with another name for the label cluster.
func withLabel(t *testing.T) *objects {
	t.Helper()
	values := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte("{serviceMonitor: {enabled: true, clusterLabel: "+renamed+"}, rules: {enabled: true}, dashboard: {enabled: true}}"), &values))
	manifests, _, err := render(t, values)
	require.NoError(t, err)
	o := decode(t, manifests)
	checkObjects(t, o)
	checkRules(t, o)
	return o
}

// What Prometheus makes of Karrot's labels by the rules of the ServiceMonitor.
func TestClusterLabelIsRenamed(t *testing.T) {
	for _, endpoint := range withLabel(t).monitors[0].Spec.Endpoints {
		var configs []*relabel.Config
		for _, c := range endpoint.MetricRelabelConfigs {
			config := relabel.DefaultRelabelConfig
			for _, name := range c.SourceLabels {
				config.SourceLabels = append(config.SourceLabels, model.LabelName(name))
			}
			config.TargetLabel, config.Regex = c.TargetLabel, relabel.MustNewRegexp(c.Regex)
			if c.Action != "" {
				config.Action = relabel.Action(c.Action)
			}
			config.NameValidationScheme = model.UTF8Validation
			configs = append(configs, &config)
		}
		assert.True(t, endpoint.HonorLabels, "a label cluster of the target's would push Karrot's aside")
		for given, want := range map[string]string{
			// Karrot's own metrics know clusters too.
			`{__name__="otelcol_receiver_burrow_last_moved_timestamp_seconds", cluster="east"}`: `{__name__="otelcol_receiver_burrow_last_moved_timestamp_seconds", kafka_cluster="east"}`,
			`{__name__="otelcol_receiver_burrow_groups", job="karrot"}`:                         `{__name__="otelcol_receiver_burrow_groups", job="karrot"}`,
			`{__name__="burrow_group_status", cluster="east", group="a"}`:                       `{__name__="burrow_group_status", group="a", kafka_cluster="east"}`,
			`{__name__="target_info", job="karrot"}`:                                            `{__name__="target_info", job="karrot"}`,
		} {
			in, err := parser.ParseMetric(given)
			require.NoError(t, err)
			out, keep := relabel.Process(in, configs...)
			assert.True(t, keep)
			assert.Equal(t, want, labels.New(slices.Collect(seq(out))...).String())
		}
	}
}

func seq(l labels.Labels) func(func(labels.Label) bool) {
	return func(yield func(labels.Label) bool) {
		done := false
		l.Range(func(x labels.Label) { done = done || !yield(x) })
	}
}

// Of several shards each is told of groups of its own, so one that hears nothing is alone in that.
func TestSilentShard(t *testing.T) {
	for values, told := range map[string]bool{
		"{rules: {enabled: true}}": false,
		"{rules: {enabled: true}, sharding: {enabled: true}, replicaCount: 1}": false,
		"{rules: {enabled: true}, sharding: {enabled: true}, replicaCount: 3}": true,
	} {
		read := map[string]any{}
		require.NoError(t, yaml.Unmarshal([]byte(values), &read))
		manifests, _, err := render(t, read)
		require.NoError(t, err)
		o := decode(t, manifests)
		checkRules(t, o)
		contact := func(instance, values string) map[string]any {
			return map[string]any{"series": `otelcol_receiver_burrow_last_contact_timestamp_seconds{job="karrot",instance="` + instance + `",receiver="burrow",source="webhook"}`, "values": values}
		}
		expected := []any{}
		if told {
			expected = append(expected, map[string]any{"exp_labels": map[string]string{"alertname": "KarrotBurrowSilent", "job": "karrot", "instance": "b:8888", "receiver": "burrow", "severity": "critical"}})
		}
		dir := t.TempDir()
		for name, content := range map[string]any{
			"rules.yaml": map[string]any{"groups": withoutAnnotations(o)},
			"tests.yaml": map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": "1m", "tests": []any{map[string]any{
				"interval": "1m", "input_series": []any{contact("a:8888", "0+60x30"), contact("b:8888", "0x30")},
				"alert_rule_test": []any{map[string]any{"eval_time": "20m", "alertname": "KarrotBurrowSilent", "exp_alerts": expected}},
			}}},
		} {
			text, err := yaml.Marshal(content)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		}
		cmd := exec.CommandContext(t.Context(), "promtool", "test", "rules", "tests.yaml")
		cmd.Dir = dir
		output, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s\n%s", values, output)
	}
}

// withoutAnnotations are the rules, whose texts a test does not want to repeat.
func withoutAnnotations(o *objects) []monitoring.RuleGroup {
	groups := o.rules[0].Spec.Groups
	for _, group := range groups {
		for i := range group.Rules {
			group.Rules[i].Annotations = nil
		}
	}
	return groups
}

// The rules with the other label pass the cases of deploy/prometheus, in which the label is renamed too, and fail those in which it is not.
func TestClusterLabelInRules(t *testing.T) {
	dir := t.TempDir()
	text, err := yaml.Marshal(map[string]any{"groups": withLabel(t).rules[0].Spec.Groups})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "karrot.rules.yaml"), text, 0o600))
	paths, err := filepath.Glob(root + "/deploy/prometheus/tests/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	label := regexp.MustCompile(`([{, ])cluster(="|: )`)
	for _, path := range paths {
		cases, err := os.ReadFile(path)
		require.NoError(t, err)
		cases = []byte(strings.ReplaceAll(string(cases), "../karrot.rules.yaml", "karrot.rules.yaml"))
		for file, text := range map[string][]byte{"renamed.yaml": label.ReplaceAll(cases, []byte("${1}"+renamed+"${2}")), "as-ever.yaml": cases} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), text, 0o600))
			cmd := exec.CommandContext(t.Context(), "promtool", "test", "rules", file)
			cmd.Dir = dir
			output, err := cmd.CombinedOutput()
			if file == "renamed.yaml" {
				require.NoError(t, err, "%s\n%s", path, output)
			} else if strings.Contains(string(cases), `cluster="`) {
				require.Error(t, err, path)
			}
		}
	}
}

// The dashboard with the other label is the dashboard, but for the label in its queries, legends and columns.
func TestClusterLabelInDashboard(t *testing.T) {
	original, err := os.ReadFile(root + "/deploy/grafana/karrot.json")
	require.NoError(t, err)
	var want, have any
	require.NoError(t, json.Unmarshal(original, &want))
	maps := withLabel(t).configMaps
	require.Len(t, maps, 1)
	require.NoError(t, json.Unmarshal([]byte(maps[0].Data["karrot.json"]), &have))
	queries, columns := 0, 0
	compareText(t, "", want, have, func(key, want, have string) {
		switch key {
		case "expr":
			queries++
			before := labelsOf(t, want)
			for i := range before {
				if before[i] == "cluster" {
					before[i] = renamed
				}
			}
			assert.Equal(t, before, labelsOf(t, have), have)
			assert.Equal(t, strings.Count(want, "$cluster"), strings.Count(have, "$cluster"))
		case "legendFormat":
			assert.Equal(t, strings.ReplaceAll(want, "{{cluster}}", "{{"+renamed+"}}"), have)
		case "query", "definition":
			assert.Equal(t, strings.NewReplacer("{cluster=", "{"+renamed+"=", ", cluster)", ", "+renamed+")").Replace(want), have)
		default:
			assert.Equal(t, want, have, key)
		}
	})
	assert.Greater(t, queries, 40)
	var tables func(have any)
	tables = func(have any) {
		switch have := have.(type) {
		case map[string]any:
			assert.NotContains(t, have, "cluster")
			if _, found := have[renamed]; found {
				columns++
			}
			for _, value := range have {
				tables(value)
			}
		case []any:
			for _, value := range have {
				tables(value)
			}
		}
	}
	tables(have)
	assert.Equal(t, 4, columns, "place and name of the column in two tables")
}

// compareText calls compare for each pair of texts in two documents of the same form.
func compareText(t *testing.T, key string, want, have any, compare func(key, want, have string)) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		require.True(t, ok && len(have) == len(want), key)
		for name := range want {
			there := name
			if name == "cluster" {
				there = renamed
			}
			compareText(t, name, want[name], have[there], compare)
		}
	case []any:
		have, ok := have.([]any)
		require.True(t, ok && len(have) == len(want), key)
		for i := range want {
			compareText(t, key, want[i], have[i], compare)
		}
	case string:
		have, ok := have.(string)
		require.True(t, ok, key)
		compare(key, want, have)
	default:
		assert.Equal(t, want, have, key)
	}
}

// labelsOf are the labels that a query selects by, groups by and matches on, in its order.
func labelsOf(t *testing.T, query string) []string {
	t.Helper()
	parsed, err := parser.ParseExpr(strings.NewReplacer("$__rate_interval", "5m", "$__range", "3h").Replace(query))
	require.NoError(t, err, query)
	var out []string
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			for _, m := range node.LabelMatchers {
				out = append(out, m.Name)
			}
		case *parser.AggregateExpr:
			out = append(out, node.Grouping...)
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				out = append(out, slices.Concat(node.VectorMatching.MatchingLabels, node.VectorMatching.Include)...)
			}
		}
		return nil
	})
	return out
}
