// Package local is what the tests and the programs beside them share: the recorded traffic, and a karrot on
// loopback ports of its own.
package local

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/lowess/karrot/e2e/internal/run"
)

// Request is a recorded one. Millis counts from the first.
type Request struct {
	Millis int64 `json:"t_ms"`
	Body   string
}

// Sequence reads the recorded traffic; top is the top of the repository.
func Sequence(top string) ([]Request, error) {
	file, err := os.Open(filepath.Join(top, "testdata", "sequence.jsonl.gz"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	var requests []Request
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		requests = append(requests, r)
	}
	return requests, lines.Err()
}

// Karrot is the binary with config/karrot.yaml, not started yet.
type Karrot struct {
	*exec.Cmd
	Webhook, Metrics, Health string // URLs

	// ports are held for it as long as it is in use.
	ports [4]*run.Port
}

// Command prepares a Karrot with ports of its own. top is the top of the repository.
func Command(ctx context.Context, bin, top string) (*Karrot, error) {
	var ports [4]*run.Port
	var addresses [4]string
	for i := range ports {
		var err error
		if ports[i], err = run.Hold(); err != nil {
			return nil, err
		}
		addresses[i] = ports[i].Address()
	}
	k := &Karrot{
		Cmd:     exec.CommandContext(ctx, bin, "--config", filepath.Join(top, "config", "karrot.yaml")),
		Webhook: "http://" + addresses[0] + "/burrow",
		Metrics: "http://" + addresses[1] + "/metrics",
		Health:  "http://" + addresses[2] + "/heartbeat",
		ports:   ports,
	}
	k.Env = append(os.Environ(), "KARROT_ENDPOINT="+addresses[0], "KARROT_PROMETHEUS_ENDPOINT="+addresses[1],
		"KARROT_HEALTH_ENDPOINT="+addresses[2], "KARROT_TELEMETRY_PORT="+strconv.Itoa(ports[3].Number))
	return k, nil
}
