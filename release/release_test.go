package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

const root = ".."

// With Go's own cache the second build of TestTwice compiles nothing anew, and only links.
var cold = flag.Bool("cold", false, "compile everything again for the second build of TestTwice")

// What the repository says about its version, and what is said when one file says something else.
func TestOneVersion(t *testing.T) {
	version, err := oneVersion(root)
	require.NoError(t, err)
	texts := map[string]string{}
	for _, v := range versions {
		text, err := os.ReadFile(filepath.Join(root, v.file))
		require.NoError(t, err)
		texts[v.file] = string(text)
	}
	// The files of a release 2.3.4, from which each case takes one away.
	release := map[string]string{
		"builder-config.yaml":           "dist:\n  version: 2.3.4\n",
		"cmd/karrot/main.go":            "var version = \"2.3.4\"\n",
		"deploy/helm/karrot/Chart.yaml": "version: 2.3.4\nappVersion: 2.3.4\n",
		"CHANGELOG.md":                  "# Changelog\n\n## 2.3.4 (2027-01-31)\n\n## 2.3.3 (2026-12-31)\n",
		"README.md":                     "  - gomod: github.com/lowess/karrot v2.3.4\n",
	}
	for _, c := range []struct {
		name            string
		files           map[string]string
		file, old, text string
		want            string
	}{
		{"this repository", texts, "", "", "", version},
		{"a release", release, "", "", "", "2.3.4"},
		{"manifest", release, "builder-config.yaml", "2.3.4", "2.3", `the version in builder-config.yaml must be like 1.2.3 or 1.2.3-dev, got "2.3"`},
		{"no manifest", release, "builder-config.yaml", "version", "wersion", "builder-config.yaml names no version"},
		{"binary", release, "cmd/karrot/main.go", "2.3.4", "2.3.3", "cmd/karrot/main.go says 2.3.3 where it must say 2.3.4, because builder-config.yaml says 2.3.4"},
		{"chart", release, "deploy/helm/karrot/Chart.yaml", "\nappVersion: 2.3.4", "\nappVersion: 2.3.5", "Chart.yaml says 2.3.5"},
		{"chart's own", release, "deploy/helm/karrot/Chart.yaml", "version: 2.3.4\n", "version: 0.1.0\n", "Chart.yaml says 0.1.0"},
		{"changelog", release, "CHANGELOG.md", "## 2.3.4 (2027-01-31)", "## Unreleased", "CHANGELOG.md says Unreleased where it must say 2.3.4"},
		{"readme", release, "README.md", "v2.3.4", "v2.3.4-dev", "README.md says v2.3.4-dev"},
		{"changelog before a release", map[string]string{
			"builder-config.yaml": "  version: 2.3.4-dev\n", "cmd/karrot/main.go": "\t\tVersion: \"2.3.4-dev\",\n",
			"deploy/helm/karrot/Chart.yaml": "version: 2.3.4-dev\nappVersion: 2.3.4-dev\n", "README.md": "gomod: github.com/lowess/karrot v2.3.4\n",
			"CHANGELOG.md": "## 2.3.3 (2026-12-31)\n",
		}, "", "", "", "CHANGELOG.md says 2.3.3 where it must say Unreleased"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if file == c.file {
					require.Contains(t, text, c.old)
					text = strings.Replace(text, c.old, c.text, 1)
				}
				require.NoError(t, writeFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			got, err := oneVersion(dir)
			if err != nil {
				got = err.Error()
			}
			assert.Contains(t, got, c.want)
		})
	}
}

// A folder that has something else in it is not emptied.
func TestEmptied(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "new", "release")
	for range 2 {
		require.NoError(t, emptied(out))
		for _, name := range []string{"SHA256SUMS", "VERIFY.md", "karrot-1.2.3.tgz", "karrot_1.2.2_linux_amd64.tar.gz"} {
			require.NoError(t, os.WriteFile(filepath.Join(out, name), nil, 0o600))
		}
	}
	require.NoError(t, emptied(out))
	left, err := os.ReadDir(out)
	require.NoError(t, err)
	assert.Empty(t, left)
	require.NoError(t, os.WriteFile(filepath.Join(out, "VERIFY.md"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(out, "karrot"), 0o700))
	require.ErrorContains(t, emptied(out), "-out must be a new folder, or one with a release, got \""+out+"\" with karrot in it")
	require.FileExists(t, filepath.Join(out, "VERIFY.md"), "nothing is taken away")
	require.ErrorContains(t, emptied(root), "must be a new folder")
}

// What is missing is told before anything is compiled.
func TestTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := new(Release).Make(t.Context())
	require.ErrorContains(t, err, "a release needs Go, make, git and buildah")
}

// What somebody has set for git does not change what is read of a commit.
func TestFromGit(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(config, []byte("[log]\nshowSignature = true\n[format]\npretty = fuller\n[color]\nui = always\n[column]\nui = always\n[status]\nbranch = true\nshort = true\n"), 0o600))
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	t.Setenv("SOURCE_DATE_EPOCH", "")
	r, err := fromGit(t.Context(), root)
	require.NoError(t, err)
	assert.Regexp(t, `^[0-9a-f]{40}(-dirty)?$`, r.Commit)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	r, err = fromGit(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, time.Unix(1_700_000_000, 0).UTC(), r.Time)
	for _, epoch := range []string{"soon", "1700000000.5", "-1", "1700000000000"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		_, err = fromGit(t.Context(), root)
		require.ErrorContains(t, err, "SOURCE_DATE_EPOCH must be a number of seconds", epoch)
	}
}

// A tag that is not the version's is refused; none, or further ones, are not.
func TestTagOfTheCommit(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		_, err := output(t.Context(), dir, "git", append([]string{"-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "tag.gpgSign=false"}, args...)...)
		require.NoError(t, err)
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--no-gpg-sign", "--message", "one")
	require.NoError(t, checkTag(t.Context(), dir, "1.2.3"))
	git("tag", "v1.2.4")
	require.ErrorContains(t, checkTag(t.Context(), dir, "1.2.3"), "the commit has the tag v1.2.4, and builder-config.yaml says 1.2.3")
	git("tag", "v1.2.3")
	require.NoError(t, checkTag(t.Context(), dir, "1.2.3"))
}

func TestDockerfile(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"two stages", "FROM golang AS build\nRUN make\n\nFROM scratch\nCOPY --from=build /a /a\nUSER 1\n", "FROM scratch AS build\nCOPY stage /\n\nFROM scratch\nCOPY --from=build /a /a\nUSER 1\n"},
		{"three", "FROM golang AS build\nRUN make\nFROM scratch\nFROM scratch\nUSER 1\n", "FROM scratch AS build\nCOPY stage /\n\nFROM scratch\nUSER 1\n"},
		{"another base", "FROM golang AS build\nFROM scratch AS a\nFROM debian\nUSER 1\n", "the last stage of Dockerfile must begin with FROM scratch"},
		{"a command", "FROM golang AS build\nFROM scratch\nRUN make\n", "the last stage of Dockerfile must run nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := dockerfile([]byte(c.text))
			if err != nil {
				require.ErrorContains(t, err, c.want)
				return
			}
			assert.Equal(t, c.want, string(got))
		})
	}
}

// Archives of the same files are the same, in whatever order the files came, and give back what was put in.
func TestArchives(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	entries := []entry{{"k/b", []byte("b"), false}, {"k/a/ä", bytes.Repeat([]byte("x"), 1000), false}, {"k/karrot", []byte("\x7fELF"), true}}
	for file, write := range map[string]func(*bytes.Buffer, []entry) error{
		"a.tar.gz": func(out *bytes.Buffer, e []entry) error { return writeTarGz(out, e, at) },
		"a.zip":    func(out *bytes.Buffer, e []entry) error { return writeZip(out, e, at) },
	} {
		t.Run(file, func(t *testing.T) {
			var one, other bytes.Buffer
			require.NoError(t, write(&one, entries))
			reversed := slices.Clone(entries)
			slices.Reverse(reversed)
			require.NoError(t, write(&other, reversed))
			assert.Equal(t, one.Bytes(), other.Bytes())
			path := filepath.Join(t.TempDir(), file)
			require.NoError(t, os.WriteFile(path, one.Bytes(), 0o600))
			got, err := readArchive(path, at)
			require.NoError(t, err)
			assert.Equal(t, sorted(entries), got)
			_, err = readArchive(path, at.Add(2*time.Second))
			require.ErrorContains(t, err, "has the mode")
		})
	}
}

// Two releases of one source, made in different folders, in different circumstances, are the same bytes. What is checked about
// one is seen to be checked: each case spoils a copy, and the check must say what is wrong with it.
func TestTwice(t *testing.T) {
	r, err := fromGit(t.Context(), root)
	require.NoError(t, err)
	r.Platforms = []Platform{{"linux", "amd64"}}
	r.Out = filepath.Join(t.TempDir(), "one")
	require.NoError(t, r.Make(t.Context()))
	t.Setenv("KARROT_INTERVAL", "soon") // for a Karrot of the machine
	require.NoError(t, r.Check(t.Context()))
	want, err := os.ReadFile(filepath.Join(r.Out, sums))
	require.NoError(t, err)

	t.Run("same bytes", func(t *testing.T) {
		other := *r
		other.Source, other.Out = filepath.Join(t.TempDir(), "elsewhere"), filepath.Join(t.TempDir(), "two")
		other.Files = slices.Clone(r.Files)
		slices.Reverse(other.Files)
		defer syscall.Umask(syscall.Umask(0o077))
		for name, value := range map[string]string{"TZ": "Asia/Tokyo", "GOAMD64": "v3", "GOFLAGS": "-tags=other", "GOEXPERIMENT": "", "CGO_ENABLED": "1"} {
			t.Setenv(name, value)
		}
		if *cold {
			t.Setenv("GOCACHE", t.TempDir())
		}
		for _, file := range r.Files {
			data, err := r.read(file)
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(filepath.Join(other.Source, filepath.Dir(file)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(other.Source, file), data, 0o600))
		}
		// What lies in a checkout and does not belong to it would be embedded, or compiled.
		require.NoError(t, os.WriteFile(filepath.Join(other.Source, "config", "mine.yaml"), []byte("# Mine.\n"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(other.Source, "cmd", "karrot", "mine.go"), []byte("package main\n\nfunc init() { println() }\n"), 0o600))
		require.NoError(t, other.Make(t.Context()))
		got, err := os.ReadFile(filepath.Join(other.Out, sums))
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got))
	})

	p := r.Platforms[0]
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, r *Release)
		want  string
	}{
		{"a byte of the archive", func(t *testing.T, r *Release) {
			edit(t, r.archive(p), func(text []byte) []byte { text[len(text)-1]++; return text })
		}, "SHA256SUMS says"},
		{"the checksum in an archive", func(t *testing.T, r *Release) {
			edit(t, r.archive(p), func(text []byte) []byte { text[len(text)-8]++; return text })
			require.NoError(t, r.writeSums())
		}, "tar.gz: gzip: invalid checksum"},
		{"a page of another commit", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool {
				if strings.HasSuffix(e.name, "docs/operating.md") {
					e.data = append(e.data, "More.\n"...)
				}
				return true
			})
		}, "tar.gz: docs/operating.md is not that of the checkout"},
		{"a page that is missing", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool { return !strings.HasSuffix(e.name, "docs/metrics.md") })
		}, "tar.gz: docs/metrics.md is not that of the checkout"},
		{"a page too many", func(_ *testing.T, r *Release) {
			r.Files = slices.DeleteFunc(slices.Clone(r.Files), func(file string) bool { return file == "docs/metrics.md" })
		}, "tar.gz: docs/metrics.md is no file of a release"},
		{"a further file", func(t *testing.T, r *Release) {
			require.NoError(t, os.WriteFile(r.name("more"), nil, 0o600))
			require.NoError(t, r.writeSums())
		}, "a release has the files"},
		{"a component that is missing", func(t *testing.T, r *Release) {
			edit(t, r.sbom(p), func(text []byte) []byte {
				return regexp.MustCompile(`(?s)    \{[^{}]*"name": "go.yaml.in/yaml/v3".*?\n    \},\n`).ReplaceAll(text, nil)
			})
			require.NoError(t, r.writeSums())
		}, `cdx.json: its components are not the`},
		{"an SBOM without a checksum", func(t *testing.T, r *Release) {
			edit(t, r.sbom(p), func(text []byte) []byte {
				return regexp.MustCompile(`(?s)"hashes": \[.*?\]`).ReplaceAll(text, []byte(`"hashes": []`))
			})
			require.NoError(t, r.writeSums())
		}, "cdx.json: it is not about this binary"},
		{"an SBOM of another version", func(t *testing.T, r *Release) {
			edit(t, r.sbom(p), func(text []byte) []byte {
				return bytes.Replace(text, []byte(`"version": "`+r.Version), []byte(`"version": "9.9.9`), 1)
			})
			require.NoError(t, r.writeSums())
		}, "cdx.json: it says version 9.9.9"},
		{"a binary for another machine", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool {
				if e.executable && strings.HasSuffix(e.name, "/karrot") {
					e.data[18] = 0xb7 // arm64
				}
				return true
			})
		}, `tar.gz: the header of the binary is for "arm64"`},
		{"another binary", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool {
				if strings.HasSuffix(e.name, "/karrot") {
					e.data = append(e.data, 0)
				}
				return true
			})
		}, "cdx.json: it is not about this binary"},
		{"an archive without licences", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool { return !strings.HasSuffix(e.name, "LICENSES-OF-MODULES.txt") })
		}, "tar.gz: there is no LICENSES-OF-MODULES.txt in it"},
		{"a binary that is not executable", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool { e.executable = false; return true })
		}, "tar.gz: karrot is not executable"},
		{"a configuration that does not start", func(t *testing.T, r *Release) {
			pack(t, r, func(e *entry) bool {
				if strings.HasSuffix(e.name, "config/karrot.yaml") {
					e.data = []byte("receivers: {burrow: {webhok: {}}}\n")
				}
				return true
			})
		}, "tar.gz: started: "},
		{"a chart of another version", func(t *testing.T, r *Release) {
			packed, err := loader.LoadFile(r.chart())
			require.NoError(t, err)
			packed.Metadata.Version = "9.9.9"
			file, err := chartutil.Save(packed, t.TempDir())
			require.NoError(t, err)
			require.NoError(t, os.Rename(file, r.chart()))
			require.NoError(t, r.writeSums())
		}, "tgz: version 9.9.9"},
		{"a chart without a template", func(t *testing.T, r *Release) {
			packed, err := loader.LoadFile(r.chart())
			require.NoError(t, err)
			packed.Templates = packed.Templates[1:]
			_, err = chartutil.Save(packed, r.Out)
			require.NoError(t, err)
			require.NoError(t, r.writeSums())
		}, "tgz: it is not the chart of the checkout"},
		{"an image of another commit", func(_ *testing.T, r *Release) { r.Commit = "another" }, "oci.tar: linux_amd64: its labels are"},
		{"a spoilt image", func(t *testing.T, r *Release) {
			edit(t, r.image(), func(text []byte) []byte { return bytes.Replace(text, []byte("10001:10001"), []byte("00000:00000"), 1) })
			require.NoError(t, r.writeSums())
		}, "is not what its name says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoilt := *r
			spoilt.Out = t.TempDir()
			require.NoError(t, os.CopyFS(spoilt.Out, os.DirFS(r.Out)))
			c.spoil(t, &spoilt)
			err := spoilt.Check(t.Context())
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}

	t.Run("as VERIFY.md says", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(r.Out, "VERIFY.md"))
		require.NoError(t, err)
		var commands []string
		for _, found := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			commands = append(commands, found[1])
		}
		require.Len(t, commands, 2)
		assert.Contains(t, string(text), fmt.Sprintf("SOURCE_DATE_EPOCH=%d make release-snapshot", r.Time.Unix()), "the time of the files, wherever it came from")
		run := func(dir, script string) error {
			cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script)
			cmd.Dir = dir
			_, err := finish(cmd)
			return err
		}
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(r.Out)))
		for _, script := range commands {
			require.NoError(t, run(dir, script))
		}
		edit(t, filepath.Join(dir, filepath.Base(r.sbom(p))), func(text []byte) []byte {
			return bytes.ReplaceAll(text, []byte("go.yaml.in/yaml/v3"), []byte("go.yaml.in/yaml/v4"))
		})
		for _, script := range commands {
			require.Error(t, run(dir, script))
		}
	})
}

// edit changes a file, and fails when nothing has changed.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := change(bytes.Clone(text))
	require.False(t, bytes.Equal(text, changed), "nothing to change in %s", path)
	require.NoError(t, os.WriteFile(path, changed, 0o600))
}

// pack changes the files of the archive, or leaves them out, and writes it with its checksum.
func pack(t *testing.T, r *Release, change func(*entry) bool) {
	t.Helper()
	p := r.Platforms[0]
	entries, err := readArchive(r.archive(p), r.Time)
	require.NoError(t, err)
	var kept []entry
	for _, e := range entries {
		if change(&e) {
			kept = append(kept, e)
		}
	}
	var out bytes.Buffer
	require.NoError(t, writeTarGz(&out, kept, r.Time))
	require.NoError(t, os.WriteFile(r.archive(p), out.Bytes(), 0o600))
	require.NoError(t, r.writeSums())
}
