// Command release makes what a release consists of, and checks what it made: archives for each platform, an SBOM for each
// archive, an image for containers, the chart, checksums, and a page that says how to verify them. The same commit gives the
// same bytes, whatever the folder and the hour.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Platform is what a binary is built for.
type Platform struct{ OS, Arch string }

func (p Platform) String() string { return p.OS + "_" + p.Arch }

var platforms = []Platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}, {"windows", "amd64"}}

// Release is what to make a release of.
type Release struct {
	// Source is the top of a checkout, and Files are those that belong to it, as slash-separated paths below Source.
	Source string
	Files  []string
	// Out is the folder that gets the files of the release.
	Out       string
	Platforms []Platform
	Version   string
	// Commit names the source, and Time is the only time that is written anywhere.
	Commit string
	Time   time.Time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	source := flags.String("source", "..", "top of the checkout")
	out := flags.String("out", "../build/release", "folder for the files of the release; those of one before are taken away first")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := fromGit(ctx, *source)
	if err != nil {
		return err
	}
	r.Out, r.Platforms = *out, platforms
	if err := r.Make(ctx); err != nil {
		return err
	}
	say("checking")
	return r.Check(ctx)
}

// fromGit takes the files and the commit of a checkout. SOURCE_DATE_EPOCH, when it is set, wins over the time of the commit.
func fromGit(ctx context.Context, source string) (*Release, error) {
	version, err := oneVersion(source)
	if err != nil {
		return nil, err
	}
	files, err := output(ctx, source, "git", "ls-files", "-z")
	if err != nil {
		return nil, err
	}
	commit, err := output(ctx, source, "git", "show", "--no-patch", "--no-show-signature", "--format=%H %ct", "HEAD")
	if err != nil {
		return nil, err
	}
	hash, seconds, _ := strings.Cut(strings.TrimSpace(commit), " ")
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds = epoch
	}
	// No archive of the zip format has later times.
	unix, err := strconv.ParseUint(seconds, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH must be a number of seconds, got %q", seconds)
	}
	changes, err := output(ctx, source, "git", "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return nil, err
	}
	if changes != "" {
		say("the checkout has changes, so nobody can make this release from a commit:\n" + changes)
		hash += "-dirty"
	}
	if err := checkTag(ctx, source, version); err != nil {
		return nil, err
	}
	return &Release{
		Source: source, Files: strings.Split(strings.TrimSuffix(files, "\x00"), "\x00"),
		Version: version, Commit: hash, Time: time.Unix(int64(unix), 0).UTC(),
	}, nil
}

// temporary is what the name of each temporary folder begins with.
const temporary = "karrot-release"

// inTemporary runs something with a folder that goes afterwards.
func inTemporary(run func(folder string) error) error {
	folder, err := os.MkdirTemp("", temporary)
	if err != nil {
		return err
	}
	return errors.Join(run(folder), os.RemoveAll(folder))
}

// Make builds everything into Out, from a copy of Files: what else lies in the checkout would be compiled, or embedded.
func (r *Release) Make(ctx context.Context) error {
	for _, program := range []string{"go", "make", "git", "buildah"} {
		if _, err := exec.LookPath(program); err != nil {
			return missing(err)
		}
	}
	if _, err := os.Stat(certificates); err != nil {
		return fmt.Errorf("the image gets the CA certificates of this machine: %w", err)
	}
	if err := emptied(r.Out); err != nil {
		return err
	}
	return inTemporary(func(work string) error {
		from := *r
		from.Source = filepath.Join(work, "source")
		for _, file := range r.Files {
			data, err := r.read(file)
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(from.Source, filepath.FromSlash(file)), data, 0o644); err != nil {
				return err
			}
		}
		return from.make(ctx, work)
	})
}

// emptied makes a folder, or takes the files of a release out of it. It touches no folder that has anything else in it.
func emptied(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); !e.Type().IsRegular() || !strings.HasPrefix(name, "karrot") && name != "VERIFY.md" && name != sums {
			return fmt.Errorf("-out must be a new folder, or one with a release, got %q with %s in it", folder, name)
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (r *Release) make(ctx context.Context, work string) error {
	binaries := map[Platform][]byte{}
	for _, p := range r.Platforms {
		say("building for " + p.String())
		binary, err := r.build(ctx, p)
		if err != nil {
			return err
		}
		binaries[p] = binary
		if err := r.writeArchive(ctx, p, binary); err != nil {
			return err
		}
		if err := r.writeSBOM(p, binary); err != nil {
			return err
		}
	}
	say("packing the chart")
	if err := r.writeChart(work); err != nil {
		return err
	}
	say("building the image")
	if err := r.writeImage(ctx, work, binaries); err != nil {
		return err
	}
	if err := r.writeVerify(ctx); err != nil {
		return err
	}
	return r.writeSums()
}

// name is a file of the release.
func (r *Release) name(rest string) string {
	return filepath.Join(r.Out, "karrot_"+r.Version+"_"+rest)
}

// read returns a file of the checkout.
func (r *Release) read(file string) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.Source, filepath.FromSlash(file)))
}

// output runs a program in a folder and returns what it prints.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	return finish(cmd)
}

// finish runs a command and returns what it prints. What it complains of is in the error.
func finish(cmd *exec.Cmd) (string, error) {
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", missing(err)
	}
	return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, complaints.String())
}

func missing(err error) error {
	return fmt.Errorf("%w: a release needs Go, make, git and buildah", err)
}

func say(text string) { fmt.Fprintln(os.Stderr, "release:", text) }
