package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const (
	// maxBytesInFlight bounds the bodies that are held in memory at one moment, over all requests.
	maxBytesInFlight = 256 << 20
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
	table     *groups.Table
	filters   filters
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption
	// outcomes are the options that count each outcome.
	outcomes map[metadata.AttributeOutcome][]metric.AddOption
	logger   *zap.Logger
	refusals logLimiter

	bytesInFlight atomic.Int64
	// lastAccepted is in unix nanoseconds, 0 before the first notification.
	lastAccepted atomic.Int64
}

var _ http.Handler = (*webhook)(nil)

// ServeHTTP answers one request. 200 means that the table has the state.
func (w *webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	received := time.Now()
	outcome, refused := w.accept(rw, r, received)
	if refused != nil {
		w.refuse(rw, r, refused)
		return
	}
	w.lastAccepted.Store(received.UnixNano())
	w.count(r.Context(), outcome)
	rw.WriteHeader(http.StatusOK)
}

// accept brings the notification of the request into the table, unless it is filtered, or says why not.
func (w *webhook) accept(rw http.ResponseWriter, r *http.Request, received time.Time) (metadata.AttributeOutcome, *refusal) {
	if r.URL.Path != w.path {
		return 0, &refusal{
			outcome: metadata.AttributeOutcomePath, code: http.StatusNotFound,
			text:  "Nothing is here. Notifications go to " + w.path,
			cause: fmt.Errorf("no such path: %.200q", r.URL.Path),
		}
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		rw.Header().Set("Allow", allowedMethods)
		return 0, &refusal{
			outcome: metadata.AttributeOutcomeMethod, code: http.StatusMethodNotAllowed,
			text:  "The method must be one of " + allowedMethods,
			cause: fmt.Errorf("method %.20q", r.Method),
		}
	}
	notification, refused := w.read(r)
	if refused != nil {
		return 0, refused
	}
	if !w.filters.clusters.takes(notification.Group.Cluster) || !w.filters.groups.takes(notification.Group.Group) {
		return metadata.AttributeOutcomeFiltered, nil
	}
	if err := w.table.Update(notification, received); err != nil {
		return 0, w.tableFull(r.Context(), err)
	}
	if entry := w.logger.Check(zap.DebugLevel, "Notification accepted"); entry != nil {
		g := &notification.Group
		entry.Write(zap.String("cluster", g.Cluster), zap.String("group", g.Group), zap.Stringer("status", g.Status),
			zap.Int64("total_lag", g.TotalLag), zap.Int("listed_partitions", len(g.Partitions)))
	}
	return metadata.AttributeOutcomeAccepted, nil
}

// read decodes the body.
func (w *webhook) read(r *http.Request) (*burrow.Notification, *refusal) {
	buffer := bodies.Get().(*bodyBuffer)
	defer w.release(buffer)
	if err := w.readBody(buffer, r); err != nil {
		return nil, bodyRefusal(err)
	}
	notification, err := burrow.Decode(buffer.bytes)
	if err != nil {
		return nil, decodeRefusal(err)
	}
	return notification, nil
}

// errBusy means that the bodies of all requests together are too large.
var errBusy = errors.New("requests under way hold too many bytes")

type bodyBuffer struct {
	bytes    []byte
	reserved int64
}

var bodies = sync.Pool{New: func() any { return new(bodyBuffer) }}

// readBody reads the whole body into b. Memory is reserved as bytes arrive, so that a client that
// promises much and sends nothing takes nothing away from others.
func (w *webhook) readBody(b *bodyBuffer, r *http.Request) error {
	if !w.reserve(b, int64(cap(b.bytes))) {
		return errBusy
	}
	b.bytes = b.bytes[:0]
	for {
		if len(b.bytes) == cap(b.bytes) {
			size := max(2*cap(b.bytes), minBodyBuffer)
			// One byte more, in which the read finds the end.
			if promised := int(min(r.ContentLength+1, maxPooledBuffer)); size < promised {
				size = promised
			}
			if !w.reserve(b, int64(size-cap(b.bytes))) {
				return errBusy
			}
			grown := make([]byte, len(b.bytes), size)
			copy(grown, b.bytes)
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

func (w *webhook) reserve(b *bodyBuffer, n int64) bool {
	b.reserved += n
	return w.bytesInFlight.Add(n) <= maxBytesInFlight
}

func (w *webhook) release(b *bodyBuffer) {
	w.bytesInFlight.Add(-b.reserved)
	b.reserved = 0
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
	case errors.Is(err, errBusy):
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
	limit := reachedLimit(err)
	w.telemetry.ReceiverBurrowGroupsRefused.Add(ctx, 1, w.own, metric.WithAttributes(attribute.String("limit", limit.String())))
	return &refusal{
		outcome: metadata.AttributeOutcomeTableFull, code: http.StatusServiceUnavailable,
		text: "The table is full: " + limit.String() + " is reached", cause: err,
	}
}

// reachedLimit is the limit that an error of the table is about.
func reachedLimit(err error) metadata.AttributeLimit {
	if errors.Is(err, groups.ErrTooManyPartitions) {
		return metadata.AttributeLimitMaxPartitions
	}
	return metadata.AttributeLimitMaxGroups
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
	w.refuse(rw, r, refused)
}

// refuse is the only place that answers with an error.
func (w *webhook) refuse(rw http.ResponseWriter, r *http.Request, refused *refusal) {
	w.count(r.Context(), refused.outcome)
	interval := refusalLogInterval
	if refused.outcome == metadata.AttributeOutcomeTableFull {
		interval = tableFullLogInterval
	}
	if leftOut, ok := w.refusals.allow(refused.outcome, interval, time.Now()); ok {
		w.logger.Warn("Refused a request to the webhook", zap.Stringer("outcome", refused.outcome),
			zap.Int("code", refused.code), zap.Error(refused.cause), zap.String("client", r.RemoteAddr), zap.Int("more_since_last_line", leftOut))
	}
	http.Error(rw, refused.text, refused.code)
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

// logLimiter keeps a broken template from filling the disk.
type logLimiter struct {
	mu    sync.Mutex
	lines map[metadata.AttributeOutcome]*logLine
}

type logLine struct {
	last    time.Time
	leftOut int
}

// allow says whether the outcome may be logged now, and how many were left out since the last time.
func (l *logLimiter) allow(outcome metadata.AttributeOutcome, interval time.Duration, now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.lines[outcome]
	if line == nil {
		line = &logLine{}
		if l.lines == nil {
			l.lines = map[metadata.AttributeOutcome]*logLine{}
		}
		l.lines[outcome] = line
	} else if now.Sub(line.last) < interval {
		line.leftOut++
		return 0, false
	}
	leftOut, line.leftOut, line.last = line.leftOut, 0, now
	return leftOut, true
}
