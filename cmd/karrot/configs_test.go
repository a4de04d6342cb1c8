package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
)

func TestWithBase(t *testing.T) {
	for _, c := range []struct{ given, want []string }{
		{nil, []string{"karrot:karrot"}},
		{[]string{"karrot:karrot"}, []string{"karrot:karrot"}},
		{[]string{"karrot:api"}, []string{"karrot:karrot", "karrot:api"}},
		{[]string{"karrot:api", "my.yaml"}, []string{"karrot:karrot", "karrot:api", "my.yaml"}},
		{[]string{"my.yaml"}, []string{"my.yaml"}},
		{[]string{"my.yaml", "karrot:api"}, []string{"my.yaml", "karrot:api"}},
		{[]string{"karrot:api", "karrot:karrot"}, []string{"karrot:karrot", "karrot:api"}},
	} {
		assert.Equal(t, c.want, withBase(c.given))
	}
}

// What is printed of a configuration names it and has no values.
func TestNames(t *testing.T) {
	line := &commandLine{
		configs: []string{"karrot:secure", "my.yaml", "yaml:exporters::otlp_http::headers::x: SECRET"},
		sets:    []string{"exporters.otlp_http.headers.authorization = SECRET=="},
	}
	assert.Equal(t, []string{"karrot:karrot", "karrot:secure", "my.yaml", "yaml:exporters::otlp_http::headers::x: ...", "--set exporters.otlp_http.headers.authorization"}, line.names())
}

func TestEnvironment(t *testing.T) {
	t.Setenv("KARROT_TEST_EMPTY", "")
	t.Setenv("KARROT_TEST_SET", "5s")
	p := newEnvFactory().Create(confmaptest.NewNopProviderSettings())
	assert.Equal(t, "env", p.Scheme())
	for uri, want := range map[string]any{
		"env:KARROT_TEST_EMPTY:-1s": "1s", "env:KARROT_TEST_SET:-1s": "5s", "env:KARROT_TEST_UNSET:-1s": "1s",
		"env:KARROT_TEST_EMPTY": nil, "env:KARROT_TEST_EMPTY:-": nil, "env:KARROT_TEST_EMPTY:-{a: 1}": map[string]any{"a": 1},
	} {
		retrieved, err := p.Retrieve(t.Context(), uri, nil)
		require.NoError(t, err, uri)
		got, err := retrieved.AsRaw()
		require.NoError(t, err, uri)
		assert.Equal(t, want, got, uri)
	}
	_, err := p.Retrieve(t.Context(), "env:not-a-name:-1s", nil)
	require.ErrorContains(t, err, "invalid name")
}

func TestExtensions(t *testing.T) {
	const defined = `
extensions: {health_check: , file_storage: , basicauth/a: , basicauth/b: }
receivers:
  burrow: {storage: file_storage, webhook: {auth: {authenticator: basicauth/a}}}
  burrow/unused: {webhook: {auth: {authenticator: basicauth/b}}}
connectors:
  forward: {storage: basicauth/b}
exporters:
  nop: {list: [{storage: unknown}], headers: {storage: basicauth/b, authenticator: basicauth/b}}
`
	for name, c := range map[string]struct {
		service string
		want    any
	}{
		"named and in a pipeline":  {`{extensions: [health_check], pipelines: {metrics: {receivers: [burrow], exporters: [nop]}}}`, []any{"health_check", "basicauth/a", "file_storage"}},
		"listed already":           {`{extensions: [file_storage, basicauth/a], pipelines: {metrics: {receivers: [burrow]}}}`, []any{"file_storage", "basicauth/a"}},
		"no list":                  {`{pipelines: {metrics: {receivers: [burrow]}}}`, []any{"basicauth/a", "file_storage"}},
		"a connector":              {`{pipelines: {metrics: {exporters: [forward]}}}`, []any{"basicauth/b"}},
		"in no pipeline":           {`{extensions: [health_check], pipelines: {metrics: {exporters: [nop]}}}`, []any{"health_check"}},
		"a list that is no list":   {`{extensions: health_check, pipelines: {metrics: {receivers: [burrow]}}}`, "health_check"},
		"pipelines that are none":  {`{extensions: [health_check], pipelines: [burrow]}`, []any{"health_check"}},
		"components that are none": {`{extensions: [health_check], pipelines: {metrics: {receivers: [[burrow], 1, none]}}}`, []any{"health_check"}},
	} {
		t.Run(name, func(t *testing.T) {
			retrieved, err := confmap.NewRetrievedFromYAML([]byte(defined + "service: " + c.service))
			require.NoError(t, err)
			conf, err := retrieved.AsConf()
			require.NoError(t, err)
			before := conf.ToStringMap()["service"].(map[string]any)["pipelines"]
			require.NoError(t, newExtensionsFactory().Create(confmap.ConverterSettings{}).Convert(context.Background(), conf))
			service := conf.ToStringMap()["service"].(map[string]any)
			assert.Equal(t, c.want, service["extensions"])
			assert.Equal(t, before, service["pipelines"])
		})
	}
}
