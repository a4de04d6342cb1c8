package burrowreceiver

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configauth"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// dial opens a connection to the webhook that says nothing yet.
func (r *running) dial(t testing.TB) net.Conn {
	t.Helper()
	address, err := url.Parse(r.url)
	require.NoError(t, err)
	conn, err := net.DialTimeout("tcp", address.Host, 5*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// waitForConnections waits until the server has as many as wanted.
func (r *running) waitForConnections(t testing.TB, want int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		open, _ := r.connections.Stats()
		return open == want
	}, 5*time.Second, time.Millisecond)
}

func isClosed(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !isTimeout(err)
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// Connections that say nothing do not keep notifications out, nor do they end the connection of who is answered.
func TestConnectionsAreBounded(t *testing.T) {
	const limit = 10
	r := run(t, nil, nil, func(c *Config) { c.Webhook.Get().MaxConnections = limit })
	burrow := r.dial(t)
	say := func() {
		t.Helper()
		body := group("a", 1)
		_, err := fmt.Fprintf(burrow, "POST /burrow HTTP/1.1\r\nHost: karrot\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(burrow), nil)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	say()
	var idle []net.Conn
	for i := range 3 * limit {
		conn := r.dial(t)
		if i%2 == 0 {
			_, err := io.WriteString(conn, "POST /burrow HTTP/1.1\r\n") // and never more
			require.NoError(t, err)
		}
		idle = append(idle, conn)
		r.waitForConnections(t, min(int64(i)+2, limit))
	}
	say()
	assert.True(t, isClosed(idle[0]), "the oldest had to go")
	status, text := r.post(t, group("b", 1))
	require.Equal(t, http.StatusOK, status, text)
	say()

	m, err := r.telemetry.GetMetric("otelcol_receiver_burrow_connections")
	require.NoError(t, err)
	assert.EqualValues(t, limit, m.Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
	m, err = r.telemetry.GetMetric("otelcol_receiver_burrow_connections_closed")
	require.NoError(t, err)
	assert.EqualValues(t, 2*limit+2, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	for _, conn := range idle {
		require.NoError(t, conn.Close())
	}
	r.waitForConnections(t, 2)
}

// Who is refused keeps no connection, is answered before the body is sent, and costs nothing.
func TestRefusedIsClosed(t *testing.T) {
	id := component.MustNewID("bearer")
	for name, tc := range map[string]struct {
		first  string
		config func(*Config)
		status int
	}{
		"path":          {"POST /other HTTP/1.1\r\n", nil, http.StatusNotFound},
		"method":        {"GET /burrow HTTP/1.1\r\n", nil, http.StatusMethodNotAllowed},
		"another site":  {"POST /burrow HTTP/1.1\r\nOrigin: https://example.org\r\n", nil, http.StatusForbidden},
		"compressed":    {"POST /burrow HTTP/1.1\r\nContent-Encoding: snappy\r\n", nil, http.StatusBadRequest},
		"no password":   {"POST /burrow HTTP/1.1\r\n", authenticatedBy(id), http.StatusUnauthorized},
		"both":          {"POST /other HTTP/1.1\r\n", authenticatedBy(id), http.StatusNotFound},
		"long header":   {"POST /burrow HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n", nil, http.StatusRequestHeaderFieldsTooLarge},
		"body too long": {"POST /burrow HTTP/1.1\r\n", func(c *Config) { c.Webhook.Get().Server.MaxRequestBodySize = 1 }, http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, nil, host{id: authenticator{}}, tc.config)
			conn := r.dial(t)
			// A body is promised, and comes where it must be looked at.
			body := strings.Repeat("x", 100)
			_, err := io.WriteString(conn, tc.first+"Host: karrot\r\nContent-Length: 100\r\n\r\n")
			require.NoError(t, err)
			if tc.status == http.StatusRequestEntityTooLarge {
				_, err = io.WriteString(conn, body)
				require.NoError(t, err)
			}
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			reader := bufio.NewReader(conn)
			response, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			assert.Equal(t, tc.status, response.StatusCode)
			assert.True(t, response.Close, "Connection: close")
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			_, err = reader.ReadByte()
			assert.True(t, err != nil && !isTimeout(err), "the server closes: %v", err)
			assert.Zero(t, r.limits.Budget.Used())
		})
	}
}

func authenticatedBy(id component.ID) func(*Config) {
	return func(c *Config) {
		c.Webhook.Get().Server.Auth = configoptional.Some(confighttp.AuthConfig{Config: configauth.Config{AuthenticatorID: id}})
	}
}

// What compressed bodies can become is paid before they are unpacked.
func TestCompressedIsPaidBefore(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.Webhook.Get().Server.CompressionAlgorithms = []string{"", "gzip"} })
	others := r.limits.Budget.Share()
	require.True(t, others.Take(maxBytesInFlight/4*3-1))
	status, text, _ := request(t, http.MethodPost, r.url, gzipped(group("a", 1)), "Content-Encoding", "gzip")
	assert.Equal(t, http.StatusServiceUnavailable, status, text)
	status, text = r.post(t, group("a", 1))
	assert.Equal(t, http.StatusOK, status, text)
	others.Release()
	largest := group("a", 1) + strings.Repeat(" ", int(r.cfg.Webhook.Get().Server.MaxRequestBodySize)-1000)
	status, text, _ = request(t, http.MethodPost, r.url, gzipped(largest), "Content-Encoding", "gzip")
	assert.Equal(t, http.StatusOK, status, text)
	assert.Zero(t, r.limits.Budget.Used())
}

// The webhook speaks HTTP/1.1 only, with TLS too, and failed handshakes do not fill the disk.
func TestTLS(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := testConfig(func(c *Config) { c.Webhook.Get().Server.TLS = configoptional.Some(serverTLS(t)) })
	r, err := newMetricsReceiver(set, cfg, new(consumertest.MetricsSink))
	require.NoError(t, err)
	require.NoError(t, r.Start(context.Background(), componenttest.NewNopHost()))
	defer func() { require.NoError(t, r.Shutdown(context.Background())) }()
	address := cfg.Webhook.Get().Server.NetAddr.Endpoint

	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	require.NoError(t, err)
	assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol)
	require.NoError(t, conn.Close())

	for range 200 {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "\x1b[2Jnot a handshake\r\n\r\n")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, conn)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	failed := logs.FilterMessage("A connection to the webhook failed")
	assert.Equal(t, 1, failed.Len(), "one line in ten seconds")
	assert.Equal(t, failed.Len(), logs.Len())
	assert.Contains(t, failed.All()[0].ContextMap()["error"], "http: TLS handshake error from 127.0.0.1:")
}

// A panic is always logged, and the kinds of lines are bounded.
func TestServerLog(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := &webhook{logger: zap.New(core)}
	for range 3 {
		_, err := w.Write([]byte("http: panic serving 127.0.0.1:1: oh\ngoroutine 1\n"))
		require.NoError(t, err)
	}
	assert.Equal(t, 3, logs.FilterMessage("The webhook's server failed").Len())
	for i := range 10_000 {
		_, err := fmt.Fprintf(w, "%d: \x1b[31m\u202e\u0085 from 127.0.0.1", i)
		require.NoError(t, err)
	}
	assert.Equal(t, maxKinds+1, logs.FilterMessage("A connection to the webhook failed").Len())
	for _, line := range logs.FilterMessage("A connection to the webhook failed").All() {
		assert.NotRegexp(t, `[\x00-\x1f\x{80}-\x{9f}\x{202e}]`, line.ContextMap()["error"])
	}
}

// The last refusal is kept as a person may read it.
func TestLastRefusal(t *testing.T) {
	r := run(t, nil, nil, nil)
	assert.Nil(t, r.webhook.lastRefused.Load())
	before := time.Now()
	request, err := http.NewRequest(http.MethodPost, r.url+"%0a%1b%5b2J%c2%85%e2%80%ae", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	last := r.webhook.lastRefused.Load()
	assert.Equal(t, metadata.AttributeOutcomePath, last.outcome)
	assert.Equal(t, `no such path: "/burrow\n\x1b[2J\u0085\u202e"`, last.text)
	assert.WithinRange(t, last.time, before, time.Now())
	assert.True(t, strings.HasPrefix(last.client, "127.0.0.1:"), last.client)
}

// Every outcome and every limit is there from the start, so that a rate sees the first one, and 90 % can be alerted on.
func TestTelemetryFromTheStart(t *testing.T) {
	r := run(t, nil, nil, func(c *Config) { c.MaxGroups, c.MaxPartitions, c.Webhook.Get().MaxConnections = 7, 8, 9 })
	m, err := r.telemetry.GetMetric("otelcol_receiver_burrow_notifications")
	require.NoError(t, err)
	assert.Len(t, m.Data.(metricdata.Sum[int64]).DataPoints, len(metadata.MapAttributeOutcome))
	m, err = r.telemetry.GetMetric("otelcol_receiver_burrow_groups_refused")
	require.NoError(t, err)
	assert.Len(t, m.Data.(metricdata.Sum[int64]).DataPoints, 2)
	byLimit := func(metric string) map[string]int64 {
		m, err := r.telemetry.GetMetric(metric)
		require.NoError(t, err)
		values := map[string]int64{}
		for _, point := range m.Data.(metricdata.Gauge[int64]).DataPoints {
			name, _ := point.Attributes.Value("limit")
			values[name.AsString()] = point.Value
		}
		return values
	}
	assert.Equal(t, map[string]int64{"max_groups": 7, "max_partitions": 8, "max_connections": 9}, byLimit("otelcol_receiver_burrow_limit"))
	assert.Equal(t, map[string]int64{"max_groups": 0, "max_partitions": 0, "max_connections": 0}, byLimit("otelcol_receiver_burrow_limit_used"))
	status, text := r.post(t, recordedBody(t, "warn.json"))
	require.Equal(t, http.StatusOK, status, text)
	used := byLimit("otelcol_receiver_burrow_limit_used")
	assert.Equal(t, [2]int64{1, 2}, [2]int64{used["max_groups"], used["max_partitions"]}, "it lists two partitions")
	m, err = r.telemetry.GetMetric("otelcol_receiver_burrow_partitions_left_out")
	require.NoError(t, err)
	assert.Zero(t, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	m, err = r.telemetry.GetMetric("otelcol_receiver_burrow_head_histories")
	require.NoError(t, err)
	assert.EqualValues(t, 2, m.Data.(metricdata.Gauge[int64]).DataPoints[0].Value, "of the two listed partitions")
	m, err = r.telemetry.GetMetric("otelcol_receiver_burrow_bytes_in_flight")
	require.NoError(t, err)
	assert.Zero(t, m.Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
}

// serverTLS is a certificate that nobody trusts.
func serverTLS(t testing.TB) configtls.ServerConfig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	encoded := func(kind string, bytes []byte) configopaque.String {
		return configopaque.String(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return configtls.ServerConfig{Config: configtls.Config{CertPem: encoded("CERTIFICATE", der), KeyPem: encoded("PRIVATE KEY", private)}}
}
