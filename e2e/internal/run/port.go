// Package run starts programs for tests: on ports that are theirs, with a log that is kept, and stopped by process id.
package run

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
)

// Port is a TCP port of the loopback interface that the system gave out and that nobody else gets before Release.
type Port struct {
	Number int
	held   *os.File
}

// Hold takes a port from the system. It stays bound, but nobody listens there: a server that sets SO_REUSEADDR, as
// those of Go, Java and Python do, can listen on it, again and again, while the system gives it to nobody else.
func Hold() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	held := os.NewFile(uintptr(fd), "port")
	number, err := bind(fd)
	if err != nil {
		return nil, closeWith(held, err)
	}
	return &Port{Number: number, held: held}, nil
}

func bind(fd int) (int, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	inet, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("the system gave out %T", address)
	}
	return inet.Port, nil
}

func closeWith(held *os.File, err error) error {
	_ = held.Close()
	return err
}

// Address is what a server listens on.
func (p *Port) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Release gives the port back.
func (p *Port) Release() error { return p.held.Close() }

// Addresses holds n ports until the end of the test.
func Addresses(t testing.TB, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		port, err := Hold()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := port.Release(); err != nil {
				t.Error(err)
			}
		})
		addresses = append(addresses, port.Address())
	}
	return addresses
}
