//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	varint "encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// attackLength is how long an attack lasts; honest notifications are measured during it and as long after it.
	attackLength = 5 * time.Second

	honestGroups = 1000
	maxPeak      = 256 << 20
	maxAnswers   = 64 << 20  // more where Burrow's API is polled, whose answers have a budget of their own
	container    = 512 << 20 // of which the default limits count on the half
	maxHonest    = 100 * time.Millisecond
	maxLogGrowth = 1 << 20 // a minute

	securityFile   = "security.md"
	strangersBegin = "<!-- begin: strangers, written by make attack -->\n"
	burrowsBegin   = "<!-- begin: Burrow's answers, written by make attack -->\n"
)

// measuring holds times strictly, and writes docs/security.md.
var measuring = os.Getenv("KARROT_ATTACK_MEASURE") != ""

// attack is something that whoever reaches the webhook can do. It lasts until the context ends.
type attack struct {
	configs []string
	run     func(ctx context.Context, k *karrot) error
	// full means that it fills the table: it gets a container's worth of memory, from which the receiver derives its
	// limits, and must stay within the half on which they count.
	full bool
	// descriptors is a limit of the process, as a shell gives it; 0 is that of the test.
	descriptors uint64
	// counted is own telemetry that must have counted what the attack has cost others.
	counted string
	// prints means that what is received is printed, as the configuration says.
	prints bool
	// burrow answers in the place of Burrow's API, from the beginning of the attack on, and is polled as often as can be.
	burrow http.HandlerFunc
}

// What a stranger sends costs a bounded amount of memory, log and time, and no honest notification.
func TestAttack(t *testing.T) {
	zeros := []byte(`{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[0` + strings.Repeat(",0", 1<<19) + `]}`)
	zerosLarge := []byte(`{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[0` + strings.Repeat(",0", 7<<19) + `]}`)
	notLast := wide("g", 60_000)
	copy(notLast[len(notLast)-3:], `0]}`)

	byStrangers := map[string]attack{
		"none": {run: func(ctx context.Context, _ *karrot) error { <-ctx.Done(); return nil }},
		"a list of zeros, 32 times": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 32, "POST", "/burrow", zeros)
		}},
		"a list of zeros in gzip": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 32, "POST", "/burrow", gzipOf(zerosLarge), "Content-Encoding", "gzip")
		}},
		"60,000 partitions, the last one wrong": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 16, "POST", "/burrow", notLast)
		}},
		"snappy to any path by GET, 200 times": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 200, "GET", "/", snappyOf(8<<20), "Content-Encoding", "snappy")
		}},
		"gzip of spaces, 100 times": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 100, "POST", "/burrow", gzipOf(bytes.Repeat([]byte{' '}, 8<<20)), "Content-Encoding", "gzip")
		}},
		"404, 64 times": {run: func(ctx context.Context, k *karrot) error {
			return k.flood(ctx, 64, "POST", "/\x1b[2J", []byte("{}"))
		}},
		"1,100 connections that say nothing": {descriptors: 1024, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.webhook, 1100, "")
		}},
		"1,100 connections that were refused": {descriptors: 1024, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.webhook, 1100, "GET / HTTP/1.1\r\nHost: karrot\r\n\r\n")
		}},
		"1,100 connections that say nothing to the scraped port": {descriptors: 1024, counted: `otelcol_karrot_connections_closed_total{component="prometheus"}`, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.metrics, 1100, "")
		}},
		"1,100 connections that have asked the scraped port for another page": {descriptors: 1024, counted: `otelcol_karrot_connections_closed_total{component="prometheus"}`, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.metrics, 1100, "GET / HTTP/1.1\r\nHost: karrot\r\n\r\n")
		}},
		"1,100 connections that say nothing to the health check": {descriptors: 1024, counted: `otelcol_karrot_connections_closed_total{component="health_check"}`, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.health, 1100, "")
		}},
		"1,100 connections that have asked for health": {descriptors: 1024, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.health, 1100, "GET /heartbeat HTTP/1.1\r\nHost: karrot\r\n\r\n")
		}},
		"600 bodies of 8 MB that never end": {descriptors: 1024, run: func(ctx context.Context, k *karrot) error {
			return k.slowBodies(ctx, 600)
		}},
		"600 headers of 1 MB that never end": {descriptors: 1024, run: func(ctx context.Context, k *karrot) error {
			return idle(ctx, k.webhook, 600, "POST /burrow HTTP/1.1\r\nHost: karrot\r\nX: "+strings.Repeat("x", 1<<20))
		}},
		"60 scrapes whose answer nobody reads": {run: func(ctx context.Context, k *karrot) error {
			return k.slowReaders(ctx, 60)
		}},
		"failed handshakes": {configs: []string{"config/secure.yaml"}, run: func(ctx context.Context, k *karrot) error {
			return k.handshakes(ctx, 32)
		}},
		"the table full of groups": {full: true, run: func(ctx context.Context, k *karrot) error {
			return k.fill(ctx, 8, func(i int) []byte { return wide("stranger-"+strconv.Itoa(i), 1) })
		}},
		"the table full of partitions": {full: true, run: func(ctx context.Context, k *karrot) error {
			return k.fill(ctx, 8, func(i int) []byte { return wide("stranger-"+strconv.Itoa(i), 10_000) })
		}},
		"the table full of long names": {full: true, run: func(ctx context.Context, k *karrot) error {
			return k.fill(ctx, 8, func(i int) []byte { return longNames(i, 100) })
		}},
		"the table full of groups with long names": {full: true, run: func(ctx context.Context, k *karrot) error {
			return k.fill(ctx, 8, func(i int) []byte { return longNames(i, 0) })
		}},
		"names that print, by stdout.yaml and incidents.yaml": {
			configs: []string{"config/stdout.yaml", "config/incidents.yaml"}, prints: true,
			run: func(ctx context.Context, k *karrot) error {
				return k.flood(ctx, 1, "POST", "/burrow", []byte(forging))
			},
		},
	}
	strangers, burrows := attacksTable(t, "Attack", byStrangers), attacksTable(t, "Answers of Burrow's API", attacksByTheAPI())
	if measuring && !t.Failed() {
		writePart(t, securityFile, strangersBegin, strangers)
		writePart(t, securityFile, burrowsBegin, burrows)
	}
}

// attacksTable runs the attacks. Each must have its row in docs/security.md; with KARROT_ATTACK_MEASURE, rows are those that are
// returned.
func attacksTable(t *testing.T, title string, attacks map[string]attack) (rows string) {
	t.Helper()
	_, strangers, _ := writtenPart(t, securityFile, strangersBegin)
	_, burrows, _ := writtenPart(t, securityFile, burrowsBegin)
	rows = "| " + title + " | Peak | p99 | Log |\n|---|--:|--:|--:|\n"
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		t.Run(name, func(t *testing.T) {
			if !measuring {
				assert.Contains(t, strangers+burrows, "\n| "+name+" |", "run make attack")
			}
			row := "| " + name + attacks[name].test(t) + "\n"
			t.Log("figures " + row)
			rows += row
		})
	}
	return rows
}

func (a attack) test(t *testing.T) (figures string) {
	t.Helper()
	env := map[string]string{}
	user := func(*http.Request) {}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	if slices.Contains(a.configs, "config/secure.yaml") {
		env, user, transport.TLSClientConfig = secured(t)
	}
	limit := int64(maxPeak)
	if a.full {
		limit, env["GOMEMLIMIT"] = container/2, strconv.Itoa(container)
	}
	if a.prints {
		env["KARROT_INCIDENT_EXPORTERS"] = "debug/incidents" // the whole record, beside the line of the log
	}
	configs := append([]string{"config/karrot.yaml"}, a.configs...)
	var api brokenBurrow
	if a.burrow != nil {
		configs = append(configs, "config/api.yaml")
		env["KARROT_BURROW_API"], env["KARROT_BURROW_API_INTERVAL"] = api.serve(t, a.burrow), "1s"
		limit += maxAnswers
		a.run = func(ctx context.Context, _ *karrot) error { return api.attack(ctx) }
	}
	k := start(t, options{Configs: configs, Env: env})
	if transport.TLSClientConfig != nil {
		k.webhook = strings.Replace(k.webhook, "http:", "https:", 1)
		k.metrics = strings.Replace(k.metrics, "http:", "https:", 1)
	}
	if a.descriptors > 0 {
		k.limitDescriptors(t, a.descriptors)
	}
	h := &honest{client: &http.Client{Transport: transport, Timeout: 30 * time.Second}, url: k.webhook, user: user}
	fresh := transport.Clone()
	fresh.DisableKeepAlives = true
	h.fresh = &http.Client{Transport: fresh, Timeout: 10 * time.Second} // as long as Prometheus waits
	if a.descriptors > 0 {
		// Less than what is left of the attack at the first look: what is served when it ends is not alive.
		h.fresh.Timeout = attackLength / 2
	}
	for range honestGroups {
		h.notify(t, 0)
	}
	h.took = nil

	ctx, cancel := context.WithTimeout(t.Context(), attackLength)
	defer cancel()
	logBefore := len(k.log())
	var attacking sync.WaitGroup
	var attackErr error
	attacking.Go(func() { attackErr = a.run(ctx, k) })
	begin := time.Now()
	scrapes := 0
	for time.Since(begin) < attackLength {
		h.notify(t, 5*time.Millisecond)
		if elapsed := time.Since(begin); elapsed > time.Duration(scrapes+1)*attackLength/3 {
			scrapes++
			k.requireAlive(t, h)
		}
	}
	attacking.Wait()
	require.NoError(t, attackErr, "the attack itself")
	if a.full {
		// One that is known may list more than there is place for, and what is told of it is true all the same.
		status, text := k.post(t, bytes.Replace(wide("honest-0", 1000), []byte(`"totallag":1,`), []byte(`"totallag":77,`), 1))
		assert.Equal(t, http.StatusOK, status, text)
		waitFor(t, startTimeout, func() string {
			if lag := k.series(t)[`burrow_group_total_lag{cluster="c",group="honest-0"}`]; lag != 77 {
				return fmt.Sprintf("the total lag of honest-0 is %v", lag)
			}
			return ""
		})
	}
	if a.counted != "" {
		assert.Greater(t, scrape(t, k.telemetry)[a.counted], 500.0)
	}
	logGrowth := len(k.log()) - logBefore
	after := time.Second
	if measuring {
		after = attackLength
	}
	for ended := time.Now(); time.Since(ended) < after; {
		h.notify(t, 5*time.Millisecond)
	}
	k.requireAlive(t, h)
	peak := k.peak(t)
	p99 := h.p99()

	if measuring {
		assert.Zero(t, h.refused, "honest notifications that were not answered with 200")
		assert.Less(t, p99, maxHonest)
	} else {
		// On a machine that has other things to do, time says little: only what an attack really breaks is held here.
		assert.LessOrEqual(t, h.refused, h.sent/100, "honest notifications that were not answered with 200")
		assert.Less(t, p99, 20*maxHonest)
	}
	if a.prints {
		assert.Contains(t, k.log(), "Consumer group x\ufffd2026-01-01 OK forged")
	} else {
		assert.Less(t, float64(logGrowth), maxLogGrowth*attackLength.Minutes(), "bytes of log")
	}
	assert.NotRegexp(t, unprintable, k.log())
	assert.Less(t, peak, limit)
	k.stop(t)
	return fmt.Sprintf(" | %d MB | %.1f ms | %d KB |", peak>>20, float64(p99.Microseconds())/1000, logGrowth>>10)
}

// forging is a notification whose names and ID would move a cursor, forge a line and turn the writing around; unprintable is what must
// not be printed of it.
const (
	evilName    = `x\n2026-01-01 OK forged\r\u001b[2J\u009b2J\u202edrowssap\u2028end`
	forging     = `{"Event":{"ID":"` + evilName + `","Start":"2026-01-01T00:00:00Z","Result":{"cluster":"` + evilName + `","group":"` + evilName + `","status":"ERR","totallag":1}}}`
	unprintable = `[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}\x{2028}-\x{202e}]|(?m)^2026-01-01 OK forged`
)

// honest is a Burrow with 1,000 groups.
type honest struct {
	client  *http.Client
	fresh   *http.Client // of which every request has a connection of its own
	url     string
	user    func(*http.Request)
	sent    int
	refused int
	took    []time.Duration
}

// notify sends the next notification after a pause.
func (h *honest) notify(t testing.TB, pause time.Duration) {
	t.Helper()
	h.notifyBy(t, h.client, pause)
}

func (h *honest) notifyBy(t testing.TB, client *http.Client, pause time.Duration) {
	t.Helper()
	time.Sleep(pause)
	request, err := http.NewRequest(http.MethodPost, h.url, bytes.NewReader(wide("honest-"+strconv.Itoa(h.sent%honestGroups), 3)))
	require.NoError(t, err)
	h.user(request)
	h.sent++
	begin := time.Now()
	response, err := client.Do(request)
	if err != nil {
		h.refused++
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	h.took = append(h.took, time.Since(begin))
	if response.StatusCode != http.StatusOK {
		h.refused++
	}
}

func (h *honest) p99() time.Duration {
	slices.Sort(h.took)
	if len(h.took) == 0 {
		return time.Hour
	}
	return h.took[len(h.took)*99/100]
}

// wide is a notification of a group that lists partitions.
func wide(group string, partitions int) []byte {
	body := []byte(`{"cluster":"c","group":"` + group + `","status":"WARN","totallag":1,"partitions":[`)
	for i := range partitions {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"topic":"t","partition":`...)
		body = strconv.AppendInt(body, int64(i), 10)
		body = append(body, `,"current_lag":1,"status":"WARN","end":{"offset":1,"timestamp":1}}`...)
	}
	return append(body, `]}`...)
}

// longNames is a notification of a group whose names are as long as can be.
func longNames(group, partitions int) []byte {
	name := func(i, length int) string { return strings.Repeat("x", length-8) + fmt.Sprintf("%08d", i) }
	body := []byte(`{"cluster":"` + name(0, 1024) + `","group":"` + name(group, 1024) + `","status":"WARN","totallag":1,"partitions":[`)
	for i := range partitions {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"topic":%q,"partition":1,"current_lag":1,"status":"WARN","owner":%q,"client_id":%q,"end":{"offset":1,"timestamp":1}}`,
			name(group*partitions+i, 1024), name(i, 255), name(i, 255))
	}
	return append(body, `]}`...)
}

// peak is the largest resident size of the process so far.
func (k *karrot) peak(t testing.TB) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.cmd.Process.Pid))
	require.NoError(t, err)
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(t, found)
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	require.NoError(t, err)
	return kilobytes << 10
}

// requireAlive asks all four ports, on new connections.
func (k *karrot) requireAlive(t testing.TB, h *honest) {
	t.Helper()
	for _, page := range []string{k.metrics, k.health, k.telemetry} {
		request, err := http.NewRequest(http.MethodGet, page, http.NoBody)
		require.NoError(t, err)
		h.user(request)
		request.Close = true
		response, err := h.fresh.Do(request)
		if err != nil {
			t.Errorf("%s: %v", page, err)
			continue
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		assert.Equal(t, http.StatusOK, response.StatusCode, page)
	}
	h.notifyBy(t, h.fresh, 0)
}

func (k *karrot) address() string {
	webhook, err := url.Parse(k.webhook)
	if err != nil {
		panic(err)
	}
	return webhook.Host
}

// flood sends the same request from several clients without a pause, each on a new connection when the old one ends.
func (k *karrot) flood(ctx context.Context, clients int, method, path string, body []byte, headers ...string) error {
	target := url.URL{Scheme: "http", Host: k.address(), Path: path}
	if _, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var sent atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for ctx.Err() == nil {
				request, _ := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
				for i := 0; i < len(headers); i += 2 {
					request.Header.Set(headers[i], headers[i+1])
				}
				response, err := transport.RoundTrip(request)
				if err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
				sent.Add(1)
				// The attackers share two cores with what they attack.
				time.Sleep(time.Millisecond)
			}
		})
	}
	running.Wait()
	if sent.Load() == 0 {
		return errors.New("nothing was sent")
	}
	return nil
}

// idle opens connections to the port of a page, says something, and holds them.
func idle(ctx context.Context, page string, connections int, say string) error {
	address, err := url.Parse(page)
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: time.Second}
	var open []net.Conn
	for range connections {
		conn, err := dialer.DialContext(ctx, "tcp", address.Host)
		if err != nil {
			continue
		}
		open = append(open, conn)
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(conn, say)
	}
	<-ctx.Done()
	for _, conn := range open {
		_ = conn.Close()
	}
	if len(open) < connections/2 {
		return fmt.Errorf("only %d connections", len(open))
	}
	return nil
}

// slowBodies sends the greater part of large bodies and then nothing more.
func (k *karrot) slowBodies(ctx context.Context, connections int) error {
	chunk := bytes.Repeat([]byte{' '}, 1<<20)
	var running sync.WaitGroup
	for range connections {
		running.Go(func() {
			dialer := net.Dialer{Timeout: time.Second}
			conn, err := dialer.DialContext(ctx, "tcp", k.address())
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetWriteDeadline(time.Now().Add(attackLength))
			_, err = io.WriteString(conn, "POST /burrow HTTP/1.1\r\nHost: karrot\r\nContent-Length: 8388608\r\n\r\n")
			for range 7 {
				if err != nil || ctx.Err() != nil {
					return
				}
				_, err = conn.Write(chunk)
			}
			<-ctx.Done()
		})
	}
	running.Wait()
	return nil
}

// slowReaders ask for the page of Prometheus again and again, and do not read it.
func (k *karrot) slowReaders(ctx context.Context, readers int) error {
	page, err := url.Parse(k.metrics)
	if err != nil {
		return err
	}
	var asked atomic.Int64
	var running sync.WaitGroup
	for range readers {
		running.Go(func() {
			// A page must not fit into what the kernel keeps for a reader.
			dialer := net.Dialer{Timeout: time.Second, Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
			}}
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", page.Host)
				if err != nil {
					continue
				}
				if _, err := io.WriteString(conn, "GET "+page.Path+" HTTP/1.1\r\nHost: karrot\r\n\r\n"); err == nil {
					asked.Add(1)
				}
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second):
				}
				_ = conn.Close()
			}
		})
	}
	running.Wait()
	if int(asked.Load()) < readers/2 {
		return fmt.Errorf("only %d readers", asked.Load())
	}
	return nil
}

// handshakes speaks plain text to a port with TLS.
func (k *karrot) handshakes(ctx context.Context, clients int) error {
	var failed atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			dialer := net.Dialer{Timeout: time.Second}
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", k.address())
				if err != nil {
					continue
				}
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
				failed.Add(1)
			}
		})
	}
	running.Wait()
	if failed.Load() < 100 {
		return fmt.Errorf("only %d handshakes", failed.Load())
	}
	return nil
}

// fill sends new groups until the table is full, and goes on.
func (k *karrot) fill(ctx context.Context, clients int, body func(int) []byte) error {
	var next, refused atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, k.webhook, bytes.NewReader(body(int(next.Add(1)))))
				if err != nil {
					return
				}
				response, err := client.Do(request)
				if err != nil {
					continue
				}
				if response.StatusCode == http.StatusServiceUnavailable {
					refused.Add(1)
				}
				_ = response.Body.Close()
				time.Sleep(time.Millisecond)
			}
		})
	}
	running.Wait()
	if refused.Load() == 0 {
		return fmt.Errorf("the table was not full after %d groups", next.Load())
	}
	return nil
}

// limitDescriptors gives the process the limit that a shell usually gives.
func (k *karrot) limitDescriptors(t testing.TB, n uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: n, Max: n}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(k.cmd.Process.Pid), syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		t.Errorf("prlimit: %v", errno)
	}
}

func gzipOf(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}

// snappyOf is a block of about n equal bytes: a literal, and copies of 64 bytes each.
func snappyOf(n int) []byte {
	copies := n/64 - 1
	block := varint.AppendUvarint(nil, uint64(1+64*copies))
	block = append(block, 0, 'x')
	return append(block, bytes.Repeat([]byte{63<<2 | 2, 1, 0}, copies)...)
}

// secured is an environment for config/secure.yaml and what an honest client needs.
func secured(t *testing.T) (env map[string]string, user func(*http.Request), config *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	pool := certificate(t, dir)
	htpasswd := filepath.Join(dir, "htpasswd")
	require.NoError(t, os.WriteFile(htpasswd, []byte("burrow:{SHA}/KuS/jlxUFlZsIzQk7AVsVz2PMw=\n"), 0o600)) // right horse
	token := filepath.Join(dir, "prometheus.token")
	require.NoError(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	env = map[string]string{
		"KARROT_PROMETHEUS_TOKEN": token, "KARROT_HTPASSWD": htpasswd, "KARROT_TLS_CERT": filepath.Join(dir, "tls.crt"), "KARROT_TLS_KEY": filepath.Join(dir, "tls.key"),
	}
	user = func(r *http.Request) {
		if r.Method == http.MethodGet {
			r.Header.Set("Authorization", "Bearer s3cret")
		} else {
			r.SetBasicAuth("burrow", "right horse")
		}
	}
	return env, user, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
