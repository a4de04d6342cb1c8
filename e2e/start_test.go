package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// printed is the configuration that the binary makes of options.
func printed(t *testing.T, o options) string {
	t.Helper()
	k := command(t, o)
	return subcommand(t, k, "print-config")
}

// subcommand runs a command of the binary and returns what it prints.
func subcommand(t *testing.T, k *karrot, name string, args ...string) string {
	t.Helper()
	k.cmd.Args = append(append([]string{k.cmd.Args[0], name}, args...), k.cmd.Args[1:]...)
	require.NoError(t, k.cmd.Run(), k.log())
	return k.log()
}

func embedded(path string) string {
	return "karrot:" + strings.TrimSuffix(filepath.Base(path), ".yaml")
}

// Without arguments the binary starts with its default configuration, in a folder that has none.
func TestStartWithoutArguments(t *testing.T) {
	k := command(t, options{})
	k.cmd.Dir = t.TempDir()
	begin(t, k)
	k.accept(t, testdata(t, "notifications", "warn.json"))
	waitFor(t, settled, func() string {
		if k.series(t)[`burrow_group_total_lag{cluster="east",group="fraud-check"}`] != 2698 {
			return "the notification is not there"
		}
		return ""
	})
	k.stop(t)
}

// One variable is enough to poll a Burrow.
func TestOneVariablePolls(t *testing.T) {
	k := start(t, options{Env: map[string]string{"KARROT_BURROW_API": recordedAPI(t).URL}})
	waitFor(t, 10*time.Second, func() string {
		if _, found := k.series(t)[`burrow_partition_lag{cluster="east",group="fraud-check",partition="0",topic="orders"}`]; !found {
			return "nothing was polled"
		}
		return ""
	})
	k.stop(t)
}

// A variable that is empty is as one that is unset.
func TestEmptyVariables(t *testing.T) {
	o := options{Configs: []string{"karrot:cloudwatch", "karrot:otlp"}, Env: map[string]string{
		"KARROT_ENDPOINT": "localhost:5000", "KARROT_PROMETHEUS_ENDPOINT": "localhost:8889", "KARROT_HEALTH_ENDPOINT": "localhost:13133", "KARROT_TELEMETRY_PORT": "8888",
	}}
	unset := printed(t, o)
	for _, name := range []string{
		"ENDPOINT", "PROMETHEUS_ENDPOINT", "HEALTH_ENDPOINT", "TELEMETRY_PORT", "INTERVAL", "EXPIRE_AFTER", "LOG", "BURROW_API", "BURROW_API_INTERVAL",
		"CLOUDWATCH_NAMESPACE", "CLOUDWATCH_INTERVAL", "IAM_ROLE", "OTLP_ENDPOINT",
	} {
		o.Env["KARROT_"+name] = ""
	}
	assert.Equal(t, unset, printed(t, o))
}

// The binary has the files of config/, and starts with them as with the files.
func TestEmbeddedConfigurations(t *testing.T) {
	env := everyOverlay(t)
	list := subcommand(t, command(t, options{}), "configs")
	for _, path := range append([]string{"config/karrot.yaml"}, overlays(t)...) {
		name := embedded(path)
		assert.Regexp(t, `(?m)^`+name+` +\S.{20,}$`, list)
		text, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		assert.Equal(t, string(text), subcommand(t, command(t, options{}), "configs", name), name)
	}
	assert.Equal(t, len(overlays(t))+1, strings.Count(list, "\n"))
	for _, path := range overlays(t) {
		ports := command(t, options{Env: env}).cmd.Env // the same ports for both
		of := func(configs ...string) string {
			k := command(t, options{Configs: configs})
			k.cmd.Env = ports
			return subcommand(t, k, "print-config")
		}
		files := of("config/karrot.yaml", path)
		assert.Equal(t, files, of("karrot:karrot", embedded(path)), path)
		assert.Equal(t, files, of(embedded(path)), "the default configuration is put in front of %s", path)
		assert.NotEqual(t, files, of(), path)
	}
}

// Every two overlays give the same in both orders, and start.
func TestPairsOfOverlays(t *testing.T) {
	env := everyOverlay(t)
	files := overlays(t)
	for i, first := range files {
		for _, second := range files[i+1:] {
			t.Run(strings.TrimPrefix(embedded(first), "karrot:")+"+"+strings.TrimPrefix(embedded(second), "karrot:"), func(t *testing.T) {
				t.Parallel()
				k := command(t, options{Configs: []string{embedded(first), embedded(second)}, Env: env})
				other := command(t, options{Configs: []string{embedded(second), embedded(first)}})
				other.cmd.Env = k.cmd.Env
				again := command(t, options{Configs: []string{embedded(first), embedded(second)}})
				again.cmd.Env = k.cmd.Env
				assert.Equal(t, subcommand(t, again, "print-config"), subcommand(t, other, "print-config"))
				if strings.Contains(t.Name(), "storage") {
					// Its directory belongs to one process.
					k.cmd.Env = append(k.cmd.Env, "KARROT_STORAGE_DIRECTORY="+t.TempDir())
				}
				begin(t, k)
				k.stop(t)
			})
		}
	}
}

// secure.yaml and storage.yaml each bring extensions, and neither takes those of the other away; nor does a file of one's own.
func TestExtensionsAddUp(t *testing.T) {
	env := everyOverlay(t)
	own := filepath.Join(t.TempDir(), "my.yaml")
	require.NoError(t, os.WriteFile(own, []byte(`
extensions:
  basicauth/mine:
    client_auth: {username: me, password: pw}
  bearertokenauth/unused:
    token: t
exporters:
  otlp_http/mine:
    endpoint: https://localhost:9
    auth: {authenticator: basicauth/mine}
  otlp_http/in_no_pipeline:
    endpoint: https://localhost:9
    auth: {authenticator: bearertokenauth/unused}
service:
  pipelines:
    metrics/mine:
      receivers: [burrow]
      exporters: [otlp_http/mine]
`), 0o600))
	for name, configs := range map[string][]string{
		"file last":     {"karrot:secure", "karrot:storage", own},
		"file between":  {"karrot:storage", own, "karrot:secure"},
		"file first":    {"karrot:karrot", own, "karrot:secure", "karrot:storage"},
		"files of ours": {"config/karrot.yaml", "config/storage.yaml", own, "config/secure.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options{Configs: configs, Env: env}
			for _, line := range []string{"        - health_check\n", "        - basicauth/burrow\n", "        - basicauth/mine\n", "        - bearertokenauth/prometheus\n", "        - file_storage\n"} {
				assert.Contains(t, printed(t, o), line)
			}
			assert.NotContains(t, printed(t, o), "        - bearertokenauth/unused\n", "no component that runs needs it")
			k := start(t, o)
			k.stop(t)
		})
	}
}

// --set stands alone, and comes last.
func TestSet(t *testing.T) {
	assert.Contains(t, printed(t, options{Args: []string{"--set=receivers.burrow.expire_after=7m"}}), "expire_after: 7m0s")
	assert.Contains(t, printed(t, options{Args: []string{"--set=receivers.burrow.expire_after=7m", "--config=karrot:stdout"}}), "expire_after: 7m0s")
}
