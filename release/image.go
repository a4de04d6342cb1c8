package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The CA certificates of the machine that builds; VERIFY.md has their checksum.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

func (r *Release) image() string { return r.name("image.oci.tar") }

var lastStage = regexp.MustCompile(`(?s)^.*\n(FROM scratch\n.*)$`)

// dockerfile is the last stage of Dockerfile behind one that has what is built already, so that the image of a release is made
// by the same lines as everybody's.
func dockerfile(text []byte) ([]byte, error) {
	found := lastStage.FindSubmatch(text)
	if found == nil || bytes.Contains(found[1][1:], []byte("\nFROM ")) {
		return nil, errors.New("the last stage of Dockerfile must begin with FROM scratch")
	}
	if bytes.Contains(found[1], []byte("\nRUN ")) {
		return nil, errors.New("the last stage of Dockerfile must run nothing: it is also built for machines of another kind")
	}
	return append([]byte("FROM scratch AS build\nCOPY stage /\n\n"), found[1]...), nil
}

// labels are those of the image.
func (r *Release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    "karrot",
		"org.opencontainers.image.version":  r.Version,
		"org.opencontainers.image.revision": r.Commit,
		"org.opencontainers.image.created":  r.Time.Format("2006-01-02T15:04:05Z"),
		"org.opencontainers.image.source":   "https://github.com/lowess/karrot",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// inImage says whether a file of the checkout goes into the image.
func inImage(file string) bool {
	return strings.HasPrefix(file, "config/") && path.Ext(file) != ".go"
}

// writeImage makes one OCI layout, in a tar file, with an image for each architecture of Linux.
func (r *Release) writeImage(ctx context.Context, work string, binaries map[Platform][]byte) error {
	made := 0
	for _, p := range r.Platforms {
		if p.OS != "linux" {
			continue
		}
		made++
		folder := filepath.Join(work, "image-"+p.Arch)
		if err := r.writeContext(folder, binaries[p]); err != nil {
			return err
		}
		if err := r.buildImage(ctx, work, folder, p); err != nil {
			return err
		}
	}
	if made == 0 {
		return errors.New("an image needs a platform with linux")
	}
	layout := filepath.Join(work, "layout")
	if err := buildah(ctx, work, "manifest", "push", "--quiet", "--all", "karrot", "oci:"+layout+":"+r.Version); err != nil {
		return err
	}
	entries, err := filesBelow(layout)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := writeTar(&out, entries, r.Time); err != nil {
		return err
	}
	return os.WriteFile(r.image(), out.Bytes(), 0o644)
}

// writeContext writes what an image is built from: the last stage of Dockerfile, and what the first one would have made.
func (r *Release) writeContext(folder string, binary []byte) error {
	text, err := r.read("Dockerfile")
	if err != nil {
		return err
	}
	text, err = dockerfile(text)
	if err != nil {
		return err
	}
	trusted, err := os.ReadFile(certificates)
	if err != nil {
		return err
	}
	files := []entry{{"Dockerfile", text, false}, {"stage/src/bin/karrot", binary, true}, {"stage" + certificates, trusted, false}}
	for _, file := range r.Files {
		if !inImage(file) {
			continue
		}
		data, err := r.read(file)
		if err != nil {
			return err
		}
		files = append(files, entry{file, data, false})
	}
	for _, e := range files {
		if err := writeFile(filepath.Join(folder, filepath.FromSlash(e.name)), e.data, os.FileMode(e.mode())); err != nil {
			return err
		}
	}
	// The folder for config/storage.yaml.
	if err := os.MkdirAll(filepath.Join(folder, "stage/src/build/storage"), 0o755); err != nil {
		return err
	}
	return openFolders(folder)
}

// buildImage adds the image for a platform to the manifest, with no label of buildah's version, and no time but that of the release.
func (r *Release) buildImage(ctx context.Context, work, folder string, p Platform) error {
	args := []string{
		"bud", "--quiet", "--layers=false", "--identity-label=false", "--timestamp", strconv.FormatInt(r.Time.Unix(), 10),
		"--platform", p.OS + "/" + p.Arch, "--manifest", "karrot",
	}
	labels := r.labels()
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		args = append(args, "--label", name+"="+labels[name])
	}
	return buildah(ctx, work, append(args, folder)...)
}

// filesBelow are all files in a folder.
func filesBelow(folder string) (entries []entry, err error) {
	err = filepath.WalkDir(folder, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, file)
		entries = append(entries, entry{name: filepath.ToSlash(name), data: data})
		return err
	})
	return entries, err
}

// openFolders lets everybody into folders, whatever the umask: user 10001 must read what is in them.
func openFolders(top string) error {
	return filepath.WalkDir(top, func(folder string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return os.Chmod(folder, 0o755)
	})
}

// buildah runs with a store of its own, which needs no daemon and goes with the folder.
func buildah(ctx context.Context, work string, args ...string) error {
	store := []string{"--root", filepath.Join(work, "store"), "--runroot", filepath.Join(work, "run")}
	cmd := exec.CommandContext(ctx, "buildah", append(store, args...)...)
	cmd.Env = append(os.Environ(), "STORAGE_DRIVER=vfs", "BUILDAH_ISOLATION=chroot")
	if _, err := finish(cmd); err != nil {
		return fmt.Errorf("building the image: %w", err)
	}
	return nil
}
