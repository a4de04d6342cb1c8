package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recordedAPI answers as the recorded Burrow did.
func recordedAPI(t *testing.T) *httptest.Server {
	t.Helper()
	var index []struct {
		File, Method, Path string
		Status             int
	}
	dir := filepath.Join(root, "testdata", "api")
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &index))
	type answer struct {
		status int
		body   []byte
	}
	answers := map[string]answer{}
	for _, a := range index {
		if a.Method != http.MethodGet {
			continue
		}
		path, err := url.PathUnescape(a.Path)
		require.NoError(t, err)
		body, err := os.ReadFile(filepath.Join(dir, a.File))
		require.NoError(t, err)
		answers[path] = answer{a.Status, body}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, found := answers[r.URL.Path]
		if !found {
			a = answer{http.StatusNotFound, []byte(`{"error":true,"message":"invalid request type","result":{}}`)}
		}
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	}))
	t.Cleanup(server.Close)
	return server
}

// With polling and Burrow's names the page shows what Burrow's own page did at that moment, series by series. More is
// there only where Burrow leaves something out: status and offset of partitions whose window is not full.
func TestPolledPageEqualsBurrows(t *testing.T) {
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml", "config/names-burrow.yaml", allTopics(t)},
		Env:     map[string]string{"KARROT_INTERVAL": "10ms", "KARROT_BURROW_API": recordedAPI(t).URL, "KARROT_BURROW_API_INTERVAL": "1s"},
	})
	text, err := os.ReadFile(filepath.Join(root, "testdata", "api", "metrics.txt"))
	require.NoError(t, err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	_, err = parser.TextToMetricFamilies(strings.NewReader(string(text)))
	require.NoError(t, err)
	burrows := seriesOn(t, string(text))
	maps.DeleteFunc(burrows, func(id string, _ float64) bool {
		// Burrow's API can't be asked for a group with a slash in its name.
		return !strings.HasPrefix(id, "burrow_kafka_") || strings.Contains(id, `back\\slash/and:colon`)
	})
	require.Len(t, burrows, 463)
	var page map[string]float64
	waitFor(t, 10*time.Second, func() string {
		page = k.series(t)
		theirs := maps.Clone(page)
		maps.DeleteFunc(theirs, func(id string, _ float64) bool { _, found := burrows[id]; return !found })
		return difference(burrows, theirs)
	})
	for id := range page {
		name, _, _ := strings.Cut(id, "{")
		if _, found := burrows[id]; !found && strings.HasPrefix(name, "burrow_kafka_") {
			assert.Contains(t, []string{"burrow_kafka_topic_partition_status", "burrow_kafka_consumer_current_offset"}, name, id)
		}
	}

	// A notification is newer than the last poll, and the next poll newer than that.
	k.accept(t, testdata(t, "notifications", "escalate-1-warn.json"))
	lag := `burrow_group_total_lag{cluster="east",group="mailer"}`
	waitFor(t, settled, func() string {
		if k.series(t)[lag] != 2400 {
			return "the notification is not there"
		}
		return ""
	})
	waitFor(t, 5*time.Second, func() string {
		return difference(map[string]float64{lag: page[lag]}, map[string]float64{lag: k.series(t)[lag]})
	})
	k.stop(t)
}

// allTopics is a configuration with which Kafka's internal topics are asked for, too.
func allTopics(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "topics.yaml")
	require.NoError(t, os.WriteFile(path, []byte("receivers: {burrow: {api: {topics: {exclude: []}}}}\n"), 0o600))
	return path
}

// A password for Burrow's API is sent, and shown nowhere: not by print-config, and not in an endpoint, which is refused.
func TestPasswordForTheAPI(t *testing.T) {
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		select {
		case asked <- name + " " + password:
		default:
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	overlay := filepath.Join(t.TempDir(), "password.yaml")
	require.NoError(t, os.WriteFile(overlay, []byte(`extensions:
  basicauth/burrow:
    client_auth: {username: karrot, password: "${env:KARROT_TEST_PASSWORD}"}
receivers:
  burrow:
    api: {auth: {authenticator: basicauth/burrow}, headers: {X-Token: "${env:KARROT_TEST_PASSWORD}"}}
`), 0o600))
	o := options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml", overlay},
		Env:     map[string]string{"KARROT_BURROW_API": server.URL, "KARROT_TEST_PASSWORD": "right-horse"},
	}
	k := start(t, o)
	select {
	case got := <-asked:
		assert.Equal(t, "karrot right-horse", got)
	case <-time.After(settled):
		t.Fatal("Burrow's API was not asked")
	}
	waitFor(t, settled, func() string {
		if !strings.Contains(k.log(), "Burrow's API can't be asked") {
			return "the failure is not logged"
		}
		return ""
	})
	k.stop(t)
	assert.NotContains(t, k.log(), "right-horse")

	shown := command(t, o)
	shown.cmd.Args = append(slices.Insert(shown.cmd.Args, 1, "print-config"), "--feature-gates=otelcol.printInitialConfig")
	require.NoError(t, shown.cmd.Run(), shown.log())
	assert.Contains(t, shown.log(), server.URL)
	assert.NotContains(t, shown.log(), "right-horse")

	o.Env["KARROT_BURROW_API"] = "http://karrot:right-horse@localhost:8000"
	refused := command(t, o)
	require.Error(t, refused.cmd.Run())
	assert.Contains(t, refused.log(), "must be a URL as in http://localhost:8000, without user and password, for which there are auth and headers")
	assert.NotContains(t, refused.log(), "right-horse")
}
