package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A shell runs the commands of a page as they stand there, in its order, from the top of the repository. Only
// addresses are replaced, and three programs: `karrot` (and bin/karrot) returns when it is healthy and goes on in the
// background until the next one starts, `make run` is that, and any other target of make has to exist.
type shell struct {
	webhook, metrics, health, telemetry string // host:port
	replace                             *strings.Replacer
	env                                 []string
	pid                                 string // file
	cloudwatch                          *cloudwatchLogs
}

const karrotShim = `#!/bin/bash
# Starts Karrot in the background, in the place of the one before, and waits for it.
case "${1-}" in
validate | print-config | components | configs | check | healthcheck | help | -h | --help | -v | --version) exec "$KARROT_SHELL_BIN" "$@" ;;
esac
if [ -s "$KARROT_SHELL_PID" ]; then
	old=$(cat "$KARROT_SHELL_PID")
	kill "$old"
	while [ -d "/proc/$old" ] && ! grep -q ') Z' "/proc/$old/stat"; do sleep 0.05; done
fi
"$KARROT_SHELL_BIN" "$@" >"$KARROT_SHELL_LOG" 2>&1 </dev/null &
echo $! >"$KARROT_SHELL_PID"
until curl -q -sfo /dev/null "http://$KARROT_HEALTH_ENDPOINT/heartbeat"; do
	kill -0 $! 2>/dev/null || { cat "$KARROT_SHELL_LOG" >&2; exit 1; }
	sleep 0.05
done
sleep 0.1
`

const makeShim = `#!/bin/bash
for target; do
	case $target in
	run) karrot ;;
	*=*) ;;
	*) grep -q "^$target:" Makefile || { echo "make has no target $target" >&2; exit 1; } ;;
	esac
done
`

func newShell(t *testing.T) *shell {
	t.Helper()
	for _, program := range []string{"bash", "curl", "jq"} {
		_, err := exec.LookPath(program)
		require.NoError(t, err, "%s is needed to run what the pages show", program)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"karrot": karrotShim, "make": makeShim,
		// What is not answered with success is an error.
		".curlrc": "fail-with-body\nsilent\nshow-error\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
	}
	// The pages name ports, so what they mean is put in their place.
	ports := freePorts(t, 5)
	s := &shell{webhook: ports[0], metrics: ports[1], health: ports[2], telemetry: ports[3], pid: filepath.Join(dir, "pid"), cloudwatch: newCloudwatchLogs(t)}
	api := strings.TrimPrefix(recordedAPI(t).URL, "http://")
	s.replace = strings.NewReplacer(
		"localhost:5000", s.webhook, "localhost:8889", s.metrics, "localhost:13133", s.health, "localhost:8888", s.telemetry,
		"localhost:8000", api, "burrow:8000", api, "bin/karrot", "karrot",
	)
	env := everyOverlay(t)
	maps.Copy(env, s.cloudwatch.env(map[string]string{
		"PATH": dir + ":" + os.Getenv("PATH"), "HOME": dir, "CURL_HOME": dir,
		"KARROT_SHELL_BIN": binary(t), "KARROT_SHELL_PID": s.pid, "KARROT_SHELL_LOG": filepath.Join(dir, "log"),
		"KARROT_ENDPOINT": s.webhook, "KARROT_PROMETHEUS_ENDPOINT": s.metrics, "KARROT_HEALTH_ENDPOINT": s.health,
		"KARROT_TELEMETRY_PORT":      s.telemetry[strings.LastIndex(s.telemetry, ":")+1:],
		"KARROT_CLOUDWATCH_LOOPBACK": ports[4], "AWS_EC2_METADATA_DISABLED": "true",
	}))
	for name, value := range env {
		s.env = append(s.env, name+"="+value)
	}
	t.Cleanup(func() {
		text, err := os.ReadFile(s.pid)
		if err != nil {
			return // none was started
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
		waitFor(t, startTimeout, func() string {
			if status, _ := get(t, "http://"+s.health+"/heartbeat"); status != 0 {
				return "the last Karrot still runs"
			}
			return ""
		})
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the log of Karrot:\n%s", log)
		}
	})
	return s
}

// run runs a block until it succeeds, and returns what it prints. Who reads a page is slower than the hand-over and the poll
// that lie between two of its blocks.
func (s *shell) run(t *testing.T, block snippet) (output string) {
	t.Helper()
	waitFor(t, settled, func() string {
		var err error
		if output, err = s.try(t, block); err != nil {
			return fmt.Sprintf("%s: %v\n%s\n%s", block.where, err, block.text, output)
		}
		return ""
	})
	return output
}

func (s *shell) try(t *testing.T, block snippet) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", s.replace.Replace(block.text))
	command.Dir, command.Env = root, s.env
	output, err := command.CombinedOutput()
	return string(output), err
}

// Every command of the pages runs, unless it says why not. Each page begins with a Karrot that has a group.
func TestPeerDocumentedCommands(t *testing.T) {
	ran := 0
	for _, page := range pages(t) {
		var blocks []snippet
		for _, s := range page.snippets {
			if s.language == "sh" {
				checkShell(t, s)
				if !s.notRun() {
					blocks = append(blocks, s)
				}
			}
		}
		if len(blocks) == 0 {
			continue
		}
		ran += len(blocks)
		t.Run(strings.ReplaceAll(page.path, "/", "_"), func(t *testing.T) {
			s := newShell(t)
			s.run(t, snippet{text: "karrot\ncurl --data-binary @testdata/notifications/warn.json localhost:5000/burrow", where: "the beginning"})
			for _, block := range blocks {
				s.run(t, block)
			}
		})
	}
	assert.Greater(t, ran, 5)
}

var namedFile = regexp.MustCompile(`\b(?:config|deploy|testdata|docs)/[\w./-]*\w`)

// checkShell holds of every block, also of one that is not run: it is shell, and files that it names are there.
func checkShell(t *testing.T, block snippet) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "bash", "-n", "-c", block.text).CombinedOutput()
	require.NoError(t, err, "%s: %s", block.where, output)
	for _, name := range namedFile.FindAllString(block.text, -1) {
		_, err := os.Stat(filepath.Join(root, name))
		assert.NoError(t, err, "%s names %s", block.where, name)
	}
}

// The quick starts of README.md, as they stand there: each gives what it promises.
func TestPeerQuickStarts(t *testing.T) {
	readme := readDocument(t, filepath.Join(root, "README.md"))
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	// run runs the blocks of a section, up to the next heading.
	run := func(t *testing.T, s *shell, title string) string {
		t.Helper()
		_, behind, found := strings.Cut(string(text), "\n"+title+"\n")
		require.True(t, found, "README.md has no section %q", title)
		section, _, _ := strings.Cut(behind, "\n#")
		var outputs []string
		for _, block := range readme.snippets {
			if block.language != "sh" || !strings.Contains(section, "```sh\n"+block.text+"```") {
				continue
			}
			require.False(t, block.notRun(), block.where)
			outputs = append(outputs, s.run(t, block))
		}
		require.NotEmpty(t, outputs, "README.md has no command in %q", title)
		return strings.Join(outputs, "")
	}
	shows := func(t *testing.T, s *shell, part string) {
		t.Helper()
		waitFor(t, 5*settled, func() string {
			_, page := get(t, "http://"+s.metrics+"/metrics")
			if !strings.Contains(page, part) {
				return part + " is not on /metrics:\n" + page
			}
			return ""
		})
	}
	t.Run("polling", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		output := run(t, s, "### Polling")
		assert.Contains(t, output, `burrow_group_status{cluster="east",group="fraud-check"}`)
		shows(t, s, `burrow_partition_committed_offset{cluster="east"`)
	})
	t.Run("webhook", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		output := run(t, s, "### Webhook")
		// The notification has times of now: its group stopped ten minutes ago.
		lag := regexp.MustCompile(`(?m)^burrow_group_max_time_lag_seconds\{cluster="east",group="orders"\} (\S+)`).FindStringSubmatch(output)
		require.NotNil(t, lag, output)
		seconds, err := strconv.ParseFloat(lag[1], 64)
		require.NoError(t, err)
		assert.InDelta(t, 600, seconds, 30)
	})
	t.Run("CloudWatch", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		run(t, s, "### CloudWatch")
		s.run(t, snippet{text: "curl --data-binary @testdata/notifications/warn.json localhost:5000/burrow", where: "Burrow"})
		// The push comes after 30 s, or at the end.
		waitFor(t, 45*time.Second, func() string {
			if len(s.cloudwatch.recorded()) == 0 {
				return "nothing has reached CloudWatch"
			}
			return ""
		})
		for _, d := range s.cloudwatch.documents(t) {
			assert.Contains(t, fmt.Sprint(d.values(t)), "burrow.")
		}
	})
}
