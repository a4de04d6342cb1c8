package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

const sums = "SHA256SUMS"

//go:embed VERIFY.md.tmpl
var verifyText string

// writeVerify says how somebody else can check the release, with what it was made of.
func (r *Release) writeVerify(ctx context.Context) error {
	goVersion, err := output(ctx, r.Source, "go", "env", "GOVERSION")
	if err != nil {
		return err
	}
	buildah, err := output(ctx, r.Source, "buildah", "--version")
	if err != nil {
		return err
	}
	buildahVersion, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(buildah), "buildah version "), " ")
	trusted, err := os.ReadFile(certificates)
	if err != nil {
		return err
	}
	layout, err := readLayout(r.image(), r.Time)
	if err != nil {
		return err
	}
	index, err := layout.index()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = template.Must(template.New("VERIFY.md").Parse(verifyText)).Execute(&out, map[string]any{
		"Version": r.Version, "Commit": r.Commit, "Time": r.Time.Format(time.RFC3339), "Epoch": r.Time.Unix(),
		"Go": strings.TrimSpace(goVersion), "Buildah": buildahVersion,
		"Certificates": checksum(trusted), "Digest": index.Digest, "Platforms": r.Platforms,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Out, "VERIFY.md"), out.Bytes(), 0o644)
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// writeSums lists every file of the release with its checksum, as sha256sum does.
func (r *Release) writeSums() error {
	lines, err := r.sums()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Out, sums), []byte(lines), 0o644)
}

func (r *Release) sums() (string, error) {
	entries, err := os.ReadDir(r.Out) // by name
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, e := range entries {
		if e.Name() == sums {
			continue
		}
		data, err := os.ReadFile(filepath.Join(r.Out, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s  %s\n", checksum(data), e.Name())
	}
	return out.String(), nil
}
