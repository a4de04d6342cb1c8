package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver"
)

func TestSetURI(t *testing.T) {
	for set, want := range map[string]string{
		"receivers.burrow.interval=2s":                                       "yaml:receivers::burrow::interval: 2s",
		"receivers.burrow.metrics.burrow.partition.owner.enabled=true":       "yaml:receivers::burrow::metrics::burrow.partition.owner::enabled: true",
		"receivers.burrow/east.metrics.burrow.group.max_lag.enabled = false": "yaml:receivers::burrow/east::metrics::burrow.group.max_lag::enabled: false",
		"exporters.otlp_http.headers.x-a=b=c":                                "yaml:exporters::otlp_http::headers::x-a: b=c",
		"service.telemetry.metrics.level=none":                               "yaml:service::telemetry::metrics::level: none",
	} {
		assert.Equal(t, want, setURI(set))
	}
}

func TestHealthURL(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:13133":               "http://localhost:13133/heartbeat",
		"0.0.0.0:13133":                 "http://127.0.0.1:13133/heartbeat",
		":13133":                        "http://127.0.0.1:13133/heartbeat",
		"[::]:13133":                    "http://[::1]:13133/heartbeat",
		"[::1]:13133":                   "http://[::1]:13133/heartbeat",
		"10.1.2.3:80":                   "http://10.1.2.3:80/heartbeat",
		"https://karrot.example/health": "https://karrot.example/health",
		"http://0.0.0.0:1/":             "http://127.0.0.1:1/",
	} {
		got, err := healthURL(address)
		require.NoError(t, err, address)
		assert.Equal(t, want, got)
	}
	for _, address := range []string{"localhost", "", "local host:1", "a:b"} {
		_, err := healthURL(address)
		require.ErrorContains(t, err, "must be a host and a port as in localhost:13133, got", address)
	}
}

func TestHealthy(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/heartbeat", r.URL.Path)
		w.WriteHeader(status)
	}))
	defer server.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	address := strings.TrimPrefix(server.URL, "http://")
	require.NoError(t, healthy(t.Context(), address))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.NoError(t, healthy(t.Context(), "[::]:"+port), "it listens on 127.0.0.1 only, as where there is no IPv6")
	require.Error(t, healthy(t.Context(), "[::1]:"+port))
	status = http.StatusServiceUnavailable
	require.EqualError(t, healthy(t.Context(), address), "not healthy: http://"+address+"/heartbeat answers 503 Service Unavailable")
	server.Close()
	require.ErrorContains(t, healthy(t.Context(), address), "not healthy: ")
}

func TestClosest(t *testing.T) {
	names := []string{"interval", "expire_after", "webhook", "api", "max_groups"}
	for name, want := range map[string]string{"intervall": "interval", "expireafter": "expire_after", "webhok": "webhook", "maxgroups": "max_groups", "something": "", "ap": "api"} {
		assert.Equal(t, want, closest(name, names), name)
	}
	assert.Equal(t, 3, distance("kitten", "sitting"))
	assert.Equal(t, 3, distance("", "abc"))
}

func TestOneLine(t *testing.T) {
	assert.Equal(t, "a: b; c", oneLine("a:\n\n  b\nc\n"))
}

// The fields that can be written are those of the struct, through options and squashed structs.
func TestStructFields(t *testing.T) {
	fields := structFields(reflect.TypeOf(burrowreceiver.NewFactory().CreateDefaultConfig()))
	for _, name := range []string{"webhook", "api", "interval", "metrics", "clusters"} {
		assert.Contains(t, fields, name)
	}
	assert.NotContains(t, fields, "endpoint")
	webhook := structFields(fields["webhook"])
	for _, name := range []string{"path", "endpoint", "tls", "auth", "max_connections"} {
		assert.Contains(t, webhook, name)
	}
	assert.Contains(t, structFields(webhook["tls"]), "cert_file")
	assert.Contains(t, structFields(fields["metrics"]), "burrow.group.total_lag")
	assert.Empty(t, structFields(fields["interval"]))
}

func TestWritable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, writable(dir, false))
	require.NoError(t, writable(filepath.Join(dir, "a", "b"), true))
	require.Error(t, writable(filepath.Join(dir, "a"), false))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, writable(file, true), "is no directory")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 1, "a check leaves nothing")
}

// What can't be opened without waiting for somebody is not opened.
func TestReadableDoesNotWait(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if output, err := exec.CommandContext(t.Context(), "mkfifo", pipe).CombinedOutput(); err != nil {
		t.Skipf("no named pipes here: %s", output)
	}
	answer := make(chan error, 1)
	go func() { answer <- readable(pipe) }()
	select {
	case err := <-answer:
		require.NoError(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for a writer")
	}
}

// A link that leads nowhere can't be made a directory.
func TestLinkToNothingIsNotWritable(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(filepath.Join(dir, "none"), link))
	require.ErrorContains(t, writable(link, true), "is a link to something that does not exist")
	require.ErrorContains(t, writable(filepath.Join(link, "below"), true), "is a link to something that does not exist")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "none"), 0o700))
	require.NoError(t, writable(link, true))
}

// Of a certificate and its key, the file is named that is wrong.
func TestCertificateAndKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, block := range blocks {
			text = append(text, pem.EncodeToMemory(block)...)
		}
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	pair := func() (certificate, key *pem.Block) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, private.Public(), private)
		require.NoError(t, err)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		return &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}
	}
	certificate, key := pair()
	_, other := pair()
	goodCertificate, goodKey := write("tls.crt", certificate), write("tls.key", key)
	otherKey, spoilt, encrypted := write("other.key", other), write("spoilt", &pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), write("encrypted", &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	nothing := write("nothing")
	for _, test := range []struct{ name, certificate, key, want string }{
		{"right", goodCertificate, goodKey, ""},
		{"key of another one", goodCertificate, otherKey, `tls::cert_file must be a certificate in PEM and belong to key_file, got "` + goodCertificate + `": tls: private key does not match public key`},
		{"no certificate", nothing, goodKey, `tls::cert_file must be a certificate in PEM and belong to key_file, got "` + nothing + `": tls: failed to find any PEM data in certificate input`},
		{"the two exchanged", goodKey, goodCertificate, `tls::cert_file must be a certificate in PEM and belong to key_file, got "` + goodKey + `": tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched`},
		{"no key", goodCertificate, nothing, `tls::key_file must be a private key in PEM without a password, got "` + nothing + `": tls: failed to find any PEM data in key input`},
		{"certificate as key", goodCertificate, goodCertificate, `tls::key_file must be a private key in PEM without a password, got "` + goodCertificate + `": tls: found a certificate rather than a key in the PEM for the private key`},
		{"spoilt key", goodCertificate, spoilt, `tls::key_file must be a private key in PEM without a password, got "` + spoilt + `": tls: failed to parse private key`},
		{"encrypted key", goodCertificate, encrypted, `tls::key_file must be a private key in PEM without a password, got "` + encrypted + `": tls: failed to parse private key`},
	} {
		c := &checker{set: settings(), seen: map[string]bool{}}
		c.active = []part{{[]string{"exporters", "prometheus"}, map[string]any{"tls": map[string]any{"cert_file": test.certificate, "key_file": test.key}}}}
		c.certificates()
		var want []string
		if test.want != "" {
			want = []string{"exporters::prometheus::" + test.want}
		}
		assert.Equal(t, want, c.mistakes, test.name)
	}
}

// The files of a storage may be of another user, as when Karrot once ran as root. Others in its directory are none of its business.
func TestFilesOfAStorage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a program that runs can be written here")
	}
	program, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "exporter_otlp_http__metrics"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "receiver_folder"), 0o700))
	require.NoError(t, os.Symlink(program, filepath.Join(dir, "other")))
	require.NoError(t, writable(dir, true))
	require.NoError(t, os.Symlink(program, filepath.Join(dir, "receiver_burrow_")))
	require.EqualError(t, writable(dir, true), "text file busy in "+filepath.Join(dir, "receiver_burrow_"))
}
