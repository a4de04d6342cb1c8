package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ports are those that are listened on.
func (c *checker) ports() {
	var held listeners
	defer held.close()
	listen := func(path []string, address string) { c.listen(&held, path, address) }
	for _, p := range c.active {
		switch p.path[0] + " " + typeOf(p.path[1]) {
		case "receivers burrow":
			enabled, written := at(p.value, "webhook", "enabled").(bool)
			transport, _ := at(p.value, "webhook", "transport").(string)
			if written && !enabled || transport == "unix" {
				continue
			}
			address, _ := at(p.value, "webhook", "endpoint").(string)
			listen(append(slices.Clone(p.path), "webhook", "endpoint"), cmp.Or(address, "localhost:5000"))
		case "receivers otlp":
			protocols, _ := at(p.value, "protocols").(map[string]any)
			for _, protocol := range slices.Sorted(maps.Keys(protocols)) {
				address, _ := at(protocols[protocol], "endpoint").(string)
				if address != "" && at(protocols[protocol], "transport") != "unix" {
					listen(append(slices.Clone(p.path), "protocols", protocol, "endpoint"), address)
				}
			}
		case "exporters prometheus", "extensions health_check":
			if at(p.value, "transport") == "unix" {
				continue
			}
			endpoint := at(p.value, "endpoint")
			if endpoint == nil && p.path[0] == "extensions" {
				endpoint = defaultHealth
			}
			if endpoint != nil {
				listen(append(slices.Clone(p.path), "endpoint"), fmt.Sprint(endpoint))
			}
		}
	}
	metrics := at(c.all, "service", "telemetry", "metrics")
	if level, _ := at(metrics, "level").(string); at(metrics, "readers") == nil && !strings.EqualFold(level, "none") {
		listen([]string{"service", "telemetry", "metrics", "readers"}, "localhost:8888") // what the Collector has without them
	}
	readers, _ := at(metrics, "readers").([]any)
	for i, reader := range readers {
		prometheus := at(reader, "pull", "exporter", "prometheus")
		if host, port := at(prometheus, "host"), at(prometheus, "port"); host != nil && port != nil {
			path := []string{"service", "telemetry", "metrics", "readers", strconv.Itoa(i), "pull", "exporter", "prometheus", "port"}
			listen(path, net.JoinHostPort(fmt.Sprint(host), fmt.Sprint(port)))
		}
	}
}

// listeners are held for a while, so that two fields with one port are seen.
type listeners []heldListener

type heldListener struct {
	net.Listener
	field string
}

func (l listeners) close() {
	for _, held := range l {
		_ = held.Close() // nobody has connected
	}
}

// fieldOf is the field that has the port of an address already, or nothing.
func (l listeners) fieldOf(address string) string {
	wanted, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return ""
	}
	for _, held := range l {
		has, ok := held.Addr().(*net.TCPAddr)
		if ok && has.Port == wanted.Port && (has.IP.Equal(wanted.IP) || has.IP.IsUnspecified() || wanted.IP == nil || wanted.IP.IsUnspecified()) {
			return held.field
		}
	}
	return ""
}

// listen tries whether an address can be listened on.
func (c *checker) listen(held *listeners, path []string, address string) {
	host, port, err := net.SplitHostPort(address)
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "/") {
		c.mistake(path, "must be a host and a port as in localhost:5000, or beside transport: unix the path alone, got %q", address)
		return
	}
	if err != nil {
		c.mistake(path, "must be a host and a port as in localhost:5000, got %q", address)
		return
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" { //nolint:noctx // it asks nobody
		c.mistake(path, "must have a port from 1 to 65535, got %q", address)
		return
	}
	listener, err := net.Listen("tcp", address) //nolint:noctx // it waits for nothing
	if err == nil {
		*held = append(*held, heldListener{listener, c.name(path)})
		return
	}
	if other := held.fieldOf(address); other != "" {
		c.mistake(path, "must have a port of its own, got %q, which is that of %s", address, other)
		return
	}
	wanted, hint := wayOut(err, port)
	if section := path[:len(path)-1]; wanted == ofThisMachine && path[len(path)-1] == "port" {
		path = append(slices.Clone(section), "host")
	}
	c.mistake(path, "must be %s, got %q: %s; %s", wanted, net.JoinHostPort(host, port), cause(err), hint)
}

// ofThisMachine is what an address must be whose host is wrong.
const ofThisMachine = "an address of this machine"

// errNotAvailableOnWindows is WSAEADDRNOTAVAIL, for which Go's own number on Windows is another one.
const errNotAvailableOnWindows = syscall.Errno(10049)

// wayOut is what an address must be that can't be listened on, and what to do.
func wayOut(err error, port string) (wanted, hint string) {
	var name *net.DNSError
	switch {
	case errors.As(err, &name), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, errNotAvailableOnWindows):
		return ofThisMachine, "0.0.0.0 in the place of the host is all of them"
	case errors.Is(err, os.ErrPermission):
		return "an address that this user" + userID() + " may listen on", "ports below 1024 are for root as a rule"
	case runtime.GOOS == "darwin" && port == "5000":
		return "an address that is free here", "choose another one, or switch off AirPlay Receiver, which has this port on a Mac"
	}
	return "an address that is free here", "choose another one, or stop what listens there"
}
