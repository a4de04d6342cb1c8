// Package kubernetes tests what is in deploy/ for Kubernetes: rendered with Helm and kustomize as libraries, decoded into
// Kubernetes' own types, judged by its own evaluator of pod security, and its Karrots started with the built binary.
package kubernetes

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	admission "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// root is the top of the repository.
const root = "../../.."

const chartDir = root + "/deploy/helm/karrot"

var update = flag.Bool("update", false, "write the renderings of the examples")

// objects are decoded manifests by kind and name.
type objects struct {
	deployments  []*apps.Deployment
	statefulSets []*apps.StatefulSet
	services     []*core.Service
	accounts     []*core.ServiceAccount
	configMaps   []*core.ConfigMap
	claims       []*core.PersistentVolumeClaim
	policies     []*networking.NetworkPolicy
	ingresses    []*networking.Ingress
	budgets      []*policy.PodDisruptionBudget
	monitors     []*monitoring.ServiceMonitor
	rules        []*monitoring.PrometheusRule
	routes       []*gateway.HTTPRoute
	// tests are pods that `helm test` runs.
	tests []*core.Pod
}

// render gives the manifests of the chart and what it says at the end.
func render(t testing.TB, values map[string]any) (manifests, notes string, err error) {
	t.Helper()
	chart, err := loader.LoadDir(chartDir)
	require.NoError(t, err)
	release := common.ReleaseOptions{Name: "karrot", Namespace: "kafka", Revision: 1, IsInstall: true}
	rendered, err := chartutil.ToRenderValues(chart, values, release, common.DefaultCapabilities)
	if err != nil {
		return "", "", err
	}
	files, err := engine.Render(chart, rendered)
	if err != nil {
		return "", "", err
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := strings.TrimSpace(files[name])
		switch {
		case strings.HasSuffix(name, "NOTES.txt"):
			notes = text
		case text != "":
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, strings.TrimPrefix(text, "---\n"))
		}
	}
	return out.String(), notes, nil
}

// decode reads manifests into the types of their kinds, and fails on a field that a type does not have.
func decode(t testing.TB, manifests string) *objects {
	t.Helper()
	out := &objects{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		var kind struct{ APIVersion, Kind string }
		require.NoError(t, yaml.Unmarshal(document, &kind), string(document))
		switch kind.APIVersion + " " + kind.Kind {
		case " ":
		case "apps/v1 Deployment":
			out.deployments = append(out.deployments, strict[apps.Deployment](t, document))
		case "apps/v1 StatefulSet":
			out.statefulSets = append(out.statefulSets, strict[apps.StatefulSet](t, document))
		case "v1 Service":
			out.services = append(out.services, strict[core.Service](t, document))
		case "v1 ServiceAccount":
			out.accounts = append(out.accounts, strict[core.ServiceAccount](t, document))
		case "v1 ConfigMap":
			out.configMaps = append(out.configMaps, strict[core.ConfigMap](t, document))
		case "v1 PersistentVolumeClaim":
			out.claims = append(out.claims, strict[core.PersistentVolumeClaim](t, document))
		case "networking.k8s.io/v1 NetworkPolicy":
			out.policies = append(out.policies, strict[networking.NetworkPolicy](t, document))
		case "networking.k8s.io/v1 Ingress":
			out.ingresses = append(out.ingresses, strict[networking.Ingress](t, document))
		case "policy/v1 PodDisruptionBudget":
			out.budgets = append(out.budgets, strict[policy.PodDisruptionBudget](t, document))
		case "monitoring.coreos.com/v1 ServiceMonitor":
			out.monitors = append(out.monitors, strict[monitoring.ServiceMonitor](t, document))
		case "monitoring.coreos.com/v1 PrometheusRule":
			out.rules = append(out.rules, strict[monitoring.PrometheusRule](t, document))
		case "v1 Pod":
			out.tests = append(out.tests, strict[core.Pod](t, document))
		case "gateway.networking.k8s.io/v1 HTTPRoute":
			out.routes = append(out.routes, strict[gateway.HTTPRoute](t, document))
		default:
			require.Fail(t, "a kind without a type", "%s %s", kind.APIVersion, kind.Kind)
		}
	}
}

func strict[T any](t testing.TB, document []byte) *T {
	t.Helper()
	out := new(T)
	require.NoError(t, yaml.UnmarshalStrict(document, out), string(document))
	return out
}

// pod is the template of the one workload, and how many of it there are.
func (o *objects) pod(t testing.TB) (template core.PodTemplateSpec, replicas int32) {
	t.Helper()
	require.Equal(t, 1, len(o.deployments)+len(o.statefulSets), "one workload")
	if len(o.deployments) == 1 {
		d := o.deployments[0]
		assert.Equal(t, d.Spec.Selector.MatchLabels, subset(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels))
		return d.Spec.Template, *d.Spec.Replicas
	}
	s := o.statefulSets[0]
	assert.Equal(t, s.Spec.Selector.MatchLabels, subset(s.Spec.Selector.MatchLabels, s.Spec.Template.Labels))
	return s.Spec.Template, *s.Spec.Replicas
}

// subset is what have says about the keys of want.
func subset(want, have map[string]string) map[string]string {
	out := maps.Clone(have)
	maps.DeleteFunc(out, func(key, _ string) bool { _, found := want[key]; return !found })
	return out
}

func readValues(t testing.TB, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	values := map[string]any{}
	require.NoError(t, yaml.UnmarshalStrict(text, &values), path)
	return values
}

// checkObjects holds manifests against each other: what selects something must find it, and what names a port must too.
func checkObjects(t *testing.T, o *objects) {
	t.Helper()
	template, _ := o.pod(t)
	podLabels := labels.Set(template.Labels)
	container := template.Spec.Containers[0]
	ports := map[string]int32{}
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	named := func(port intstr.IntOrString) bool {
		_, found := ports[port.StrVal]
		return found || slices.Contains(slices.Collect(maps.Values(ports)), port.IntVal)
	}

	result := podsecurity.AggregateCheckResults(evaluator(t).EvaluatePod(
		admission.LevelVersion{Level: admission.LevelRestricted, Version: admission.LatestVersion()}, &template.ObjectMeta, &template.Spec))
	assert.True(t, result.Allowed, "%s %s", result.ForbiddenReason(), result.ForbiddenDetail())
	require.NotNil(t, container.SecurityContext.ReadOnlyRootFilesystem)
	assert.True(t, *container.SecurityContext.ReadOnlyRootFilesystem)
	require.NotNil(t, template.Spec.AutomountServiceAccountToken)
	assert.False(t, *template.Spec.AutomountServiceAccountToken)
	for _, account := range o.accounts {
		assert.Equal(t, template.Spec.ServiceAccountName, account.Name)
	}

	servicePorts := map[string]bool{}
	for _, service := range o.services {
		assert.True(t, labels.SelectorFromSet(service.Spec.Selector).Matches(podLabels), "Service %s selects no pod", service.Name)
		for _, port := range service.Spec.Ports {
			assert.True(t, named(port.TargetPort), "Service %s: no port %s", service.Name, port.TargetPort.String())
			servicePorts[port.Name] = true
		}
	}
	for _, monitor := range o.monitors {
		selector := labels.SelectorFromSet(monitor.Spec.Selector.MatchLabels)
		selected := slices.DeleteFunc(slices.Clone(o.services), func(s *core.Service) bool { return !selector.Matches(labels.Set(s.Labels)) })
		require.Len(t, selected, 1, "ServiceMonitor %s must select one Service, or everything is scraped twice", monitor.Name)
		var scraped []string
		for _, endpoint := range monitor.Spec.Endpoints {
			scraped = append(scraped, endpoint.Port)
			assert.Contains(t, servicePorts, endpoint.Port)
			assert.True(t, endpoint.HonorLabels, endpoint.Port)
		}
		assert.ElementsMatch(t, []string{"metrics", "telemetry"}, scraped)
	}
	for _, p := range o.policies {
		assert.True(t, labels.SelectorFromSet(p.Spec.PodSelector.MatchLabels).Matches(podLabels), p.Name)
		assert.Equal(t, len(p.Spec.Egress) > 0, slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeEgress))
		if len(p.Spec.Egress) > 0 {
			assert.True(t, slices.ContainsFunc(p.Spec.Egress, func(e networking.NetworkPolicyEgressRule) bool {
				return len(e.To) == 0 && slices.ContainsFunc(e.Ports, func(port networking.NetworkPolicyPort) bool {
					return port.Port.IntVal == 53 && *port.Protocol == core.ProtocolUDP
				})
			}), "Karrot finds nothing by name: %s lets no question to DNS out", p.Name)
		}
		for _, ingress := range p.Spec.Ingress {
			assert.NotEmpty(t, ingress.From, "everybody may come")
			for _, port := range ingress.Ports {
				assert.True(t, named(*port.Port), "NetworkPolicy: no port %s", port.Port.String())
			}
		}
	}
	for _, budget := range o.budgets {
		assert.True(t, labels.SelectorFromSet(budget.Spec.Selector.MatchLabels).Matches(podLabels), budget.Name)
		assert.NotEqual(t, budget.Spec.MaxUnavailable == nil, budget.Spec.MinAvailable == nil)
	}
	for _, ingress := range o.ingresses {
		for _, r := range ingress.Spec.Rules {
			for _, path := range r.HTTP.Paths {
				assert.Contains(t, servicePorts, path.Backend.Service.Port.Name)
				assert.Equal(t, o.services[0].Name, path.Backend.Service.Name)
			}
		}
	}
	for _, pod := range o.tests {
		assert.Equal(t, "test", pod.Annotations["helm.sh/hook"])
		for _, service := range o.services {
			assert.False(t, labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)), "Service %s would send notifications to the test", service.Name)
		}
		result := podsecurity.AggregateCheckResults(evaluator(t).EvaluatePod(
			admission.LevelVersion{Level: admission.LevelRestricted, Version: admission.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
		assert.True(t, result.Allowed, "%s %s", result.ForbiddenReason(), result.ForbiddenDetail())
		assert.Equal(t, container.Image, pod.Spec.Containers[0].Image)
	}
	for _, route := range o.routes {
		assert.NotEmpty(t, route.Spec.ParentRefs, "the route belongs to no Gateway")
		for _, rule := range route.Spec.Rules {
			require.Len(t, rule.BackendRefs, 1)
			backend := rule.BackendRefs[0]
			assert.Equal(t, o.services[0].Name, string(backend.Name))
			require.NotNil(t, backend.Port)
			assert.Equal(t, "webhook", portName(o.services[0], *backend.Port))
			assert.NotEmpty(t, rule.Matches, "it would take every path")
		}
	}
	for _, probe := range []*core.Probe{container.ReadinessProbe, container.LivenessProbe} {
		assert.True(t, named(probe.HTTPGet.Port), probe.HTTPGet.Port.String())
	}

	volumes := map[string]bool{}
	for _, volume := range template.Spec.Volumes {
		volumes[volume.Name] = true
		if volume.ConfigMap != nil {
			assert.True(t, slices.ContainsFunc(o.configMaps, func(c *core.ConfigMap) bool { return c.Name == volume.ConfigMap.Name }), volume.Name)
		}
		if volume.PersistentVolumeClaim != nil {
			assert.True(t, slices.ContainsFunc(o.claims, func(c *core.PersistentVolumeClaim) bool { return c.Name == volume.PersistentVolumeClaim.ClaimName }), volume.Name)
		}
	}
	for _, set := range o.statefulSets {
		for _, claim := range set.Spec.VolumeClaimTemplates {
			volumes[claim.Name] = true
		}
		assert.True(t, slices.ContainsFunc(o.services, func(s *core.Service) bool {
			return s.Name == set.Spec.ServiceName && s.Spec.ClusterIP == core.ClusterIPNone
		}), "no headless Service %s", set.Spec.ServiceName)
	}
	for _, mount := range container.VolumeMounts {
		assert.True(t, volumes[mount.Name], "no volume %s", mount.Name)
	}
	variables := map[string]bool{}
	for _, variable := range container.Env {
		assert.False(t, variables[variable.Name], "%s is there twice", variable.Name)
		variables[variable.Name] = true
		assert.NotEmpty(t, variable.Value, "%s is set but empty", variable.Name)
	}
	for _, config := range configsOf(container) {
		if file, found := strings.CutPrefix(config, "/config/"); found {
			assert.FileExists(t, filepath.Join(root, "config", file))
		}
	}
}

func portName(service *core.Service, number int32) string {
	for _, port := range service.Spec.Ports {
		if port.Port == number {
			return port.Name
		}
	}
	return ""
}

func evaluator(t testing.TB) podsecurity.Evaluator {
	t.Helper()
	e, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	require.NoError(t, err)
	return e
}

func configsOf(container core.Container) []string {
	var out []string
	for _, arg := range container.Args {
		if config, found := strings.CutPrefix(arg, "--config="); found {
			out = append(out, config)
		}
	}
	return out
}

// The chart's copies of files that have their home elsewhere. It stands first, so that -update renders with new copies.
func TestChartFilesAreCopies(t *testing.T) {
	homes := map[string]string{
		"karrot.rules.yaml": "deploy/prometheus", "karrot.json": "deploy/grafana", "burrow.toml": "config/burrow", "notification.tmpl": "config/burrow",
	}
	entries, err := os.ReadDir(chartDir + "/files")
	require.NoError(t, err)
	require.Len(t, entries, len(homes))
	for name, home := range homes {
		original, err := os.ReadFile(filepath.Join(root, home, name))
		require.NoError(t, err)
		if *update {
			require.NoError(t, os.WriteFile(filepath.Join(chartDir, "files", name), original, 0o600))
		}
		copied, err := os.ReadFile(filepath.Join(chartDir, "files", name))
		require.NoError(t, err)
		assert.Equal(t, string(original), string(copied), "go test ./kubernetes -update copies it")
	}
}

func TestChart(t *testing.T) {
	paths, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 12)
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), "-values.yaml")
		t.Run(name, func(t *testing.T) {
			values := readValues(t, path)
			linted := lint.RunAll(chartDir, values, "kafka")
			for _, message := range linted.Messages {
				assert.Less(t, message.Severity, support.WarningSev, message.Error())
			}
			manifests, notes, err := render(t, values)
			require.NoError(t, err)
			o := decode(t, manifests)
			checkObjects(t, o)
			checkRules(t, o)
			assert.Len(t, o.tests, 1)
			assert.Contains(t, notes, `url-open="http`)
			assert.Equal(t, name == "karrot1", strings.Contains(notes, "WARNING"), notes)
			checkNotes(t, o, notes)
			if name == "karrot1" {
				template, _ := o.pod(t)
				assert.NotContains(t, template.Spec.Containers[0].Image, ":v1.0.0", "that is the image of the first Karrot")
				assert.Contains(t, notes, "rewrite-target")
			}
			startRendered(t, o)
		})
	}
}

func TestChartRefuses(t *testing.T) {
	for name, c := range map[string]struct{ values, message string }{
		"two replicas":         {"{replicaCount: 2}", "set sharding.enabled=true"},
		"a Burrow":             {"{burrow: {enabled: true}}", "Run your own"},
		"no region":            {"{cloudwatch: {enabled: true}}", "cloudwatch.region is empty"},
		"no region, old name":  {"{overlays: [karrot1-cloudwatch]}", "cloudwatch.region is empty"},
		"half secure":          {"{secure: {enabled: true, tlsSecret: x, htpasswdSecret: x}}", "secure.tokenSecret"},
		"a volume for nothing": {"{persistence: {enabled: true}, storage: {enabled: false}}", "storage.enabled"},
		"no budget":            {"{podDisruptionBudget: {enabled: true}}", "minAvailable or maxUnavailable"},
		"both budgets":         {"{podDisruptionBudget: {enabled: true, minAvailable: 0, maxUnavailable: 0}}", "minAvailable or maxUnavailable"},
		"overlay with a value": {"{overlays: [secure]}", "secure.enabled=true"},
		"a queue on nothing":   {"{cloudwatch: {enabled: true, region: x, overlay: cloudwatch-durable}, storage: {enabled: false}}", "needs storage.enabled"},
		"durable as overlay":   {"{overlays: [cloudwatch-durable], env: {AWS_REGION: x}}", "cloudwatch.overlay=cloudwatch-durable"},
		"no such CloudWatch":   {"{cloudwatch: {overlay: cloudwatch-emf}}", "overlay"},
		"unknown value":        {"{replicas: 1}", "replicas"},
		"unknown value within": {"{service: {prot: 80}}", "prot"},
		"wrong type":           {"{replicaCount: two}", "replicaCount"},
		"unknown variable":     {"{env: {KAROT_LOG: DEBUG}}", "KAROT_LOG"},
		"wrong digest":         {"{image: {digest: latest}}", "digest"},
		"a route to nowhere":   {"{httpRoute: {enabled: true}}", "httpRoute.parentRefs is empty"},
		"a path without slash": {"{httpRoute: {paths: [burrow]}}", "does not match pattern"},
		"a label that is had":  {"{serviceMonitor: {clusterLabel: group}}", "clusterLabel"},
		"cluster as cluster":   {"{serviceMonitor: {clusterLabel: cluster}}", "clusterLabel"},
		"no name of a label":   {"{serviceMonitor: {clusterLabel: kafka-cluster}}", "clusterLabel"},
		"half a limit":         {"{rules: {limits: [{groups: x}]}}", "timeLagWarning"},
		// What is no mistake of form, and would not start, or be refused by Kubernetes, or hear nothing.
		"no such overlay":           {"{overlays: [apis]}", "overlays"},
		"an overlay twice":          {"{overlays: [incidents, incidents]}", "overlays"},
		"nothing to poll":           {"{overlays: [api]}", "set env.KARROT_BURROW_API"},
		"no collector":              {"{overlays: [otlp]}", "set env.KARROT_OTLP_ENDPOINT"},
		"nowhere to write":          {"{overlays: [remote-write]}", "set env.KARROT_REMOTE_WRITE_ENDPOINT"},
		"CloudWatch twice":          {"{cloudwatch: {enabled: true, region: x}, overlays: [cloudwatch-lean]}", "cloudwatch.overlay=cloudwatch-lean"},
		"pushes without a pause":    {"{cloudwatch: {interval: 0}}", "interval"},
		"pushes without a pause, 2": {"{cloudwatch: {interval: \"0\"}}", "interval"},
		"a role for nobody":         {"{cloudwatch: {enabled: true, region: x, roleArn: \"arn:aws:iam::1:role/x\"}, serviceAccount: {create: false}}", "serviceAccount.create"},
		"the webhook on loopback":   {"{env: {KARROT_ENDPOINT: \"localhost:5000\"}}", "env.KARROT_ENDPOINT"},
		"the webhook elsewhere":     {"{env: {KARROT_ENDPOINT: \"0.0.0.0:80\"}}", "env.KARROT_ENDPOINT"},
		"the page elsewhere":        {"{env: {KARROT_PROMETHEUS_ENDPOINT: \":9090\"}}", "env.KARROT_PROMETHEUS_ENDPOINT"},
		"health elsewhere":          {"{env: {KARROT_HEALTH_ENDPOINT: \"127.0.0.1:13133\"}}", "env.KARROT_HEALTH_ENDPOINT"},
		"own metrics elsewhere":     {"{env: {KARROT_TELEMETRY_PORT: 9999}}", "env.KARROT_TELEMETRY_PORT"},
		"own metrics on loopback":   {"{env: {KARROT_TELEMETRY_HOST: localhost}}", "env.KARROT_TELEMETRY_HOST"},
		"the queue elsewhere":       {"{env: {KARROT_STORAGE_DIRECTORY: /data}}", "env.KARROT_STORAGE_DIRECTORY"},
		"a port that is had":        {"{service: {port: 8889}}", "service.port"},
		"a port that is had, 2":     {"{service: {port: 8888}}", "service.port"},
		"no hosts":                  {"{ingress: {enabled: true}}", "ingress.hosts is empty"},
		"a host without paths":      {"{ingress: {enabled: true, hosts: [{host: x}]}}", "paths"},
		"no path":                   {"{ingress: {hosts: [{host: x, paths: [burrow]}]}}", "does not match pattern"},
		"two writers of a volume":   {"{persistence: {enabled: true}, strategy: {type: RollingUpdate}}", "strategy"},
		"no size":                   {"{persistence: {enabled: true, size: large}}", "size"},
		"no time to stop":           {"{preStopSleepSeconds: 30, terminationGracePeriodSeconds: 30}", "terminationGracePeriodSeconds"},
		"another pod":               {"{podLabels: {app.kubernetes.io/name: x}}", "podLabels"},
		"one address for shards":    {"{sharding: {enabled: true}, replicaCount: 2, burrow: {configMap: true}}", "burrow.configMap"},
		"all groups thrice":         {"{sharding: {enabled: true}, replicaCount: 3, env: {KARROT_BURROW_API: \"http://burrow:8000\"}}", "env.KARROT_BURROW_API"},
		"no brokers":                {"{burrow: {configMap: true, brokers: []}}", "brokers"},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]any{}
			require.NoError(t, yaml.Unmarshal([]byte(c.values), &values))
			_, _, err := render(t, values)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.message)
		})
	}
}

// What the notes say goes into burrow.toml and into a shell, so hosts and ports in it are those of Services.
func checkNotes(t *testing.T, o *objects, notes string) {
	t.Helper()
	shards := len(o.statefulSets) > 0
	secure := slices.ContainsFunc(o.services, func(*core.Service) bool { return strings.Contains(notes, "https://") })
	template, _ := o.pod(t)
	require.Equal(t, slices.Contains(configsOf(template.Spec.Containers[0]), "/config/secure.yaml"), secure, notes)
	urls := regexp.MustCompile(`url-(?:open|close)="(https?)://([\w.-]+?)\.kafka\.svc(?::(\d+))?/burrow"`).FindAllStringSubmatch(notes, -1)
	require.NotEmpty(t, urls, notes)
	hosts := map[string]bool{}
	for _, url := range urls {
		hosts[url[2]] = true
		port, err := strconv.Atoi(url[3])
		if url[3] == "" {
			port, err = map[string]int{"http": 80, "https": 443}[url[1]], nil
		}
		require.NoError(t, err)
		name := url[2]
		if shards {
			_, name, _ = strings.Cut(name, ".")
		}
		i := slices.IndexFunc(o.services, func(s *core.Service) bool { return s.Name == name })
		require.GreaterOrEqual(t, i, 0, "no Service %s", name)
		assert.Equal(t, "webhook", portName(o.services[i], int32(port)), url[0])
	}
	_, replicas := o.pod(t)
	assert.Len(t, hosts, int(replicas), "an address for each Karrot that must be told")
	assert.Equal(t, secure, strings.Contains(notes, "curl -k https://localhost:8889/metrics"), notes)
	assert.Equal(t, secure, strings.Contains(notes, "Authorization: Bearer"), notes)
}

// Each form of a memory limit that Kubernetes has, and what Go is told: 80 % of it. Without a limit, or when the user says it, nothing of the chart's own.
func TestChartMemoryLimit(t *testing.T) {
	for limit, want := range map[string]string{
		"256Mi": "204MiB", "1Gi": "819MiB", "1.5Gi": "1228MiB", "0.5Gi": "409MiB", "512M": "390MiB", "1G": "762MiB", "268435456": "204MiB", "524288Ki": "409MiB", "524288k": "400MiB", "2e9": "1525MiB", `"2e9"`: "",
	} {
		assert.Equal(t, want, variablesOf(t, "{resources: {limits: {memory: "+limit+"}}}")["GOMEMLIMIT"], limit)
	}
	assert.NotContains(t, variablesOf(t, "{resources: {limits: {memory: null}}}"), "GOMEMLIMIT")
	assert.Equal(t, "100MiB", variablesOf(t, "{env: {GOMEMLIMIT: 100MiB}}")["GOMEMLIMIT"])
}

// Numbers are in the variables as they were written, and not as 1e+06.
func TestChartVariables(t *testing.T) {
	have := variablesOf(t, "{env: {GOMEMLIMIT: 268435456, AWS_ACCOUNT_ID: 123456789012, KARROT_INTERVAL: 1.5s, AWS_MAX_ATTEMPTS: 3, AWS_EC2_METADATA_DISABLED: true}, karrot: {env: {KARROT_OLD: 2000000}}}")
	for name, want := range map[string]string{
		"GOMEMLIMIT": "268435456", "AWS_ACCOUNT_ID": "123456789012", "KARROT_INTERVAL": "1.5s", "AWS_MAX_ATTEMPTS": "3", "AWS_EC2_METADATA_DISABLED": "true", "KARROT_OLD": "2000000",
	} {
		assert.Equal(t, want, have[name], name)
	}
}

func variablesOf(t *testing.T, values string) map[string]string {
	t.Helper()
	read := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(values), &read))
	manifests, _, err := render(t, read)
	require.NoError(t, err, values)
	template, _ := decode(t, manifests).pod(t)
	out := map[string]string{}
	for _, variable := range template.Spec.Containers[0].Env {
		out[variable.Name] = variable.Value
	}
	return out
}

// The overlays that the schema lets through are the files that the image has.
func TestChartOverlays(t *testing.T) {
	files, err := filepath.Glob(root + "/config/*.yaml")
	require.NoError(t, err)
	var names, cloudwatch []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		names = append(names, name)
		if strings.HasPrefix(name, "cloudwatch") {
			cloudwatch = append(cloudwatch, name)
		}
	}
	var schema map[string]any
	text, err := os.ReadFile(chartDir + "/values.schema.json")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &schema))
	assert.ElementsMatch(t, names, at(schema, "properties.overlays.items.enum"))
	assert.ElementsMatch(t, cloudwatch, at(schema, "properties.cloudwatch.properties.overlay.enum"))
}

// KarrotDown looks for targets by their job, which is the name of the Service.
func TestChartRulesFindTheJob(t *testing.T) {
	for _, name := range []string{"", "kafka-lag", "my-karrot"} {
		manifests, _, err := render(t, map[string]any{"fullnameOverride": name, "serviceMonitor": map[string]any{"enabled": true}, "rules": map[string]any{"enabled": true}})
		require.NoError(t, err)
		o := decode(t, manifests)
		checkRules(t, o)
		found := 0
		for _, group := range o.rules[0].Spec.Groups {
			for _, r := range group.Rules {
				for _, matcher := range regexp.MustCompile(`job=~"([^"]*)"`).FindAllStringSubmatch(r.Expr.StrVal, -1) {
					found++
					assert.Regexp(t, "^(?:"+matcher[1]+")$", o.services[0].Name, r.Alert)
				}
			}
		}
		assert.Equal(t, 2, found)
	}
}

// With a password, the burrow.toml of the chart has the user; the password comes from Burrow's environment.
func TestChartBurrowConfigSecure(t *testing.T) {
	values := readValues(t, chartDir+"/ci/secure-values.yaml")
	values["burrow"] = map[string]any{"configMap": true}
	manifests, notes, err := render(t, values)
	require.NoError(t, err)
	o := decode(t, manifests)
	i := slices.IndexFunc(o.configMaps, func(m *core.ConfigMap) bool { return m.Name == "karrot-burrow" })
	require.GreaterOrEqual(t, i, 0)
	assert.Contains(t, o.configMaps[i].Data["burrow.toml"], "\nurl-open=\"https://karrot.kafka.svc:80/burrow\"\n")
	assert.Contains(t, o.configMaps[i].Data["burrow.toml"], "\nusername=\"burrow\"\n")
	assert.Contains(t, notes, "BURROW_NOTIFIER_KARROT_PASSWORD")
	assert.Contains(t, notes, "extra-ca")
}

func TestExamplesAreRendered(t *testing.T) {
	paths, err := filepath.Glob(chartDir + "/examples/*/values.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		manifests, _, err := render(t, readValues(t, path))
		require.NoError(t, err, path)
		checkObjects(t, decode(t, manifests))
		file := filepath.Join(filepath.Dir(path), "rendered.yaml")
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(manifests), 0o600))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), manifests, "go test ./kubernetes -update writes it")
	}
}

// The table in the README has every value of the schema, with its default, and no other.
func TestChartReadme(t *testing.T) {
	text, err := os.ReadFile(chartDir + "/README.md")
	require.NoError(t, err)
	var schema map[string]any
	read, err := os.ReadFile(chartDir + "/values.schema.json")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(read, &schema))
	values := readValues(t, chartDir+"/values.yaml")
	assert.Empty(t, unknownValues(schema, values, ""))

	var want []string
	for _, name := range leaves(schema, "") {
		if name == "global" || name == "burrow.burrow" || strings.HasPrefix(name, "karrot.") || name == "resources.requests" || name == "resources.limits" || name == "resources.claims" {
			continue
		}
		want = append(want, name)
	}
	want = append(want, "karrot", "resources")
	var have []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| `(.*?)` \\|").FindAllStringSubmatch(string(text), -1) {
		have = append(have, row[1])
		var shown any
		require.NoError(t, yaml.Unmarshal([]byte(row[2]), &shown))
		assert.Equal(t, at(values, row[1]), shown, row[1])
	}
	assert.ElementsMatch(t, want, have)
}

func leaves(schema map[string]any, prefix string) []string {
	properties, _ := schema["properties"].(map[string]any)
	if len(properties) == 0 {
		return []string{strings.TrimSuffix(prefix, ".")}
	}
	var out []string
	for name, inner := range properties {
		if inner, ok := inner.(map[string]any); ok {
			out = append(out, leaves(inner, prefix+name+".")...)
		}
	}
	return out
}

// unknownValues are those that the schema does not name.
func unknownValues(schema, values map[string]any, prefix string) []string {
	properties, _ := schema["properties"].(map[string]any)
	var out []string
	for name, value := range values {
		inner, found := properties[name].(map[string]any)
		if !found {
			out = append(out, prefix+name)
			continue
		}
		if value, ok := value.(map[string]any); ok && inner["properties"] != nil {
			out = append(out, unknownValues(inner, value, prefix+name+".")...)
		}
	}
	return out
}

func at(values map[string]any, path string) any {
	var value any = values
	for name := range strings.SplitSeq(path, ".") {
		inner, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = inner[name]
	}
	return value
}

// checkRules lets promtool read what a PrometheusRule has.
func checkRules(t *testing.T, o *objects) {
	t.Helper()
	for _, r := range o.rules {
		text, err := yaml.Marshal(map[string]any{"groups": r.Spec.Groups})
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "rules.yaml")
		require.NoError(t, os.WriteFile(file, text, 0o600))
		output, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", "--lint=all", "--lint-fatal", file).CombinedOutput()
		assert.NoError(t, err, "%s", output)
	}
}

// The limits of some groups: each rule once for each of them, none for two.
func TestChartLimits(t *testing.T) {
	manifests, _, err := render(t, readValues(t, chartDir+"/ci/everything-values.yaml"))
	require.NoError(t, err)
	var found []string
	for _, group := range decode(t, manifests).rules[0].Spec.Groups {
		for _, r := range group.Rules {
			assert.NotEqual(t, "KarrotGroupsReportedTwice", r.Alert, "it is disabled")
			if r.Alert != "" {
				assert.Equal(t, "https://runbooks.example.com/"+r.Alert+".md", r.Annotations["runbook_url"])
			}
			if r.Alert == "KafkaConsumerTimeLagHigh" {
				found = append(found, r.Labels["severity"]+" "+strings.Split(r.Expr.StrVal, "\n")[0])
				assert.NotContains(t, r.Annotations["description"], "%!")
			}
		}
	}
	metric := "max_over_time(cluster_group:burrow_group_max_time_lag_seconds:max"
	assert.ElementsMatch(t, []string{
		"warning " + metric + `{group=~"batch-.*"}[5m]) > 3600`,
		"critical " + metric + `{group=~"batch-.*"}[5m]) > 14400`,
		"warning " + metric + `{group=~"report.*|audit",group!~"batch-.*"}[5m]) > 600`,
		"critical " + metric + `{group=~"report.*|audit",group!~"batch-.*"}[5m]) > 1200`,
		"warning " + metric + `{group!~"batch-.*|report.*|audit"}[5m]) > 300`,
		"critical " + metric + `{group!~"batch-.*|report.*|audit"}[5m]) > 900`,
	}, found)
}

// The burrow.toml of the chart is that of config/burrow with other addresses.
func TestChartBurrowConfig(t *testing.T) {
	manifests, _, err := render(t, readValues(t, chartDir+"/ci/everything-values.yaml"))
	require.NoError(t, err)
	maps := decode(t, manifests).configMaps
	i := slices.IndexFunc(maps, func(m *core.ConfigMap) bool { return m.Name == "karrot-burrow" })
	require.GreaterOrEqual(t, i, 0)
	toml := maps[i].Data["burrow.toml"]
	for _, line := range []string{
		`servers=[ "kafka-0:9092", "kafka-1:9092" ]`, `servers=[ "zk:2181" ]`, "[cluster.east]", "[consumer.east]", `cluster="east"`,
		`url-open="http://karrot.kafka.svc/burrow"`, `url-close="http://karrot.kafka.svc/burrow"`,
	} {
		assert.Contains(t, toml, "\n"+line+"\n")
	}
	assert.NotContains(t, toml, `"localhost:9092"`)
	assert.NotContains(t, toml, "localhost:5000")
	assert.Contains(t, maps[i].Data["notification.tmpl"], "jsonencoder")
}
