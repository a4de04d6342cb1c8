package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/internal/webserver"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/page"
)

const (
	// maxBytesInFlight bounds what requests hold in memory at one moment, all together: bodies and what is made of
	// them until the table has it. The largest body fits in what large requests may take, and twice of it, while
	// garbage waits, in a small container.
	maxBytesInFlight = 32 << 20
	minBodyBuffer    = 2 << 10
	// maxPooledBuffer keeps the buffer of an unusually large body out of the pool.
	maxPooledBuffer = 64 << 10

	// A refusal of one kind is logged once in this time, with the number of those left out.
	refusalLogInterval   = 10 * time.Second
	tableFullLogInterval = time.Hour

	allowedMethods = "DELETE, POST, PUT"
)

// refusal is an answer other than 200.
type refusal struct {
	outcome metadata.AttributeOutcome
	code    int
	// text is all that the client is told.
	text string
	// cause is for the log.
	cause error
}

// webhook answers notifications. It owns the clock of its half: a notification is of the moment its
// request arrived.
type webhook struct {
	path      string
	page      *page.Handler // nil if it is off
	challenge string        // asks a browser for a password; empty if there is none
	table     *groups.Table
	filters   filters
	limits    burrow.APILimits // of a body
	unpacked  int64            // bytes that a decompressor is taken to hold; 0 if there is none
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption
	// outcomes are the options that count each outcome.
	outcomes map[metadata.AttributeOutcome][]metric.AddOption
	logger   *zap.Logger
	lines    logLimiter
	refused  refusedCounts

	// lastAccepted is in unix nanoseconds, 0 before the first notification. The others count notifications.
	lastAccepted       atomic.Int64
	accepted, filtered atomic.Int64
	lastRefused        atomic.Pointer[refusedRequest]
}

// refusedRequest is what is kept of the last one, for whoever looks why nothing arrives.
type refusedRequest struct {
	time    time.Time
	outcome metadata.AttributeOutcome
	// text is what the log says: the cause, printable.
	text string
	// client is the address of the other side.
	client string
}

var _ http.Handler = (*webhook)(nil)

// guard refuses what needs no look at the body, before anything costs memory or time: before a password is compared
// and before a body is read or unpacked.
func (w *webhook) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.page != nil && w.page.Takes(r) {
			r.Header.Del("Content-Encoding") // nothing reads its body
			next.ServeHTTP(rw, r)
			return
		}
		if refused := w.admit(rw, r); refused != nil {
			w.refuse(rw, r, refused)
			return
		}
		if w.unpacked > 0 && r.Header.Get("Content-Encoding") != "" {
			// What an encoding needs is not known before, and is not told to us while it grows.
			share := w.limits.Budget.Share()
			defer share.Release()
			if !share.Take(int(w.unpacked)) {
				w.refuse(rw, r, bodyRefusal(burrow.ErrBusy))
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

// foreign finds requests that a browser sends for a page of another site.
var foreign = http.NewCrossOriginProtection()

// admit looks at the first line and the headers of a request.
func (w *webhook) admit(rw http.ResponseWriter, r *http.Request) *refusal {
	if r.URL.Path != w.path {
		return &refusal{
			outcome: metadata.AttributeOutcomePath, code: http.StatusNotFound,
			text:  "Nothing is here. Notifications go to " + w.path,
			cause: fmt.Errorf("no such path: %.200q", r.URL.Path),
		}
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		rw.Header().Set("Allow", allowedMethods)
		return &refusal{
			outcome: metadata.AttributeOutcomeMethod, code: http.StatusMethodNotAllowed,
			text:  "The method must be one of " + allowedMethods,
			cause: fmt.Errorf("method %.20q", r.Method),
		}
	}
	if foreign.Check(r) != nil {
		return &refusal{
			outcome: metadata.AttributeOutcomeForeign, code: http.StatusForbidden,
			text:  "Requests that a browser sends for another site are refused",
			cause: fmt.Errorf("sent by a browser for another site: Origin %.200q", r.Header.Get("Origin")),
		}
	}
	return nil
}

// ServeHTTP answers one request that was admitted, or is for the page. 200 to a notification means that the table has the state.
func (w *webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.page != nil && w.page.Takes(r) {
		w.page.ServeHTTP(rw, r)
		return
	}
	received := time.Now()
	outcome, refused := w.accept(r, received)
	if refused != nil {
		w.refuse(rw, r, refused)
		return
	}
	if outcome == metadata.AttributeOutcomeAccepted {
		w.lastAccepted.Store(received.UnixNano())
	}
	w.count(r.Context(), outcome)
	webserver.Keep(r.Context())
	rw.WriteHeader(http.StatusOK)
}

// accept brings the notification of the request into the table, unless it is filtered, or says why not.
func (w *webhook) accept(r *http.Request, received time.Time) (metadata.AttributeOutcome, *refusal) {
	buffer := bodies.Get().(*bodyBuffer)
	buffer.share = w.limits.Budget.Share()
	// The table has its own limit; until it has the state, this request pays for it.
	defer buffer.release()
	notification, refused := w.read(buffer, r)
	if refused != nil {
		return 0, refused
	}
	if !w.filters.takesGroup(notification.Group.Cluster, notification.Group.Group) {
		w.filtered.Add(1)
		return metadata.AttributeOutcomeFiltered, nil
	}
	if err := w.table.Update(notification, received); err != nil {
		return 0, w.tableFull(r.Context(), err)
	}
	g := &notification.Group
	if w.accepted.Add(1) == 1 {
		w.logger.Info("The first notification has arrived", append(groupFields(g.Cluster, g.Group), zap.Stringer("status", g.Status))...)
	}
	if entry := w.logger.Check(zap.DebugLevel, "Notification accepted"); entry != nil {
		entry.Write(append(groupFields(g.Cluster, g.Group), zap.Stringer("status", g.Status),
			zap.Int64("total_lag", g.TotalLag), zap.Int("listed_partitions", len(g.Partitions)))...)
	}
	return metadata.AttributeOutcomeAccepted, nil
}

// read decodes the body.
func (w *webhook) read(buffer *bodyBuffer, r *http.Request) (*burrow.Notification, *refusal) {
	if err := buffer.fill(r); err != nil {
		return nil, bodyRefusal(err)
	}
	notification, err := burrow.DecodeWithin(buffer.bytes, burrow.Limits{MaxPartitions: w.limits.MaxPartitions, Share: &buffer.share})
	switch {
	case errors.Is(err, burrow.ErrBusy):
		return nil, bodyRefusal(err)
	case errors.Is(err, burrow.ErrTooMany):
		return nil, w.tableFull(r.Context(), groups.ErrTooManyPartitions)
	case err != nil:
		return nil, decodeRefusal(err)
	}
	return notification, nil
}

// bodyBuffer is a body, and what the request holds of the budget.
type bodyBuffer struct {
	bytes []byte
	share burrow.Share
}

var bodies = sync.Pool{New: func() any { return new(bodyBuffer) }}

// fill reads the whole body. Memory is paid as bytes arrive, so that a client that promises much and sends nothing
// takes nothing away from others.
func (b *bodyBuffer) fill(r *http.Request) error {
	if !b.share.Take(cap(b.bytes)) {
		return burrow.ErrBusy
	}
	b.bytes = b.bytes[:0]
	for {
		if len(b.bytes) == cap(b.bytes) {
			size := max(2*cap(b.bytes), minBodyBuffer)
			// One byte more, in which the read finds the end.
			if promised := int(min(r.ContentLength+1, maxPooledBuffer)); size < promised {
				size = promised
			}
			if r.ContentLength >= int64(len(b.bytes)) && int64(size) > r.ContentLength+1 && size > maxPooledBuffer {
				size = int(r.ContentLength) + 1
			}
			if !b.share.Take(size) {
				return burrow.ErrBusy
			}
			grown := make([]byte, len(b.bytes), size)
			copy(grown, b.bytes)
			b.share.Return(cap(b.bytes))
			b.bytes = grown
		}
		n, err := r.Body.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (b *bodyBuffer) release() {
	b.share.Release()
	b.share = burrow.Share{}
	if cap(b.bytes) <= maxPooledBuffer {
		bodies.Put(b)
	}
}

func bodyRefusal(err error) *refusal {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &refusal{
			outcome: metadata.AttributeOutcomeTooLarge, code: http.StatusRequestEntityTooLarge,
			text:  "The body is larger than webhook.max_request_body_size",
			cause: fmt.Errorf("the body is larger than webhook.max_request_body_size (%d bytes)", tooLarge.Limit),
		}
	case errors.Is(err, burrow.ErrBusy):
		return &refusal{
			outcome: metadata.AttributeOutcomeBusy, code: http.StatusServiceUnavailable,
			text: "Too many bytes are being received at once", cause: err,
		}
	}
	return &refusal{
		outcome: metadata.AttributeOutcomeUnreadable, code: http.StatusBadRequest,
		text: "The body can't be read", cause: err,
	}
}

// useTemplate leads from a body that can't be used to one that can.
const useTemplate = " Send the notification with config/burrow/notification.tmpl: " + burrow.Template

func decodeRefusal(err error) *refusal {
	refused := &refusal{code: http.StatusBadRequest, cause: err}
	var field *burrow.FieldError
	switch {
	case errors.As(err, &field):
		refused.outcome = metadata.AttributeOutcomeField
		refused.text = field.Field + " must be " + field.Want + "." + useTemplate
	case errors.Is(err, burrow.ErrForm):
		refused.outcome = metadata.AttributeOutcomeForm
		refused.text = "The body must have cluster, group, status and totallag." + useTemplate
	default:
		refused.outcome = metadata.AttributeOutcomeSyntax
		refused.text = "The body must be JSON." + useTemplate
	}
	return refused
}

func (w *webhook) tableFull(ctx context.Context, err error) *refusal {
	limit := countTableFull(ctx, w.telemetry, w.own, err)
	return &refusal{
		outcome: metadata.AttributeOutcomeTableFull, code: http.StatusServiceUnavailable,
		text: "The table is full: " + limit.String() + " is reached", cause: err,
	}
}

// countTableFull counts a state that the table had no place for, and returns the limit that its error is about.
func countTableFull(ctx context.Context, telemetry *metadata.TelemetryBuilder, own metric.MeasurementOption, err error) metadata.AttributeLimit {
	limit := metadata.AttributeLimitMaxGroups
	if errors.Is(err, groups.ErrTooManyPartitions) {
		limit = metadata.AttributeLimitMaxPartitions
	}
	telemetry.ReceiverBurrowGroupsRefused.Add(ctx, 1, own, metric.WithAttributes(attribute.String("limit", limit.String())))
	return limit
}

// refuseEarly answers for confighttp, which refuses some requests before they reach the handler.
func (w *webhook) refuseEarly(rw http.ResponseWriter, r *http.Request, cause string, code int) {
	refused := &refusal{
		outcome: metadata.AttributeOutcomeUnreadable, code: code,
		text: "The body can't be read", cause: errors.New(cause),
	}
	if code == http.StatusUnauthorized {
		refused.outcome = metadata.AttributeOutcomeUnauthenticated
		refused.text = "Authentication is required"
		// The cause can repeat the credentials that were presented.
		refused.cause = errors.New("not authenticated")
	}
	if w.page != nil && w.page.Takes(r) {
		w.refusePage(rw, r, refused)
		return
	}
	w.refuse(rw, r, refused)
}

// refusePage answers a request for the page, which is no notification and not counted as one.
func (w *webhook) refusePage(rw http.ResponseWriter, r *http.Request, refused *refusal) {
	if leftOut, ok := w.lines.allow("page "+refused.outcome.String(), refusalLogInterval, time.Now()); ok {
		w.logger.Warn("Refused a request for the page", zap.Stringer("outcome", refused.outcome), zap.Int("code", refused.code),
			zap.String("client", r.RemoteAddr), zap.Int("more_since_last_line", leftOut))
	}
	if refused.code == http.StatusUnauthorized && w.challenge != "" {
		rw.Header().Set("WWW-Authenticate", w.challenge)
	}
	rw.Header().Set("Connection", "close")
	http.Error(rw, refused.text, refused.code)
}

// refuse is the only place that answers a notification with an error. The connection ends with the answer: who sends nothing that is
// wanted keeps no place.
func (w *webhook) refuse(rw http.ResponseWriter, r *http.Request, refused *refusal) {
	now := time.Now()
	w.count(r.Context(), refused.outcome)
	cause := burrow.Printable(refused.cause.Error())
	w.lastRefused.Store(&refusedRequest{time: now, outcome: refused.outcome, text: cause, client: r.RemoteAddr})
	w.refused.add(refused.outcome.String())
	interval := refusalLogInterval
	if refused.outcome == metadata.AttributeOutcomeTableFull {
		interval = tableFullLogInterval
	}
	if leftOut, ok := w.lines.allow(refused.outcome.String(), interval, now); ok {
		w.logger.Warn("Refused a request to the webhook", zap.Stringer("outcome", refused.outcome),
			zap.Int("code", refused.code), zap.String("error", cause), zap.String("client", r.RemoteAddr), zap.Int("more_since_last_line", leftOut))
	}
	rw.Header().Set("Connection", "close")
	// What has not been read of the body is not waited for. A server without connections, in tests, has no deadline.
	_ = http.NewResponseController(rw).SetReadDeadline(now)
	http.Error(rw, refused.text, refused.code)
}

// Write takes the lines of the HTTP server, which are about connections: a failed handshake of TLS is one. The first
// of each kind in a while is logged.
func (w *webhook) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	kind, _, _ := strings.Cut(text, " from ")
	if strings.Contains(text, "panic serving") {
		w.logger.Error("The webhook's server failed", zap.String("error", burrow.Printable(text)))
		return len(line), nil
	}
	if leftOut, ok := w.lines.allow(kind[:min(len(kind), maxKindBytes)], refusalLogInterval, time.Now()); ok {
		w.logger.Warn("A connection to the webhook failed", zap.String("error", burrow.Printable(text)), zap.Int("more_since_last_line", leftOut))
	}
	return len(line), nil
}

func (w *webhook) count(ctx context.Context, outcome metadata.AttributeOutcome) {
	w.telemetry.ReceiverBurrowNotifications.Add(ctx, 1, w.outcomes[outcome]...)
}

// outcomeOptions prepares the attributes of each outcome for one receiver, because they would be most of the cost of counting.
func outcomeOptions(receiver string) map[metadata.AttributeOutcome][]metric.AddOption {
	options := map[metadata.AttributeOutcome][]metric.AddOption{}
	for name, outcome := range metadata.MapAttributeOutcome {
		set := attribute.NewSet(attribute.String("receiver", receiver), attribute.String("outcome", name))
		options[outcome] = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return options
}

// refusedCounts are for the page.
type refusedCounts struct {
	mu        sync.Mutex
	byOutcome map[string]int64
}

func (c *refusedCounts) add(outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byOutcome == nil {
		c.byOutcome = map[string]int64{}
	}
	c.byOutcome[outcome]++
}

// notifications counts those that were refused. Requests of scanners and of browsers are none.
func (c *refusedCounts) notifications() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for outcome, count := range c.byOutcome {
		switch outcome {
		case metadata.AttributeOutcomePath.String(), metadata.AttributeOutcomeMethod.String(), metadata.AttributeOutcomeForeign.String():
		default:
			n += count
		}
	}
	return n
}

// forPage is what has become of notifications.
func (w *webhook) forPage() page.Webhook {
	var told page.Webhook
	if last := w.lastAccepted.Load(); last != 0 {
		told.LastAccepted = time.Unix(0, last)
	}
	if last := w.lastRefused.Load(); last != nil {
		told.LastRefusal = &page.Refusal{Outcome: last.outcome.String(), Text: last.text, At: last.time}
	}
	w.refused.mu.Lock()
	defer w.refused.mu.Unlock()
	told.Refused = maps.Clone(w.refused.byOutcome)
	return told
}

const (
	// maxKinds and maxKindBytes bound the kinds of lines that are told apart.
	maxKinds     = 64
	maxKindBytes = 40
)

// logLimiter keeps a broken template, or a stranger, from filling the disk.
type logLimiter struct {
	mu    sync.Mutex
	lines map[string]*logLine
}

type logLine struct {
	last    time.Time
	leftOut int
}

// allow says whether a line of this kind may be logged now, and how many were left out since the last one.
func (l *logLimiter) allow(kind string, interval time.Duration, now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = map[string]*logLine{}
	}
	if len(l.lines) >= maxKinds && l.lines[kind] == nil {
		kind = "other"
	}
	line := l.lines[kind]
	if line == nil {
		line = &logLine{}
		l.lines[kind] = line
	} else if now.Sub(line.last) < interval {
		line.leftOut++
		return 0, false
	}
	leftOut, line.leftOut, line.last = line.leftOut, 0, now
	return leftOut, true
}
