package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/lowess/karrot/e2e/internal/burrow"
	"github.com/lowess/karrot/e2e/internal/run"
)

// aws is an environment in which the CloudWatch exporters can be built; nothing listens there.
var aws = map[string]string{
	"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy",
	"AWS_ENDPOINT_URL": "http://127.0.0.1:9",
	"HTTPS_PROXY":      "http://127.0.0.1:9", // of the exporter that has the address of AWS in its configuration
}

// overlays are the files of config/ that come behind karrot.yaml.
func overlays(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "config", "*.yaml"))
	require.NoError(t, err)
	var names []string
	for _, path := range found {
		if name := filepath.Base(path); name != "karrot.yaml" {
			names = append(names, "config/"+name)
		}
	}
	require.GreaterOrEqual(t, len(names), 12)
	return names
}

// everyOverlay is an environment in which each overlay starts.
func everyOverlay(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("burrow:{SHA}/KuS/jlxUFlZsIzQk7AVsVz2PMw=\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.token"), []byte("s3cret\n"), 0o600))
	env := maps.Clone(aws)
	maps.Copy(env, map[string]string{
		"KARROT_TLS_CERT": filepath.Join(dir, "tls.crt"), "KARROT_TLS_KEY": filepath.Join(dir, "tls.key"),
		"KARROT_PROMETHEUS_TOKEN": filepath.Join(dir, "prometheus.token"),
		"KARROT_HTPASSWD":         filepath.Join(dir, "htpasswd"), "KARROT_STORAGE_DIRECTORY": filepath.Join(dir, "storage"),
	})
	return env
}

// karrot.yaml alone, with each overlay and with all of them is valid, starts and takes a notification.
func TestConfigurations(t *testing.T) {
	env := everyOverlay(t)
	combinations := [][]string{{}, overlays(t)}
	for _, name := range overlays(t) {
		combinations = append(combinations, []string{name})
	}
	for _, combination := range combinations {
		name := strings.Join(combination, "+")
		t.Run(name, func(t *testing.T) {
			o := options{Configs: append([]string{"config/karrot.yaml"}, combination...), Env: env}
			validate := command(t, o)
			validate.cmd.Args = slices.Insert(validate.cmd.Args, 1, "validate")
			require.NoError(t, validate.cmd.Run(), validate.log())

			k := start(t, o)
			if !strings.Contains(name, "secure") {
				k.accept(t, testdata(t, "notifications", "warn.json"))
			}
			k.stop(t)
			assert.NotContains(t, k.log(), "panic")
		})
	}
}

// Without a region only the configurations with CloudWatch fail, which is why these are overlays.
func TestNoRegionIsNeededWithoutCloudWatch(t *testing.T) {
	k := start(t, options{Configs: []string{"config/karrot.yaml", "config/karrot1-prometheus.yaml", "config/otlp.yaml"}})
	k.stop(t)
	k = command(t, options{Configs: []string{"config/karrot.yaml", "config/cloudwatch.yaml"}})
	require.Error(t, k.cmd.Run())
	assert.Contains(t, k.log(), "GetRegion")
}

func TestEnvironment(t *testing.T) {
	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: map[string]string{"KARROT_LOG": "DEBUG", "KARROT_INTERVAL": "10ms"}})
	k.accept(t, testdata(t, "notifications", "warn.json"))
	k.stop(t)
	assert.Contains(t, k.log(), `"cluster": "east", "group": "fraud-check", "status": "WARN", "total_lag": 2698`)

	quiet := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: map[string]string{"KARROT_LOG": "warn"}})
	quiet.stop(t)
	assert.NotContains(t, quiet.log(), "info")
}

// The documented variables are used by the configurations with the documented defaults, and no others are.
func TestVariablesAndDefaults(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	require.NoError(t, err)
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(KARROT_[A-Z_]+)` \\| (?:`([^`]*)`)? *\\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = row[2]
	}
	used := map[string]string{}
	for _, name := range append([]string{"config/karrot.yaml"}, overlays(t)...) {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		for _, use := range regexp.MustCompile(`\$\{env:(KARROT_[A-Z_]+)(?::-([^}]*))?\}`).FindAllStringSubmatch(string(text), -1) {
			if before, found := used[use[1]]; found {
				if name == "config/api.yaml" && use[1] == "KARROT_BURROW_API" {
					continue // It is there for this other default.
				}
				assert.Equal(t, before, use[2], "%s has two defaults", use[1])
			}
			used[use[1]] = use[2]
		}
	}
	assert.Equal(t, documented, used)

	listed := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| \[(config/[\w-]+\.yaml)\]\(\.\./`).FindAllStringSubmatch(string(page), -1) {
		listed[row[1]] = true
	}
	for _, name := range append(overlays(t), "config/karrot.yaml") {
		assert.True(t, listed[name], "docs/configuration.md does not list %s", name)
	}
}

type manifest struct {
	Extensions, Receivers, Processors, Exporters, Connectors, Providers, Converters []struct{ Gomod, Import string }
}

func readManifest(t *testing.T) manifest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "builder-config.yaml"))
	require.NoError(t, err)
	var m manifest
	require.NoError(t, yaml.Unmarshal(text, &m))
	return m
}

// The binary has the components that are promised.
func TestComponents(t *testing.T) {
	k := command(t, options{})
	k.cmd.Args = append(k.cmd.Args, "components")
	require.NoError(t, k.cmd.Run(), k.log())
	type list []struct{ Name, Scheme, Module string }
	var has struct{ Extensions, Receivers, Processors, Exporters, Connectors, Providers list }
	require.NoError(t, yaml.Unmarshal([]byte(k.log()), &has))
	names := func(l list) []string {
		var n []string
		for _, c := range l {
			n = append(n, c.Name)
		}
		slices.Sort(n)
		return n
	}
	assert.Equal(t, []string{"basicauth", "bearertokenauth", "file_storage", "health_check", "sigv4auth"}, names(has.Extensions))
	assert.Equal(t, []string{"burrow", "otlp"}, names(has.Receivers))
	assert.Equal(t, []string{"batch", "filter", "groupbyattrs", "interval", "memory_limiter", "resource", "transform"}, names(has.Processors))
	assert.Equal(t, []string{"awsemf", "debug", "nop", "otlp_grpc", "otlp_http", "prometheus", "prometheusremotewrite"}, names(has.Exporters))
	assert.Equal(t, []string{"forward", "retryable"}, names(has.Connectors))
	m := readManifest(t)
	assert.Len(t, has.Extensions, len(m.Extensions))
	assert.Len(t, has.Exporters, len(m.Exporters))
	assert.Empty(t, m.Converters)
	// main.go is written by hand, and has what the manifest says.
	schemes := map[string]string{"envprovider": "env", "fileprovider": "file", "yamlprovider": "yaml", "config": "karrot"}
	var providers []string
	for _, p := range m.Providers {
		providers = append(providers, schemes[path.Base(cmp.Or(p.Import, strings.Fields(p.Gomod)[0]))]+" "+p.Gomod)
	}
	var built []string
	for _, p := range has.Providers {
		built = append(built, p.Scheme+" "+p.Module)
	}
	assert.ElementsMatch(t, providers, built)
}

// One minor version of the Collector everywhere: a component that is older than the core builds, and
// then misbehaves.
func TestOneCollectorVersion(t *testing.T) {
	minors := map[string][]string{}
	note := func(where, module, version string) {
		core := strings.HasPrefix(module, "go.opentelemetry.io/collector")
		if !core && !strings.HasPrefix(module, "github.com/open-telemetry/opentelemetry-collector-contrib") {
			return
		}
		parts := strings.SplitN(version, ".", 3)
		require.Len(t, parts, 3, "%s: %s", where, module)
		minor := parts[1]
		if parts[0] == "v1" {
			minor = map[string]string{"58": "152"}[parts[1]] // the stable modules count for themselves
		}
		minors[minor] = append(minors[minor], where+": "+module+" "+version)
	}
	for _, path := range []string{"go.mod", "cmd/karrot/go.mod"} {
		text, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		for _, require := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(string(text), -1) {
			note(path, require[1], require[2])
		}
	}
	m := readManifest(t)
	for _, components := range [][]struct{ Gomod, Import string }{m.Extensions, m.Receivers, m.Processors, m.Exporters, m.Connectors, m.Providers} {
		for _, component := range components {
			module, version, _ := strings.Cut(component.Gomod, " ")
			note("builder-config.yaml", module, version)
		}
	}
	require.Len(t, minors, 1, "%v", minors)
	assert.Greater(t, len(minors["152"]), 60)
}

// config/burrow/notification.tmpl, executed as Burrow does on a status with awkward names, is accepted.
func TestNotificationTemplate(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "config", "burrow", "notification.tmpl"))
	require.NoError(t, err)
	// Burrow's helper is json.Marshal (core/internal/notifier/helpers.go).
	tmpl, err := template.New("open").Funcs(template.FuncMap{"jsonencoder": func(v any) (string, error) {
		encoded, err := json.Marshal(v)
		return string(encoded), err
	}}).Parse(string(text))
	require.NoError(t, err)

	k := start(t, options{Configs: []string{"config/karrot.yaml"}, Env: fast})
	known := newest{}
	for _, name := range []string{
		`team "A" <orders> & 'co'`, "группа", "Ünï-çødé.😀", "perc%20ent?x=1&y=2#frag", `back\slash/and:colon`,
		"tab\there\nand newline", "{{.Cluster}}", "\u2028 \u0001", "not \xff UTF-8", "`", "}}",
	} {
		bad := burrow.Partition{Topic: name, Partition: 3, Owner: name, ClientID: name, Status: "STOP", End: &burrow.Commit{Offset: 1 << 60}, CurrentLag: 1 << 62, Complete: 0.3}
		var body strings.Builder
		require.NoError(t, tmpl.Execute(&body, burrow.Notification{
			Cluster: name, Group: name, ID: "1", Start: time.Now(), Extras: map[string]string{name: name},
			Result: burrow.Result{Cluster: name, Group: name, Status: "ERR", Complete: 0.25, PartitionCount: 4, TotalLag: 1<<63 - 1, Partitions: []burrow.Partition{bad}, MaxLag: &bad},
		}))
		status, answer := k.post(t, []byte(body.String()))
		require.Equal(t, http.StatusOK, status, "%q: %s", name, answer)
		known.take(read(t, []byte(body.String())))
	}
	k.eventually(t, settled, known.series())
	k.stop(t)
}

// foreign is a collector that was built from somebody else's manifest, with the receiver in it. It is built once.
var foreign struct {
	once sync.Once
	path string
	err  error
}

func foreignCollector(t *testing.T) string {
	t.Helper()
	foreign.once.Do(func() { foreign.path, foreign.err = buildForeign(t) })
	require.NoError(t, foreign.err)
	return foreign.path
}

func buildForeign(t *testing.T) (string, error) {
	t.Helper()
	top, err := filepath.Abs(root)
	require.NoError(t, err)
	output := filepath.Join(top, "build", "foreign")
	require.NoError(t, os.MkdirAll(output, 0o700))
	// The checksums are those of our own distribution, so that nothing has to be looked up.
	sums, err := os.ReadFile(filepath.Join(root, "cmd", "karrot", "go.sum"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(output, "go.sum"), sums, 0o600))
	ocb := exec.CommandContext(t.Context(), "go", "tool", "-modfile="+filepath.Join(top, "internal", "tools", "go.mod"), "builder",
		"--config", fill(t, t.TempDir(), "builder-config.yaml", "@OUTPUT@", output, "@KARROT@", top))
	ocb.Dir = top
	if log, err := ocb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, log)
	}
	return filepath.Join(output, "foreign-collector"), nil
}

// fill writes a file of testdata/foreign into a folder, with its placeholders replaced.
func fill(t *testing.T, dir, name string, replacements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "foreign", name))
	require.NoError(t, err)
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(replacements...).Replace(string(text))), 0o600))
	return path
}

// The receiver in somebody else's collector: ocb builds it, and it takes a notification.
func TestForeignDistribution(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	for _, line := range []string{"  - gomod: github.com/lowess/karrot v", "    import: github.com/lowess/karrot/receiver/burrowreceiver"} {
		assert.Contains(t, string(readme), line, "README.md shows what is tried here")
	}
	path := foreignCollector(t)
	dir := run.KeepOnFailure(t, filepath.Join(root, "build", "e2e"))
	endpoint := freePorts(t, 1)[0]
	collector := run.Program{Name: "collector", Path: path, Dir: dir, Args: []string{"--config", fill(t, dir, "config.yaml", "@ENDPOINT@", endpoint)}}
	collector.Start(t).Listens(t, startTimeout, endpoint)
	request, err := http.NewRequest(http.MethodPost, "http://"+endpoint+"/burrow", strings.NewReader(string(testdata(t, "notifications", "warn.json"))))
	require.NoError(t, err)
	status, text := do(t, request)
	require.Equal(t, http.StatusOK, status, text)
	waitFor(t, settled, func() string {
		if printed := collector.Log(t); !strings.Contains(printed, "burrow.group.total_lag") || !strings.Contains(printed, "Value: 2698") {
			return printed
		}
		return ""
	})
}
