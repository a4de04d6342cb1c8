package kubernetes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

const kustomizeDir = root + "/deploy/kubernetes"

// ofTheChart are the files that have the same objects as the chart with these values, by the kinds that are in them.
var ofTheChart = map[string]struct {
	values string
	kinds  []string
}{
	"base/karrot.yaml": {"{}", []string{"Deployment", "Service", "ServiceAccount"}},
	"components/servicemonitor/servicemonitor.yaml": {"{serviceMonitor: {enabled: true}}", []string{"ServiceMonitor"}},
	"components/rules/rules.yaml":                   {"{rules: {enabled: true}}", []string{"PrometheusRule"}},
	"components/dashboard/dashboard.yaml":           {"{dashboard: {enabled: true}}", []string{"ConfigMap"}},
	"components/networkpolicy/networkpolicy.yaml": {
		"{networkPolicy: {enabled: true, burrowFrom: [{podSelector: {matchLabels: {app: burrow}}}], prometheusFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}}",
		[]string{"NetworkPolicy"},
	},
}

var (
	chartLabels = regexp.MustCompile(`(?m)^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by|app\.kubernetes\.io/version): .*\n`)
	kindOf      = regexp.MustCompile(`(?m)^kind: (\w+)$`)
	source      = regexp.MustCompile(`(?m)^# Source: .*\n`)
)

// Plain manifests and chart say the same, but for the labels that Helm's charts have.
func TestKustomizeIsTheChart(t *testing.T) {
	for name, c := range ofTheChart {
		values := map[string]any{}
		require.NoError(t, yaml.Unmarshal([]byte(c.values), &values))
		manifests, _, err := render(t, values)
		require.NoError(t, err)
		var want strings.Builder
		for document := range strings.SplitSeq(manifests, "---\n") {
			if found := kindOf.FindStringSubmatch(document); found != nil && slices.Contains(c.kinds, found[1]) {
				want.WriteString("---\n" + source.ReplaceAllString(chartLabels.ReplaceAllString(document, ""), ""))
			}
		}
		require.Len(t, kindOf.FindAllString(want.String(), -1), len(c.kinds), name)
		file := filepath.Join(kustomizeDir, name)
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(want.String()), 0o600))
		}
		have, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, want.String(), string(have), "go test ./kubernetes -update writes %s", name)
	}
}

// What is written by hand names the image of the chart's version.
func TestTagsAreTheVersion(t *testing.T) {
	text, err := os.ReadFile(chartDir + "/Chart.yaml")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^appVersion: (\S+)$`).FindSubmatch(text)
	require.NotNil(t, version)
	tag := regexp.MustCompile(`(?m)^(\s*(?:newTag: |tag: |image: lowess/karrot:))\S+$`)
	for _, file := range []string{"overlays/minimal/kustomization.yaml", "overlays/production/kustomization.yaml", "otel-collector-values.yaml", "opentelemetrycollector.yaml"} {
		path := filepath.Join(kustomizeDir, file)
		have, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Len(t, tag.FindAll(have, -1), 1, file)
		want := tag.ReplaceAll(have, []byte("${1}"+string(version[1])))
		if *update {
			require.NoError(t, os.WriteFile(path, want, 0o600))
			have = want
		}
		assert.Equal(t, string(want), string(have), "go test ./kubernetes -update writes it")
	}
}

func build(t testing.TB, dir string) *objects {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	text, err := resources.AsYaml()
	require.NoError(t, err)
	return decode(t, string(text))
}

// Each overlay, and the base with each component alone.
func TestKustomize(t *testing.T) {
	overlays, err := filepath.Glob(kustomizeDir + "/overlays/*")
	require.NoError(t, err)
	require.Len(t, overlays, 2)
	components, err := filepath.Glob(kustomizeDir + "/components/*")
	require.NoError(t, err)
	require.Len(t, components, 7)
	for _, dir := range append(overlays, components...) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if strings.Contains(dir, "/components/") {
				dir = withComponent(t, dir)
			}
			o := build(t, dir)
			if strings.Contains(dir, "/overlays/") {
				template, _ := o.pod(t)
				assert.Regexp(t, `^registry\.example\.com/karrot:`, template.Spec.Containers[0].Image, "the overlay names another image than the base")
			}
			checkObjects(t, o)
			checkRules(t, o)
			startRendered(t, o)
		})
	}
}

// withComponent is a folder whose kustomization has the base and one component.
func withComponent(t *testing.T, component string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	top, err := filepath.Abs(kustomizeDir)
	require.NoError(t, err)
	// kustomize wants relative paths.
	from, err := filepath.Rel(dir, top)
	require.NoError(t, err)
	text := "resources: [" + from + "/base]\ncomponents: [" + from + "/components/" + filepath.Base(component) + "]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	return dir
}

// The operator's resource has the configuration in it. The binary starts it, with other ports.
func TestOperatorResource(t *testing.T) {
	text, err := os.ReadFile(kustomizeDir + "/opentelemetrycollector.yaml")
	require.NoError(t, err)
	var resource struct {
		Spec struct {
			Ports []struct {
				Name string
				Port int
			}
			Config map[string]any
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &resource))
	config, err := yaml.Marshal(resource.Spec.Config)
	require.NoError(t, err)
	written := filepath.Join(t.TempDir(), "written.yaml")
	require.NoError(t, os.WriteFile(written, config, 0o600))
	inContainer := map[string]string{
		"KARROT_ENDPOINT": "0.0.0.0:5000", "KARROT_PROMETHEUS_ENDPOINT": "0.0.0.0:8889", "KARROT_HEALTH_ENDPOINT": "0.0.0.0:13133", "KARROT_TELEMETRY_HOST": "0.0.0.0",
	}
	assert.Equal(t, printed(t, inContainer, root+"/config/karrot.yaml"), printed(t, nil, written), "it is config/karrot.yaml in a container")
	ports := run.Ports(t, 4)
	replaced := string(config)
	for i, address := range []string{"0.0.0.0:5000", "0.0.0.0:8889", "0.0.0.0:13133"} {
		require.Equal(t, 1, strings.Count(replaced, address))
		replaced = strings.ReplaceAll(replaced, address, "127.0.0.1:"+ports[i])
	}
	replaced = strings.ReplaceAll(strings.ReplaceAll(replaced, "host: 0.0.0.0", "host: 127.0.0.1"), "port: 8888", "port: "+ports[3])
	file := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(file, []byte(replaced), 0o600))
	k := &run.Karrot{Webhook: "127.0.0.1:" + ports[0], Page: "127.0.0.1:" + ports[1], Health: "127.0.0.1:" + ports[2]}
	k.Process = run.Start(t, "", nil, run.Binary(t, root), "--config="+file)
	k.Healthy(t)
	status, answer := run.Post(t, "http://"+k.Webhook+"/burrow", "{}")
	assert.Equal(t, 400, status, answer)

	var given []int
	for _, port := range resource.Spec.Ports {
		given = append(given, port.Port)
	}
	assert.ElementsMatch(t, []int{5000, 8889}, given)
}

// printed is what the binary makes of a configuration, with all that is not written in it.
func printed(t *testing.T, env map[string]string, file string) string {
	t.Helper()
	p := run.Start(t, "", env, run.Binary(t, root), "print-config", "--config="+file)
	require.Zero(t, p.Wait(), p.Output())
	return p.Output()
}

// The arguments of the values for the OpenTelemetry project's chart name files that are in the image, and its ports are Karrot's.
func TestUpstreamValues(t *testing.T) {
	values := readValues(t, kustomizeDir+"/otel-collector-values.yaml")
	args, ok := at(values, "command.extraArgs").([]any)
	require.True(t, ok)
	require.NotEmpty(t, args)
	for _, arg := range args {
		text, ok := arg.(string)
		require.True(t, ok)
		assert.FileExists(t, filepath.Join(root, strings.TrimPrefix(text, "--config=/")))
	}
	chart := build(t, kustomizeDir+"/overlays/minimal")
	template, _ := chart.pod(t)
	for name, ours := range map[string]string{"webhook": "webhook", "page": "metrics", "metrics": "telemetry"} {
		assert.InDelta(t, portOf(t, template.Spec.Containers[0], ours), at(values, "ports."+name+".containerPort"), 0, name)
	}
	for _, probe := range []string{"readinessProbe", "livenessProbe"} {
		assert.InDelta(t, portOf(t, template.Spec.Containers[0], "health"), at(values, probe+".httpGet.port"), 0)
		assert.Equal(t, template.Spec.Containers[0].ReadinessProbe.HTTPGet.Path, at(values, probe+".httpGet.path"))
	}
	given, ok := at(values, "ports").(map[string]any)
	require.True(t, ok)
	for name := range given {
		if at(values, "ports."+name+".enabled") == true {
			assert.Equal(t, at(values, "ports."+name+".containerPort"), at(values, "ports."+name+".servicePort"), name)
		}
	}
	endpoints, ok := at(values, "serviceMonitor.metricsEndpoints").([]any)
	require.True(t, ok)
	require.Len(t, endpoints, 2)
	for _, endpoint := range endpoints {
		endpoint, ok := endpoint.(map[string]any)
		require.True(t, ok)
		name, ok := endpoint["port"].(string)
		require.True(t, ok)
		assert.Equal(t, true, at(values, "ports."+name+".enabled"), name)
		assert.Equal(t, true, endpoint["honorLabels"], name)
	}
	entrypoint := regexp.MustCompile(`(?m)^ENTRYPOINT \["/(\w+)"\]$`).FindStringSubmatch(readFile(t, root+"/Dockerfile"))
	require.NotNil(t, entrypoint)
	assert.Equal(t, entrypoint[1], at(values, "command.name"))
	assert.Equal(t, false, at(values, "configMap.create"))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
