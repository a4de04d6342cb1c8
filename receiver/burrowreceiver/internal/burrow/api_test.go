package burrow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrowtest"
)

const (
	recordedAPI = "../../../../testdata/api"
	noLimit     = 1 << 30
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t testing.TB, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func newAPI(t testing.TB, server *httptest.Server) *API {
	t.Helper()
	api, err := NewAPI(server.Client(), server.URL, noLimit, APILimits{})
	require.NoError(t, err)
	return api
}

// index is index.json of some recorded answers by path without escapes.
type index map[string]indexed

type indexed struct {
	File, Method, Path string
	Status             int
	dir                string
}

func readIndex(t *testing.T, dirs ...string) index {
	t.Helper()
	all := index{}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "index.json"))
		require.NoError(t, err)
		var entries []indexed
		require.NoError(t, json.Unmarshal(text, &entries))
		for _, e := range entries {
			plain, err := url.PathUnescape(e.Path)
			require.NoError(t, err)
			e.dir = dir
			if e.Method == http.MethodGet {
				all[plain] = e
			}
		}
	}
	return all
}

// fields reads the recorded answer for a path with encoding/json.
func (x index) fields(t *testing.T, path string) fields {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(x[path].dir, x[path].File))
	require.NoError(t, err, path)
	var f fields
	require.NoError(t, json.Unmarshal(body, &f))
	return f
}

// decoded reads a value with encoding/json.
func decoded[T any](t *testing.T, raw json.RawMessage) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(raw, &v))
	return v
}

// Every answer that Burrow was recorded to give is what the client returns.
func TestAPIRecorded(t *testing.T) {
	for name, dirs := range map[string][]string{
		"before deletes": {recordedAPI},
		"after deletes":  {recordedAPI, filepath.Join(recordedAPI, "after-deletes")},
	} {
		t.Run(name, func(t *testing.T) {
			want := readIndex(t, dirs...)
			var asked sync.Map
			handler := burrowtest.RecordedAPI(t, dirs[0], dirs[1:]...)
			api := newAPI(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r.URL.Path, true)
				handler.ServeHTTP(w, r)
			})))
			ctx := t.Context()

			clusters, err := api.Clusters(ctx)
			require.NoError(t, err)
			assert.ElementsMatch(t, []string{"east", "west"}, clusters)
			for _, cluster := range clusters {
				at := "/v3/kafka/" + cluster
				groups, err := api.Groups(ctx, cluster)
				require.NoError(t, err)
				assert.ElementsMatch(t, decoded[[]string](t, want.fields(t, at+"/consumer")["consumers"]), groups)
				assert.True(t, slices.IsSorted(groups))
				for _, group := range groups {
					checkLag(t, api, want, cluster, group)
				}
				topics, err := api.Topics(ctx, cluster)
				require.NoError(t, err)
				assert.ElementsMatch(t, decoded[[]string](t, want.fields(t, at+"/topic")["topics"]), topics)
				for _, topic := range topics {
					offsets, err := api.Offsets(ctx, cluster, topic)
					require.NoError(t, err)
					assert.Equal(t, decoded[[]int64](t, want.fields(t, at+"/topic/"+topic)["offsets"]), offsets, topic)
				}
			}

			if len(dirs) > 1 {
				return
			}
			for path := range want {
				one, _ := filepath.Match("/v3/kafka/*/topic/*", path)
				if !strings.Contains(path, "nosuch") && !strings.Contains(path, "/and:") && (one || strings.HasSuffix(path, "/lag")) {
					_, found := asked.Load(path)
					assert.True(t, found, "%s was recorded and is not tested", path)
				}
			}
		})
	}
}

func checkLag(t *testing.T, api *API, want index, cluster, group string) {
	t.Helper()
	at := "/v3/kafka/" + cluster + "/consumer/" + group + "/lag"
	got, err := api.Lag(t.Context(), cluster, group)
	if strings.Contains(group, "/") {
		require.ErrorIs(t, err, ErrNotAskable)
		assert.NotErrorIs(t, err, ErrGone, "the group is there, Burrow only cannot be asked about it")
		assert.Nil(t, got)
		return
	}
	require.NoError(t, err)
	assertStatus(t, want.fields(t, at), got)
}

// assertStatus compares with what encoding/json reads from the same answer.
func assertStatus(t *testing.T, answer fields, got *GroupStatus) {
	t.Helper()
	result, ok := object(answer["status"])
	require.True(t, ok)
	want, err := referenceResult(result, nil)
	require.NoError(t, err)
	assert.Empty(t, cmp.Diff(&want.Group, got))
	require.NoError(t, got.Valid())
	assert.EqualValues(t, len(got.Partitions), got.PartitionCount, "/lag lists all partitions")
}

// What these recordings have no index for stands in the answer itself: the path that was asked.
func TestAPIRecordedLarge(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recordedAPI, "large", "*-lag.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	bodies := map[string][]byte{}
	api := newAPI(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if bytes.Contains(bodies[r.URL.Path], []byte("NOTFOUND")) {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, string(bodies[r.URL.Path]))
	})))
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			require.NoError(t, err)
			var answer fields
			require.NoError(t, json.Unmarshal(body, &answer))
			asked := decoded[struct{ URL string }](t, answer["request"]).URL
			if path.Base(asked) != "lag" {
				t.Skip("the detail of a group that has lag in its name")
			}
			bodies[asked] = body

			group := path.Base(path.Dir(asked))
			got, err := api.Lag(t.Context(), "east", group)
			if group == "owner-only" {
				require.ErrorIs(t, err, ErrGone, "members without commits")
				assert.Nil(t, got)
				return
			}
			require.NoError(t, err)
			assertStatus(t, answer, got)
			switch group {
			case "huge-lag":
				assert.EqualValues(t, 18014398509482773, got.TotalLag)
			case "slow-committer":
				assert.EqualValues(t, Unknown, got.Partitions[0].Start.Lag)
				assert.True(t, got.Partitions[0].Start.Known())
			case "one-commit-only":
				assert.False(t, got.Partitions[0].End.Known(), "a partition without commits")
			}
		})
	}
}

func TestAPIRecordedGone(t *testing.T) {
	api := newAPI(t, serve(t, burrowtest.RecordedAPI(t, recordedAPI)))
	ctx := t.Context()
	for name, ask := range map[string]func() (any, error){
		"/v3/kafka/nosuchcluster/consumer":           func() (any, error) { return api.Groups(ctx, "nosuchcluster") },
		"/v3/kafka/nosuchcluster/topic":              func() (any, error) { return api.Topics(ctx, "nosuchcluster") },
		"/v3/kafka/east/consumer/nosuchgroup/lag":    func() (any, error) { return api.Lag(ctx, "east", "nosuchgroup") },
		"/v3/kafka/east/topic/nosuchtopic":           func() (any, error) { return api.Offsets(ctx, "east", "nosuchtopic") },
		"/v3/kafka/nosuchcluster":                    func() (any, error) { return get(ctx, api, decodeOffsets, "nosuchcluster") },
		"/v3/kafka/east/consumer/nosuchgroup":        func() (any, error) { return get(ctx, api, decodeOffsets, "east", "consumer", "nosuchgroup") },
		"/v3/kafka/east/consumer/nosuchgroup/status": func() (any, error) { return get(ctx, api, decodeOffsets, "east", "consumer", "nosuchgroup", "status") },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask()
			require.EqualError(t, err, "GET "+name+": not known to Burrow")
			require.ErrorIs(t, err, ErrGone)
			assert.Empty(t, got)
		})
	}
}

// What may stand before and after Burrow's paths: a proxy's path, and a slash, which Burrow redirects.
func TestAPIEndpoint(t *testing.T) {
	recorded := burrowtest.RecordedAPI(t, recordedAPI)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.StripPrefix(strings.TrimSuffix(r.URL.Path[:strings.Index(r.URL.Path, "/v3/")+1], "/"), recorded).ServeHTTP(w, r)
	}))
	for _, path := range []string{"", "/", "/team%20a/burrow", "/team%20a/burrow/"} {
		api, err := NewAPI(server.Client(), server.URL+path, noLimit, APILimits{})
		require.NoError(t, err)
		groups, err := api.Groups(t.Context(), "west")
		require.NoError(t, err, path)
		assert.Len(t, groups, 3)
	}

	api := newAPI(t, server)
	var body answer
	require.NoError(t, api.read(t.Context(), "/v3/kafka/", &body))
	assert.Contains(t, string(body.bytes), "cluster list returned")
}

func TestParseEndpoint(t *testing.T) {
	for _, good := range []string{
		"http://localhost:8000", "https://burrow.example.net", "http://[::1]:8000/", "http://burrow.example.net:1/a%2Fb",
	} {
		_, err := ParseEndpoint(good)
		require.NoError(t, err, good)
	}
	const want = "endpoint must be a URL as in http://localhost:8000"
	for bad, message := range map[string]string{
		"":                             want + `, got ""`,
		"localhost:8000":               want + `, got "localhost:8000"`,
		"ftp://localhost":              want + `, got "ftp://localhost"`,
		"http://":                      want + `, got "http://"`,
		"http://:8000":                 want + `, got "http://:8000"`,
		"http://u:s3cret@":             want + `, got "xxxxx@"`,
		"u:s3cret@localhost:8000":      want + `, got "xxxxx@localhost:8000"`,
		"http://u:s3%zzcret@localhost": want + `, got "xxxxx@localhost"`,
		"http://u:s3/cret@localhost":   want + `, got "xxxxx@localhost"`,
		"http://u:s3cret@localhost":    want + `, without user and password, for which there are auth and headers`,
		"http://token@localhost":       want + `, without user and password, for which there are auth and headers`,
		"http://localhost:8000?x=1":    want + `, without query and fragment, got "http://localhost:8000?xxxxx"`,
		"localhost:8000?key=s3cret@":   want + `, got "xxxxx"`,
		"localhost:8000?key=s3cret":    want + `, got "localhost:8000?xxxxx"`,
		"http://localhost:8000?":       want + `, without query and fragment, got "http://localhost:8000?"`,
		"http://localhost:8000#x":      want + `, without query and fragment, got "http://localhost:8000#x"`,
		"http://localhost/v3/kafka":    want + `, without /v3/kafka, which is added, got "http://localhost/v3/kafka"`,
		"http://localhost/a/v3/kafka/": want + `, without /v3/kafka, which is added, got "http://localhost/a/v3/kafka/"`,
		"http://u:s3cret@a:b":          want + `, got "xxxxx@a:b"`,
		"http://a:b":                   want + `: invalid port ":b" after host`,
		"http://u:s3cret@local\nhost/": want + `, got "xxxxx@local\nhost/"`,
	} {
		_, err := ParseEndpoint(bad)
		require.EqualError(t, err, message)
		_, err = NewAPI(http.DefaultClient, bad, noLimit, APILimits{})
		require.EqualError(t, err, message)
	}
	_, err := NewAPI(http.DefaultClient, "http://localhost", 0, APILimits{})
	require.EqualError(t, err, "the limit of an answer must be at least 1 byte, got 0")
}

// Names arrive as one segment of the path each, whatever is in them.
func TestAPINames(t *testing.T) {
	for _, name := range []string{
		"plain", "{{.Cluster}}", "tab\there\nand newline", `back\slash and:colon`, "группа-заказы.v1", "Ünï-çødé.😀",
		"perc%20ent?x=1&y=2#frag", `team "A" <orders> & 'co'`, "a+b", "%", "%2F", "...", ".a", "a;b=c", " ", "\x00", "*", "@", "x\ufffdy",
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			api := newAPI(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.RequestURI
				topic, err := json.Marshal(name)
				assert.NoError(t, err)
				fmt.Fprint(w, `{"topics":[`+string(topic)+`],"status":{"cluster":"c","status":"OK","totallag":0,"group":`+string(topic)+`}}`)
			})))
			topics, err := api.Topics(t.Context(), name)
			require.NoError(t, err)
			assert.Equal(t, []string{name}, topics)
			segments := strings.Split(got, "/")
			require.Len(t, segments, 5)
			plain, err := url.PathUnescape(segments[3])
			require.NoError(t, err)
			assert.Equal(t, name, plain)

			status, err := api.Lag(t.Context(), "c", name)
			require.NoError(t, err)
			assert.Equal(t, name, status.Group)
		})
	}
}

func TestAPIErrors(t *testing.T) {
	const status = `{"status":{"cluster":"c","group":"g","status":"OK","totallag":0`
	groups := func(a *API) (any, error) { return a.Groups(t.Context(), "c") }
	lag := func(a *API) (any, error) { return a.Lag(t.Context(), "c", "g") }
	offsets := func(a *API) (any, error) { return a.Offsets(t.Context(), "c", "t") }
	for name, tc := range map[string]struct {
		ask  func(*API) (any, error)
		code int
		body string
		want string
		gone bool
	}{
		"broken":              {groups, 500, "out of\nmemory\n", "GET /v3/kafka/c/consumer: 500 Internal Server Error: out of\uFFFDmemory", false},
		"long":                {groups, 502, strings.Repeat("x", 1000), "GET /v3/kafka/c/consumer: 502 Bad Gateway: " + strings.Repeat("x", 200) + "...", false},
		"no text":             {groups, 599, "", "GET /v3/kafka/c/consumer: 599", false},
		"not allowed":         {lag, 401, "", "GET /v3/kafka/c/consumer/g/lag: 401 Unauthorized", false},
		"other success":       {lag, 203, status + "}}", "GET /v3/kafka/c/consumer/g/lag: 203 Non-Authoritative Information: " + status + "}}", false},
		"a path not served":   {groups, 404, `{"error":true,"message":"invalid request type","result":{}}`, `GET /v3/kafka/c/consumer: 404 Not Found: {"error":true,"message":"invalid request type","result":{}}`, false},
		"404 of a mux":        {groups, 404, "404 page not found\n", "GET /v3/kafka/c/consumer: 404 Not Found: 404 page not found", false},
		"404 of a framework":  {lag, 404, `{"status":404,"error":"Not Found"}`, `GET /v3/kafka/c/consumer/g/lag: 404 Not Found: {"status":404,"error":"Not Found"}`, false},
		"404 with a status":   {lag, 404, status + `}}`, `GET /v3/kafka/c/consumer/g/lag: 404 Not Found: ` + status + `}}`, false},
		"404 of a proxy":      {lag, 404, `{"error":true,"message":"route not found"}`, `GET /v3/kafka/c/consumer/g/lag: 404 Not Found: {"error":true,"message":"route not found"}`, false},
		"gone with 200":       {lag, 200, strings.Replace(status, "OK", "NOTFOUND", 1) + "}}", "GET /v3/kafka/c/consumer/g/lag: not known to Burrow", true},
		"no cluster":          {lag, 404, `{"error":true,"message":"cluster not found"}`, "GET /v3/kafka/c/consumer/g/lag: not known to Burrow", true},
		"html":                {groups, 200, "<html>", "GET /v3/kafka/c/consumer: not JSON at byte 0: a value is missing", false},
		"empty":               {groups, 200, "", "GET /v3/kafka/c/consumer: not JSON at byte 0: a value is missing", false},
		"a list":              {groups, 200, "[]", "GET /v3/kafka/c/consumer: the body must be an object, got []", false},
		"more than one value": {groups, 200, `{"consumers":[]}{}`, "GET /v3/kafka/c/consumer: not JSON at byte 16: something follows the value", false},
		"no list":             {groups, 200, `{"error":true}`, "GET /v3/kafka/c/consumer: consumers must be a list, but is missing", false},
		"list null":           {groups, 200, `{"consumers":null}`, "GET /v3/kafka/c/consumer: consumers must be a list, got null", false},
		"the last list wins":  {groups, 200, `{"consumers":[],"consumers":7}`, "GET /v3/kafka/c/consumer: consumers must be a list, got 7", false},
		"a name is a number":  {groups, 200, `{"consumers":["a",7,8]}`, "GET /v3/kafka/c/consumer: consumers[1] must be a string, got 7", false},
		"no offsets":          {offsets, 200, `{}`, "GET /v3/kafka/c/topic/t: offsets must be a list, but is missing", false},
		"offsets an object":   {offsets, 200, `{"offsets":{"0":1}}`, `GET /v3/kafka/c/topic/t: offsets must be a list, got {"0":1}`, false},
		"no status":           {lag, 200, `{}`, "GET /v3/kafka/c/consumer/g/lag: status must be an object, but is missing", false},
		"status text":         {lag, 200, `{"status":"OK"}`, `GET /v3/kafka/c/consumer/g/lag: status must be an object, got "OK"`, false},
		"no totallag":         {lag, 200, `{"status":{"cluster":"c","group":"g","status":"OK"}}`, "GET /v3/kafka/c/consumer/g/lag: status.totallag must be " + wantCount + ", but is missing", false},
		"a bad partition":     {lag, 200, status + `,"partitions":[{}]}}`, "GET /v3/kafka/c/consumer/g/lag: status.partitions[0].topic must be " + wantName + ", but is missing", false},
		"another group":       {lag, 200, strings.Replace(status, `"g"`, `"h"`, 1) + "}}", `GET /v3/kafka/c/consumer/g/lag: the answer is about group "h" of cluster "c"`, false},
		"another cluster":     {lag, 200, strings.Replace(status, `"c"`, `"C"`, 1) + "}}", `GET /v3/kafka/c/consumer/g/lag: the answer is about group "g" of cluster "C"`, false},
		"a Result outside":    {lag, 200, `{"cluster":"c","group":"g","status":"OK","totallag":0}`, `GET /v3/kafka/c/consumer/g/lag: status must be an object, got "OK"`, false},
		"redirect to nowhere": {groups, 302, "", "GET /v3/kafka/c/consumer: 302 Found: to nowhere", false},
		"not modified":        {groups, 304, "", "GET /v3/kafka/c/consumer: 304 Not Modified: to nowhere", false},
	} {
		t.Run(name, func(t *testing.T) {
			api := newAPI(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.code)
				fmt.Fprint(w, tc.body)
			})))
			got, err := tc.ask(api)
			require.EqualError(t, err, tc.want)
			assert.Empty(t, got)
			assert.Equal(t, tc.gone, errors.Is(err, ErrGone))
			var answer *StatusError
			assert.Equal(t, tc.code != 200 && !tc.gone, errors.As(err, &answer))
		})
	}
}

func TestAPITolerates(t *testing.T) {
	body := `{"error":{},"consumers":["c"],"consumers":["b","","` + strings.Repeat("x", maxNameBytes+1) + `","a","b"],` +
		`"offsets":[1,null,-1,"x",{},9223372036854775807,9223372036854775808,1.5]}`
	api := newAPI(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })))
	groups, err := api.Groups(t.Context(), "c")
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, groups, "names that no status can have are left out")
	offsets, err := api.Offsets(t.Context(), "c", "t")
	require.NoError(t, err)
	assert.Equal(t, []int64{1, -1, -1, -1, -1, 9223372036854775807, -1, -1}, offsets, "each at the place of its partition")

	body = `{"consumers":[],"offsets":[]}`
	groups, err = api.Groups(t.Context(), "c")
	require.NoError(t, err)
	assert.Empty(t, groups)
	offsets, err = api.Offsets(t.Context(), "c", "t")
	require.NoError(t, err)
	assert.Empty(t, offsets)
}

// Nothing is asked about a name that would lead to another path.
func TestAPINotAskable(t *testing.T) {
	api := newAPI(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("asked for %s", r.RequestURI)
	})))
	for _, name := range []string{".", "..", "/", "a/b", "../lag"} {
		_, err := api.Lag(t.Context(), "c", name)
		require.ErrorIs(t, err, ErrNotAskable)
		require.ErrorContains(t, err, strconv.Quote(name))
		_, err = api.Groups(t.Context(), name)
		require.ErrorIs(t, err, ErrNotAskable)
		assert.False(t, Askable(name))
	}
}

// What answers hold is paid from the budget, and given back.
func TestAPIBudget(t *testing.T) {
	var body string
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush() // the length is not told
		fmt.Fprint(w, body)
	}))
	budget := NewBudget(8 << 20)
	api, err := NewAPI(server.Client(), server.URL, 32<<20, APILimits{MaxPartitions: 5, Budget: budget})
	require.NoError(t, err)

	body = `{"clusters":["b","a","b"],"offsets":[1,2,3,4,5]}`
	clusters, err := api.Clusters(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, clusters, "each once")
	offsets, err := api.Offsets(t.Context(), "c", "t")
	require.NoError(t, err)
	assert.Len(t, offsets, 5)

	body = `{"offsets":[1,2,3,4,5,6]}`
	_, err = api.Offsets(t.Context(), "c", "t")
	require.ErrorIs(t, err, ErrTooMany)
	body = `{"clusters":["a"` + strings.Repeat(`,"a"`, maxNames) + `]}`
	_, err = api.Clusters(t.Context())
	require.ErrorIs(t, err, ErrBusy, "250,000 names do not fit")
	body = strings.Repeat(" ", 9<<20)
	_, err = api.Clusters(t.Context())
	require.ErrorIs(t, err, ErrBusy, "the body does not fit")
	assert.Zero(t, budget.Used())

	roomy, err := NewAPI(server.Client(), server.URL, 32<<20, APILimits{})
	require.NoError(t, err)
	body = `{"clusters":["a"` + strings.Repeat(`,"a"`, maxNames) + `]}`
	_, err = roomy.Clusters(t.Context())
	require.ErrorIs(t, err, ErrTooMany, "a name too many, though it is the same again")
}

// Of large answers one at a time is in memory.
func TestAPILargeAnswersOneByOne(t *testing.T) {
	const size = 3 << 20
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"clusters":["a"],"x":"`, strings.Repeat("x", size), `"}`)
	}))
	// Room for the buffers of one, while it grows, and for the beginnings of the others.
	budget := NewBudget(20 << 20)
	api, err := NewAPI(server.Client(), server.URL, 32<<20, APILimits{Budget: budget})
	require.NoError(t, err)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			clusters, err := api.Clusters(t.Context())
			if assert.NoError(t, err) {
				assert.Equal(t, []string{"a"}, clusters)
			}
		})
	}
	running.Wait()
	assert.Zero(t, budget.Used())
}

func TestAPIAnswerLimit(t *testing.T) {
	const body = `{"clusters":["east"]}`
	for name, chunked := range map[string]bool{"with a length": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if chunked {
					w.(http.Flusher).Flush()
				}
				fmt.Fprint(w, body)
			}))
			api, err := NewAPI(server.Client(), server.URL, int64(len(body)), APILimits{})
			require.NoError(t, err)
			clusters, err := api.Clusters(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []string{"east"}, clusters)

			api, err = NewAPI(server.Client(), server.URL, int64(len(body)-1), APILimits{})
			require.NoError(t, err)
			_, err = api.Clusters(t.Context())
			require.EqualError(t, err, "GET /v3/kafka: the answer is larger than the limit of 20 bytes")
			require.ErrorIs(t, err, ErrTooLarge)
		})
	}

	// What is said to be long need not be, and what never ends is cut off.
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for line := bytes.Repeat([]byte{' '}, 1<<10); ; {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}))
	api, err := NewAPI(server.Client(), server.URL, 1<<20, APILimits{})
	require.NoError(t, err)
	_, err = api.Clusters(t.Context())
	require.ErrorIs(t, err, ErrTooLarge)
}

func TestAPIRedirects(t *testing.T) {
	var elsewhereAsked atomic.Int64
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhereAsked.Add(1)
		fmt.Fprint(w, `{"clusters":["elsewhere"]}`)
	}))
	mux := http.NewServeMux()
	mux.HandleFunc("/away/v3/kafka", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/login?token=s3cret#here", http.StatusFound)
	})
	mux.HandleFunc("/near/v3/kafka", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/v3/kafka", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/round/v3/kafka", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/v3/kafka", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"clusters":["east"]}`) })
	server := serve(t, mux)

	ask := func(path string) ([]string, error) {
		api, err := NewAPI(server.Client(), server.URL+path, noLimit, APILimits{})
		require.NoError(t, err)
		return api.Clusters(t.Context())
	}
	clusters, err := ask("/near")
	require.NoError(t, err)
	assert.Equal(t, []string{"east"}, clusters)

	_, err = ask("/away")
	require.EqualError(t, err, "GET /away/v3/kafka: 302 Found: to "+elsewhere.URL+"/login")
	assert.Zero(t, elsewhereAsked.Load())

	_, err = ask("/round")
	require.EqualError(t, err, "GET /round/v3/kafka: 307 Temporary Redirect: to "+server.URL+"/round/v3/kafka")
}

func TestAPIFailures(t *testing.T) {
	hang := make(chan struct{})
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v3/kafka/cut/topic":
			w.Header().Set("Content-Length", "1000000")
			fmt.Fprint(w, `{"topics":[`)
		default:
			if strings.HasPrefix(r.URL.Path, "/v3/kafka/half") {
				w.(http.Flusher).Flush()
			}
			<-hang
		}
	}))
	t.Cleanup(func() { close(hang) })

	client := server.Client()
	client.Timeout = 50 * time.Millisecond
	api, err := NewAPI(client, server.URL, noLimit, APILimits{})
	require.NoError(t, err)
	for _, cluster := range []string{"silent", "half"} {
		_, err = api.Groups(t.Context(), cluster)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "GET /v3/kafka/"+cluster+"/consumer: ")
	}

	// The API has a copy of the client.
	client.Timeout = 0
	api, err = NewAPI(client, server.URL, noLimit, APILimits{})
	require.NoError(t, err)
	for _, cluster := range []string{"silent", "half"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		_, err = api.Groups(ctx, cluster)
		require.ErrorIs(t, err, context.Canceled)
	}

	_, err = api.Topics(t.Context(), "cut")
	require.EqualError(t, err, "GET /v3/kafka/cut/topic: unexpected EOF")

	// Nobody listens there.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	api, err = NewAPI(client, "http://"+listener.Addr().String(), noLimit, APILimits{})
	require.NoError(t, err)
	_, err = api.Clusters(t.Context())
	require.ErrorContains(t, err, "GET /v3/kafka: dial tcp ")
}

// One connection serves all answers, also those that are errors.
func TestAPIReusesConnections(t *testing.T) {
	var connections atomic.Int64
	recorded := burrowtest.RecordedAPI(t, recordedAPI)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v3/kafka/broken") {
			http.Error(w, strings.Repeat("x", 300_000), http.StatusInternalServerError)
			return
		}
		recorded.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	api := newAPI(t, server)
	for range 5 {
		_, err := api.Clusters(t.Context())
		require.NoError(t, err)
		_, err = api.Lag(t.Context(), "east", "warehouse-etl")
		require.NoError(t, err)
		_, err = api.Lag(t.Context(), "east", "nosuchgroup")
		require.ErrorIs(t, err, ErrGone)
		_, err = api.Lag(t.Context(), "east", `back\slash/and:colon`)
		require.Error(t, err)
		_, err = api.Topics(t.Context(), "broken")
		require.ErrorContains(t, err, "500")
		_, err = api.Offsets(t.Context(), "east", "orders")
		require.NoError(t, err)
	}
	assert.EqualValues(t, 1, connections.Load())
}

// Several at once share the buffers and the decoders, and nothing else.
func TestAPIConcurrently(t *testing.T) {
	const groups, partitions, workers = 200, 30, 8
	load := burrowtest.LoadAPI(groups, partitions)
	server := httptest.NewUnstartedServer(load)
	server.Config.ConnState = load.ConnState
	server.Start()
	t.Cleanup(server.Close)
	api := newAPI(t, server)

	names, err := api.Groups(t.Context(), burrowtest.LoadCluster)
	require.NoError(t, err)
	require.Len(t, names, groups)
	results := make([]*GroupStatus, groups)
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := next.Add(1) - 1; i < groups; i = next.Add(1) - 1 {
				status, err := api.Lag(t.Context(), burrowtest.LoadCluster, names[i])
				assert.NoError(t, err)
				results[i] = status
			}
		})
	}
	running.Wait()
	warn := 0
	for i, status := range results {
		require.NotNil(t, status)
		require.NoError(t, status.Valid())
		assert.Equal(t, names[i], status.Group)
		assert.EqualValues(t, partitions*(partitions-1)/2, status.TotalLag)
		assert.Len(t, status.Partitions, partitions)
		assert.Equal(t, status.Partitions[partitions-1], *status.MaxLag)
		if status.Status == StatusWarn {
			warn++
		}
	}
	assert.Equal(t, groups/20, warn)

	topics, err := api.Topics(t.Context(), burrowtest.LoadCluster)
	require.NoError(t, err)
	assert.True(t, slices.Contains(topics, results[0].Partitions[0].Topic))
	for _, topic := range topics {
		offsets, err := api.Offsets(t.Context(), burrowtest.LoadCluster, topic)
		require.NoError(t, err)
		require.Len(t, offsets, partitions)
		assert.Equal(t, results[0].Partitions[7].End.Offset+results[0].Partitions[7].CurrentLag, offsets[7])
	}
	assert.EqualValues(t, 2+groups+len(topics), load.Requests())
	assert.LessOrEqual(t, load.MaxRequests(), int64(workers))
}

func TestLoadAPIDelay(t *testing.T) {
	load := burrowtest.LoadAPI(1, 0)
	load.Delay = time.Hour
	server := httptest.NewUnstartedServer(load)
	server.Config.ConnState = load.ConnState
	server.Start()
	t.Cleanup(server.Close)
	api := newAPI(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			_, err := api.Clusters(ctx)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
	running.Wait()
	assert.EqualValues(t, 3, load.Requests())
	assert.EqualValues(t, 3, load.MaxRequests())
	assert.EqualValues(t, 3, load.MaxConnections())
}

// FuzzLag holds DecodeLag to what encoding/json reads, and what it accepts to the rules of the table.
func FuzzLag(f *testing.F) {
	for _, glob := range []string{"*_lag.json", "*_status.json", "*/*lag.json", "404-*", "kafka*_topic*.json", "kafka*_consumer.json"} {
		found, err := filepath.Glob(filepath.Join(recordedAPI, glob))
		require.NoError(f, err)
		require.NotEmpty(f, found)
		for _, path := range found {
			body, err := os.ReadFile(path)
			require.NoError(f, err)
			if len(body) < 4000 {
				f.Add(body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		saysGone(body)
		for _, field := range []string{"clusters", "consumers", "topics"} {
			names, err := decodeNames(body, Limits{}, field)
			if err == nil {
				require.True(t, json.Valid(body), "accepted what is not JSON")
			}
			require.NotContains(t, names, "")
		}
		offsets, err := decodeOffsets(body, Limits{})
		if err == nil {
			require.True(t, json.Valid(body), "accepted what is not JSON")
		}
		for _, offset := range offsets {
			require.GreaterOrEqual(t, offset, int64(Unknown))
		}

		requireBounded(t, len(body), func() { _, _ = decodeNames(body, Limits{}, "consumers") })
		requireBounded(t, len(body), func() { _, _ = decodeOffsets(body, Limits{}) })
		requireBounded(t, len(body), func() { _, _ = DecodeLag(body, Limits{}) })

		got, err := DecodeLag(body, Limits{})
		want, wantErr := referenceLag(body)
		var syntax *SyntaxError
		switch {
		case errors.As(err, &syntax):
			require.True(t, !json.Valid(body) || strings.HasPrefix(syntax.Reason, "nested deeper"), "%v", err)
		case err != nil:
			require.True(t, wantErr != nil || listedTwice(body), "refused: %v", err)
		default:
			require.NoError(t, wantErr)
			require.Empty(t, cmp.Diff(want, got))
			require.NoError(t, got.Valid())
		}
	})
}

// referenceLag is DecodeLag written with encoding/json.
func referenceLag(body []byte) (*GroupStatus, error) {
	var top any
	if err := json.Unmarshal(body, &top); err != nil {
		return nil, err
	}
	answer, ok := asMap(top, body)
	if !ok {
		return nil, errReference
	}
	result, ok := object(answer["status"])
	if !ok {
		return nil, errReference
	}
	n, err := referenceResult(result, nil)
	if err != nil {
		return nil, err
	}
	return &n.Group, nil
}

// BenchmarkLag asks for one group of 50 partitions after the other on one connection.
func BenchmarkLag(b *testing.B) {
	const partitions = 50
	load := burrowtest.LoadAPI(100, partitions)
	api := newAPI(b, serve(b, load))
	names, err := api.Groups(b.Context(), burrowtest.LoadCluster)
	require.NoError(b, err)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		status, err := api.Lag(b.Context(), burrowtest.LoadCluster, names[i%len(names)])
		if err != nil || len(status.Partitions) != partitions {
			b.Fatal(err)
		}
		i++
	}
}
