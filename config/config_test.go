package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap/confmaptest"
)

// Every file of the folder is in the binary, under its name, and says in one line what it is.
func TestEveryFileIsThere(t *testing.T) {
	paths, err := filepath.Glob("*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 13)
	names := Names()
	require.Len(t, names, len(paths))
	assert.Contains(t, names, Default)

	p := NewFactory().Create(confmaptest.NewNopProviderSettings())
	for _, path := range paths {
		name := strings.TrimSuffix(path, ".yaml")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		embedded, err := Read(name)
		require.NoError(t, err)
		assert.Equal(t, string(text), string(embedded), name)

		summary, err := Summary(name)
		require.NoError(t, err)
		assert.NotEmpty(t, summary, name)
		assert.LessOrEqual(t, utf8.RuneCountInString(summary), 120, summary)
		assert.NotContains(t, summary, "karrot.yaml", name)

		retrieved, err := p.Retrieve(t.Context(), "karrot:"+name, nil)
		require.NoError(t, err, name)
		conf, err := retrieved.AsConf()
		require.NoError(t, err, name)
		want, err := confmaptest.LoadConf(path)
		require.NoError(t, err, name)
		assert.Equal(t, want.ToStringMap(), conf.ToStringMap(), name)
	}
	require.NoError(t, p.Shutdown(t.Context()))
}

func TestFilesForBurrow(t *testing.T) {
	paths, err := filepath.Glob("burrow/*")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		embedded, err := Read(path)
		require.NoError(t, err)
		assert.Equal(t, string(text), string(embedded))
	}
}

func TestUnknownConfiguration(t *testing.T) {
	p := NewFactory().Create(confmaptest.NewNopProviderSettings())
	for _, uri := range []string{"karrot:cloudwacht", "karrot:", "karrot:../go", "karrot:burrow", "karrot:config.go", "karrot:burrow/none"} {
		_, err := p.Retrieve(t.Context(), uri, nil)
		require.ErrorContains(t, err, "there is no "+uri+" in this binary, only api, cloudwatch")
	}
	_, err := p.Retrieve(t.Context(), "file:karrot.yaml", nil)
	require.EqualError(t, err, `the scheme of "file:karrot.yaml" is not karrot`)
	assert.Equal(t, "karrot", p.Scheme())
	assert.True(t, slices.IsSorted(Names()))
}
