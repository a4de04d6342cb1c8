package page

import (
	"bytes"
	"compress/flate"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// maxClients bounds the streams that are open at once.
	maxClients = 100
	// heartbeat is how long a stream is silent at most.
	heartbeat = 15 * time.Second
	// A client that has not taken maxWaiting messages, or does not take one within writeTimeout, is cut off.
	maxWaiting   = 8
	writeTimeout = 10 * time.Second
)

// hub sends what changes to the streams that are open. Its goroutine runs while there are any, so that a page
// nobody looks at costs nothing. A message is made once for all of them.
type hub struct {
	h *Handler

	mu      sync.Mutex
	clients map[*client]struct{}
	closed  bool
	stop    chan struct{} // ends the goroutine
	running sync.WaitGroup
}

// client is one stream. The hub closes messages to cut it off.
type client struct{ messages chan *message }

// message is an event in the form of server-sent events.
type message struct {
	plain  []byte
	zipped func() []byte
}

func newMessage(event, id string, data []byte) *message {
	var text bytes.Buffer
	fmt.Fprintf(&text, "event: %s\nid: %s\n", event, id)
	// The data is JSON with line breaks between its rows.
	for line := range bytes.Lines(data) {
		text.WriteString("data: ")
		text.Write(bytes.TrimRight(line, "\n"))
		text.WriteByte('\n')
	}
	text.WriteByte('\n')
	m := &message{plain: text.Bytes()}
	m.zipped = sync.OnceValue(func() []byte { return deflate(m.plain) })
	return m
}

// gzipHead begins a gzip stream (RFC 1952). What follows are blocks that deflate has made one by one: they
// refer to nothing before them, and end at a byte, so the same bytes do for every stream.
var gzipHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func deflate(data []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		panic(err) // a buffer takes everything, and the level is a constant
	}
	return out.Bytes()
}

// Event is what a stream says: the overview, and the groups that have changed between two versions.
type Event struct {
	// From is the version that the changes are to be added to, Version the one that results.
	From     int64    `json:"from"`
	Version  int64    `json:"version"`
	Overview Overview `json:"overview"`
	// Gone are pairs of cluster and group.
	Gone [][2]string `json:"gone"`
}

// The groups that have changed come last, as the list "changed".
func (e *Event) json(changed []*row) []byte {
	head := mustMarshal(e)
	return listJSON(head[:len(head)-1], "changed", changed)
}

// join adds a client; ok is false if there are too many, or the handler is closed.
func (b *hub) join() (c *client, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.clients) >= maxClients {
		return nil, false
	}
	c = &client{messages: make(chan *message, maxWaiting)}
	if b.clients == nil {
		b.clients = map[*client]struct{}{}
	}
	b.clients[c] = struct{}{}
	if b.stop == nil {
		stop := make(chan struct{})
		b.stop = stop
		// Taken here: the goroutine may begin after the next change, which then nobody would be told of.
		last := b.h.snapshots.newest()
		b.running.Go(func() { b.run(stop, last) })
	}
	return c, true
}

func (b *hub) leave(c *client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(c)
}

// remove cuts a client off. With the last one, the goroutine ends.
func (b *hub) remove(c *client) {
	if _, found := b.clients[c]; !found {
		return
	}
	delete(b.clients, c)
	close(c.messages)
	if len(b.clients) == 0 {
		close(b.stop)
		b.stop = nil
	}
}

// close ends all streams and waits for the goroutine.
func (b *hub) close() {
	b.mu.Lock()
	b.closed = true
	for c := range b.clients {
		b.remove(c)
	}
	b.mu.Unlock()
	b.running.Wait()
}

// count is how many streams are open.
func (b *hub) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.clients)
}

// run tells of what changes after the snapshot last.
func (b *hub) run(stop <-chan struct{}, last *snapshot) {
	interval := min(b.h.o.Interval, heartbeat)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	lastOverview := b.h.overview(last)
	silent := time.Duration(0)
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		now := b.h.snapshots.newest()
		overview := b.h.overview(now)
		silent += interval
		if now == last && overview.sameAs(&lastOverview) && silent < heartbeat {
			continue
		}
		b.broadcast(newMessage("change", b.h.version(now), difference(last, now, overview)))
		last, lastOverview, silent = now, overview, 0
	}
}

// broadcast never waits: a client whose messages pile up is cut off, and comes back for the whole.
func (b *hub) broadcast(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.clients {
		select {
		case c.messages <- m:
		default:
			b.remove(c)
		}
	}
}

func difference(before, after *snapshot, overview Overview) []byte {
	e := &Event{From: before.version, Version: after.version, Overview: overview, Gone: [][2]string{}}
	var changed []*row
	if before != after {
		for _, r := range after.worst {
			if before.rows[r.key()] != r {
				changed = append(changed, r)
			}
		}
		for k := range before.rows {
			if after.rows[k] == nil {
				e.Gone = append(e.Gone, [2]string{k.cluster, k.group})
			}
		}
	}
	return e.json(changed)
}

// serveEvents is one stream.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	c, ok := h.hub.join()
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(2*heartbeat/time.Second)))
		h.fail(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already: no further one is live. The page itself can be loaded again.", maxClients))
		return
	}
	defer h.hub.leave(c)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx would hold events back
	header.Add("Vary", "Accept-Encoding")
	stream := http.NewResponseController(w)
	zipped := acceptsGzip(r)
	send := func(data []byte) bool {
		// Without a deadline, a client that reads nothing would hold this goroutine as long as it likes.
		return stream.SetWriteDeadline(time.Now().Add(writeTimeout)) == nil && write(w, data) && stream.Flush() == nil
	}
	if zipped {
		header.Set("Content-Encoding", "gzip")
		if !send(gzipHead) {
			return
		}
	}
	now := h.snapshots.newest()
	hello := newMessage("hello", h.version(now), difference(now, now, h.overview(now)))
	for m, open := hello, true; open; {
		data := m.plain
		if zipped {
			data = m.zipped()
		}
		if !send(data) {
			return
		}
		select {
		case m, open = <-c.messages:
		case <-r.Context().Done():
			return
		}
	}
}

func write(w http.ResponseWriter, data []byte) bool {
	_, err := w.Write(data)
	return err == nil
}
