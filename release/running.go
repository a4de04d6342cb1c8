package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// checkRunning starts the binary of an unpacked archive with the configuration beside it, posts a notification, and reads it from
// the page. The version must be the same wherever the program says it.
func (r *Release) checkRunning(ctx context.Context, folder string) error {
	binary, err := filepath.Abs(filepath.Join(folder, "karrot"))
	if err != nil {
		return err
	}
	said, err := output(ctx, folder, binary, "--version")
	if err != nil {
		return err
	}
	if want := "karrot version " + r.Version; strings.TrimSpace(said) != want {
		return fmt.Errorf("--version says %q, and must say %q", said, want)
	}
	body, err := r.read("testdata/notifications/warn.json")
	if err != nil {
		return err
	}
	ports, err := freePorts(ctx, 4)
	if err != nil {
		return err
	}
	webhook, page, health, own := "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2], "127.0.0.1:"+ports[3]
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--config", "config/karrot.yaml")
	cmd.Dir = folder
	// Nothing of what is set for a Karrot of the machine.
	cmd.Env = []string{
		"KARROT_ENDPOINT=" + webhook, "KARROT_PROMETHEUS_ENDPOINT=" + page, "KARROT_HEALTH_ENDPOINT=" + health,
		"KARROT_TELEMETRY_HOST=127.0.0.1", "KARROT_TELEMETRY_PORT=" + ports[3],
	}
	return while(ctx, cmd, func(ctx context.Context) error { return r.talk(ctx, body, webhook, page, health, own) })
}

// while runs a program for as long as do takes, which ends early if the program does.
func while(ctx context.Context, cmd *exec.Cmd, do func(context.Context) error) error {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		stop()
	}()
	err := do(ctx)
	if signalled := cmd.Process.Signal(syscall.SIGTERM); err == nil {
		err = signalled
	}
	if exit := <-ended; err == nil && exit != nil {
		err = fmt.Errorf("it ended with %w", exit)
	}
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, log.String())
	}
	return nil
}

// talk is what a started binary must answer.
func (r *Release) talk(ctx context.Context, body []byte, webhook, page, health, own string) error {
	if err := until(ctx, "http://"+health+"/heartbeat", ""); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+webhook+"/burrow", bytes.NewReader(body))
	if err != nil {
		return err
	}
	if text, err := ask(request); err != nil {
		return fmt.Errorf("the webhook: %w %s", err, text)
	}
	if err := until(ctx, "http://"+page+"/metrics", `burrow_group_status{cluster="east",group="fraud-check"} 2`); err != nil {
		return err
	}
	return until(ctx, "http://"+own+"/metrics", `service_version="`+r.Version+`"`)
}

// until asks until the answer has a text in it, or the time is up.
func until(ctx context.Context, url, text string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := ask(request)
		if err == nil && strings.Contains(answer, text) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not say %q, but %q (%w)", url, text, answer, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

func ask(request *http.Request) (string, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", response.Status)
	}
	return string(text), err
}

// freePorts are loopback ports that were free a moment ago.
func freePorts(ctx context.Context, n int) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // all of them together, so that no port comes twice
		if _, out[i], err = net.SplitHostPort(listener.Addr().String()); err != nil {
			return nil, err
		}
	}
	return out, nil
}
