package burrow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/lowess/karrot/internal/address"
)

const (
	// maxErrorBytes bounds the excerpt of an answer in an error.
	maxErrorBytes = 200
	minAnswer     = 4 << 10
	// maxPooledAnswer keeps the buffer of an unusually large answer out of the pool. It is also how much memory an
	// answer gets because it says how long it is, before its bytes arrive.
	maxPooledAnswer = 1 << 20
	maxRedirects    = 10
)

var (
	// ErrGone means that Burrow does not know the cluster, group or topic, or no longer. It is an answer, not
	// a failure.
	ErrGone = errors.New("not known to Burrow")
	// ErrTooLarge means that an answer is larger than the API was told to read.
	ErrTooLarge = errors.New("the answer is larger than the limit")
)

// StatusError is an answer that is neither 200 nor ErrGone.
type StatusError struct {
	Code int
	// Text is an excerpt of the answer, or where a redirect leads to.
	Text string
}

func (e *StatusError) Error() string {
	text := strings.TrimSpace(strconv.Itoa(e.Code) + " " + http.StatusText(e.Code))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// API asks one Burrow by version 3 of its HTTP API. It can be used by several goroutines at once. The zero
// value is not usable.
//
// Names are given as Burrow lists them and are escaped here. Askable says of which names it can't be asked.
type API struct {
	client    *http.Client
	origin    string // scheme and host
	prefix    string // escaped path before /v3, without a slash at its end
	maxAnswer int64
	limits    APILimits
	large     chan struct{} // holds one while a large answer is under way
}

// APILimits bound what answers are made into.
type APILimits struct {
	// MaxPartitions bounds the partitions of one group and of one topic.
	MaxPartitions int
	// Budget pays for answers under way; without one nothing is paid for.
	Budget *Budget
}

// Askable says whether a name can be part of a path. Burrow decodes a path before it looks for the slashes in it, and
// its HTTP server cleans dots away, so that a request about such a name would ask about something else.
func Askable(name string) bool {
	return name != "." && name != ".." && !strings.Contains(name, "/")
}

// ErrNotAskable means that Burrow's API has no path for a name.
var ErrNotAskable = errors.New("not a name that Burrow's API has a path for")

// NewAPI uses the client's transport and timeout. Answers of more than maxAnswer bytes are refused. Redirects
// are followed on the same scheme and host only, as the transport may add credentials to every request.
func NewAPI(client *http.Client, endpoint string, maxAnswer int64, limits APILimits) (*API, error) {
	base, err := ParseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if maxAnswer < 1 {
		return nil, fmt.Errorf("the limit of an answer must be at least 1 byte, got %d", maxAnswer)
	}
	own := *client
	own.CheckRedirect = stayOnHost
	origin := url.URL{Scheme: base.Scheme, Host: base.Host}
	return &API{
		client:    &own,
		origin:    origin.String(),
		prefix:    strings.TrimRight(base.EscapedPath(), "/"),
		maxAnswer: maxAnswer,
		limits:    limits,
		large:     make(chan struct{}, 1),
	}, nil
}

// ParseEndpoint checks the URL at which Burrow serves its API; a path is that of a proxy in front of it. It must have no
// password, because it is shown wherever the configuration is. The error says what would be right and does not show one.
func ParseEndpoint(endpoint string) (*url.URL, error) {
	const want = "endpoint must be a URL as in http://localhost:8000"
	u, err := url.Parse(endpoint)
	shown := address.WithoutSecrets(endpoint)
	if err != nil {
		if shown != endpoint {
			return nil, fmt.Errorf("%s, got %q", want, shown)
		}
		// What url.Parse says beside the cause is the whole text.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("%s: %w", want, err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("%s, got %q", want, shown)
	case u.User != nil:
		return nil, fmt.Errorf("%s, without user and password, for which there are auth and headers", want)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%s, without query and fragment, got %q", want, shown)
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v3/kafka"):
		// Burrow would be asked for it twice, and know nothing of it.
		return nil, fmt.Errorf("%s, without /v3/kafka, which is added, got %q", want, shown)
	}
	return u, nil
}

// stayOnHost lets a redirect to elsewhere be the answer.
func stayOnHost(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	if next.URL.Scheme != first.Scheme || next.URL.Host != first.Host || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// Clusters lists the clusters in no order.
func (a *API) Clusters(ctx context.Context) ([]string, error) {
	return a.names(ctx, "clusters")
}

// Groups lists the consumer groups of a cluster in no order.
func (a *API) Groups(ctx context.Context, cluster string) ([]string, error) {
	return a.names(ctx, "consumers", cluster, "consumer")
}

// Topics lists the topics of a cluster in no order.
func (a *API) Topics(ctx context.Context, cluster string) ([]string, error) {
	return a.names(ctx, "topics", cluster, "topic")
}

// Lag asks for the status of a group with all its partitions.
func (a *API) Lag(ctx context.Context, cluster, group string) (*GroupStatus, error) {
	return get(ctx, a, func(body []byte, limits Limits) (*GroupStatus, error) {
		status, err := DecodeLag(body, limits)
		switch {
		case err != nil:
			return nil, err
		case status.Cluster != cluster || status.Group != group:
			// It would be kept under a name that nobody has listed.
			return nil, fmt.Errorf("the answer is about group %q of cluster %q",
				excerpt([]byte(status.Group)), excerpt([]byte(status.Cluster)))
		case status.Status == StatusNotFound:
			return nil, ErrGone
		}
		return status, nil
	}, cluster, "consumer", group, "lag")
}

// Offsets lists the head offsets of a topic by partition number; Unknown stands for one that cannot be right.
//
// Burrow leaves out the partitions whose head it has never read, and those behind them move up. The answer
// does not show it; it is shorter than the topic has partitions.
func (a *API) Offsets(ctx context.Context, cluster, topic string) ([]int64, error) {
	return get(ctx, a, decodeOffsets, cluster, "topic", topic)
}

func (a *API) names(ctx context.Context, field string, segments ...string) ([]string, error) {
	return get(ctx, a, func(body []byte, limits Limits) ([]string, error) { return decodeNames(body, limits, field) }, segments...)
}

// answer is the body of one, and what it and its content hold of the budget.
type answer struct {
	bytes []byte
	share *Share // nil without a budget
	large bool   // it has the place for a large one
}

var answers = sync.Pool{New: func() any { return new(answer) }}

// get asks for a path below /v3/kafka and decodes the answer, of which decode must keep nothing.
func get[T any](ctx context.Context, a *API, decode func([]byte, Limits) (T, error), segments ...string) (T, error) {
	var v T
	escaped := []string{a.prefix, "v3", "kafka"}
	for _, segment := range segments {
		if !Askable(segment) {
			return v, fmt.Errorf("%w: %q", ErrNotAskable, excerpt([]byte(segment)))
		}
		escaped = append(escaped, url.PathEscape(segment))
	}
	path := strings.Join(escaped, "/")
	body := answers.Get().(*answer)
	if a.limits.Budget != nil {
		share := a.limits.Budget.Share()
		body.share = &share
	}
	defer a.release(body)
	err := a.read(ctx, path, body)
	if err == nil {
		v, err = decode(body.bytes, Limits{MaxPartitions: a.limits.MaxPartitions, Share: body.share})
	}
	if err != nil {
		err = fmt.Errorf("GET %s: %w", path, err)
	}
	return v, err
}

func (a *API) release(body *answer) {
	if body.large {
		<-a.large
	}
	if body.share != nil {
		body.share.Release()
	}
	body.share, body.large = nil, false
	if cap(body.bytes) <= maxPooledAnswer {
		body.bytes = body.bytes[:0]
		answers.Put(body)
	}
}

// fill reads an answer as far as maxAnswer bytes. Memory is paid as bytes arrive. Of answers that are larger than what
// a pool keeps only one at a time is under way: together they would hold more than one process should.
func (a *API) fill(ctx context.Context, body *answer, response *http.Response) error {
	if body.share != nil && !body.share.Take(cap(body.bytes)) {
		return ErrBusy
	}
	limited := http.MaxBytesReader(nil, response.Body, a.maxAnswer)
	// One byte more, in which the read finds the end.
	promised := int(min(max(response.ContentLength, 0), a.maxAnswer, maxPooledAnswer-1)) + 1
	for {
		if len(body.bytes) == cap(body.bytes) {
			if err := a.growAnswer(ctx, body, max(2*cap(body.bytes), promised, minAnswer)); err != nil {
				return err
			}
		}
		n, err := limited.Read(body.bytes[len(body.bytes):cap(body.bytes)])
		body.bytes = body.bytes[:len(body.bytes)+n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *API) growAnswer(ctx context.Context, body *answer, size int) error {
	if size > maxPooledAnswer && !body.large {
		select {
		case a.large <- struct{}{}:
			body.large = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if body.share != nil && !body.share.Take(size) {
		return ErrBusy
	}
	grown := make([]byte, len(body.bytes), size)
	copy(grown, body.bytes)
	if body.share != nil {
		body.share.Return(cap(body.bytes))
	}
	body.bytes = grown
	return nil
}

// read brings the answer 200 into memory; all others are errors. An answer is read to its end, so that the
// connection can be used again, unless it is too large.
func (a *API) read(ctx context.Context, path string, into *answer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.origin+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		// Method and path stand in the error of get.
		var asked *url.Error
		if errors.As(err, &asked) {
			err = asked.Err
		}
		return err
	}
	defer response.Body.Close()

	err = a.fill(ctx, into, response)
	switch body := into.bytes; {
	case response.StatusCode == http.StatusNotFound && err == nil && saysGone(body):
		return ErrGone
	case response.StatusCode/100 == 3:
		return &StatusError{Code: response.StatusCode, Text: "to " + target(response)}
	case response.StatusCode != http.StatusOK:
		return &StatusError{Code: response.StatusCode, Text: printable(bytes.TrimSpace(body), maxErrorBytes)}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fmt.Errorf("%w of %d bytes", ErrTooLarge, a.maxAnswer)
	}
	return err
}

// target is where a redirect leads to, without what a query may tell.
func target(response *http.Response) string {
	location, err := response.Location()
	if err != nil {
		return "nowhere"
	}
	location.RawQuery, location.Fragment = "", ""
	return printable([]byte(location.Redacted()), maxErrorBytes)
}
