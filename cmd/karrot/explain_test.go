package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An address and a value that are wrong may have a password.
func TestNoSecrets(t *testing.T) {
	for _, address := range []string{"u:SECRET@host:4318", "https://u:SEC%zzRET@host", "u:SEC/RET@host"} {
		c := &checker{all: map[string]any{}, seen: map[string]bool{}}
		c.active = []part{{[]string{"exporters", "otlp_http"}, map[string]any{"endpoint": address}}}
		c.addresses()
		host := address[strings.LastIndex(address, "@"):]
		assert.Equal(t, []string{`exporters::otlp_http::endpoint must be a URL that begins with http:// or https://, got "xxxxx` + host + `"`}, c.mistakes)
	}
	c := &checker{all: map[string]any{"extensions": map[string]any{"a": map[string]any{"password": []any{"SECRET"}}}}, seen: map[string]bool{}}
	c.badValue([]string{"extensions", "a", "password"}, "expected type 'string'")
	assert.Equal(t, []string{"extensions::a::password can't be read: expected type 'string'"}, c.mistakes)
}

// Where each signal has an address of its own, the common one is not used.
func TestAddressThatIsNotUsed(t *testing.T) {
	for value, mistakes := range map[string]int{
		"{endpoint: 'collector:4318'}": 1,
		"{endpoint: 'collector:4318', metrics_endpoint: 'http://collector:4318/v1/metrics'}": 0,
		"{endpoint: 'http://collector:4318', metrics_endpoint: 'collector:4318'}":            1,
	} {
		uris := []string{defaultConfig, "yaml:{exporters: {otlp_http: " + value + "}, service: {pipelines: {metrics/x: {receivers: [burrow], exporters: [otlp_http]}}}}"}
		err := unusable(t.Context(), settings(), uris)
		assert.Equal(t, mistakes == 1, err != nil, value)
	}
}

// A queue that is damaged keeps Karrot from starting, and the error of the database has no name of a file.
func TestDamagedQueue(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KARROT_STORAGE_DIRECTORY", dir)
	for _, damage := range []string{"invalid database", "file size too small 3", "checksum error"} {
		failure := errors.New("failed to start \"otlp_grpc/cloudwatch\" exporter: " + damage)
		err := explain(t.Context(), settings(), []string{defaultConfig, "karrot:storage"}, failure, true)
		assert.EqualError(t, err, failure.Error()+"\nError: extensions::file_storage::directory (KARROT_STORAGE_DIRECTORY) has a file that is no database in \""+dir+"\": remove the file, and what is in it is lost")
	}
}

// Ports that are not written in the usual place are looked at too.
func TestPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	taken := listener.Addr().String()
	check := func(all map[string]any, active ...part) []string {
		c := &checker{all: all, seen: map[string]bool{}, active: active}
		c.ports()
		return c.mistakes
	}
	quiet := map[string]any{"service": map[string]any{"telemetry": map[string]any{"metrics": map[string]any{"level": "none"}}}}
	assert.Empty(t, check(quiet))
	otlp := part{[]string{"receivers", "otlp/cloudwatch"}, map[string]any{"protocols": map[string]any{"grpc": map[string]any{"endpoint": taken}}}}
	mistakes := check(quiet, otlp)
	require.Len(t, mistakes, 1)
	assert.Contains(t, mistakes[0], "receivers::otlp/cloudwatch::protocols::grpc::endpoint must be an address that is free here, got \""+taken+"\"")

	health := part{[]string{"extensions", "health_check"}, nil}
	other := part{[]string{"receivers", "otlp"}, map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": defaultHealth}}}}
	mistakes = check(quiet, health, other)
	assert.NotEmpty(t, mistakes, "localhost:13133 is that of the health check, or in use")
	other = part{[]string{"receivers", "otlp"}, map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": "localhost:8888"}}}}
	assert.NotEmpty(t, check(map[string]any{}, other), "localhost:8888 has Karrot's own metrics, or is in use")
}

// Variables count as used without their scheme too, and nothing is said where a file that is taken in may use them.
func TestUnusedVariables(t *testing.T) {
	t.Setenv("KARROT_MINE", "a")
	for value, hints := range map[string]int{"other": 1, "${env:KARROT_MINE}": 0, "${KARROT_MINE}": 0, "${KARROT_MINE:-b}": 0, "${KARROT_MINE_TOO}": 1, "${file:my.yaml}": 0} {
		set := settings().ConfigProviderSettings.ResolverSettings
		set.URIs = []string{"yaml:a: " + value}
		c := &checker{fields: variables(t.Context(), set)}
		c.environment(nil)
		found := 0
		for _, hint := range c.hints {
			if strings.HasPrefix(hint, "KARROT_MINE ") {
				found++
			}
		}
		assert.Equal(t, hints, found, value)
	}
}

// A start that failed may hold its ports, so they are blamed only if it could not listen.
func TestExplainBlamesNoPortOfItsOwn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	t.Setenv("KARROT_ENDPOINT", listener.Addr().String())
	uris := []string{defaultConfig}
	const wrongPair = `failed to start "burrow" receiver: failed to load TLS cert and key: tls: private key does not match public key`
	require.EqualError(t, explain(t.Context(), settings(), uris, errors.New(wrongPair), true), wrongPair)
	inUse := explain(t.Context(), settings(), uris, errors.New("listen tcp "+listener.Addr().String()+": bind: address already in use"), true)
	assert.ErrorContains(t, inUse, "receivers::burrow::webhook::endpoint (KARROT_ENDPOINT) must be an address that is free here")
}

// explanations are the mistakes of an overlay, as a check finds them.
func explanations(t *testing.T, overlay string, look here) []string {
	t.Helper()
	set := settings()
	uris := []string{defaultConfig, "yaml:" + overlay}
	set.ConfigProviderSettings.ResolverSettings.URIs = uris
	return findings(t.Context(), set, uris, dryRun(t.Context(), set), look).mistakes
}

// A field is named as it is written, wherever it stands, and so is one that it may mean.
func TestFieldsThatCannotBeRead(t *testing.T) {
	for overlay, want := range map[string]string{
		"receiverz: {}":                                                      "receiverz is no field: did you mean receivers?",
		"service: {pipeline: {}}":                                            "service::pipeline is no field: did you mean pipelines?",
		"service::telemetry: {log: {level: debug}}":                          "service::telemetry::log is no field: did you mean logs?",
		"service::telemetry::logs: {levels: debug}":                          "service::telemetry::logs::levels is no field: did you mean level?",
		"service::pipelines::metrics/prometheus: {receiver: [burrow]}":       "service::pipelines::metrics/prometheus::receiver is no field: did you mean receivers?",
		"service::telemetry::metrics::readers: [{pul: {}}]":                  "service::telemetry::metrics::readers::0::pul is no field: did you mean pull?",
		"receivers::burrow::metrics::burrow.group.max_lag: {enable: true}":   "receivers::burrow::metrics::burrow.group.max_lag::enable is no field: did you mean enabled?",
		"receivers::burrow::metrics::burrow.group.max_lag: {enabled: maybe}": "receivers::burrow::metrics::burrow.group.max_lag::enabled can't be read: expected type 'bool', got unconvertible type 'string'",
		"receivers::burrow: {metrics: {burrow.group.max_lag: 3}}":            "receivers::burrow::metrics::burrow.group.max_lag can't be read: expected a map or struct, got \"int\"",
		"receivers: {burrow/a.b: {webhook: {pathh: /}}}":                     "receivers::burrow/a.b::webhook::pathh is no field: did you mean path?",
		"exporters::otlp_http: {headers: {a: {b: c}}}":                       "exporters::otlp_http::headers::a can't be read: expected type 'configopaque.String', got unconvertible type 'map[string]interface {}'",
		"exporters::otlp_http: {sending_queue: {batch: {flush_timout: 1s}}}": "exporters::otlp_http::sending_queue::batch::flush_timout is no field: did you mean flush_timeout?",
		"receivers: []": "receivers can't be read: expected a map or struct, got \"slice\"",
	} {
		assert.Equal(t, []string{want}, explanations(t, overlay, here{}), overlay)
	}
}

// A label or a header may have any name.
func TestNamesThatAreNoFields(t *testing.T) {
	assert.Empty(t, explanations(t, "exporters::prometheus::const_labels: {storage: ssd, authenticator: me, log_file: x}", here{files: true}))
}

// An address that can't be listened on has the way out that belongs to the reason.
func TestAddressesThatCannotBeListenedOn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	quiet := map[string]any{"service": map[string]any{"telemetry": map[string]any{"metrics": map[string]any{"level": "none"}}}}
	exporter := func(id, address string) part {
		return part{[]string{"exporters", id}, map[string]any{"endpoint": address}}
	}
	for name, test := range map[string]struct {
		active []part
		want   string
	}{
		"in use":             {[]part{exporter("prometheus", "127.0.0.1:"+port)}, `exporters::prometheus::endpoint must be an address that is free here, got "127.0.0.1:` + port + `": address already in use; choose another one, or stop what listens there`},
		"of another machine": {[]part{exporter("prometheus", "192.0.2.1:0")}, `exporters::prometheus::endpoint must be an address of this machine, got "192.0.2.1:0": cannot assign requested address; 0.0.0.0 in the place of the host is all of them`},
		"empty port":         {[]part{exporter("prometheus", "localhost:")}, `exporters::prometheus::endpoint must have a port from 1 to 65535, got "localhost:"`},
		"no port":            {[]part{exporter("prometheus", "localhost:70000")}, `exporters::prometheus::endpoint must have a port from 1 to 65535, got "localhost:70000"`},
		"port by its name":   {[]part{exporter("prometheus", "192.0.2.1:http")}, `exporters::prometheus::endpoint must be an address of this machine, got "192.0.2.1:http": cannot assign requested address; 0.0.0.0 in the place of the host is all of them`},
		"the port of another address of ours is not to blame": {
			[]part{exporter("prometheus", "127.0.0.2:"+port), exporter("prometheus/other", "127.0.0.1:"+port)},
			`exporters::prometheus/other::endpoint must be an address that is free here, got "127.0.0.1:` + port + `": address already in use; choose another one, or stop what listens there`,
		},
	} {
		c := &checker{all: quiet, seen: map[string]bool{}, active: test.active}
		c.ports()
		assert.Equal(t, []string{test.want}, c.mistakes, name)
	}
	// An address of all interfaces has the port of each.
	c := &checker{all: quiet, seen: map[string]bool{}, active: []part{exporter("prometheus", "0.0.0.0:15970"), exporter("prometheus/other", "127.0.0.1:15970")}}
	c.ports()
	assert.Equal(t, []string{`exporters::prometheus/other::endpoint must have a port of its own, got "127.0.0.1:15970", which is that of exporters::prometheus::endpoint`}, c.mistakes)
}

// What can't be had here: the permission, and a server of names that does not know one.
func TestWayOut(t *testing.T) {
	denied := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", os.ErrPermission)}
	wanted, hint := wayOut(denied, "80")
	want := "an address that this user" + userID() + " may listen on"
	assert.Equal(t, want, wanted)
	assert.Equal(t, "ports below 1024 are for root as a rule", hint)
	unknown := &net.OpError{Op: "listen", Err: &net.DNSError{Err: "no such host", Name: "none", Server: "192.0.2.1:53"}}
	wanted, _ = wayOut(unknown, "5000")
	assert.Equal(t, "an address of this machine", wanted)
	assert.Equal(t, "no such host", cause(unknown))
}

// A variable whose field is written again does nothing, though its configuration is there.
func TestVariableThatIsOverridden(t *testing.T) {
	t.Setenv("KARROT_ENDPOINT", "localhost:5001")
	hints := func(uris ...string) []string {
		var about []string
		for _, hint := range findings(t.Context(), settings(), uris, nil, here{}).hints {
			if strings.HasPrefix(hint, "KARROT_ENDPOINT ") {
				about = append(about, hint)
			}
		}
		return about
	}
	assert.Empty(t, hints(defaultConfig))
	assert.Equal(t, []string{"KARROT_ENDPOINT is set, but a later configuration writes again what it sets in karrot:karrot"},
		hints(defaultConfig, "yaml:receivers::burrow::webhook::endpoint: localhost:5002"))
	assert.Equal(t, []string{"KARROT_ENDPOINT is set, but it is only for karrot:karrot"}, hints("yaml:{receivers: {burrow: null}, exporters: {nop: null}}"))
}

// Of several files, the one that can't be read is named.
func TestConfigurationThatIsNoYAML(t *testing.T) {
	dir := t.TempDir()
	good, tab, list, missing := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "tab.yaml"), filepath.Join(dir, "list.yaml"), filepath.Join(dir, "none.yaml")
	require.NoError(t, os.WriteFile(good, []byte("receivers:\n"), 0o600))
	require.NoError(t, os.WriteFile(tab, []byte("receivers:\n\tburrow: {password: SECRET}\n"), 0o600))
	require.NoError(t, os.WriteFile(list, []byte("- SECRET\n"), 0o600))
	mistakes := func(uris ...string) []string { return findings(t.Context(), settings(), uris, nil, here{}).mistakes }
	assert.Equal(t, []string{tab + " must be a configuration in YAML: line 2: found character that cannot start any token"}, mistakes(good, tab))
	assert.Equal(t, []string{list + " must be a configuration in YAML, with receivers, exporters and service at the left margin"}, mistakes(good, list))
	assert.Equal(t, []string{"yaml:receivers::burrow::webhook::path: ... must be a configuration in YAML: mapping values are not allowed in this context"},
		mistakes(good, setURI("receivers.burrow.webhook.path=SECRET: c")))
	assert.Equal(t, []string{"yaml:... must be a configuration in YAML: line 1: did not find expected ',' or '}'"}, mistakes(good, "yaml:{SECRET: SECRET"))
	assert.Len(t, mistakes(good, missing), 1)
	assert.Contains(t, mistakes(good, missing)[0], "unable to read the file file:"+missing)
}

// A configuration that is a whole variable, which is not set: the Collector's provider says so in a log.
func TestConfigurationInAnUnsetVariable(t *testing.T) {
	t.Setenv("KARROT_NONE", "")
	require.NoError(t, os.Unsetenv("KARROT_NONE"))
	uris := []string{"env:KARROT_NONE"}
	require.NoError(t, unusable(t.Context(), settings(), uris))
	assert.Contains(t, findings(t.Context(), settings(), uris, nil, here{}).mistakes[0], "receivers are missing")
}

// A form of the log that does not exist keeps Karrot from starting, and no validation of the Collector sees it.
func TestEncodingOfTheLog(t *testing.T) {
	t.Setenv("KARROT_LOG_ENCODING", "xml")
	assert.Equal(t, []string{`service::telemetry::logs::encoding (KARROT_LOG_ENCODING) must be console or json, got "xml"`}, explanations(t, "{}", here{}))
	t.Setenv("KARROT_LOG_ENCODING", "json")
	assert.Empty(t, explanations(t, "{}", here{}))
}

// The host of the own metrics is a field of its own.
func TestHostOfOwnMetrics(t *testing.T) {
	t.Setenv("KARROT_TELEMETRY_HOST", "192.0.2.1")
	t.Setenv("KARROT_TELEMETRY_PORT", "15971")
	var about []string
	for _, mistake := range explanations(t, "{}", here{ports: true}) {
		if strings.Contains(mistake, "readers") {
			about = append(about, mistake)
		}
	}
	assert.Equal(t, []string{`service::telemetry::metrics::readers::0::pull::exporter::prometheus::host (KARROT_TELEMETRY_HOST) must be an address of this machine, got "192.0.2.1:15971": cannot assign requested address; 0.0.0.0 in the place of the host is all of them`}, about)
}
