package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// entry is a file in an archive.
type entry struct {
	name       string
	data       []byte
	executable bool
}

func (e entry) mode() int64 {
	if e.executable {
		return 0o755
	}
	return 0o644
}

// build makes the binary for a platform, as `make build` does.
func (r *Release) build(ctx context.Context, p Platform) ([]byte, error) {
	const file = "bin/karrot"
	cmd := exec.CommandContext(ctx, "make", "build", "VERSION="+r.Version, "BIN="+file)
	cmd.Dir = r.Source
	// What somebody has set for their own builds must not change this one.
	cmd.Env = append(os.Environ(), "GOOS="+p.OS, "GOARCH="+p.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off",
		"GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	if _, err := finish(cmd); err != nil {
		return nil, err
	}
	return r.read(file)
}

// folder is what everything in an archive lies in.
func (r *Release) folder(p Platform) string { return "karrot_" + r.Version + "_" + p.String() }

func (r *Release) archive(p Platform) string {
	if p.OS == "windows" {
		return r.name(p.String() + ".zip")
	}
	return r.name(p.String() + ".tar.gz")
}

func binaryName(p Platform) string {
	if p.OS == "windows" {
		return "karrot.exe"
	}
	return "karrot"
}

func (r *Release) writeArchive(ctx context.Context, p Platform, binary []byte) error {
	entries := []entry{{binaryName(p), binary, true}}
	licenses, err := r.licenses(ctx, binary)
	if err != nil {
		return err
	}
	entries = append(entries, entry{licensesFile, licenses, false})
	files, err := r.shipped()
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := r.read(file)
		if err != nil {
			return err
		}
		entries = append(entries, entry{file, data, strings.HasSuffix(file, ".sh")})
	}
	for i := range entries {
		entries[i].name = path.Join(r.folder(p), entries[i].name)
	}
	var out bytes.Buffer
	if p.OS == "windows" {
		err = writeZip(&out, entries, r.Time)
	} else {
		err = writeTarGz(&out, entries, r.Time)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(r.archive(p), out.Bytes(), 0o644)
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// shipped are the files of the checkout that go into archives: what somebody needs who runs Karrot, and the pages that those link to.
func (r *Release) shipped() ([]string, error) {
	var out []string
	for _, file := range r.Files {
		top, _, inFolder := strings.Cut(file, "/")
		switch {
		case path.Ext(file) == ".go":
		case inFolder && slices.Contains([]string{"config", "docs", "deploy"}, top) && !strings.HasPrefix(file, "deploy/test/"),
			slices.Contains([]string{"README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"}, file):
			out = append(out, file)
		}
	}
	for i := 0; i < len(out); i++ {
		if path.Ext(out[i]) != ".md" {
			continue
		}
		text, err := r.read(out[i])
		if err != nil {
			return nil, err
		}
		for _, found := range link.FindAllSubmatch(text, -1) {
			target := path.Join(path.Dir(out[i]), string(found[1]))
			if slices.Contains(r.Files, target) && !slices.Contains(out, target) {
				out = append(out, target)
			}
		}
	}
	return out, nil
}

// sorted gives archives one order, whatever the order of a folder.
func sorted(entries []entry) []entry {
	return slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return strings.Compare(a.name, b.name) })
}

func writeTar(w io.Writer, entries []entry, at time.Time) error {
	out := tar.NewWriter(w)
	for _, e := range sorted(entries) {
		header := &tar.Header{Name: e.name, Mode: e.mode(), Size: int64(len(e.data)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := out.Write(e.data); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeTarGz(w io.Writer, entries []entry, at time.Time) error {
	out, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeTar(out, entries, at); err != nil {
		return err
	}
	return out.Close()
}

func writeZip(w io.Writer, entries []entry, at time.Time) error {
	out := zip.NewWriter(w)
	for _, e := range sorted(entries) {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at}
		header.SetMode(os.FileMode(e.mode()))
		file, err := out.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := file.Write(e.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// readArchive returns the files of an archive, and refuses what an archive of a release must not have.
func readArchive(file string, at time.Time) ([]entry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(file, ".zip") {
		return readZip(data, at)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	entries, err := readTar(unzipped, at)
	if err != nil {
		return nil, err
	}
	// The checksum stands behind the end of the tar file.
	_, err = io.Copy(io.Discard, unzipped)
	return entries, err
}

func readTar(r io.Reader, at time.Time) ([]entry, error) {
	var out []entry
	for in := tar.NewReader(r); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || header.Gname != "" || header.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%s is no plain file, or has an owner", header.Name)
		}
		e := entry{name: header.Name, executable: header.Mode == 0o755}
		if e.mode() != header.Mode || !header.ModTime.Equal(at) {
			return nil, fmt.Errorf("%s has the mode %o and the time %s", header.Name, header.Mode, header.ModTime)
		}
		if e.data, err = io.ReadAll(in); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
}

func readZip(data []byte, at time.Time) ([]entry, error) {
	in, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, file := range in.File {
		e := entry{name: file.Name, executable: file.Mode() == 0o755}
		if os.FileMode(e.mode()) != file.Mode() || !file.Modified.Equal(at) {
			return nil, fmt.Errorf("%s has the mode %s and the time %s", file.Name, file.Mode(), file.Modified)
		}
		content, err := file.Open()
		if err != nil {
			return nil, err
		}
		e.data, err = io.ReadAll(content)
		if err := content.Close(); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
