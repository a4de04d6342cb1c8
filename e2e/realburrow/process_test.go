package realburrow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lowess/karrot/e2e/realburrow/fakekafka"
)

const (
	// startTime is how long a process may take until it answers.
	startTime = 30 * time.Second
	// stopTime is how long a process may take to end after SIGTERM.
	stopTime = 15 * time.Second
	// shownBytes is how much of the end of each log a failed test prints.
	shownBytes = 8 << 10
)

// deadline leaves the cleanups enough of the test's time to stop every process.
func deadline(t *testing.T) time.Time {
	t.Helper()
	end, ok := t.Deadline()
	if !ok {
		end = time.Now().Add(10 * time.Minute)
	}
	return end.Add(-4 * stopTime)
}

// start runs a program until the end of the test and returns the path of its log. Only the given
// variables are set in its environment: Burrow and Karrot would take others for their settings.
func start(t *testing.T, name, path string, env []string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	logFile, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	// No context: the cleanup stops the process, with a signal that it can act on.
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	ended := make(chan struct{})
	var endedWith error
	go func() {
		defer close(ended)
		endedWith = cmd.Wait()
	}()

	t.Cleanup(func() {
		select {
		case <-ended:
			t.Errorf("%s ended by itself: %v", name, endedWith)
		default:
			if err := stop(cmd.Process, ended); err != nil {
				t.Errorf("stop %s: %v", name, err)
			}
		}
		if err := logFile.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(t, logFile.Name()))
		}
	})
	return logFile.Name()
}

func stop(process *os.Process, ended <-chan struct{}) error {
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(stopTime):
		return errors.Join(errors.New("it does not end on SIGTERM"), process.Kill())
	}
}

func tail(t *testing.T, path string) []byte {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return log[max(0, len(log)-shownBytes):]
}

// startKafka starts an imitated Kafka cluster with the topics and groups of a scene.
func startKafka(ctx context.Context, t *testing.T, name string, scene func() ([]fakekafka.Topic, []fakekafka.Group)) *fakekafka.Cluster {
	t.Helper()
	topics, groups := scene()
	cluster, err := fakekafka.Start(ctx, name, topics, groups)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Errorf("imitated cluster %s: %v", name, err)
		}
	})
	return cluster
}

// startZooKeeper starts the system's ZooKeeper, as a program of its own and not as the system's service.
func startZooKeeper(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	// Where Debian's package zookeeper puts it; its manifest names what else it needs. The logger is
	// not among that.
	const jar, logger = "/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"
	if _, err := os.Stat(jar); err != nil {
		t.Fatalf("ZooKeeper is needed (Debian's package zookeeper): %v", err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatalf("ZooKeeper needs Java (Debian's package default-jre-headless): %v", err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "zoo.cfg")
	// The admin server would listen on all interfaces.
	if err := os.WriteFile(config, []byte("dataDir="+dir+
		"\nclientPortAddress="+host+"\nclientPort="+port+
		"\nadmin.enableServer=false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "zookeeper", java, nil, "-Xmx96m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dzookeeper.jmx.log4j.disable=true",
		"-cp", logger+":"+jar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
	waitFor(ctx, t, addr, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// waitForPage waits until a URL is answered with 200.
func waitForPage(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	waitFor(ctx, t, url, func(ctx context.Context) error {
		status, _, err := fetch(ctx, url)
		if err == nil && status != http.StatusOK {
			err = errors.New(http.StatusText(status))
		}
		return err
	})
}

func waitFor(ctx context.Context, t *testing.T, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		if !pause(ctx, 200*time.Millisecond) {
			t.Fatalf("%s is not ready after %v: %v", what, startTime, err)
		}
	}
}

// pause reports whether it could wait so long.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func fetch(ctx context.Context, url string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// freeAddrs sets each address to a free port of the loopback interface.
func freeAddrs(t *testing.T, addrs ...*string) {
	t.Helper()
	for _, addr := range addrs {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// Only closed at the end, so that no port comes twice.
		defer func() { _ = listener.Close() }()
		*addr = listener.Addr().String()
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// checkBurrowLog fails the test for each error that Burrow logged. That includes every notification
// that Karrot refused or did not answer.
func checkBurrowLog(t *testing.T, path string) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range bytes.Lines(log) {
		var entry struct{ Level string }
		if json.Unmarshal(line, &entry) != nil {
			// Burrow's first lines, before its logger is there, are plain text.
			continue
		}
		lines++
		switch entry.Level {
		case "debug", "info", "warn":
		default:
			t.Errorf("Burrow logged: %s", line)
		}
	}
	if lines == 0 {
		t.Error("Burrow's log is empty")
	}
}
