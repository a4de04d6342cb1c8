// Package burrowtest stands in for Burrow's HTTP API in tests.
package burrowtest

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"testing"
)

// recorded is an entry of index.json.
type recorded struct {
	File    string            `json:"file"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	body    []byte
}

// RecordedAPI answers what index.json of a folder has for a path. What is in the folders of changed takes the
// place of what is in dir. A path that was not recorded is answered like one that Burrow does not serve.
func RecordedAPI(t testing.TB, dir string, changed ...string) http.Handler {
	t.Helper()
	answers := map[string]recorded{}
	for _, dir := range append([]string{dir}, changed...) {
		for _, a := range readIndex(t, dir) {
			// Burrow's router looks at the path without its escapes, so we must not care which ones are used.
			path, err := url.PathUnescape(a.Path)
			if err != nil {
				t.Fatal(err)
			}
			answers[a.Method+" "+path] = a
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			http.Error(w, `{"error":true,"message":"invalid request type","result":{}}`, http.StatusNotFound)
			return
		}
		for name, value := range a.Headers {
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.Status)
		// A client that has gone away is no failure of the server.
		_, _ = w.Write(a.body)
	})
}

func readIndex(t testing.TB, dir string) []recorded {
	t.Helper()
	files := os.DirFS(dir)
	index, err := fs.ReadFile(files, "index.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(index, &all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		a := &all[i]
		if a.body, err = fs.ReadFile(files, a.File); err != nil {
			t.Fatal(err)
		}
		// How the bytes were cut on the wire is for the server to say.
		delete(a.Headers, "Transfer-Encoding")
	}
	return all
}
