package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A request that can't be used gets its answer, is counted, and changes no series.
func TestBadInput(t *testing.T) {
	overlay := filepath.Join(t.TempDir(), "small.yaml")
	small := "receivers: {burrow: {max_groups: 2, max_partitions: 10, webhook: {max_request_body_size: 20000}}}"
	require.NoError(t, os.WriteFile(overlay, []byte(small), 0o600))
	k := start(t, options{Configs: []string{"config/karrot.yaml", overlay}, Env: fast})
	good := testdata(t, "notifications", "warn.json")
	known := newest{}
	for _, body := range [][]byte{good, testdata(t, "notifications", "stall.json")} {
		k.accept(t, body)
		known.take(read(t, body))
	}
	k.eventually(t, settled, known.series())
	counted := map[string]float64{"accepted": 2}

	for name, tc := range map[string]struct {
		method, path string
		body         string
		status       int
		text         string
		outcome      string
	}{
		"not JSON":         {"POST", "/burrow", "lag: 5", 400, "The body must be JSON.", "syntax"},
		"half a body":      {"POST", "/burrow", string(good[:700]), 400, "The body must be JSON.", "syntax"},
		"no usable form":   {"POST", "/burrow", `{"text":"a group is lagging"}`, 400, "The body must have cluster, group, status and totallag.", "form"},
		"negative lag":     {"POST", "/burrow", `{"cluster":"east","group":"fraud-check","status":"OK","totallag":-1}`, 400, "totallag must be an integer", "field"},
		"text for a lag":   {"POST", "/burrow", `{"cluster":"east","group":"fraud-check","status":"OK","totallag":"0"}`, 400, "totallag must be an integer", "field"},
		"unknown status":   {"POST", "/burrow", `{"cluster":"east","group":"fraud-check","status":"FINE","totallag":0}`, 400, "status must be one of NOTFOUND, OK", "field"},
		"no group":         {"POST", "/burrow", `{"cluster":"east","status":"OK","totallag":0}`, 400, "group must be a non-empty string", "field"},
		"bad partition":    {"POST", "/burrow", `{"cluster":"east","group":"fraud-check","status":"OK","totallag":0,"partitions":[{"topic":"t","partition":0}]}`, 400, "partitions[0].current_lag must be", "field"},
		"too large":        {"POST", "/burrow", strings.Repeat(" ", 20001), 413, "The body is larger than webhook.max_request_body_size", "too_large"},
		"other method":     {"PATCH", "/burrow", string(good), 405, "The method must be one of DELETE, POST, PUT", "method"},
		"other path":       {"POST", "/", string(good), 404, "Nothing is here. Notifications go to /burrow", "path"},
		"third group":      {"POST", "/burrow", `{"cluster":"east","group":"third","status":"OK","totallag":0}`, 503, "The table is full: max_groups is reached", "table_full"},
		"eleven partition": {"POST", "/burrow", strings.ReplaceAll(string(testdata(t, "notifications", "all-50-partitions-stop.json")), "all-partitions-down", "fraud-check"), 503, "The table is full: max_partitions is reached", "table_full"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest(tc.method, strings.TrimSuffix(k.webhook, "/burrow")+tc.path, strings.NewReader(tc.body))
			require.NoError(t, err)
			status, text := do(t, request)
			assert.Equal(t, tc.status, status)
			assert.True(t, strings.HasPrefix(text, tc.text), text)
			counted[tc.outcome]++
			own := scrape(t, k.telemetry)
			for outcome, n := range counted {
				assert.InDelta(t, n, own[`otelcol_receiver_burrow_notifications_total{outcome="`+outcome+`",receiver="burrow"}`], 0, outcome)
			}
			time.Sleep(50 * time.Millisecond) // some hand-overs
			page := k.series(t)
			assert.Empty(t, withoutTimeLags(page)+difference(known.series(), page))
		})
	}
	k.stop(t)
	assert.Equal(t, 2, strings.Count(k.log(), `"outcome": "syntax"`)+strings.Count(k.log(), `"outcome": "form"`), "one line of each kind")
}

// config/secure.yaml: TLS and a password on the webhook and on the page of Prometheus.
func TestSecure(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	htpasswd := filepath.Join(dir, "htpasswd")
	require.NoError(t, os.WriteFile(htpasswd, []byte("burrow:{SHA}/KuS/jlxUFlZsIzQk7AVsVz2PMw=\n"), 0o600)) // right horse
	token := filepath.Join(dir, "prometheus.token")
	require.NoError(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/secure.yaml"},
		Env: map[string]string{
			"KARROT_PROMETHEUS_TOKEN": token, "KARROT_INTERVAL": "10ms", "KARROT_HTPASSWD": htpasswd,
			"KARROT_TLS_CERT": filepath.Join(dir, "tls.crt"), "KARROT_TLS_KEY": filepath.Join(dir, "tls.key"),
		},
	})
	secure := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	url := strings.Replace(k.webhook, "http:", "https:", 1)
	post := func(user, password string) int {
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(testdata(t, "notifications", "warn.json")))
		require.NoError(t, err)
		if user != "" {
			request.SetBasicAuth(user, password)
		}
		response, err := secure.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	assert.Equal(t, http.StatusUnauthorized, post("", ""))
	assert.Equal(t, http.StatusUnauthorized, post("burrow", "wrong"))
	assert.Equal(t, http.StatusOK, post("burrow", "right horse"))
	own := scrape(t, k.telemetry)
	assert.InDelta(t, 2, own[`otelcol_receiver_burrow_notifications_total{outcome="unauthenticated",receiver="burrow"}`], 0)

	plain, _ := get(t, k.webhook)
	assert.Equal(t, http.StatusBadRequest, plain, "no plain HTTP beside it")
	plain, _ = get(t, k.metrics)
	assert.Equal(t, http.StatusBadRequest, plain)
	for authorization, want := range map[string]int{"": http.StatusUnauthorized, "Bearer wrong": http.StatusUnauthorized, "Bearer s3cret": http.StatusOK} {
		request, err := http.NewRequest(http.MethodGet, strings.Replace(k.metrics, "http:", "https:", 1), http.NoBody)
		require.NoError(t, err)
		if authorization != "" {
			request.Header.Set("Authorization", authorization)
		}
		response, err := secure.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		assert.Equal(t, want, response.StatusCode, authorization)
	}
	assert.NotContains(t, k.log(), "wrong", "no password in the log")
	k.stop(t)
}

// certificate writes tls.crt and tls.key for the loopback address and returns what trusts them.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "karrot"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	template.IPAddresses = append(template.IPAddresses, []byte{127, 0, 0, 1})
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tls.crt"), certPEM, 0o600))
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tls.key"), keyPEM, 0o600))
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return pool
}
