package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	brw "github.com/lowess/karrot/e2e/internal/burrow"
)

// told stands between Burrow and Karrot, changes nothing, and keeps every verdict that passes: what Karrot had to go by.
type told struct {
	mu       sync.Mutex
	verdicts map[string][]verdict
	refused  []string
	waiting  int
}

type verdict struct {
	at         time.Time
	by, status string
}

func (v verdict) String() string { return v.at.Format("15:04:05.000") + " " + v.by + " " + v.status }

// listen forwards what arrives at an address to another one.
func (d *told) listen(t *testing.T, address, to string) {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: to}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{DialContext: d.dial},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if r.In.Method == http.MethodGet {
				return
			}
			body, err := io.ReadAll(r.In.Body)
			if err != nil {
				return
			}
			r.Out.Body = io.NopCloser(bytes.NewReader(body))
			var notification struct{ Event brw.Notification }
			if json.Unmarshal(body, &notification) == nil {
				d.add("notification", notification.Event.Result)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method != http.MethodGet && r.StatusCode != http.StatusOK {
				d.refuse(r.Status)
			}
			if path := r.Request.URL.Path; !strings.HasSuffix(path, "/lag") && !strings.HasSuffix(path, "/status") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			r.Body = io.NopCloser(bytes.NewReader(body))
			var answer struct{ Status brw.Result }
			if json.Unmarshal(body, &answer) == nil && r.StatusCode == http.StatusOK {
				d.add("poll", answer.Status)
			}
			return err
		},
		// Parts of the chain are away on purpose.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	serve(t, address, proxy)
}

// dial waits for a server that is not there. So whoever asks meanwhile has the very first answer of a server that starts.
func (d *told) dial(ctx context.Context, network, address string) (net.Conn, error) {
	connection, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		return connection, nil
	}
	d.wait(1)
	defer d.wait(-1)
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
			if connection, err = new(net.Dialer).DialContext(ctx, network, address); err == nil {
				return connection, nil
			}
		}
	}
}

func (d *told) wait(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += n
}

// someWait says whether somebody waits for a server.
func (d *told) someWait() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0
}

func (d *told) refuse(status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = append(d.refused, status)
}

// checkRefused demands that Karrot took every notification.
func (d *told) checkRefused(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.refused) > 0 {
		t.Errorf("Karrot refused %d notifications: %v", len(d.refused), d.refused[:min(10, len(d.refused))])
	}
}

func (d *told) add(by string, r brw.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.verdicts == nil {
		d.verdicts = map[string][]verdict{}
	}
	if r.Cluster != cluster || r.Group == "" {
		return
	}
	d.verdicts[r.Group] = append(d.verdicts[r.Group], verdict{time.Now(), by, r.Status})
}

// of lists the verdicts on a group that differ from the one before.
func (d *told) of(group string) []verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	var changes []verdict
	for _, v := range d.verdicts[group] {
		if len(changes) == 0 || changes[len(changes)-1].status != v.status {
			changes = append(changes, v)
		}
	}
	return changes
}

// count is how many verdicts on a group came in one of the two ways.
func (d *told) count(group, by string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, v := range d.verdicts[group] {
		if v.by == by {
			n++
		}
	}
	return n
}
