package e2e

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each mistake ends a start with the line that docs/commands.md has for it, and `karrot check` prints the same line.
func TestMistakes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "commands.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## Mistakes\n")
	require.True(t, found)
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([^|`]+) \\| `(.+)` \\|$").FindAllStringSubmatch(section, -1) {
		documented[row[1]] = row[2]
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	taken := listener.Addr().String()
	_, port, err := net.SplitHostPort(taken)
	require.NoError(t, err)

	secure := func(change map[string]string) options {
		env := everyOverlay(t)
		maps.Copy(env, change)
		return options{Configs: []string{"karrot:secure"}, Env: env}
	}
	other := t.TempDir()
	certificate(t, other)
	env := func(name, value string, configs ...string) options {
		return options{Configs: configs, Env: map[string]string{name: value}}
	}
	set := func(assignments ...string) options {
		var o options
		for _, assignment := range assignments {
			o.Args = append(o.Args, "--set="+assignment)
		}
		return o
	}
	for name, o := range map[string]options{
		"interval without a unit":          env("KARROT_INTERVAL", "60"),
		"expiry without a unit":            env("KARROT_EXPIRE_AFTER", "300"),
		"interval of polls without a unit": {Env: map[string]string{"KARROT_BURROW_API": "http://localhost:1", "KARROT_BURROW_API_INTERVAL": "30"}},
		"polls too seldom":                 {Env: map[string]string{"KARROT_BURROW_API": "http://localhost:1", "KARROT_BURROW_API_INTERVAL": "3m"}},
		"unit where seconds are wanted":    {Configs: []string{"karrot:cloudwatch"}, Env: map[string]string{"AWS_REGION": "eu-central-1", "KARROT_CLOUDWATCH_INTERVAL": "30s"}},
		"no duration at all":               env("KARROT_INTERVAL", "soon"),
		"unknown log level":                env("KARROT_LOG", "verbose"),
		"unknown form of the log":          env("KARROT_LOG_ENCODING", "xml"),
		"address of another machine":       env("KARROT_ENDPOINT", "192.0.2.1:5000"),
		"port of the webhook in use":       env("KARROT_ENDPOINT", taken),
		"port of /metrics in use":          env("KARROT_PROMETHEUS_ENDPOINT", taken),
		"port of the health check in use":  env("KARROT_HEALTH_ENDPOINT", taken),
		"port of own metrics in use":       env("KARROT_TELEMETRY_PORT", port),
		"port that is none":                env("KARROT_ENDPOINT", "localhost:99999"),
		"port that is no number":           env("KARROT_TELEMETRY_PORT", "http"),
		"Unix socket as a URL":             env("KARROT_ENDPOINT", "unix:///run/karrot.sock"),
		"Burrow's API without a scheme":    env("KARROT_BURROW_API", "burrow:8000"),
		"OTLP without a scheme":            env("KARROT_OTLP_ENDPOINT", "collector:4318", "karrot:otlp"),
		"remote write without a scheme":    env("KARROT_REMOTE_WRITE_ENDPOINT", "prometheus:9090", "karrot:remote-write"),
		"no certificate":                   secure(map[string]string{"KARROT_TLS_CERT": "/none/tls.crt"}),
		"no key":                           secure(map[string]string{"KARROT_TLS_KEY": "/none/tls.key"}),
		"key of another certificate":       secure(map[string]string{"KARROT_TLS_KEY": filepath.Join(other, "tls.key")}),
		"no htpasswd":                      secure(map[string]string{"KARROT_HTPASSWD": "/none/htpasswd"}),
		"no token":                         secure(map[string]string{"KARROT_PROMETHEUS_TOKEN": "/none/prometheus.token"}),
		"storage that can't be written":    env("KARROT_STORAGE_DIRECTORY", "/proc/karrot", "karrot:storage"),
		"no AWS region":                    {Configs: []string{"karrot:cloudwatch"}},
		"overlay without its base":         {Configs: []string{"config/cloudwatch.yaml"}},
		"unknown configuration":            {Configs: []string{"karrot:clowdwatch"}},
		"no such file":                     {Args: []string{"--config=none.yaml"}},
		"unknown key":                      set("receivers.burrow.intervall=2s"),
		"unknown key of the webhook":       set("receivers.burrow.webhook.pathh=/burrow"),
		"unknown key of an exporter":       set("exporters.prometheus.enpoint=localhost:1"),
		"unknown metric":                   set("receivers.burrow.metrics.burrow.group.totallag.enabled=true"),
		"unknown component":                set("exporters.prometheuss.endpoint=localhost:1"),
		"extension that is not defined":    set("service.extensions=[pprof]"),
		"storage that is not defined":      set("receivers.burrow.storage=file_storage"),
		"one port twice":                   {Env: map[string]string{"KARROT_ENDPOINT": "localhost:5998", "KARROT_PROMETHEUS_ENDPOINT": "localhost:5998"}},
	} {
		want, found := documented[name]
		delete(documented, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.True(t, found, "docs/commands.md has no row for it")
			pattern := regexp.MustCompile(`^Error: ` + strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, `.*`) + `$`)
			starting, checking := command(t, o), command(t, o)
			checking.cmd.Args = slices.Insert(checking.cmd.Args, 1, "check")
			for _, k := range []*karrot{starting, checking} {
				require.Error(t, k.cmd.Run())
				assert.Equal(t, 1, k.cmd.ProcessState.ExitCode())
				lines := strings.Split(strings.TrimSpace(k.log()), "\n")
				assert.True(t, slices.ContainsFunc(lines, pattern.MatchString), "%s\nnot in what %s prints:\n%s", pattern, k.cmd.Args[1:], k.log())
				assert.Regexp(t, `^Error: `, lines[len(lines)-1], "the last line says it")
				assert.NotContains(t, k.log(), "runtime.main", "a stack trace")
				assert.NotContains(t, k.log(), "Usage:")
				assert.NotContains(t, k.log(), "goroutine ")
				if !strings.Contains(want, "free here") {
					assert.NotContains(t, k.log(), "free here", "no port is to blame")
				}
			}
		})
	}
	assert.Empty(t, documented, "docs/commands.md has mistakes that nobody makes")
}

func TestCheck(t *testing.T) {
	check := func(t *testing.T, o options) (hints []string, others string) {
		t.Helper()
		var rest []string
		for line := range strings.Lines(subcommand(t, command(t, o), "check")) {
			if hint, found := strings.CutPrefix(line, "Hint: "); found {
				hints = append(hints, strings.TrimSpace(hint))
			} else {
				rest = append(rest, line)
			}
		}
		return hints, strings.Join(rest, "")
	}
	t.Run("nothing is wrong", func(t *testing.T) {
		_, rest := check(t, options{})
		assert.Equal(t, "OK: nothing is wrong with karrot:karrot\n", rest)
		_, rest = check(t, options{Configs: []string{"karrot:secure", "karrot:storage", "karrot:cloudwatch"}, Env: everyOverlay(t)})
		assert.Equal(t, "OK: nothing is wrong with karrot:karrot, karrot:secure, karrot:storage, karrot:cloudwatch\n", rest)
	})
	t.Run("hints", func(t *testing.T) {
		usual, _ := check(t, options{})
		hints, rest := check(t, options{
			Env: map[string]string{
				"KARROT_INTERVALL": "2s", "KARROT_REMOTE_WRITE_ENDPOINT": "http://localhost:9090", "KARROT_PORT_5000_TCP": "tcp://10.0.0.1:5000",
				"KARROT_SERVICE_HOST": "10.0.0.1", "KARROT_BURROW_API": "",
			},
			Args: []string{"--set=extensions.basicauth/mine.client_auth.username=me"},
		})
		assert.Equal(t, "OK: nothing is wrong with karrot:karrot, --set extensions.basicauth/mine.client_auth.username\n", rest)
		assert.ElementsMatch(t, append(usual,
			"extensions::basicauth/mine is defined, but nothing starts it: list it in service::extensions, or take it away",
			"KARROT_INTERVALL is set, but no configuration uses it: did you mean KARROT_INTERVAL?",
			"KARROT_REMOTE_WRITE_ENDPOINT is set, but it is only for karrot:remote-write",
		), hints)
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		k := command(t, options{Configs: []string{"karrot:secure", "karrot:storage", "karrot:cloudwatch"}, Env: map[string]string{"KARROT_STORAGE_DIRECTORY": "/proc/karrot"}})
		k.cmd.Args = slices.Insert(k.cmd.Args, 1, "check")
		require.Error(t, k.cmd.Run())
		for _, variable := range []string{"KARROT_TLS_CERT", "KARROT_TLS_KEY", "KARROT_HTPASSWD", "KARROT_PROMETHEUS_TOKEN", "KARROT_STORAGE_DIRECTORY", "AWS_REGION"} {
			assert.Contains(t, k.log(), variable)
		}
	})
}

// What is no mistake starts: a metric under --set, and a unix socket as confignet has it.
func TestNoMistakes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "karrot.sock")
	k := start(t, options{Args: []string{
		"--set=receivers.burrow.metrics.burrow.partition.owner.enabled=true",
		"--set=receivers.burrow.webhook.transport=unix", "--set=receivers.burrow.webhook.endpoint=" + socket,
	}})
	connection, err := net.Dial("unix", socket)
	require.NoError(t, err)
	require.NoError(t, connection.Close())
	k.stop(t)
}

// The health check tells a running Karrot from none.
func TestHealthCheck(t *testing.T) {
	k := start(t, options{})
	address := strings.TrimSuffix(strings.TrimPrefix(k.health, "http://"), "/heartbeat")
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for name, o := range map[string]struct {
		env  string
		args []string
	}{
		"variable":       {env: address},
		"all interfaces": {env: "0.0.0.0:" + port},
		"argument":       {env: "127.0.0.1:1", args: []string{address}},
		"URL":            {args: []string{k.health}},
		"with a time":    {env: address, args: []string{"--timeout", "2s"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Empty(t, subcommand(t, command(t, options{Env: map[string]string{"KARROT_HEALTH_ENDPOINT": o.env}}), "healthcheck", o.args...))
		})
	}
	k.stop(t)
	gone := command(t, options{Args: []string{"healthcheck", address}})
	require.Error(t, gone.cmd.Run())
	assert.Equal(t, 1, gone.cmd.ProcessState.ExitCode())
	assert.Regexp(t, `^Error: not healthy: Get "http://.*/heartbeat": .*connection refused\n$`, gone.log())
}

// Burrow's own templates have what Karrot needs nowhere: the answer and the log say what to use.
func TestStockTemplate(t *testing.T) {
	k := start(t, options{})
	status, answer := k.post(t, []byte(`{"api_key":"","app":"","block":false,"events":[{"id":"1","event":{"severity":"WARN","tier":"","group":"g","start":"Jan 02, 2026 15:04:05 UTC","complete":1,"partitions":[]}}]}`))
	assert.Equal(t, 400, status)
	assert.Contains(t, answer, "config/burrow/notification.tmpl")
	k.stop(t)
	assert.Contains(t, k.log(), "the templates that come with Burrow have no cluster and no lag, use config/burrow/notification.tmpl")
}
