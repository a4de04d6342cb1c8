// Package run starts the programs that the tests of deploy/ look at, on loopback ports of their own.
package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Process is a running program. It is stopped with the test.
type Process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

// Write takes what the program prints.
func (p *Process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(text)
}

// Output is what the program has printed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// Start runs a program in dir, with env added to an environment without any KARROT_ or AWS_ variable.
func Start(t testing.TB, dir string, env map[string]string, name string, args ...string) *Process {
	t.Helper()
	// Whatever happens, nothing outlives this.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	p := &Process{name: filepath.Base(name), cmd: exec.CommandContext(ctx, name, args...), exited: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = Environment(env)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the exit code is read from ProcessState
	}()
	t.Cleanup(func() {
		defer cancel()
		p.Stop(t)
		if t.Failed() {
			lines := strings.Split(p.Output(), "\n")
			t.Logf("the end of what %s %s printed:\n%s", p.name, strings.Join(args, " "), strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	return p
}

// Environment is that of the test without Karrot's and AWS' variables, with env added.
func Environment(env map[string]string) []string {
	out := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "KARROT_") || strings.HasPrefix(variable, "AWS_")
	})
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// Exited says whether the program has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Stop ends the program as an orchestrator does, and returns its exit code.
func (p *Process) Stop(t testing.TB) int {
	t.Helper()
	if !p.Exited() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-p.exited:
	case <-time.After(40 * time.Second):
		t.Errorf("%s does not stop", p.name)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return p.cmd.ProcessState.ExitCode()
}

// Wait returns the exit code once the program has ended by itself.
func (p *Process) Wait() int {
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the program at once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Until waits until ready has nothing to complain of.
func (p *Process) Until(t testing.TB, within time.Duration, ready func() string) {
	t.Helper()
	WaitFor(t, within, func() string {
		require.False(t, p.Exited(), "%s ended:\n%s", p.name, p.Output())
		return ready()
	})
}

// Ready waits until an address of the process answers 200.
func (p *Process) Ready(t testing.TB, within time.Duration, url string) {
	t.Helper()
	p.Until(t, within, func() string {
		if status, text := Get(t, url); status != http.StatusOK {
			return fmt.Sprintf("%s answers %d %s", url, status, text)
		}
		return ""
	})
}

// WaitFor repeats check until it has nothing to complain of.
func WaitFor(t testing.TB, within time.Duration, check func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		problem := check()
		if problem == "" {
			return
		}
		require.True(t, time.Now().Before(deadline), problem)
		time.Sleep(50 * time.Millisecond)
	}
}

// Ports returns loopback ports that were free a moment ago.
func Ports(t testing.TB, n int) []string {
	t.Helper()
	ports := make([]string, n)
	for i := range ports {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close() // all of them together, so that no port comes twice
		_, ports[i], err = net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
	}
	return ports
}

// Binary is the path of the built karrot. root is the top of the repository.
func Binary(t testing.TB, root string) string {
	t.Helper()
	path := os.Getenv("KARROT_BIN")
	if path == "" {
		path = filepath.Join(root, "bin", "karrot")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	require.FileExists(t, path, "build the binary first: make build")
	return path
}

// Karrot is a running binary with config/karrot.yaml and what was added to it.
type Karrot struct {
	*Process
	// Webhook, Page, Own and Health are host:port.
	Webhook, Page, Own, Health string
}

// StartKarrot runs the binary with config/karrot.yaml and further configurations, which are paths below root or absolute.
func StartKarrot(t testing.TB, root string, env map[string]string, configs ...string) *Karrot {
	t.Helper()
	ports := Ports(t, 4)
	k := &Karrot{Webhook: "127.0.0.1:" + ports[0], Page: "127.0.0.1:" + ports[1], Own: "127.0.0.1:" + ports[2], Health: "127.0.0.1:" + ports[3]}
	all := map[string]string{
		"KARROT_ENDPOINT": k.Webhook, "KARROT_PROMETHEUS_ENDPOINT": k.Page, "KARROT_HEALTH_ENDPOINT": k.Health,
		"KARROT_TELEMETRY_HOST": "127.0.0.1", "KARROT_TELEMETRY_PORT": ports[2],
		"AWS_EC2_METADATA_DISABLED": "true",
	}
	maps.Copy(all, env)
	var args []string
	for _, config := range append([]string{"config/karrot.yaml"}, configs...) {
		if !filepath.IsAbs(config) {
			config = filepath.Join(root, config)
		}
		args = append(args, "--config", config)
	}
	k.Process = Start(t, "", all, Binary(t, root), args...)
	k.Healthy(t)
	return k
}

// Healthy waits until the binary says so.
func (k *Karrot) Healthy(t testing.TB) {
	t.Helper()
	k.Ready(t, 30*time.Second, "http://"+k.Health+"/heartbeat")
}

// Get returns status and body, and 0 and the error when there is no answer.
func Get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return Do(t, request)
}

// Post sends a body as Burrow does.
func Post(t testing.TB, url, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	return Do(t, request)
}

// Do sends a request. It returns 0 and the error when there is no answer.
func Do(t testing.TB, request *http.Request) (status int, answer string) {
	t.Helper()
	return DoWith(t, http.DefaultClient, request)
}

// DoWith is Do with another client.
func DoWith(t testing.TB, client *http.Client, request *http.Request) (status int, answer string) {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// GetJSON decodes the answer of an address that must answer 200.
func GetJSON(t testing.TB, url string, out any) {
	t.Helper()
	status, text := Get(t, url)
	require.Equal(t, http.StatusOK, status, "%s\n%s", url, text)
	require.NoError(t, json.Unmarshal([]byte(text), out), text)
}
