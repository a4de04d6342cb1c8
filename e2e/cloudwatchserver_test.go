package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// leavingServer is a server that can leave its port, so that connections are refused there, and come back to it.
type leavingServer struct {
	url     string
	address string
	handler http.Handler

	mu     sync.Mutex
	server *http.Server
}

func newLeavingServer(t testing.TB, handler http.Handler) *leavingServer {
	t.Helper()
	s := &leavingServer{address: freePorts(t, 1)[0], handler: handler}
	s.url = "http://" + s.address
	s.comeBack(t)
	return s
}

func (s *leavingServer) comeBack(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	require.NoError(t, err)
	server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = server
	go func() { _ = server.Serve(listener) }()
}

func (s *leavingServer) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		_ = s.server.Close()
		s.server = nil
	}
}

// The ways in which a CloudWatch can behave.
type cloudwatchMode int

const (
	cloudwatchWorks cloudwatchMode = iota
	// cloudwatchHangs takes the request and never answers.
	cloudwatchHangs
	cloudwatchThrottles
	// cloudwatchRefuses is a policy without the permission.
	cloudwatchRefuses
	cloudwatchFails
	cloudwatchUnavailable
	// cloudwatchLosesAnswers takes what it is sent, and the answer does not arrive.
	cloudwatchLosesAnswers
)

// fakeCloudwatch is what the imitations of CloudWatch have in common. What AWS would refuse fails the test.
type fakeCloudwatch struct {
	*leavingServer
	// ended releases the requests that hang.
	ended chan struct{}

	mu       sync.Mutex
	mode     cloudwatchMode
	problems []string
}

const (
	fakeAccessKey  = "AKIDEXAMPLE"
	fakeAssumedKey = "ASIDEXAMPLE"
)

// serve starts the server.
func (c *fakeCloudwatch) serve(t testing.TB, handler http.Handler) {
	t.Helper()
	c.ended = make(chan struct{})
	c.leavingServer = newLeavingServer(t, handler)
	t.Cleanup(func() {
		close(c.ended)
		c.leave()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, problem := range c.problems {
			t.Error("CloudWatch would refuse: " + problem)
		}
	})
}

// env has credentials of the AWS SDK.
func (c *fakeCloudwatch) env(more map[string]string) map[string]string {
	env := map[string]string{"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": fakeAccessKey, "AWS_SECRET_ACCESS_KEY": "example"}
	maps.Copy(env, more)
	return env
}

func (c *fakeCloudwatch) set(mode cloudwatchMode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode = mode
}

// problem is called with the mutex held.
func (c *fakeCloudwatch) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// answer takes a request, or lets it hang, or both. In the other modes it is refused.
func (c *fakeCloudwatch) answer(w http.ResponseWriter, r *http.Request, mode cloudwatchMode, take, refuse func(http.ResponseWriter)) {
	switch mode {
	case cloudwatchWorks:
		take(w)
	case cloudwatchHangs:
		c.hang(r)
	case cloudwatchLosesAnswers:
		take(httptest.NewRecorder())
		c.hang(r)
	default:
		refuse(w)
	}
}

// hang waits until the client gives up.
func (c *fakeCloudwatch) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-c.ended:
	}
}

// accessKey is who signed a request.
func accessKey(r *http.Request) string {
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(credential, "/")
	return key
}
