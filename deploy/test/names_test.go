package deploy

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// notProvoked are metrics that the binary shows only after something that is not provoked here.
var notProvoked = map[string]string{
	"otelcol_receiver_burrow_storage_failures_total": "needs a disk that fails",
}

// notOnTheDashboard are metrics of docs/metrics.md without a panel.
var notOnTheDashboard = map[string]string{
	"burrow_group_oldest_unread_timestamp_seconds":     "off by default",
	"burrow_group_time_lag_is_lower_bound":             "off by default",
	"burrow_partition_oldest_unread_timestamp_seconds": "off by default",
	"burrow_partition_last_commit_timestamp_seconds":   "off by default",
	"burrow_partition_complete_ratio":                  "off by default",
	"burrow_partition_owner":                           "off by default",
}

// TestAgainstRunningPrometheus asks a real Prometheus, which scrapes real Karrots, for everything that deploy/ asks for.
func TestAgainstRunningPrometheus(t *testing.T) {
	r := startAll(t)

	t.Run("dashboard has data", func(t *testing.T) {
		d := readDashboard(t)
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				found := r.query(t, d.expr(target.Expr))
				if slices.ContainsFunc(metricNames(t, d.expr(target.Expr)), func(name string) bool { return notProvoked[name] != "" }) {
					continue
				}
				assert.NotEmpty(t, found, "%s %s: %s", p.Title, target.RefID, d.expr(target.Expr))
			}
		}
		verdicts := 0.0
		for _, title := range []string{"Groups ERR", "Groups WARN", "Groups OK"} {
			verdicts += r.query(t, d.expr(panelOf(t, d, title).Targets[0].Expr))[0].number(t)
		}
		all := r.query(t, `count(count by (cluster, group) (burrow_group_status))`)[0].number(t)
		assert.InDelta(t, all, verdicts, 0, "each group is counted once, and one with a new line in its name too")
		assert.GreaterOrEqual(t, int(all), r.groups)
		// Times were moved to now: nothing is days old.
		assert.Less(t, r.query(t, `max(burrow_group_incident_duration_seconds{instance!=""})`)[0].number(t), 3600.0*24*365)
	})

	t.Run("dashboard is drawn", func(t *testing.T) { checkDrawing(t, r) })

	t.Run("variables of the dashboard have values", func(t *testing.T) {
		d := readDashboard(t)
		query := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			found := query.FindStringSubmatch(v.Definition)
			require.NotNil(t, found, v.Definition)
			assert.NotEmpty(t, r.query(t, fmt.Sprintf("count by (%s) (%s)", found[2], d.expr(found[1]))), v.Definition)
		}
	})

	t.Run("rules are evaluated", func(t *testing.T) {
		var answer struct {
			Data struct {
				Groups []struct {
					Name  string
					Rules []struct {
						Name, Health, LastError string
						State                   string
					}
				}
			}
		}
		states := map[string]string{}
		run.WaitFor(t, 30*time.Second, func() string {
			run.GetJSON(t, r.prometheus+"/api/v1/rules", &answer)
			for _, group := range answer.Data.Groups {
				for _, rule := range group.Rules {
					// The group that looks at a day is evaluated every four minutes, and perhaps not yet.
					if rule.Health != "ok" && group.Name != "karrot-groups-day" {
						return rule.Name + " " + rule.Health + " " + rule.LastError
					}
					states[rule.Name] = rule.State
				}
			}
			return ""
		})
		var active []string
		for name, state := range states {
			// A rewind lasts less than a second of the replay, so it is seen or not.
			if name != "KafkaConsumerRewound" && (state == "pending" || state == "firing") {
				active = append(active, name)
			}
		}
		slices.Sort(active)
		assert.Equal(t, []string{
			"KafkaConsumerFallingBehind",
			"KafkaConsumerStalled",
			"KafkaConsumerStopped",
			"KafkaConsumerTimeLagHigh",
			"KarrotCloudWatchLosesData",
			"KarrotFull",
			"KarrotGroupsReportedTwice",
			"KarrotNearlyFull",
			"KarrotPipelineRefuses",
			"KarrotTemplateWrong",
		}, active, "what was replayed and provoked, and nothing else")
	})

	t.Run("names", func(t *testing.T) {
		exposed := r.labels(t)
		for name := range notProvoked {
			require.NotContains(t, exposed, name, "it is provoked after all")
			exposed[name] = map[string]map[string]bool{"job": {"karrot": true}, "instance": {"": true}}
		}
		documented, err := os.ReadFile(root + "/receiver/burrowreceiver/documentation.md")
		require.NoError(t, err)
		for name := range notProvoked {
			if !strings.HasPrefix(name, "otelcol_receiver_burrow_") {
				continue
			}
			assert.Contains(t, string(documented), strings.TrimSuffix(name, "_total"), name)
		}
		for _, r := range allRules(readRules(t)) {
			if r.Record != "" {
				addRecorded(t, exposed, r)
			}
		}

		expressions := expressionsOfAllArtefacts(t)
		require.Greater(t, len(expressions), 90)
		for where, expr := range expressions {
			for _, problem := range namesMissing(t, exposed, expr) {
				assert.Fail(t, problem, "%s: %s", where, expr)
			}
		}
		// And in sentences, comments and templates.
		dotted := regexp.MustCompile(`(?m)^### (burrow\.[\w.]+)$`).FindAllStringSubmatch(string(documented), -1)
		require.Greater(t, len(dotted), 10)
		inDocuments := map[string]bool{}
		for _, found := range dotted {
			inDocuments[found[1]] = true
		}
		for _, status := range valuesInDocs(t, "status") {
			inDocuments["burrow.group.partitions."+status] = true // in CloudWatch
		}
		checkKinds(t,
			kind{"metric", regexp.MustCompile(`\b((?:burrow_(?:group|partition|topic)|otelcol)_\w*[a-z])\b`), func(name string) bool { return exposed[name] != nil }, nil},
			kind{"recorded metric", regexp.MustCompile(`\b(cluster_?\w*:burrow_\w+:\w+)\b`), func(name string) bool { return exposed[name] != nil }, nil},
			kind{"metric in documents", regexp.MustCompile(`\b(burrow\.(?:group|partition|topic)\.[a-z_.]*[a-z])\b`), func(name string) bool { return inDocuments[name] }, nil},
		)
		// The check must be able to fail.
		for _, wrong := range []string{
			`kafka_consumergroup_lag_sum`,
			`burrow_group_status{topic="x"}`,
			`otelcol_receiver_burrow_notifications_total{outcome=~"syntax|forms"}`,
			`burrow_group_partitions{status="stopped"}`,
			`sum by (consumer) (burrow_group_status)`,
			`burrow_group_status and on (topic) burrow_group_total_lag`,
		} {
			assert.NotEmpty(t, namesMissing(t, exposed, wrong), wrong)
		}
	})
}

func panelOf(t testing.TB, d dashboard, title string) panel {
	t.Helper()
	i := slices.IndexFunc(d.Panels, func(p panel) bool { return p.Title == title })
	require.GreaterOrEqual(t, i, 0, title)
	return d.Panels[i]
}

// addRecorded adds what a recording rule gives: the labels that it aggregates by, or those of its input.
func addRecorded(t testing.TB, exposed map[string]map[string]map[string]bool, r rule) {
	t.Helper()
	parsed, err := parser.ParseExpr(r.Expr)
	require.NoError(t, err)
	from := map[string]map[string]bool{}
	for _, name := range metricNames(t, r.Expr) {
		maps.Copy(from, exposed[name])
	}
	if aggregate, ok := parsed.(*parser.AggregateExpr); ok {
		kept := map[string]map[string]bool{}
		for _, label := range aggregate.Grouping {
			kept[label] = from[label]
		}
		if text, ok := aggregate.Param.(*parser.StringLiteral); ok {
			kept[text.Val] = map[string]bool{}
		}
		from = kept
	}
	exposed[r.Record] = from
}

// closed are labels whose values the binary decides. Of the others, any value may be asked for.
var closed = []string{"status", "outcome", "limit"}

// namesMissing returns what an expression names and the binary does not have.
func namesMissing(t testing.TB, exposed map[string]map[string]map[string]bool, expr string) []string {
	t.Helper()
	var problems []string
	anywhere := map[string]bool{}
	for _, selector := range selectors(t, expr) {
		have, found := exposed[selector.Name]
		if selector.Name == "" || !found {
			problems = append(problems, fmt.Sprintf("there is no metric %q", selector.Name))
			continue
		}
		for label := range have {
			anywhere[label] = true
		}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name == labels.MetricName {
				continue
			}
			values, found := have[matcher.Name]
			if !found {
				problems = append(problems, fmt.Sprintf("%s has no label %q", selector.Name, matcher.Name))
				continue
			}
			if !slices.Contains(closed, matcher.Name) {
				continue
			}
			for alternative := range strings.SplitSeq(matcher.Value, "|") {
				if !values[alternative] && !slices.Contains(valuesInDocs(t, matcher.Name), alternative) {
					problems = append(problems, fmt.Sprintf("%s has no %s %q", selector.Name, matcher.Name, alternative))
				}
			}
		}
	}
	parsed, err := parser.ParseExpr(expr)
	require.NoError(t, err)
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		var named []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			named = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				named = n.VectorMatching.MatchingLabels
			}
		}
		for _, label := range named {
			if !anywhere[label] {
				problems = append(problems, fmt.Sprintf("nothing here has a label %q", label))
			}
		}
		return nil
	})
	return problems
}

// valuesInDocs are the values of an attribute by the receiver's own documentation: not every outcome is provoked here.
func valuesInDocs(t testing.TB, attribute string) []string {
	t.Helper()
	text, err := os.ReadFile(root + "/receiver/burrowreceiver/metadata.yaml")
	require.NoError(t, err)
	var metadata struct {
		Attributes map[string]struct{ Enum []string }
	}
	require.NoError(t, yaml.Unmarshal(text, &metadata))
	return metadata.Attributes[attribute].Enum
}

// foreign are pages that set the names of other programs beside Karrot's.
var foreign = []string{"metrics-elsewhere.md", "migrating-from-karrot-1.md"}

var (
	promqlBlock  = regexp.MustCompile("(?s)```promql\n(.*?)```")
	betweenExprs = regexp.MustCompile(`(?m)^\s*(?:#.*)?$`)
)

// expressionsOfAllArtefacts returns every PromQL expression in deploy/ and docs/ by where it is.
func expressionsOfAllArtefacts(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range allRules(readRules(t)) {
		out["rule "+r.name()+r.Expr] = r.Expr
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out["panel "+p.Title+" "+target.RefID] = d.expr(target.Expr)
		}
	}
	out["KEDA"] = kedaTrigger(t)["query"]
	pages, err := filepath.Glob(root + "/docs/*.md")
	require.NoError(t, err)
	runbooks, err := filepath.Glob(root + "/docs/runbooks/*.md")
	require.NoError(t, err)
	for _, page := range append(pages, runbooks...) {
		if slices.Contains(foreign, filepath.Base(page)) {
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for i, block := range promqlBlock.FindAllStringSubmatch(string(text), -1) {
			// An expression begins with a comment or behind an empty line.
			for j, expr := range betweenExprs.Split(block[1], -1) {
				expr = strings.TrimSpace(expr)
				if expr == "" {
					continue
				}
				// Or it is one of several that have a line each.
				lines := []string{expr}
				if _, err := parser.ParseExpr(expr); err != nil {
					lines = strings.Split(expr, "\n")
				}
				for k, line := range lines {
					out[fmt.Sprintf("%s block %d.%d.%d", filepath.Base(page), i+1, j+1, k+1)] = line
				}
			}
		}
	}
	return out
}

// Every metric that docs/metrics.md lists is on a panel, or there is a reason.
func TestDashboardShowsEveryMetric(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/metrics.md")
	require.NoError(t, err)
	d := readDashboard(t)
	shown := map[string]bool{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, name := range metricNames(t, d.expr(target.Expr)) {
				shown[name] = true
			}
		}
	}
	listed := regexp.MustCompile("(?m)^\\| burrow[.\\w]+ \\| `(\\w+)`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(listed), 10)
	for _, found := range listed {
		if notOnTheDashboard[found[1]] == "" {
			assert.True(t, shown[found[1]], "%s is on no panel", found[1])
		}
	}
}
