package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The files that name the version, and where in them.
var versions = []struct {
	file  string
	at    *regexp.Regexp
	wants func(version string) string
}{
	{"builder-config.yaml", regexp.MustCompile(`(?m)^  version: (\S+)$`), same},
	{"cmd/karrot/main.go", regexp.MustCompile(`(?m)^(?:\s+Version: +|var version = )"([^"]*)",?$`), same},
	{"deploy/helm/karrot/Chart.yaml", regexp.MustCompile(`(?m)^version: (\S+)$`), same},
	{"deploy/helm/karrot/Chart.yaml", regexp.MustCompile(`(?m)^appVersion: (\S+)$`), same},
	{"CHANGELOG.md", regexp.MustCompile(`(?m)^## (\S+)`), func(version string) string {
		if strings.HasSuffix(version, "-dev") {
			return "Unreleased"
		}
		return version
	}},
	{"README.md", regexp.MustCompile(`(?m)gomod: github\.com/lowess/karrot (\S+)$`), func(version string) string {
		return "v" + strings.TrimSuffix(version, "-dev")
	}},
}

func same(version string) string { return version }

var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// oneVersion is the version in builder-config.yaml. All other files that name the version must agree.
func oneVersion(source string) (string, error) {
	version := ""
	for _, v := range versions {
		text, err := os.ReadFile(filepath.Join(source, filepath.FromSlash(v.file)))
		if err != nil {
			return "", err
		}
		found := v.at.FindSubmatch(text)
		if found == nil {
			return "", fmt.Errorf("%s names no version: nothing in it matches %s", v.file, v.at)
		}
		got := string(found[1])
		if version == "" {
			version = got
		}
		if !semantic.MatchString(version) {
			return "", fmt.Errorf("the version in %s must be like 1.2.3 or 1.2.3-dev, got %q", v.file, version)
		}
		if want := v.wants(version); got != want {
			return "", fmt.Errorf("%s says %s where it must say %s, because builder-config.yaml says %s", v.file, got, want, version)
		}
	}
	return version, nil
}

// checkTag holds a tag of the commit, where it has one, against the version.
func checkTag(ctx context.Context, source, version string) error {
	text, err := output(ctx, source, "git", "tag", "--points-at", "HEAD", "--list", "v*")
	if err != nil {
		return err
	}
	if tags := strings.Fields(text); len(tags) > 0 && !slices.Contains(tags, "v"+version) {
		return fmt.Errorf("the commit has the tag %s, and builder-config.yaml says %s: a release is tagged v and its version", strings.Join(tags, ", "), version)
	}
	return nil
}
