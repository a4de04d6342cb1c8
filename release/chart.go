package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

const chartFolder = "deploy/helm/karrot"

// chart is where the packed chart lies, by Helm's own rule for its name.
func (r *Release) chart() string { return filepath.Join(r.Out, "karrot-"+r.Version+".tgz") }

// writeChart packs the chart as `helm package` does.
func (r *Release) writeChart(work string) error {
	packed, err := r.loadChart(filepath.Join(work, "chart"))
	if err != nil {
		return err
	}
	packed.StampModTimes(r.Time)
	file, err := chartutil.Save(packed, r.Out)
	if err != nil {
		return err
	}
	if file != r.chart() {
		return fmt.Errorf("the chart became %s, and must be %s", file, r.chart())
	}
	return nil
}

// loadChart reads the chart's files of the checkout, and nothing that lies beside them.
func (r *Release) loadChart(copied string) (*chart.Chart, error) {
	for _, file := range r.Files {
		inside, found := strings.CutPrefix(file, chartFolder+"/")
		if !found {
			continue
		}
		data, err := r.read(file)
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(copied, filepath.FromSlash(inside)), data, 0o644); err != nil {
			return nil, err
		}
	}
	return loader.LoadDir(copied)
}

// writeFile writes a file and the folders above it, with modes that do not depend on the umask.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
