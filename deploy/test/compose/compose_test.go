// Package compose tests the Compose stack with Compose's own library, and the files that it mounts.
package compose

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// root is the top of the repository.
const root = "../../.."

const composeDir = root + "/deploy/compose"

func load(t testing.TB, file string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(composeDir), cli.WithEnvFiles(composeDir+"/.env"), cli.WithDotEnv)
	require.NoError(t, err)
	return options.LoadProject(t.Context())
}

func project(t testing.TB) *types.Project {
	t.Helper()
	p, err := load(t, composeDir+"/compose.yaml")
	require.NoError(t, err)
	return p
}

// Compose's library refuses what it does not know.
func TestComposeRefuses(t *testing.T) {
	text, err := os.ReadFile(composeDir + "/compose.yaml")
	require.NoError(t, err)
	for _, wrong := range [][2]string{{"zookeeper: {condition", "zoo: {condition"}, {"healthcheck:", "healthchecks:"}, {"read_only: true", "read_only: maybe"}} {
		require.Contains(t, string(text), wrong[0])
		file := filepath.Join(t.TempDir(), "compose.yaml")
		require.NoError(t, os.WriteFile(file, bytes.Replace(text, []byte(wrong[0]), []byte(wrong[1]), 1), 0o600))
		_, err := load(t, file)
		assert.Error(t, err, wrong[1])
	}
}

func TestCompose(t *testing.T) {
	p := project(t)
	readme := read(t, composeDir+"/README.md")
	exposed := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(read(t, root+"/Dockerfile"))
	require.NotNil(t, exposed)
	published := map[string]bool{}
	for name, service := range p.Services {
		assert.True(t, service.Image != "" || service.Build != nil, name)
		assert.NotContains(t, service.Image, ":latest", name)
		for _, port := range service.Ports {
			assert.Equal(t, "127.0.0.1", port.HostIP, "%s publishes %s on all interfaces", name, port.Published)
			assert.False(t, published[port.Published], "two services publish %s", port.Published)
			published[port.Published] = true
			if name == "karrot" {
				assert.Contains(t, strings.Fields(exposed[1]), strconv.FormatUint(uint64(port.Target), 10))
			}
		}
		for _, volume := range service.Volumes {
			assert.FileExists(t, fileIn(volume.Source), "%s mounts it", name)
			assert.True(t, volume.ReadOnly, "%s may write %s", name, volume.Source)
		}
		if service.Build != nil {
			assert.FileExists(t, filepath.Join(service.Build.Context, "Dockerfile"), name)
		}
	}
	for _, found := range regexp.MustCompile(`localhost:(\d+)`).FindAllStringSubmatch(readme, -1) {
		assert.True(t, published[found[1]], "README.md names port %s", found[1])
	}
	// Commands name services, and with --no-deps all that a part needs.
	for _, found := range regexp.MustCompile(`(?m)compose\.yaml (?:up(?: --[\w-]+)*|exec) (.*)$`).FindAllStringSubmatch(readme, -1) {
		names := strings.Fields(found[1])
		if strings.Contains(found[0], " exec ") {
			names = names[:1]
		}
		for _, name := range names {
			if strings.HasPrefix(name, "--") {
				continue
			}
			assert.Contains(t, p.Services, name, found[0])
		}
	}
	for line := range strings.Lines(read(t, composeDir+"/.env")) {
		if name, _, found := strings.Cut(line, "="); found {
			assert.Contains(t, read(t, composeDir+"/compose.yaml"), "${"+name+"}", "nothing uses %s", name)
		}
	}
}

// The binary takes what the stack starts it with, and has the command that asks for its health.
func TestKarrotOfCompose(t *testing.T) {
	karrot := project(t).Services["karrot"]
	env := map[string]string{}
	for name, value := range karrot.Environment {
		require.NotNil(t, value, name)
		env[name] = *value
	}
	binary := run.Binary(t, root)
	start := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env = run.Environment(env)
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", args, output)
		return string(output)
	}
	printed := start(append([]string{"print-config"}, karrot.Command...)...)
	assert.Contains(t, printed, "endpoint: http://burrow:8000\n")
	assert.Contains(t, printed, "collection_interval: 10s\n")
	require.NotNil(t, karrot.HealthCheck)
	require.Equal(t, types.HealthCheckTest{"CMD", "/karrot", "healthcheck"}, karrot.HealthCheck.Test)
	assert.Contains(t, start("healthcheck", "--help"), "KARROT_HEALTH_ENDPOINT")
}

// The scenario has the parts that services ask for, and the groups that the README speaks of.
func TestScenario(t *testing.T) {
	script := read(t, composeDir+"/scenario.sh")
	output, err := exec.CommandContext(t.Context(), "sh", "-n", composeDir+"/scenario.sh").CombinedOutput()
	require.NoError(t, err, "%s", output)
	var asked []string
	for _, service := range project(t).Services {
		if len(service.Entrypoint) == 3 {
			asked = append(asked, service.Entrypoint[2])
		}
	}
	require.Len(t, asked, 6)
	var parts []string
	for _, found := range regexp.MustCompile(`(?m)^(\w+)\)$`).FindAllStringSubmatch(script, -1) {
		parts = append(parts, found[1])
	}
	assert.ElementsMatch(t, asked, parts)
	created := regexp.MustCompile(`(?m)^\s*for topic in (.*); do$`).FindStringSubmatch(script)
	require.NotNil(t, created)
	for _, text := range []string{script, read(t, composeDir+"/README.md")} {
		named := regexp.MustCompile(`--topic (\w+)`).FindAllStringSubmatch(text, -1)
		require.NotEmpty(t, named)
		for _, found := range named {
			assert.Contains(t, strings.Fields(created[1]), found[1], "nobody makes the topic")
		}
	}
	for _, group := range []string{"healthy", "slow", "stopping", "rewinding"} {
		assert.Contains(t, read(t, composeDir+"/README.md"), "| `"+group+"` |")
	}
}

// burrow.toml is that of config/burrow with other addresses and a shorter interval, and points to services that are there.
func TestComposeBurrow(t *testing.T) {
	ours := strings.Split(read(t, composeDir+"/burrow/burrow.toml"), "\n")
	original := strings.Split(read(t, root+"/config/burrow/burrow.toml"), "\n")
	require.Len(t, ours, len(original))
	p := project(t)
	for i, line := range ours {
		if line == original[i] || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		assert.Contains(t, []string{"servers", "url-open", "url-close", "interval", "address"}, key)
		if strings.HasPrefix(key, "url-") {
			assert.Equal(t, strings.Replace(original[i], "//localhost:", "//karrot:", 1), line, "another host and nothing else")
		}
		if found := regexp.MustCompile(`([a-z]+):\d+`).FindStringSubmatch(line); found != nil {
			assert.Contains(t, p.Services, found[1], line)
		}
	}
	assert.Contains(t, p.Services["burrow"].Build.Args, "BURROW_VERSION")
}

func TestComposePrometheus(t *testing.T) {
	dir := t.TempDir()
	for name, source := range map[string]string{"prometheus.yml": composeDir + "/prometheus.yml", "karrot.rules.yaml": root + "/deploy/prometheus/karrot.rules.yaml"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(read(t, source)), 0o600))
	}
	output, err := exec.CommandContext(t.Context(), "promtool", "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput()
	require.NoError(t, err, "%s", output)

	p := project(t)
	for _, found := range regexp.MustCompile(`([a-z]+):(\d+)`).FindAllStringSubmatch(read(t, composeDir+"/prometheus.yml"), -1) {
		service, known := p.Services[found[1]]
		require.True(t, known, found[0])
		assert.True(t, slices.ContainsFunc(service.Ports, func(port types.ServicePortConfig) bool {
			return strconv.FormatUint(uint64(port.Target), 10) == found[2]
		}), found[0])
	}
}

// Grafana's provisioning: no key that it does not have, a data source that is a service, a folder that is mounted.
func TestComposeGrafana(t *testing.T) {
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name      string `yaml:"name"`
			Type      string `yaml:"type"`
			URL       string `yaml:"url"`
			IsDefault bool   `yaml:"isDefault"`
			JSONData  struct {
				TimeInterval string `yaml:"timeInterval"`
			} `yaml:"jsonData"`
		} `yaml:"datasources"`
	}
	strict(t, composeDir+"/grafana/provisioning/datasources/prometheus.yaml", &sources)
	require.Len(t, sources.Datasources, 1)
	assert.Equal(t, "prometheus http://prometheus:9090", sources.Datasources[0].Type+" "+sources.Datasources[0].URL)

	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name    string `yaml:"name"`
			Type    string `yaml:"type"`
			Options struct {
				Path string `yaml:"path"`
			} `yaml:"options"`
		} `yaml:"providers"`
	}
	strict(t, composeDir+"/grafana/provisioning/dashboards/karrot.yaml", &dashboards)
	require.Len(t, dashboards.Providers, 1)
	assert.True(t, slices.ContainsFunc(project(t).Services["grafana"].Volumes, func(v types.ServiceVolumeConfig) bool {
		return filepath.Dir(v.Target) == dashboards.Providers[0].Options.Path
	}))
}

func strict(t testing.TB, path string, out any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, path)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(out), path)
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// fileIn is a path, or a file below it when it is a folder.
func fileIn(path string) string {
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) == 0 {
		return path
	}
	return fileIn(filepath.Join(path, entries[0].Name()))
}
