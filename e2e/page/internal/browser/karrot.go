// Package browser has what the tests, the benchmark and the screenshots share: a karrot of their own, notifications
// for it, and a Chromium.
package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lowess/karrot/e2e/internal/local"
)

// Karrot is the running binary.
type Karrot struct {
	*local.Karrot
	// Root is the address of the page.
	Root   string
	Output *Buffer
	exited chan struct{}
}

// Buffer keeps what a process prints.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Start starts the binary on ports of its own, with further configurations and variables, and waits until it is healthy.
func Start(ctx context.Context, bin, top string, configs, env []string) (*Karrot, error) {
	prepared, err := local.Command(ctx, bin, top)
	if err != nil {
		return nil, err
	}
	for _, config := range configs {
		prepared.Args = append(prepared.Args, "--config", config)
	}
	prepared.Env = append(prepared.Env, env...)
	k := &Karrot{Karrot: prepared}
	return k, k.start(ctx)
}

// Restart starts an ended binary again, on the same ports.
func (k *Karrot) Restart(ctx context.Context) error {
	again := exec.CommandContext(ctx, k.Path)
	again.Args, again.Env = k.Args, k.Env
	k.Cmd = again
	return k.start(ctx)
}

func (k *Karrot) start(ctx context.Context) error {
	k.Root = strings.TrimSuffix(k.Webhook, "burrow")
	k.Output, k.exited = &Buffer{}, make(chan struct{})
	k.Stdout, k.Stderr = k.Output, k.Output
	if err := k.Start(); err != nil {
		return fmt.Errorf("%w (make build makes the binary)", err)
	}
	exited, cmd := k.exited, k.Cmd
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit code is read from ProcessState
	}()
	for range 600 {
		if _, err := Get(ctx, k.Health); err == nil {
			return nil
		}
		select {
		case <-exited:
			return errors.New("karrot ended: " + k.Output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.Join(errors.New("karrot does not get healthy"), k.Kill())
}

// Stop ends the binary as an orchestrator does.
func (k *Karrot) Stop() error { return k.end(syscall.SIGTERM) }

// Kill ends it at once.
func (k *Karrot) Kill() error { return k.end(syscall.SIGKILL) }

func (k *Karrot) end(signal syscall.Signal) error {
	select {
	case <-k.exited:
		return nil
	default:
	}
	if err := k.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-k.exited:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("karrot does not stop"), k.Process.Kill())
	}
	if code := k.ProcessState.ExitCode(); signal == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("exit code %d: %s", code, k.Output)
	}
	return nil
}

// Post sends a notification, which must be answered with 200.
func (k *Karrot) Post(ctx context.Context, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, k.Webhook, strings.NewReader(body))
	if err != nil {
		return err
	}
	_, err = do(request)
	return err
}

// Get returns the body of an answer with 200.
func Get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	return do(request)
}

func do(request *http.Request) (string, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

var (
	moments = regexp.MustCompile(`"(timestamp|observedAt)":(\d+)`)
	starts  = regexp.MustCompile(`"Start":"(2[^"]+)"`)
)

// Shift moves all times in a recorded body, so that what was recorded at one moment is of another one.
func Shift(body string, by time.Duration) string {
	body = moments.ReplaceAllStringFunc(body, func(field string) string {
		parts := moments.FindStringSubmatch(field)
		at, err := strconv.ParseInt(parts[2], 10, 64)
		if err != nil || at == 0 {
			return field
		}
		return fmt.Sprintf("%q:%d", parts[1], at+by.Milliseconds())
	})
	return starts.ReplaceAllStringFunc(body, func(field string) string {
		at, err := time.Parse(time.RFC3339Nano, starts.FindStringSubmatch(field)[1])
		if err != nil {
			return field
		}
		return fmt.Sprintf("%q:%q", "Start", at.Add(by).Format(time.RFC3339Nano))
	})
}
