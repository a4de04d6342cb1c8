package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	sdk "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const dashboardFile = root + "/deploy/grafana/karrot.json"

// dashboard is the part of it that is looked at here; the whole is decoded by the SDK.
type dashboard struct {
	UID        string
	Templating struct {
		List []struct{ Name, Type, Definition, AllValue string }
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ UID string }
	}
	FieldConfig struct {
		Defaults struct{ Unit, NoValue string }
	}
}

func readDashboard(t testing.TB) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// expr is a query of the dashboard with everything chosen.
func (d dashboard) expr(text string) string {
	for _, v := range d.Templating.List {
		text = strings.ReplaceAll(text, "$"+v.Name, v.AllValue)
	}
	return strings.NewReplacer("$__rate_interval", "1m", "$__range", "3h").Replace(text)
}

// Grafana's own types refuse what they do not know, in panels and in queries too.
func TestDashboardDecodesStrictly(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	// An error without text is what the SDK gives when there is none.
	//nolint:staticcheck // dashboardv2 is for Grafana 12 and newer
	decode := func(text string) string { return fmt.Sprint(new(sdk.Dashboard).UnmarshalJSONStrict([]byte(text))) }
	assert.Empty(t, decode(string(text)))

	for _, wrong := range [][2]string{
		{`"schemaVersion"`, `"schemaVersionn"`},
		{`"graphMode"`, `"graphModes"`},
		{`"legendFormat"`, `"legend"`},
	} {
		require.Contains(t, string(text), wrong[0])
		assert.Contains(t, decode(strings.Replace(string(text), wrong[0], wrong[1], 1)), strings.Trim(wrong[1], `"`))
	}
}

func TestDashboardRules(t *testing.T) {
	assert.Empty(t, dashboardProblems(readDashboard(t)))
}

// A linter that finds nothing in the dashboard may just find nothing.
func TestDashboardRulesFindWhatTheyShould(t *testing.T) {
	for want, spoil := range map[string]func(d *dashboard){
		"no description":   func(d *dashboard) { d.Panels[1].Description = "" },
		"no unit":          func(d *dashboard) { d.Panels[1].FieldConfig.Defaults.Unit = "" },
		"noValue":          func(d *dashboard) { d.Panels[1].FieldConfig.Defaults.NoValue = "0" },
		"id":               func(d *dashboard) { d.Panels[2].ID = d.Panels[1].ID },
		"overlaps":         func(d *dashboard) { d.Panels[2].GridPos = d.Panels[1].GridPos },
		"outside":          func(d *dashboard) { d.Panels[2].GridPos.X = 22 },
		"fixed datasource": func(d *dashboard) { d.Panels[1].Targets[0].Datasource.UID = "P1234" },
		"rate interval":    func(d *dashboard) { d.Panels[1].Targets[0].Expr = "rate(x_total[1m])" },
		"recording rule":   func(d *dashboard) { d.Panels[1].Targets[0].Expr = "cluster_group:burrow_group_status:max" },
		"unknown variable": func(d *dashboard) { d.Panels[1].Targets[0].Expr = `burrow_group_status{cluster="$clusters"}` },
	} {
		d := readDashboard(t)
		spoil(&d)
		assert.Contains(t, strings.Join(dashboardProblems(d), "\n"), want)
	}
}

// Runbooks send readers to panels.
func TestRunbooksNamePanels(t *testing.T) {
	d := readDashboard(t)
	named := 0
	for path, text := range artefacts(t) {
		for _, found := range regexp.MustCompile(`panel \*([^*]+)\*`).FindAllStringSubmatch(text, -1) {
			named++
			assert.True(t, slices.ContainsFunc(d.Panels, func(p panel) bool { return p.Title == found[1] }), "%s names the panel %s, which the dashboard does not have", path, found[1])
		}
	}
	assert.GreaterOrEqual(t, named, 3)
}

var variableInQuery = regexp.MustCompile(`\$\{?(\w+)`)

func dashboardProblems(d dashboard) []string {
	var problems []string
	complain := func(p panel, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("panel %d %q: ", p.ID, p.Title)+fmt.Sprintf(format, args...))
	}
	known := []string{"__rate_interval", "__range"}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
		// A dot alone does not match the new line that a name may have, before Prometheus 3.
		if v.Type == "query" && v.AllValue != "(?s:.*)" {
			problems = append(problems, fmt.Sprintf("variable %s: All must be (?s:.*), got %q", v.Name, v.AllValue))
		}
	}
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if ids[p.ID] {
			complain(p, "id %d is used twice", p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			complain(p, "is outside of the grid")
		}
		for _, other := range d.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				complain(p, "overlaps with %q", other.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" {
			complain(p, "has no description")
		}
		if p.FieldConfig.Defaults.Unit == "" {
			complain(p, "has no unit")
		}
		if p.FieldConfig.Defaults.NoValue != "-" {
			complain(p, "noValue must be -, got %q", p.FieldConfig.Defaults.NoValue)
		}
		if len(p.Targets) == 0 {
			complain(p, "has no query")
		}
		sources := []string{p.Datasource.UID}
		for _, target := range p.Targets {
			sources = append(sources, target.Datasource.UID)
			for _, found := range variableInQuery.FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(known, found[1]) {
					complain(p, "unknown variable $%s", found[1])
				}
			}
			for _, call := range []string{"rate(", "irate("} {
				if strings.Contains(target.Expr, call) && !strings.Contains(target.Expr, "[$__rate_interval]") {
					complain(p, "has %s without the rate interval of the panel", call)
				}
			}
			if strings.Contains(strings.ReplaceAll(target.Expr, "::", ""), "cluster_group:") {
				complain(p, "needs a recording rule")
			}
		}
		for _, uid := range sources {
			if uid != "${datasource}" {
				complain(p, "has a fixed datasource %q", uid)
			}
		}
	}
	return problems
}
