package burrow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxErrorBytes bounds the excerpt of an answer in an error.
	maxErrorBytes = 200
	// maxPromised is how much memory an answer gets because it says how long it is, before its bytes arrive.
	maxPromised = 1 << 20
	// maxPooledAnswer keeps the buffer of an unusually large answer out of the pool.
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
// Names are given as Burrow lists them and are escaped here. Burrow cannot be asked about a group with a
// slash in its name: it finds no such path, and the error is a *StatusError with code 404.
type API struct {
	client    *http.Client
	origin    string // scheme and host
	prefix    string // escaped path before /v3, without a slash at its end
	maxAnswer int64
}

// NewAPI uses the client's transport and timeout. Answers of more than maxAnswer bytes are refused. Redirects
// are followed on the same scheme and host only, as the transport may add credentials to every request.
func NewAPI(client *http.Client, endpoint string, maxAnswer int64) (*API, error) {
	base, err := ParseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if maxAnswer < 1 {
		return nil, fmt.Errorf("the limit of an answer must be at least 1 byte, got %d", maxAnswer)
	}
	own := *client
	own.CheckRedirect = stayOnHost
	origin := url.URL{Scheme: base.Scheme, User: base.User, Host: base.Host}
	return &API{
		client:    &own,
		origin:    origin.String(),
		prefix:    strings.TrimRight(base.EscapedPath(), "/"),
		maxAnswer: maxAnswer,
	}, nil
}

// ParseEndpoint checks the URL at which Burrow serves its API; a path is that of a proxy in front of it. The
// error says what would be right and does not show a password.
func ParseEndpoint(endpoint string) (*url.URL, error) {
	const want = "endpoint must be a URL as in http://localhost:8000"
	u, err := url.Parse(endpoint)
	if err != nil {
		// What url.Parse says beside the cause is the whole text.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("%s: %w", want, err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("%s, got %q", want, u.Redacted())
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%s, without query and fragment, got %q", want, u.Redacted())
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
	return get(ctx, a, func(body []byte) (*GroupStatus, error) {
		status, err := DecodeLag(body)
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
	return get(ctx, a, func(body []byte) ([]string, error) { return decodeNames(body, field) }, segments...)
}

var answers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// get asks for a path below /v3/kafka and decodes the answer, of which decode must keep nothing.
func get[T any](ctx context.Context, a *API, decode func([]byte) (T, error), segments ...string) (T, error) {
	escaped := []string{a.prefix, "v3", "kafka"}
	for _, segment := range segments {
		escaped = append(escaped, url.PathEscape(segment))
	}
	path := strings.Join(escaped, "/")
	buffer := answers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= maxPooledAnswer {
			buffer.Reset()
			answers.Put(buffer)
		}
	}()
	err := a.read(ctx, path, buffer)
	var v T
	if err == nil {
		v, err = decode(buffer.Bytes())
	}
	if err != nil {
		err = fmt.Errorf("GET %s: %w", path, err)
	}
	return v, err
}

// read brings the answer 200 into buffer; all others are errors. An answer is read to its end, so that the
// connection can be used again, unless it is too large.
func (a *API) read(ctx context.Context, path string, buffer *bytes.Buffer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.origin+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		// Method and URL stand in the error of get, and the URL may have a password.
		var asked *url.Error
		if errors.As(err, &asked) {
			err = asked.Err
		}
		return err
	}
	defer response.Body.Close()

	// ReadFrom wants room in which to find the end.
	buffer.Grow(int(min(max(response.ContentLength, 0), a.maxAnswer, maxPromised)) + bytes.MinRead)
	_, err = buffer.ReadFrom(http.MaxBytesReader(nil, response.Body, a.maxAnswer))
	switch body := buffer.Bytes(); {
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
