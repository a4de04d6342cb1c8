package run

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A held port is given to nobody who asks for any, and can be listened on, also a second time while connections of
// the first still linger.
func TestHold(t *testing.T) {
	port, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := port.Release(); err != nil {
			t.Error(err)
		}
	}()
	for range 2 {
		listener, err := net.Listen("tcp", port.Address())
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		_ = server.Listener.Close()
		server.Listener = listener
		server.Start()
		response, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		server.CloseClientConnections()
		server.Close()
	}
	// The system has some 28,000 ports to give out. It must not give this one, however often it is asked.
	var others []net.Listener
	for range 2000 {
		other, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if others = append(others, other); other.Addr().String() == port.Address() {
			t.Errorf("%s was given out though it is held", port.Address())
		}
	}
	for _, other := range others {
		_ = other.Close()
	}
}
