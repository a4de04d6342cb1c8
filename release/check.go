package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// user is whom the image runs as.
const user = 10001

// storage are the folders of the image that are user's: that of the storage, and those above it, to which buildah gives the same owner.
var storage = []string{"var", "var/lib", "var/lib/karrot"}

// Check reads the files of a release as somebody does who downloaded them.
func (r *Release) Check(ctx context.Context) error {
	if err := r.checkSums(); err != nil {
		return err
	}
	return inTemporary(func(work string) error { return r.check(ctx, work) })
}

func (r *Release) check(ctx context.Context, work string) error {
	binaries := map[Platform][]byte{}
	for _, p := range r.Platforms {
		unpacked := filepath.Join(work, p.String())
		binary, err := r.checkArchive(p, unpacked)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(r.archive(p)), err)
		}
		binaries[p] = binary
		if err := r.checkSBOM(ctx, p, binary, filepath.Join(unpacked, binaryName(p))); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(r.sbom(p)), err)
		}
		if p == (Platform{runtime.GOOS, runtime.GOARCH}) {
			if err := r.checkRunning(ctx, unpacked); err != nil {
				return fmt.Errorf("%s: started: %w", filepath.Base(r.archive(p)), err)
			}
		}
		if err := r.checkShipped(p, unpacked); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(r.archive(p)), err)
		}
	}
	if err := r.checkChart(filepath.Join(work, "chart")); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(r.chart()), err)
	}
	if err := r.checkImage(binaries); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(r.image()), err)
	}
	return nil
}

// checkSums holds the checksums against the files, of which there may be no more and no less.
func (r *Release) checkSums() error {
	want, err := r.sums()
	if err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(r.Out, sums))
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%s says\n%sand the files have\n%s", sums, got, want)
	}
	names := []string{"VERIFY.md", filepath.Base(r.chart()), filepath.Base(r.image())}
	for _, p := range r.Platforms {
		names = append(names, filepath.Base(r.archive(p)), filepath.Base(r.sbom(p)))
	}
	var listed []string
	for line := range strings.Lines(want) {
		listed = append(listed, strings.Fields(line)[1])
	}
	slices.Sort(names)
	if !slices.Equal(listed, names) {
		return fmt.Errorf("a release has the files %q, this one has %q", names, listed)
	}
	return nil
}

// checkArchive unpacks an archive and returns its binary.
func (r *Release) checkArchive(p Platform, unpacked string) ([]byte, error) {
	entries, err := readArchive(r.archive(p), r.Time)
	if err != nil {
		return nil, err
	}
	var binary []byte
	var names []string
	for _, e := range entries {
		name, inside := strings.CutPrefix(e.name, r.folder(p)+"/")
		if !inside || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%s does not lie in %s", e.name, r.folder(p))
		}
		names = append(names, name)
		mode := os.FileMode(e.mode())
		if name == binaryName(p) {
			if !e.executable {
				return nil, fmt.Errorf("%s is not executable", name)
			}
			binary = e.data
		}
		if err := writeFile(filepath.Join(unpacked, filepath.FromSlash(name)), e.data, mode); err != nil {
			return nil, err
		}
	}
	if binary == nil {
		return nil, fmt.Errorf("there is no %s in it", binaryName(p))
	}
	for _, wanted := range []string{"LICENSE", licensesFile, "README.md", "CHANGELOG.md", "config/karrot.yaml", "config/burrow/notification.tmpl", "docs/operating.md"} {
		if !slices.Contains(names, wanted) {
			return nil, fmt.Errorf("there is no %s in it", wanted)
		}
	}
	if err := builtFor(p, binary); err != nil {
		return nil, err
	}
	return binary, r.checkBuild(p, binary)
}

// checkShipped compares what was unpacked with the checkout.
func (r *Release) checkShipped(p Platform, unpacked string) error {
	files, err := r.shipped()
	if err != nil {
		return err
	}
	entries, err := filesBelow(unpacked)
	if err != nil {
		return err
	}
	got := map[string][]byte{}
	for _, e := range entries {
		got[e.name] = e.data
	}
	for _, file := range files {
		want, err := r.read(file)
		if err != nil {
			return err
		}
		if data, there := got[file]; !there || !bytes.Equal(data, want) {
			return fmt.Errorf("%s is not that of the checkout", file)
		}
	}
	files = append(files, binaryName(p), licensesFile)
	for _, e := range entries {
		if !slices.Contains(files, e.name) {
			return fmt.Errorf("%s is no file of a release", e.name)
		}
	}
	return nil
}

// builtFor reads the header of a binary.
func builtFor(p Platform, binary []byte) error {
	in := bytes.NewReader(binary)
	var got string
	switch p.OS {
	case "linux":
		file, err := elf.NewFile(in)
		if err != nil {
			return err
		}
		got = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[file.Machine]
		for _, part := range file.Progs {
			if part.Type == elf.PT_INTERP {
				return errors.New("the binary needs libraries: in an image from scratch there are none")
			}
		}
	case "darwin":
		file, err := macho.NewFile(in)
		if err != nil {
			return err
		}
		got = map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[file.Cpu]
	case "windows":
		file, err := pe.NewFile(in)
		if err != nil {
			return err
		}
		got = map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[file.Machine]
	}
	if got != p.Arch {
		return fmt.Errorf("the header of the binary is for %q, and must be for %s", got, p.Arch)
	}
	return nil
}

// checkBuild reads what the binary says about its build, and looks for traces of the machine in it.
func (r *Release) checkBuild(p Platform, binary []byte) error {
	_, info, err := modules(binary, r.Version)
	if err != nil {
		return err
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
		if strings.HasPrefix(s.Key, "vcs") {
			return fmt.Errorf("the binary has %s: the same source from elsewhere would give other bytes", s.Key)
		}
	}
	for key, want := range map[string]string{"GOOS": p.OS, "GOARCH": p.Arch, "CGO_ENABLED": "0", "-trimpath": "true", "-tags": "", "GOEXPERIMENT": "", "GOFIPS140": ""} {
		if settings[key] != want {
			return fmt.Errorf("the binary was built with %s=%q, and must be with %q", key, settings[key], want)
		}
	}
	if info.Path != distribution {
		return fmt.Errorf("the binary is %s", info.Path)
	}
	source, err := filepath.Abs(r.Source)
	if err != nil {
		return err
	}
	for _, folder := range []string{source + "/", "/" + temporary} {
		if bytes.Contains(binary, []byte(folder)) {
			return fmt.Errorf("the binary names a folder that it was built in, %s", folder)
		}
	}
	return nil
}

// checkSBOM compares the components with what `go version -m` prints about the binary.
func (r *Release) checkSBOM(ctx context.Context, p Platform, binary []byte, file string) error {
	text, err := os.ReadFile(r.sbom(p))
	if err != nil {
		return err
	}
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		return err
	}
	if bom.Metadata == nil || bom.Metadata.Component == nil || bom.Components == nil {
		return errors.New("it is empty")
	}
	if hashes := bom.Metadata.Component.Hashes; hashes == nil || len(*hashes) != 1 || (*hashes)[0].Value != checksum(binary) {
		return errors.New("it is not about this binary")
	}
	if got := bom.Metadata.Component.Version; got != r.Version {
		return fmt.Errorf("it says version %s, and must say %s", got, r.Version)
	}
	listed := map[string]bool{}
	for _, c := range *bom.Components {
		listed[c.Name+" "+c.Version] = true
	}
	printed, err := output(ctx, ".", "go", "version", "-m", file)
	if err != nil {
		return err
	}
	linked := map[string]bool{}
	for line := range strings.Lines(printed) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case strings.HasPrefix(line, file+": "):
			linked["std "+strings.TrimPrefix(fields[len(fields)-1], "go")] = true
		case fields[0] == "dep" && fields[1] == ownModule:
			linked[ownModule+" v"+r.Version] = true
		case fields[0] == "dep":
			linked[fields[1]+" "+fields[2]] = true
		}
	}
	if len(linked) < 2 || !maps.Equal(listed, linked) {
		return fmt.Errorf("its components are not the %d modules of the binary: %q", len(linked), difference(listed, linked))
	}
	return nil
}

// difference is what only one of two has.
func difference(a, b map[string]bool) []string {
	var out []string
	for name := range a {
		if !b[name] {
			out = append(out, "+"+name)
		}
	}
	for name := range b {
		if !a[name] {
			out = append(out, "-"+name)
		}
	}
	slices.Sort(out)
	return out
}

// checkChart reads the packed chart with Helm and compares it with the one of the checkout.
func (r *Release) checkChart(copied string) error {
	packed, err := loader.LoadFile(r.chart())
	if err != nil {
		return err
	}
	if packed.Metadata.Version != r.Version || packed.Metadata.AppVersion != r.Version {
		return fmt.Errorf("version %s and appVersion %s must be %s", packed.Metadata.Version, packed.Metadata.AppVersion, r.Version)
	}
	source, err := r.loadChart(copied)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(packed.Values, source.Values) || !bytes.Equal(packed.Schema, source.Schema) || !maps.Equal(texts(packed), texts(source)) {
		return errors.New("it is not the chart of the checkout")
	}
	if len(packed.Templates) == 0 || len(packed.Schema) == 0 {
		return errors.New("it has no templates or no schema")
	}
	return nil
}

// texts are the files of a chart by name.
func texts(c *chart.Chart) map[string]string {
	out := map[string]string{}
	for _, f := range slices.Concat(c.Templates, c.Files) {
		out[f.Name] = string(f.Data)
	}
	return out
}

// layout is an OCI image layout: its files by name.
type layout map[string][]byte

// descriptor says where a part of an image is.
type descriptor struct {
	MediaType string
	Digest    string
	Size      int64
	Platform  struct{ OS, Architecture string }
}

func readLayout(file string, at time.Time) (layout, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	entries, err := readTar(bytes.NewReader(data), at)
	out := layout{}
	for _, e := range entries {
		out[e.name] = e.data
	}
	return out, err
}

// blob returns what a descriptor describes, if it is that.
func (l layout) blob(d descriptor) ([]byte, error) {
	algorithm, sum, _ := strings.Cut(d.Digest, ":")
	data := l[path.Join("blobs", algorithm, sum)]
	if algorithm != "sha256" || checksum(data) != sum || int64(len(data)) != d.Size {
		return nil, fmt.Errorf("%s is not what its name says", d.Digest)
	}
	return data, nil
}

// index is the one image in the layout, for all its platforms.
func (l layout) index() (descriptor, error) {
	var top struct{ Manifests []descriptor }
	if err := json.Unmarshal(l["index.json"], &top); err != nil {
		return descriptor{}, err
	}
	if len(top.Manifests) != 1 || l["oci-layout"] == nil {
		return descriptor{}, fmt.Errorf("it has %d images, and must have one", len(top.Manifests))
	}
	return top.Manifests[0], nil
}

// checkImage reads the image for each platform: who it runs as, what it starts, its labels, and the binary in it.
func (r *Release) checkImage(binaries map[Platform][]byte) error {
	image, err := readLayout(r.image(), r.Time)
	if err != nil {
		return err
	}
	top, err := image.index()
	if err != nil {
		return err
	}
	text, err := image.blob(top)
	if err != nil {
		return err
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(text, &index); err != nil {
		return err
	}
	var found, wanted []string
	for _, p := range r.Platforms {
		if p.OS == "linux" {
			wanted = append(wanted, p.String())
		}
	}
	for _, d := range index.Manifests {
		p := Platform{d.Platform.OS, d.Platform.Architecture}
		found = append(found, p.String())
		if err := r.checkImageFor(image, d, p, binaries[p]); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	if !slices.Equal(found, wanted) {
		return fmt.Errorf("it is for %q, and must be for %q", found, wanted)
	}
	return nil
}

func (r *Release) checkImageFor(image layout, d descriptor, p Platform, binary []byte) error {
	text, err := image.blob(d)
	if err != nil {
		return err
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return err
	}
	if text, err = image.blob(manifest.Config); err != nil {
		return err
	}
	var config struct {
		OS, Architecture string
		Config           struct {
			User       string
			Entrypoint []string
			Labels     map[string]string
		}
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	if (Platform{config.OS, config.Architecture}) != p {
		return fmt.Errorf("its configuration is for %s_%s", config.OS, config.Architecture)
	}
	if config.Config.User != fmt.Sprintf("%d:%d", user, user) || !slices.Equal(config.Config.Entrypoint, []string{"/karrot"}) {
		return fmt.Errorf("it runs %q as %s, and must run /karrot as user 10001", config.Config.Entrypoint, config.Config.User)
	}
	if !maps.Equal(config.Config.Labels, r.labels()) {
		return fmt.Errorf("its labels are %v, and must be %v", config.Config.Labels, r.labels())
	}
	files := map[string][]byte{}
	for _, l := range manifest.Layers {
		data, err := image.blob(l)
		if err != nil {
			return err
		}
		if err := readLayer(data, files); err != nil {
			return err
		}
	}
	if !bytes.Equal(files["karrot"], binary) {
		return errors.New("its binary is not that of the archive")
	}
	for _, file := range r.Files {
		if !inImage(file) {
			continue
		}
		if want, err := r.read(file); err != nil || !bytes.Equal(files[file], want) {
			return errors.Join(fmt.Errorf("its /%s is not that of the checkout", file), err)
		}
	}
	if len(files[strings.TrimPrefix(certificates, "/")]) == 0 {
		return errors.New("there are no CA certificates in it")
	}
	return nil
}

// readLayer adds the files of a layer. Everybody must be able to read them, and nobody but root to change them; only the folders of
// the storage are Karrot's.
func readLayer(data []byte, files map[string][]byte) error {
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	for in := tar.NewReader(unzipped); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		owner := 0
		if name := strings.Trim(header.Name, "/"); header.Typeflag == tar.TypeDir && slices.Contains(storage, name) {
			owner = user
		}
		if mode := header.Mode & 0o7777; mode&0o444 != 0o444 || mode&0o7022 != 0 || header.Uid != owner || header.Gid != owner {
			return fmt.Errorf("/%s has the mode %o and the owner %d:%d", header.Name, mode, header.Uid, header.Gid)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if files[strings.TrimPrefix(header.Name, "/")], err = io.ReadAll(in); err != nil {
			return err
		}
	}
}
