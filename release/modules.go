package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

const (
	// The receiver is part of this repository, and the distribution takes it from the checkout.
	ownModule    = "github.com/lowess/karrot"
	distribution = ownModule + "/cmd/karrot"
)

// module is what a binary was linked from. Sum is that of go.sum, and empty for this repository and for Go's library.
type module struct{ path, version, sum string }

// modules lists what a binary was linked from, by path.
func modules(binary []byte, version string) ([]module, *debug.BuildInfo, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, nil, err
	}
	out := []module{{"std", strings.TrimPrefix(info.GoVersion, "go"), ""}}
	for _, dependency := range info.Deps {
		switch {
		case dependency.Path == ownModule:
			out = append(out, module{ownModule, "v" + version, ""})
		case dependency.Replace != nil:
			return nil, nil, fmt.Errorf("%s is replaced: what is shipped must have a version", dependency.Path)
		default:
			out = append(out, module{dependency.Path, dependency.Version, dependency.Sum})
		}
	}
	slices.SortFunc(out, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return out, info, nil
}

func (r *Release) sbom(p Platform) string { return r.name(p.String() + ".cdx.json") }

// writeSBOM lists the modules that the binary says it was linked from, in CycloneDX.
func (r *Release) writeSBOM(p Platform, binary []byte) error {
	all, info, err := modules(binary, r.Version)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	bom := cdx.NewBOM()
	// Of the binary, so that the same binary has the same number: a UUID of version 8.
	id := slices.Clone(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.Time.Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: "karrot", Type: cdx.ComponentTypeApplication, Name: "karrot", Version: r.Version,
			PackageURL: purl(distribution, "v"+r.Version),
			Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
			Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
			Properties: &[]cdx.Property{{Name: "go:GOOS", Value: p.OS}, {Name: "go:GOARCH", Value: p.Arch}, {Name: "go:version", Value: info.GoVersion}, {Name: "git:commit", Value: r.Commit}},
		},
	}
	var components []cdx.Component
	for _, m := range all {
		c := cdx.Component{BOMRef: purl(m.path, m.version), Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version, Scope: cdx.ScopeRequired, PackageURL: purl(m.path, m.version)}
		if m.sum != "" {
			// No hash of a file, so it is not among the hashes.
			c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.sum}}
		}
		components = append(components, c)
	}
	bom.Components = &components
	var text bytes.Buffer
	encoder := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := encoder.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return err
	}
	return os.WriteFile(r.sbom(p), text.Bytes(), 0o644)
}

func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// licensesFile has the licences of all modules, in an archive.
const licensesFile = "LICENSES-OF-MODULES.txt"

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)`)

// licenses are the licences of all modules in a binary, each text once.
func (r *Release) licenses(ctx context.Context, binary []byte) ([]byte, error) {
	all, info, err := modules(binary, r.Version)
	if err != nil {
		return nil, err
	}
	folders, err := r.folders(ctx, info)
	if err != nil {
		return nil, err
	}
	var order []string
	from := map[string][]string{}
	for _, m := range all {
		if m.path == ownModule {
			continue // LICENSE lies beside this file
		}
		entries, err := os.ReadDir(folders[m.path])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.path, err)
		}
		found := false
		for _, e := range entries {
			if e.IsDir() || !licenseFile.MatchString(e.Name()) || filepath.Ext(e.Name()) == ".go" {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folders[m.path], e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			if from[string(text)] == nil {
				order = append(order, string(text))
			}
			from[string(text)] = append(from[string(text)], m.path+" "+m.version)
		}
		if !found {
			return nil, fmt.Errorf("%s has no licence, and cannot be shipped without one", m.path)
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "The binary karrot is linked from these modules. Each text stands below the modules that it is of.\n")
	for _, text := range order {
		fmt.Fprintf(&out, "\n%s\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(from[text], "\n"), strings.Repeat("-", 80), strings.TrimRight(text, "\n"))
	}
	return out.Bytes(), nil
}

// folders are where the modules of a binary lie on this machine.
func (r *Release) folders(ctx context.Context, info *debug.BuildInfo) (map[string]string, error) {
	goroot, err := output(ctx, r.Source, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	out := map[string]string{"std": strings.TrimSpace(goroot)}
	args := []string{"list", "-m", "-json=Path,Dir"}
	for _, dependency := range info.Deps {
		args = append(args, dependency.Path)
	}
	text, err := output(ctx, filepath.Join(r.Source, "cmd", "karrot"), "go", args...)
	if err != nil {
		return nil, err
	}
	for in := json.NewDecoder(strings.NewReader(text)); in.More(); {
		var m struct{ Path, Dir string }
		if err := in.Decode(&m); err != nil {
			return nil, err
		}
		out[m.Path] = m.Dir
	}
	return out, nil
}
