// Package page shows the table to people and to scripts: a page that a browser renders without JavaScript and keeps
// up to date with it, and the same as JSON.
//
// It reads the table and the clock it is given, and changes nothing. It knows HTTP and the table, not OpenTelemetry.
package page

import (
	"embed"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

// Options say where the page stands, and what it needs to know beside the table.
type Options struct {
	// Path is the page's own, and begins with a slash. WebhookPath is where notifications go.
	Path, WebhookPath string
	// Interval is how often open pages are told of changes.
	Interval time.Duration
	// Limits are those of the table.
	Limits groups.Limits
	// Version is that of Karrot.
	Version string
	// Password says that clients need one, APIPolled that Burrow's API is polled.
	Password, APIPolled bool
	// Now is the clock.
	Now func() time.Time
	// Webhook says what has become of notifications.
	Webhook func() Webhook
}

// Webhook is what has become of notifications.
type Webhook struct {
	// LastAccepted is zero before the first one.
	LastAccepted time.Time
	// Refused are counted by outcome. LastRefusal is nil before the first one.
	Refused     map[string]int64
	LastRefusal *Refusal
}

// Refusal is a request that was not answered with 200.
type Refusal struct {
	Outcome string    `json:"outcome"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
}

// Handler serves the page. Use New, and Close before the server is shut down.
type Handler struct {
	o         Options
	started   time.Time
	boot      string
	prefix    string // the page's path, with a slash at its end
	table     *groups.Table
	snapshots snapshots
	hub       hub
	// rendering bounds the answers that are being made at once; the webhook needs the cores, too.
	rendering chan struct{}
}

var _ http.Handler = (*Handler)(nil)

// maxRendering is how many answers are made at once; more of them wait.
const maxRendering = 4

// New makes the handler of a page on a table.
func New(table *groups.Table, o Options) *Handler {
	h := &Handler{
		o: o, started: o.Now(), prefix: strings.TrimSuffix(o.Path, "/") + "/",
		table: table, snapshots: snapshots{table: table}, rendering: make(chan struct{}, maxRendering),
	}
	// Versions of one start mean nothing to the next.
	h.boot = strconv.FormatInt(h.started.UnixNano(), 36)
	h.hub.h = h
	return h
}

// Close ends the streams that are open. No further one is opened.
func (h *Handler) Close() {
	h.hub.close()
	h.snapshots.stop()
}

// Takes says whether a request is for the page rather than for the webhook.
func (h *Handler) Takes(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	path := r.URL.EscapedPath()
	if path+"/" == h.prefix {
		return true
	}
	rest, below := strings.CutPrefix(path, h.prefix)
	// A GET for the webhook is refused by it, unless the page is there as well.
	return below && (r.URL.Path != h.o.WebhookPath || rest == "" || h.route(rest) != nil)
}

//go:embed static/page.css static/page.js static/icon.svg static/icon-trouble.svg
var static embed.FS

var contentTypes = map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

// contentSecurity allows what the page needs and nothing else: names that come from outside must stay text
// even if they got into the markup.
const contentSecurity = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// ServeHTTP answers a GET or HEAD below the page's path.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", contentSecurity)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 {
		// A browser would keep six connections, of which Burrow needs one. A stream sets deadlines that must not meet another request.
		header.Set("Connection", "close")
	}
	if foreign(r) {
		h.fail(w, r, http.StatusForbidden, "Another site can't use this page, but can link to it.")
		return
	}
	rest, below := strings.CutPrefix(r.URL.EscapedPath(), h.prefix)
	if !below {
		// Relative, for the sake of proxies that put something in front.
		header.Set("Location", h.prefix[strings.LastIndexByte(h.prefix[:len(h.prefix)-1], '/')+1:])
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	serve := h.route(rest)
	if serve == nil {
		h.fail(w, r, http.StatusNotFound, "Nothing is here. Notifications go to "+h.o.WebhookPath+" by POST.")
		return
	}
	serve(w, r)
}

// foreign says that a browser asks on behalf of another site. It could not read the answer, but hold streams open.
func foreign(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

// route finds what serves a path below the page's, which is still escaped: a name may contain a slash.
func (h *Handler) route(rest string) http.HandlerFunc {
	switch rest {
	case "":
		return h.rendered(h.serveOverview)
	case "events":
		return h.serveEvents
	case "api/v1/groups":
		return h.rendered(h.serveGroups)
	}
	if name, ok := strings.CutPrefix(rest, "static/"); ok {
		return serveStatic(name)
	}
	for prefix, serve := range map[string]func(http.ResponseWriter, *http.Request, key){"groups/": h.serveGroup, "api/v1/groups/": h.serveGroupJSON} {
		if names, ok := strings.CutPrefix(rest, prefix); ok {
			return h.named(names, serve)
		}
	}
	return nil
}

// named finds the group in a path, or in the query if the path has none.
func (h *Handler) named(names string, serve func(http.ResponseWriter, *http.Request, key)) http.HandlerFunc {
	cluster, group, ok := splitNames(names)
	if !ok && names != "" {
		return nil
	}
	return h.rendered(func(w http.ResponseWriter, r *http.Request) {
		k := key{cluster, group}
		if names == "" {
			k = key{r.URL.Query().Get("cluster"), r.URL.Query().Get("group")}
		}
		serve(w, r, k)
	})
}

// rendered bounds how many answers are made at once.
func (h *Handler) rendered(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.rendering <- struct{}{}:
			defer func() { <-h.rendering }()
			serve(w, r)
		case <-r.Context().Done():
		}
	}
}

func serveStatic(name string) http.HandlerFunc {
	data, err := static.ReadFile("static/" + name)
	if err != nil {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, http.StatusOK, contentTypes[name[strings.LastIndexByte(name, '.')+1:]], data)
	}
}

// Overview is what there is to say of all groups together, and of Karrot.
type Overview struct {
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`
	// Karrot is its version.
	Karrot string       `json:"karrot"`
	Groups StatusCounts `json:"groups"`
	// Clusters are their names, in order.
	Clusters []string `json:"clusters"`
	// LastNotification is null before the first one.
	LastNotification *time.Time `json:"last_notification"`
	// Refused are requests to the webhook that were not answered with 200, by outcome, most first.
	Refused     []Refused `json:"refused"`
	LastRefusal *Refusal  `json:"last_refusal"`
	// Partitions are those listed that the table holds, Max what it may hold.
	Partitions    int `json:"partitions"`
	MaxGroups     int `json:"max_groups"`
	MaxPartitions int `json:"max_partitions"`
	// ExpireAfter is in seconds.
	ExpireAfter float64 `json:"expire_after"`
	// Pages are the streams that are open.
	Pages int `json:"pages"`
}

// Refused counts requests of one outcome.
type Refused struct {
	Outcome string `json:"outcome"`
	Count   int64  `json:"count"`
}

// RefusedTotal counts the requests of all outcomes.
func (o *Overview) RefusedTotal() (total int64) {
	for _, r := range o.Refused {
		total += r.Count
	}
	return total
}

// sameAs says that nothing but time has passed.
func (o *Overview) sameAs(before *Overview) bool {
	same := *before
	same.Now, same.Pages = o.Now, o.Pages
	return reflect.DeepEqual(&same, o)
}

func (h *Handler) overview(s *snapshot) Overview {
	webhook, stats := h.o.Webhook(), h.table.Stats()
	o := Overview{
		Now: h.o.Now(), Started: h.started, Karrot: h.o.Version, Groups: s.counts, Clusters: s.clusters,
		LastNotification: timeOrNil(webhook.LastAccepted), Refused: []Refused{}, LastRefusal: webhook.LastRefusal,
		Partitions: stats.Partitions, MaxGroups: h.o.Limits.MaxGroups, MaxPartitions: h.o.Limits.MaxPartitions,
		ExpireAfter: h.o.Limits.ExpireAfter.Seconds(), Pages: h.hub.count(),
	}
	for outcome, count := range webhook.Refused {
		o.Refused = append(o.Refused, Refused{outcome, count})
	}
	slices.SortFunc(o.Refused, func(a, b Refused) int {
		if a.Count != b.Count {
			return int(max(min(b.Count-a.Count, 1), -1))
		}
		return strings.Compare(a.Outcome, b.Outcome)
	})
	return o
}

func (h *Handler) version(s *snapshot) string {
	return h.boot + "-" + strconv.FormatInt(s.version, 10)
}

// serveGroups answers with the groups that match the query.
func (h *Handler) serveGroups(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), maxLimit)
	if err != nil {
		h.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	s := h.snapshots.newest()
	if h.unchanged(w, r, s) {
		return
	}
	if q.plain() {
		answerJSON(w, r, s.all(func(s *snapshot) []byte { return h.listHead(s, len(s.worst)) }, acceptsGzip(r)))
		return
	}
	rows, matched := q.apply(s)
	data := listJSON(h.listHead(s, matched), "groups", rows)
	if acceptsGzip(r) {
		data = zip(data)
	}
	answerJSON(w, r, data)
}

// listHead is the JSON before the groups.
func (h *Handler) listHead(s *snapshot, matched int) []byte {
	head := mustMarshal(struct {
		Version int64  `json:"version"`
		Boot    string `json:"boot"`
		Matched int    `json:"matched"`
		Total   int    `json:"total"`
	}{s.version, h.boot, matched, len(s.worst)})
	return head[:len(head)-1]
}

// unchanged answers 304 if the client has this version already. Its header is of every answer.
func (h *Handler) unchanged(w http.ResponseWriter, r *http.Request, s *snapshot) bool {
	// Weak, because the same version is sent plain and zipped.
	tag := `W/"` + h.version(s) + `"`
	w.Header().Set("ETag", tag)
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if known = strings.TrimSpace(known); known == tag || known == "*" || known == strings.TrimPrefix(tag, "W/") {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// serveGroupJSON answers with one group.
func (h *Handler) serveGroupJSON(w http.ResponseWriter, r *http.Request, k key) {
	limit, err := parseLimit(r.URL.Query(), defaultPartitions)
	if err != nil {
		h.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	s := h.snapshots.newest()
	d, ok := h.detail(s, k, limit)
	if !ok {
		h.fail(w, r, http.StatusNotFound, h.unknown(k))
		return
	}
	if h.unchanged(w, r, s) {
		return
	}
	data := append(mustMarshal(d), '\n')
	if acceptsGzip(r) {
		data = zip(data)
	}
	answerJSON(w, r, data)
}

func (h *Handler) unknown(k key) string {
	if k.cluster == "" || k.group == "" {
		return "The address must name a cluster and a group, as in groups/CLUSTER/GROUP, each percent-escaped"
	}
	return fmt.Sprintf("Group %q of cluster %q is not known. It may have been deleted, or nothing was received of it for %s.",
		k.group, k.cluster, words(h.o.Limits.ExpireAfter.Seconds()))
}

// detail finds a group with its partitions.
func (h *Handler) detail(s *snapshot, k key, limit int) (d Detail, ok bool) {
	for range 2 {
		r := s.rows[k]
		if r == nil {
			return d, false
		}
		if state := r.state.Value(); state != nil {
			return viewDetail(state, limit), true
		}
		// It was replaced since, and is already gone: the newest is meant.
		s = h.snapshots.newest()
	}
	return d, false
}

// answerJSON sends data that is zipped already if the client accepts it.
func answerJSON(w http.ResponseWriter, r *http.Request, data []byte) {
	send(w, r, http.StatusOK, "application/json", data, acceptsGzip(r))
}

// answer sends data, zipped if the client accepts it.
func answer(w http.ResponseWriter, r *http.Request, code int, contentType string, data []byte) {
	zipped := acceptsGzip(r)
	if zipped {
		data = zip(data)
	}
	send(w, r, code, contentType, data, zipped)
}

func send(w http.ResponseWriter, r *http.Request, code int, contentType string, data []byte, zipped bool) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Add("Vary", "Accept-Encoding")
	if zipped {
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) //nolint:gosec // made by html/template or encoding/json, or text/plain; a client that has gone away is no failure
	}
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(coding, ";")
		name, quality = strings.TrimSpace(name), strings.ReplaceAll(quality, " ", "")
		if (name == "gzip" || name == "*") && strings.Trim(quality, "q=0.") != "" || name == "gzip" && quality == "" {
			return true
		}
	}
	return false
}

// fail is the only place that answers with an error: a page for people, a line for scripts.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, code int, text string) {
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.renderError(w, r, code, text)
		return
	}
	answer(w, r, code, "text/plain; charset=utf-8", []byte(text+"\n"))
}

// encode makes parameters the end of an address.
func encode(v url.Values) string {
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}
