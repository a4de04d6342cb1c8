package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	variable = regexp.MustCompile(`\bKARROT_[A-Z0-9_]*[A-Z0-9]\b`)
	overlay  = regexp.MustCompile(`\bconfig/[\w/.-]+\.(?:yaml|toml|tmpl)\b`)
	deployed = regexp.MustCompile(`\bdeploy/[\w/.-]*\w`)
	link     = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
)

// artefacts returns the text of everything in deploy/ but its tests, and of the pages about it, by path.
func artefacts(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, top := range []string{"deploy", "docs/runbooks", "docs/deploying.md"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && path == filepath.Join(root, "deploy", "test") {
				return filepath.SkipDir
			}
			if entry.IsDir() || strings.HasSuffix(path, ".tgz") {
				return nil
			}
			text, err := os.ReadFile(path)
			out[path] = string(text)
			return err
		}))
	}
	require.NotEmpty(t, out)
	return out
}

// variablesOfConfigs are those that a file in config/ reads.
func variablesOfConfigs(t testing.TB) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	paths, err := filepath.Glob(root + "/config/*.yaml")
	require.NoError(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`\$\{env:(KARROT_\w+)`).FindAllStringSubmatch(string(text), -1) {
			out[found[1]] = true
		}
	}
	require.NotEmpty(t, out)
	return out
}

// What artefacts name is there: variables, configurations, files, and what pages link to.
func TestNamedVariablesAndFilesExist(t *testing.T) {
	known := variablesOfConfigs(t)
	counted := 0
	for path, text := range artefacts(t) {
		for _, name := range variable.FindAllString(text, -1) {
			counted++
			assert.True(t, known[name] || karrot1Variables[name], "%s names %s, which no file in config/ reads", path, name)
		}
		for _, file := range append(overlay.FindAllString(text, -1), deployed.FindAllString(text, -1)...) {
			counted++
			assert.FileExists(t, existing(filepath.Join(root, file)), "%s names %s", path, file)
		}
		if filepath.Ext(path) != ".md" {
			continue
		}
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(found[1], "://") {
				counted++
				assert.FileExists(t, existing(filepath.Join(filepath.Dir(path), found[1])), "%s links to %s", path, found[1])
			}
		}
	}
	assert.Greater(t, counted, 50)
}

// karrot1Variables are read by nothing any more; the chart says what to do about them.
var karrot1Variables = map[string]bool{"KARROT_REPORTERS": true}

// existing is the path of a file, or of a file in it when it is a folder.
func existing(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) == 0 {
		return filepath.Join(path, "nothing")
	}
	return existing(filepath.Join(path, entries[0].Name()))
}
