package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
)

// A configuration from a pipe, as a shell gives it for <(cat auth.yaml), holds however often it is resolved: a start
// checks it before it starts with it.
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	pipe := fmt.Sprintf("/dev/fd/%d", r.Fd())
	if _, err := os.Stat(pipe); err != nil {
		t.Skip("no /dev/fd: ", err)
	}
	_, err = io.WriteString(w, "receivers: {burrow: {webhook: {auth: {authenticator: bearertokenauth/w}}}}")
	require.NoError(t, err)
	require.NoError(t, w.Close())

	set := settings().ConfigProviderSettings.ResolverSettings
	set.URIs = []string{defaultConfig, pipe}
	for _, purpose := range []string{"check", "start", "explain"} {
		resolver, err := confmap.NewResolver(set)
		require.NoError(t, err)
		conf, err := resolver.Resolve(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "bearertokenauth/w", conf.Get("receivers::burrow::webhook::auth::authenticator"), purpose)
		variables(t.Context(), set)
	}
}

// A file is read anew each time, as a reload wants it, and what can't be read is told as the Collector tells it.
func TestFile(t *testing.T) {
	readsAnew(t, filepath.Join(t.TempDir(), "my.yaml"))
	p := newFileFactory().Create(confmap.ProviderSettings{})
	for _, path := range []string{"none.yaml", "/dev/fd/none", t.TempDir()} {
		_, err := p.Retrieve(t.Context(), "file:"+path, nil)
		require.ErrorContains(t, err, "unable to read the file file:"+path)
	}
}

func readsAnew(t *testing.T, path string) {
	t.Helper()
	p := newFileFactory().Create(confmap.ProviderSettings{})
	for _, want := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(path, []byte("a: "+want), 0o600))
		retrieved, err := p.Retrieve(t.Context(), "file:"+path, nil)
		require.NoError(t, err)
		got, err := retrieved.AsRaw()
		require.NoError(t, err)
		assert.Equal(t, map[string]any{"a": want}, got)
	}
}

// A file in memory, where systems keep secrets, is a file like others.
func TestFileInMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "karrot-test-") //nolint:usetesting // it must lie there
	if err != nil {
		t.Skip("no /dev/shm: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	readsAnew(t, filepath.Join(dir, "my.yaml"))
}
