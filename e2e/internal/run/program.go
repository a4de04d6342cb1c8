package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// StopTime is how long a program may take to end after SIGTERM.
	StopTime = 30 * time.Second
	// shownBytes is how much of the end of each log a failed test prints.
	shownBytes = 2 << 10
)

// Program is how to start something: again and again, on the same ports and with the same data.
type Program struct {
	Name string
	Path string
	Args []string
	// Env is all of the environment, but for PATH and HOME.
	Env []string
	// Dir is where it runs and where its log is.
	Dir string
}

// Process is a started Program.
type Process struct {
	Program
	cmd    *exec.Cmd
	exited chan struct{}
	ended  error
	meant  bool
}

// LogPath is where the outputs of all starts of the program are.
func (p Program) LogPath() string { return filepath.Join(p.Dir, p.Name+".log") }

// Log reads what the program has printed so far.
func (p Program) Log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(p.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// Start starts the program. It is stopped with the test, which fails if it had ended by itself before.
func (p Program) Start(t testing.TB) *Process {
	t.Helper()
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	// Not the context of the test: the cleanup stops the process, with a signal that it can act on.
	process := &Process{Program: p, cmd: exec.CommandContext(context.Background(), p.Path, p.Args...), exited: make(chan struct{})}
	process.cmd.Dir = p.Dir
	process.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.Dir}, p.Env...)
	process.cmd.Stdout, process.cmd.Stderr = log, log
	// It must not outlive a test that is killed.
	process.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = process.cmd.Start()
	_ = log.Close()
	if err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	go func() {
		defer close(process.exited)
		process.ended = process.cmd.Wait()
	}()
	t.Cleanup(func() {
		if !process.meant && process.Exited() {
			t.Errorf("%s ended by itself: %v", p.Name, process.ended)
		}
		process.Stop(t)
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", p.Name, tail(p.LogPath()))
		}
	})
	return process
}

// Exited says whether the process has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Stop ends the process as an orchestrator does.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.end(t, syscall.SIGTERM)
}

// Kill ends the process at once.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.end(t, syscall.SIGKILL)
}

func (p *Process) end(t testing.TB, signal os.Signal) {
	t.Helper()
	p.meant = true
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop %s: %v", p.Name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(StopTime):
		t.Errorf("%s does not end on %s", p.Name, signal)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-p.exited
	}
}

// CPU is the time of all processors that the process has used.
func (p *Process) CPU(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name of the program stands in parentheses, and can have blanks in it. The 14th and 15th field are ticks, of which Linux has 100 a second.
	_, behind, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(behind)
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// ExitCode is that of a process that has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

func tail(path string) string {
	log, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-shownBytes):])
}

// Until waits until a condition has no problem any more, and fails the test with the last one.
func Until(t testing.TB, within time.Duration, what string, problem func() error) {
	t.Helper()
	if err := Wait(t.Context(), within, problem); err != nil {
		t.Fatalf("%s: not within %s: %v", what, within, err)
	}
}

// Wait is Until for a goroutine, which must not end the test.
func Wait(ctx context.Context, within time.Duration, problem func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := problem()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Ready waits until a URL is answered with 200, and fails at once if the process ends.
func (p *Process) Ready(t testing.TB, within time.Duration, url string) {
	t.Helper()
	p.ready(t, within, url, func() error {
		client := http.Client{Timeout: 2 * time.Second}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// Listens waits until an address takes connections, and fails at once if the process ends.
func (p *Process) Listens(t testing.TB, within time.Duration, address string) {
	t.Helper()
	p.ready(t, within, address, func() error {
		connection, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

func (p *Process) ready(t testing.TB, within time.Duration, what string, problem func() error) {
	t.Helper()
	var ended error
	Until(t, within, p.Name+" is ready at "+what, func() error {
		if p.Exited() {
			ended = fmt.Errorf("%s ended: %w", p.Name, errors.Join(p.ended, errors.New(tail(p.LogPath()))))
			return nil
		}
		return problem()
	})
	if ended != nil {
		t.Fatal(ended)
	}
}

// KeepOnFailure makes a folder for the logs and data of a test below top, which stays if the test fails.
func KeepOnFailure(t testing.TB, top string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(top, strings.ReplaceAll(t.Name(), "/", "_")))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs and data are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
