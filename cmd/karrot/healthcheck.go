package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	defaultHealth = "localhost:13133"
	healthPath    = "/heartbeat"
)

func newHealthCheckCommand() *cobra.Command {
	timeout := 3 * time.Second
	command := &cobra.Command{
		Use:   "healthcheck [address]",
		Short: "Asks a running Karrot whether it is healthy, for an image without a shell",
		Long: `Asks a running Karrot whether it is healthy: exit code 0 if it is, and 1 if not.
The address is a host and a port, or a URL. Without it, it is KARROT_HEALTH_ENDPOINT, or ` + defaultHealth + `, with the path ` + healthPath + `.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			address := cmp.Or(append(args, os.Getenv("KARROT_HEALTH_ENDPOINT"), defaultHealth)...)
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			return healthy(ctx, address)
		},
	}
	command.Flags().DurationVar(&timeout, "timeout", timeout, "how long the answer may take")
	return command
}

// healthy asks a health check for its status.
func healthy(ctx context.Context, address string) error {
	where, err := healthURL(address)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody) //nolint:gosec // who runs the command says whom to ask
	if err != nil {
		return err
	}
	// A proxy knows nothing of this machine's own addresses.
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	if strings.Contains(where, "[::1]") && !strings.Contains(address, "[::1]") {
		transport.DialContext = dialEitherLoopback
	}
	client := &http.Client{Transport: transport}
	response, err := client.Do(request) //nolint:gosec // as above
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s answers %s", where, response.Status)
	}
	return nil
}

// dialEitherLoopback asks on 127.0.0.1 where ::1 is not to be reached: what listens on [::] is there too, and a container
// may have no IPv6.
func dialEitherLoopback(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err == nil {
		return conn, nil
	}
	_, port, _ := net.SplitHostPort(address)
	if conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port)); err == nil {
		return conn, nil
	}
	return nil, err
}

// healthURL is where to ask. What listens on all addresses is asked on the loopback interface.
func healthURL(address string) (string, error) {
	whole := strings.Contains(address, "://")
	if !whole {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Port() == "" && !whole {
		return "", fmt.Errorf("KARROT_HEALTH_ENDPOINT, or the argument, must be a host and a port as in %s, got %q", defaultHealth, strings.TrimPrefix(address, "http://"))
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "" || ip != nil && ip.IsUnspecified() {
		host := "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
		u.Host = net.JoinHostPort(host, u.Port())
	}
	if u.Path == "" {
		u.Path = healthPath
	}
	return u.String(), nil
}
