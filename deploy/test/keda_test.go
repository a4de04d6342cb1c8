package deploy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func kedaTrigger(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/kubernetes/keda-scaledobject.yaml")
	require.NoError(t, err)
	var object struct {
		Spec struct {
			MinReplicaCount int `yaml:"minReplicaCount"`
			Fallback        struct {
				Replicas int    `yaml:"replicas"`
				Behavior string `yaml:"behavior"`
			} `yaml:"fallback"`
			Triggers []struct {
				Type     string            `yaml:"type"`
				Metadata map[string]string `yaml:"metadata"`
			} `yaml:"triggers"`
		} `yaml:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(text, &object))
	require.Len(t, object.Spec.Triggers, 1)
	assert.Equal(t, "prometheus", object.Spec.Triggers[0].Type)
	assert.Positive(t, object.Spec.Fallback.Replicas)
	assert.Equal(t, "currentReplicasIfHigher", object.Spec.Fallback.Behavior, "anything else scales in while monitoring is away")
	assert.Positive(t, object.Spec.MinReplicaCount)
	return object.Spec.Triggers[0].Metadata
}

// What the query of the ScaledObject says. No data must be no number: KEDA then fails, and falls back.
func TestKEDAQuery(t *testing.T) {
	trigger := kedaTrigger(t)
	assert.Equal(t, "false", trigger["ignoreNullValues"])
	type series struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	lag := func(value string) series {
		return series{`burrow_group_total_lag{cluster="east",group="orders"}`, value}
	}
	partition := func(number, value string) series {
		return series{`burrow_partition_lag{cluster="east",group="orders",topic="orders",partition="` + number + `"}`, value}
	}
	type test struct {
		Interval    string   `yaml:"interval"`
		InputSeries []series `yaml:"input_series"`
		Exprs       []any    `yaml:"promql_expr_test"`
	}
	var tests []test
	for _, c := range []struct {
		input []series
		want  []map[string]any
	}{
		{[]series{lag("0"), partition("0", "0")}, []map[string]any{{"value": 0}}},
		{[]series{lag("1500"), partition("0", "700"), partition("1", "800"), partition("2", "0")}, []map[string]any{{"value": 1500}}},
		{[]series{lag("90000"), partition("0", "45000"), partition("1", "45000")}, []map[string]any{{"value": 2000}}},
		{[]series{lag("90000"), partition("0", "90000"), partition("1", "0")}, []map[string]any{{"value": 1000}}},
		{[]series{{`burrow_group_total_lag{cluster="east",group="other"}`, "9"}}, []map[string]any{}},
		// The lag is known and its partitions are not: before the first poll, without polling, or when they find no place.
		{[]series{lag("90000")}, []map[string]any{}},
		{[]series{lag("90000"), {`burrow_partition_lag{cluster="east",group="other",topic="orders",partition="0"}`, "5"}}, []map[string]any{}},
		{[]series{partition("0", "45000")}, []map[string]any{}},
		// Two Karrots.
		{[]series{
			{`burrow_group_total_lag{cluster="east",group="orders",instance="a"}`, "1500"},
			{`burrow_group_total_lag{cluster="east",group="orders",instance="b"}`, "1400"},
			{`burrow_partition_lag{cluster="east",group="orders",topic="orders",partition="0",instance="a"}`, "1500"},
			{`burrow_partition_lag{cluster="east",group="orders",topic="orders",partition="0",instance="b"}`, "1400"},
		}, []map[string]any{{"value": 1000}}},
	} {
		for _, sample := range c.want {
			sample["labels"] = "{}"
		}
		tests = append(tests, test{"1m", c.input, []any{map[string]any{"expr": trigger["query"], "eval_time": "0m", "exp_samples": c.want}}})
	}
	text, err := yaml.Marshal(map[string]any{"tests": tests})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keda.yaml"), text, 0o600))
	output, ok := tool(t, dir, "promtool", "test", "rules", "keda.yaml")
	assert.True(t, ok, output)
}
