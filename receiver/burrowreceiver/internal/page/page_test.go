package page

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const recorded = "../../../../testdata/notifications"

// site is a page on a server of its own.
type site struct {
	*Handler
	table *groups.Table
	url   string

	mu      sync.Mutex
	now     time.Time
	webhook Webhook
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

var start = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func newSite(t testing.TB, change func(*Options)) *site {
	t.Helper()
	limits := groups.Limits{MaxGroups: 20_000, MaxPartitions: 1_000_000, ExpireAfter: 5 * time.Minute}
	s := &site{table: groups.New(limits), now: start}
	o := Options{
		Path: "/", WebhookPath: "/burrow", Interval: 10 * time.Millisecond, Limits: limits, Version: "v1.2.3",
		Now: s.clock,
		Webhook: func() Webhook {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.webhook
		},
	}
	if change != nil {
		change(&o)
	}
	s.Handler = New(s.table, o)
	server := httptest.NewServer(s)
	s.url = server.URL + s.prefix
	t.Cleanup(func() {
		s.Close()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// tell brings an evaluation into the table, as of the site's clock.
func (s *site) tell(t testing.TB, cluster, group, status string, lag int64, partitions ...string) {
	t.Helper()
	body := fmt.Sprintf(`{"cluster":%s,"group":%s,"status":%q,"totallag":%d,"complete":1,"partition_count":8,"partitions":[%s]}`,
		quote(cluster), quote(group), status, lag, strings.Join(partitions, ","))
	s.notify(t, body)
}

func (s *site) notify(t testing.TB, body string) {
	t.Helper()
	n, err := burrow.Decode([]byte(body))
	require.NoError(t, err, body)
	require.NoError(t, s.table.Update(n, s.clock()))
}

func quote(text string) string { return string(mustMarshal(text)) }

func partition(topic string, number int, status string, lag int64) string {
	return fmt.Sprintf(`{"topic":%q,"partition":%d,"status":%q,"current_lag":%d,"owner":"/192.0.2.7","client_id":"worker",`+
		`"start":{"offset":1,"timestamp":%d,"lag":1},"end":{"offset":9007199254740993,"timestamp":%d,"lag":2},"complete":1}`,
		topic, number, status, lag, start.UnixMilli()-60_000, start.UnixMilli()-1000)
}

func (s *site) get(t testing.TB, path string, headers ...string) (code int, body string, header http.Header) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, s.url+path, http.NoBody)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(data), response.Header
}

type list struct {
	Version        int64
	Boot           string
	Matched, Total int
	Groups         []Group
}

func (s *site) list(t testing.TB, query string) list {
	t.Helper()
	code, body, _ := s.get(t, "api/v1/groups"+query)
	require.Equal(t, http.StatusOK, code, body)
	var l list
	require.NoError(t, json.Unmarshal([]byte(body), &l))
	return l
}

func names(l list) string {
	var names []string
	for i := range l.Groups {
		names = append(names, l.Groups[i].Cluster+"/"+l.Groups[i].Group)
	}
	return strings.Join(names, " ")
}

func someGroups(t testing.TB, s *site) {
	t.Helper()
	s.tell(t, "east", "billing", "OK", 10)
	s.tell(t, "east", "orders", "WARN", 500, partition("orders", 1, "WARN", 500))
	s.tell(t, "west", "orders", "ERR", 100, partition("orders", 0, "STOP", 60), partition("orders", 3, "STALL", 40))
	s.tell(t, "west", "search", "NOTFOUND", 0)
}

func TestGroupsAreChosenAndOrdered(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for query, want := range map[string]string{
		"":                            "west/orders east/orders west/search east/billing",
		"?sort=worst":                 "west/orders east/orders west/search east/billing",
		"?sort=-worst":                "east/billing west/search east/orders west/orders",
		"?sort=lag":                   "east/orders west/orders east/billing west/search",
		"?sort=-lag":                  "west/search east/billing west/orders east/orders",
		"?sort=group":                 "east/billing west/orders east/orders west/search",
		"?sort=cluster":               "east/orders east/billing west/orders west/search",
		"?sort=partitions":            "west/orders east/orders west/search east/billing",
		"?cluster=west":               "west/orders west/search",
		"?status=trouble":             "west/orders east/orders",
		"?status=err":                 "west/orders",
		"?status=warn":                "east/orders",
		"?status=notfound":            "west/search",
		"?status=ok":                  "east/billing",
		"?q=ORD":                      "west/orders east/orders",
		"?q=west":                     "west/orders west/search",
		"?limit=1":                    "west/orders",
		"?q=ord&sort=lag&limit=1":     "east/orders",
		"?cluster=nowhere":            "",
		"?open=orders&open_cluster=x": "west/orders east/orders west/search east/billing",
	} {
		assert.Equal(t, want, names(s.list(t, query)), query)
	}
	l := s.list(t, "?q=orders&limit=1")
	assert.Equal(t, 2, l.Matched)
	assert.Equal(t, 4, l.Total)
}

func TestEverySortKnowsBothDirections(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for _, name := range sortNames() {
		assert.Len(t, s.list(t, "?sort="+name).Groups, 4, name)
		assert.Len(t, s.list(t, "?sort=-"+name).Groups, 4, name)
	}
	for _, c := range columns {
		assert.Contains(t, sorts, c.sort)
	}
}

func TestJSONOfAGroup(t *testing.T) {
	s := newSite(t, nil)
	s.notify(t, `{"Event":{"ID":"a139fb1d","Start":"2026-11-24T09:50:00Z","Result":{"cluster":"east","group":"orders","status":"ERR","complete":0.5,"totallag":60,"partition_count":8,"partitions":[`+
		partition("orders", 2, "WARN", 900)+","+partition("orders", 5, "STOP", 60)+`]}}}`)
	s.set(func() { s.now = start.Add(time.Minute) })
	s.notify(t, `{"Event":{"ID":"a139fb1d","Start":"2026-11-24T09:50:00Z","Result":{"cluster":"east","group":"orders","status":"ERR","complete":0.5,"totallag":100,"partition_count":8,"partitions":[`+
		partition("orders", 2, "WARN", 900)+","+partition("orders", 5, "STOP", 60)+`]}}}`)
	code, body, header := s.get(t, "api/v1/groups/east/orders")
	require.Equal(t, http.StatusOK, code)
	assert.Equal(t, "application/json", header.Get("Content-Type"))
	// Numbers are exact, also those that a double can't hold.
	assert.Contains(t, body, `"committed_offset":9007199254740993`)
	var d Detail
	require.NoError(t, json.Unmarshal([]byte(body), &d))
	assert.Equal(t, "ERR", d.Status)
	assert.Equal(t, []int64{60, 100}, d.RecentLags)
	assert.Equal(t, growing, d.Trend)
	assert.InDelta(t, 40, *d.LagPerMinute, 1e-9)
	assert.InDelta(t, 60, *d.UsualInterval, 1e-9)
	assert.InDelta(t, 0.5, *d.Complete, 0)
	assert.Equal(t, "a139fb1d", d.Incident.ID)
	assert.Equal(t, time.Date(2026, 11, 24, 9, 50, 0, 0, time.UTC), d.Incident.Start.UTC())
	assert.Equal(t, start, d.Changed.UTC(), "ERR since the first notification")
	assert.Equal(t, Counts{Total: pointer(int64(8)), Warn: 1, Stop: 1}, d.Partitions)
	require.Len(t, d.Listed, 2)
	assert.Equal(t, "STOP", d.Listed[0].Status, "worst first")
	assert.Equal(t, "/192.0.2.7", d.Listed[0].Owner)
	assert.Nil(t, d.Polled)

	code, body, _ = s.get(t, "api/v1/groups/east/orders?limit=1")
	require.Equal(t, http.StatusOK, code)
	d = Detail{}
	require.NoError(t, json.Unmarshal([]byte(body), &d))
	assert.Len(t, d.Listed, 1)
	assert.Equal(t, 1, d.Omitted)
}

func TestPastIncidentsAreShown(t *testing.T) {
	s := newSite(t, nil)
	event := func(status string, lag int) string {
		return fmt.Sprintf(`{"Event":{"ID":"one","Start":"2026-11-24T09:59:00Z","Result":{"cluster":"east","group":"orders","status":%q,"totallag":%d}}}`, status, lag)
	}
	s.notify(t, event("WARN", 10))
	s.notify(t, event("ERR", 900))
	s.notify(t, event("WARN", 20))
	s.set(func() { s.now = start.Add(time.Minute) })
	s.notify(t, event("OK", 0))
	_, body, _ := s.get(t, "api/v1/groups/east/orders")
	var d Detail
	require.NoError(t, json.Unmarshal([]byte(body), &d))
	require.Len(t, d.Past, 1)
	assert.Equal(t, "ERR", *d.Past[0].Worst)
	assert.Equal(t, int64(900), *d.Past[0].PeakLag)
	assert.Equal(t, start.Add(time.Minute), d.Past[0].End.UTC())
	_, html, _ := s.get(t, "groups/east/orders")
	assert.Contains(t, html, `<td class="num">2 min</td><td class="num">900</td><td class="id">one</td>`)
}

func TestTheTagChangesWithTheTableAndOnlyThen(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for _, path := range []string{"api/v1/groups", "api/v1/groups?status=err", "api/v1/groups/east/orders"} {
		code, _, header := s.get(t, path)
		require.Equal(t, http.StatusOK, code)
		tag := header.Get("ETag")
		require.Regexp(t, `^W/"[0-9a-z]+-[0-9]+"$`, tag)
		s.set(func() { s.now = s.now.Add(time.Second) })
		code, body, header := s.get(t, path, "If-None-Match", `"other", `+tag)
		assert.Equal(t, http.StatusNotModified, code, path)
		assert.Empty(t, body)
		assert.Equal(t, tag, header.Get("ETag"))
		s.tell(t, "east", "billing", "OK", 10)
		code, _, header = s.get(t, path, "If-None-Match", tag)
		assert.Equal(t, http.StatusOK, code, path)
		assert.NotEqual(t, tag, header.Get("ETag"))
	}
}

func TestAnswersAreZippedForThoseWhoAccept(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for _, path := range []string{"", "api/v1/groups", "api/v1/groups?sort=lag", "api/v1/groups/east/orders", "groups/east/orders", "static/page.js", "nothing"} {
		_, plain, header := s.get(t, path, "Accept-Encoding", "gzip;q=0, identity")
		assert.Empty(t, header.Get("Content-Encoding"), path)
		_, zipped, header := s.get(t, path, "Accept-Encoding", "br, gzip")
		require.Equal(t, "gzip", header.Get("Content-Encoding"), path)
		assert.Equal(t, "Accept-Encoding", header.Get("Vary"))
		assert.Equal(t, plain, unzip(t, strings.NewReader(zipped)), path)
	}
}

func unzip(t testing.TB, data io.Reader) string {
	t.Helper()
	reader, err := gzip.NewReader(data)
	require.NoError(t, err)
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	return string(text)
}

func TestHeaders(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for _, path := range []string{"", "?limit=0", "api/v1/groups", "api/v1/groups/east/orders", "api/v1/groups/east/none", "groups/east/orders", "groups/x/y", "static/page.css", "nothing"} {
		_, _, header := s.get(t, path)
		assert.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
			header.Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		assert.Equal(t, "no-referrer", header.Get("Referrer-Policy"), path)
		assert.Equal(t, "no-store", header.Get("Cache-Control"), path)
	}
}

func TestAnotherSiteCanOnlyLinkHere(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"", "events", "api/v1/groups", "static/page.js"} {
		code, body, _ := s.get(t, path, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")
		assert.Equal(t, http.StatusForbidden, code, path)
		assert.Contains(t, body, "Another site can't use this page")
	}
	code, _, _ := s.get(t, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	assert.Equal(t, http.StatusOK, code)
	assert.Zero(t, s.hub.count())
}

func TestABrowserKeepsNoConnectionsButItsStream(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"", "api/v1/groups", "static/page.js", "nothing"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+path, http.NoBody))
		assert.Equal(t, "close", w.Header().Get("Connection"), path)
	}
}

func TestBadInputIsAnsweredInWords(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"?limit=0":                             {400, "limit must be a number from 1 to 1000000"},
		"api/v1/groups?limit=-1":               {400, "limit must be a number from 1 to 1000000"},
		"api/v1/groups?limit=99999999999":      {400, "limit must be a number from 1 to 1000000"},
		"api/v1/groups?sort=age":               {400, "sort must be one of cluster, complete, group, incident, lag, partitions, received, time_lag, trend, worst"},
		"api/v1/groups?status=bad":             {400, "status must be one of trouble, err, warn, notfound, ok"},
		"?open=orders":                         {400, "open and open_cluster must be given both"},
		"?q=" + strings.Repeat("x", 1025):      {400, "q must have at most 1024 bytes"},
		"api/v1/groups/east/orders?limit=many": {400, "limit must be a number"},
		"api/v1/groups/east/none":              {404, `"none" of cluster "east" is not known`},
		"groups/east/none":                     {404, `"none" of cluster "east" is not known`},
		"groups/":                              {400, "must name a cluster and a group"},
		"groups/east":                          {404, "Notifications go to /burrow"},
		"groups/a/b/c":                         {404, "Notifications go to /burrow"},
		"api/v1/groups/%zz/b":                  {0, ""},
		"favicon.ico":                          {404, "Notifications go to /burrow"},
		"static/../page.go":                    {404, "Notifications go to /burrow"},
		"static/":                              {404, "Notifications go to /burrow"},
	} {
		if want.code == 0 {
			continue // no client sends it
		}
		code, body, header := s.get(t, path)
		assert.Equal(t, want.code, code, path)
		assert.Contains(t, body, want.text, path)
		assert.Equal(t, "text/plain; charset=utf-8", header.Get("Content-Type"), path)
		code, body, _ = s.get(t, path, "Accept", "text/html,*/*")
		assert.Equal(t, want.code, code, path)
		back := regexp.MustCompile(`<a class="back" href="([./]+)">All groups</a>`).FindStringSubmatch(body)
		require.NotNil(t, back, path)
		depth := strings.Count(strings.Split(path, "?")[0], "/")
		assert.Equal(t, map[bool]string{true: "./", false: strings.Repeat("../", depth)}[depth == 0], back[1], path)
	}
}

// oddNames are recorded ones, and what else could do harm.
func oddNames(t testing.TB) []string {
	t.Helper()
	names := []string{
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "javascript:alert(1)", "..", ".", "a/b", "a%2Fb", "%", "%25", "?q=1", "#x",
		" leading", "tab\tand\nline", "{{.}}", "\u202eright-to-left", "emoji \U0001f955", "+plus +", "a;b&c=d",
	}
	files, err := filepath.Glob(recorded + "/odd-names-*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		n, err := burrow.Decode(body)
		require.NoError(t, err)
		names = append(names, n.Group.Group)
	}
	return names
}

func TestLinksLeadToGroupsOfAnyName(t *testing.T) {
	s := newSite(t, nil)
	href := regexp.MustCompile(`<a class="name" href="([^"]+)">`)
	unescape := strings.NewReplacer("&amp;", "&", "&#43;", "+", "&#39;", "'", "&#34;", `"`)
	for _, name := range oddNames(t) {
		s.tell(t, "east", name, "OK", 1)
		s.tell(t, name, "orders", "OK", 1)
	}
	_, html, _ := s.get(t, "?limit=500")
	links := href.FindAllStringSubmatch(html, -1)
	require.Len(t, links, len(s.list(t, "").Groups))
	seen := map[string]bool{}
	for _, link := range links {
		path := unescape.Replace(link[1])
		code, body, _ := s.get(t, "api/v1/"+path)
		require.Equal(t, http.StatusOK, code, path)
		var d Detail
		require.NoError(t, json.Unmarshal([]byte(body), &d))
		seen[d.Cluster+"\n"+d.Group.Group] = true
		code, body, _ = s.get(t, path)
		require.Equal(t, http.StatusOK, code, path)
		assert.NotContains(t, body, "<script>alert")
		assert.NotContains(t, body, "<img src=x")
	}
	for _, name := range oddNames(t) {
		assert.True(t, seen["east\n"+name], "%q", name)
		assert.True(t, seen[name+"\norders"], "%q", name)
	}
	assert.NotContains(t, html, "<script>alert")
	assert.NotContains(t, html, "<img src=x")
}

func TestThePageWithoutJavaScript(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	_, html, header := s.get(t, "?status=trouble&sort=-lag&open_cluster=west&open=orders")
	assert.Equal(t, "text/html; charset=utf-8", header.Get("Content-Type"))
	assert.Contains(t, html, "<title>(2) Karrot</title>")
	assert.Contains(t, html, `<span class="big">2</span> <span class="words">groups in trouble</span>`)
	assert.Contains(t, html, "1 ERR, 1 WARN, of 4 groups")
	assert.Contains(t, html, `data-status="trouble" aria-current="true"`)
	assert.Contains(t, html, `aria-sort="ascending"><a href="./?open=orders&amp;open_cluster=west&amp;sort=lag&amp;status=trouble" data-sort="lag">`)
	assert.Contains(t, html, `aria-expanded="true" aria-label="Partitions of orders"`)
	assert.Contains(t, html, "1 STOP, 1 STALL</b> <span class=\"of\">of 8</span>")
	assert.Contains(t, html, `<td class="num">9,007,199,254,740,993</td>`)
	assert.Contains(t, html, "Notifications list only the partitions that are not OK. Add config/api.yaml to see all of them.")
	assert.Less(t, strings.Index(html, ">100<"), strings.Index(html, ">500<"), "in the order that was asked for")
	assert.NotContains(t, html, " style=", "the policy forbids it")
	assert.NotContains(t, html, " onclick=")
}

func TestTheServerRendersTheWorst500(t *testing.T) {
	s := newSite(t, nil)
	for i := range 600 {
		s.tell(t, "east", fmt.Sprintf("group-%03d", i), "OK", int64(i))
	}
	for _, query := range []string{"", "?limit=100000"} {
		_, html, _ := s.get(t, query)
		assert.Equal(t, 500+1, strings.Count(html, `<tr class="row `), "and a template")
		assert.Contains(t, html, "500 of 600 groups shown")
		assert.Contains(t, html, ">group-599<")
		assert.NotContains(t, html, ">group-099<")
	}
}

func TestEmpty(t *testing.T) {
	for _, test := range []struct {
		host, proto, want, local string
		password                 bool
	}{
		{host: "karrot.example.net:5000", want: "http://karrot.example.net:5000/burrow"},
		{host: "karrot.example.net", proto: "https", want: "https://karrot.example.net/burrow", password: true},
		{host: "localhost:5000", want: "http://localhost:5000/burrow", local: "localhost"},
		{host: "[::1]:5000", want: "http://[::1]:5000/burrow", local: "::1"},
		{host: `a"b`, want: "http://KARROT/burrow"},
	} {
		s := newSite(t, func(o *Options) { o.Password = test.password })
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Host = test.host
		r.Header.Set("X-Forwarded-Proto", test.proto)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		html := w.Body.String()
		assert.Contains(t, html, "No group is known yet")
		assert.Contains(t, html, "url-open=\""+test.want+"\"", test.host)
		assert.Contains(t, html, "{ &#34;Event&#34;: {{ jsonencoder . }} }")
		assert.Equal(t, test.password, strings.Contains(html, `username="burrow"`))
		if test.local != "" {
			assert.Contains(t, html, "in place of <code>"+test.local+"</code>")
		} else {
			assert.NotContains(t, html, "runs on another machine")
		}
	}
}

func TestWhatBecameOfNotifications(t *testing.T) {
	s := newSite(t, nil)
	_, html, _ := s.get(t, "")
	assert.Contains(t, html, "none since Karrot started")
	s.set(func() {
		s.webhook = Webhook{
			LastAccepted: start, Refused: map[string]int64{"field": 12, "syntax": 3000},
			LastRefusal: &Refusal{Outcome: "field", Text: "status must be <b>", At: start},
		}
	})
	for age, want := range map[time.Duration]string{
		12 * time.Second: "Burrow is notifying", 3 * time.Minute: "Burrow is quiet", 6 * time.Minute: "Burrow is silent, or does not reach Karrot",
	} {
		s.set(func() { s.now = start.Add(age) })
		_, html, _ = s.get(t, "")
		assert.Contains(t, html, want)
		assert.Contains(t, html, words(age.Seconds())+" ago</time>")
	}
	assert.Contains(t, html, "syntax 3,000, field 12")
	assert.Contains(t, html, "field: status must be &lt;b&gt;")
	assert.Contains(t, html, "Nov 24 10:00:00 UTC")
}

func TestAPathOfItsOwn(t *testing.T) {
	for _, path := range []string{"/karrot", "/karrot/"} {
		s := newSite(t, func(o *Options) { o.Path = path })
		someGroups(t, s)
		code, html, _ := s.get(t, "groups/east/orders")
		assert.Equal(t, http.StatusOK, code)
		assert.Contains(t, html, `href="../../static/page.css"`)
		request := httptest.NewRequest(http.MethodGet, "/karrot", http.NoBody)
		assert.True(t, s.Takes(request))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, request)
		assert.Equal(t, http.StatusPermanentRedirect, w.Code)
		assert.Equal(t, "karrot/", w.Header().Get("Location"))
		assert.False(t, s.Takes(httptest.NewRequest(http.MethodGet, "/", http.NoBody)))
		assert.False(t, s.Takes(httptest.NewRequest(http.MethodGet, "/karrots", http.NoBody)))
	}
}

func TestWhoseRequestItIs(t *testing.T) {
	s := newSite(t, nil)
	root := newSite(t, func(o *Options) { o.WebhookPath = "/" })
	events := newSite(t, func(o *Options) { o.WebhookPath = "/events" })
	for _, test := range []struct {
		site         *site
		method, path string
		want         bool
	}{
		{s, "GET", "/", true},
		{s, "HEAD", "/", true},
		{s, "GET", "/anything", true},
		{s, "GET", "/burrow", false},
		{s, "POST", "/burrow", false},
		{s, "POST", "/", false},
		{s, "DELETE", "/anything", false},
		{s, "OPTIONS", "/", false},
		{root, "GET", "/", true},
		{root, "POST", "/", false},
		{events, "GET", "/events", true},
		{events, "PUT", "/events", false},
	} {
		assert.Equal(t, test.want, test.site.Takes(httptest.NewRequest(test.method, test.path, http.NoBody)), "%s %s", test.method, test.path)
	}
}

func TestTheFilesAreSmallAndFetchNothingElsewhere(t *testing.T) {
	var all bytes.Buffer
	for _, name := range []string{"static/page.css", "static/page.js", "static/icon.svg", "static/icon-trouble.svg", "templates/page.html"} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		all.Write(data)
		text := strings.ReplaceAll(string(data), `http://www.w3.org/2000/svg`, "")
		assert.NotRegexp(t, `https?://`, text, name)
		assert.NotContains(t, text, "innerHTML", name)
		assert.NotContains(t, text, "@import", name)
	}
	size := len(zip(all.Bytes()))
	t.Logf("%d bytes zipped", size)
	assert.Less(t, size, 30<<10)
}

// stream reads server-sent events.
type stream struct {
	response *http.Response
	lines    *bufio.Scanner
}

func (s *site) stream(t testing.TB, headers ...string) *stream {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, s.url+"events", http.NoBody)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	body := io.Reader(response.Body)
	if response.Header.Get("Content-Encoding") == "gzip" {
		body, err = gzip.NewReader(response.Body)
		require.NoError(t, err)
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 64<<20)
	return &stream{response, lines}
}

type received struct {
	Name, ID string
	Event
	Changed []Group `json:"changed"`
}

// next returns the next event; ok is false at the end.
func (s *stream) next(t testing.TB) (e received, ok bool) {
	t.Helper()
	var data bytes.Buffer
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch field {
		case "event":
			e.Name = value
		case "id":
			e.ID = value
		case "data":
			data.WriteString(value + "\n")
		case "":
			require.NoError(t, json.Unmarshal(data.Bytes(), &e))
			return e, true
		}
	}
	return e, false
}

func TestEvents(t *testing.T) {
	s := newSite(t, nil)
	someGroups(t, s)
	for _, coding := range []string{"identity", "gzip"} {
		stream := s.stream(t, "Accept-Encoding", coding)
		assert.Equal(t, "text/event-stream", stream.response.Header.Get("Content-Type"))
		assert.Equal(t, coding == "gzip", stream.response.Header.Get("Content-Encoding") == "gzip")
		hello, ok := stream.next(t)
		require.True(t, ok)
		assert.Equal(t, "hello", hello.Name)
		assert.Equal(t, 2, hello.Overview.Groups.Trouble)
		assert.Equal(t, []string{"east", "west"}, hello.Overview.Clusters)
		assert.Empty(t, hello.Changed)
		assert.Equal(t, s.boot+"-"+strconv.FormatInt(hello.Version, 10), hello.ID)

		// What changes comes, and nothing else.
		s.tell(t, "east", "billing", "ERR", 77)
		change, ok := stream.next(t)
		require.True(t, ok)
		assert.Equal(t, "change", change.Name)
		assert.LessOrEqual(t, change.From, hello.Version)
		assert.Greater(t, change.Version, hello.Version)
		require.Len(t, change.Changed, 1)
		assert.Equal(t, int64(77), change.Changed[0].TotalLag)
		assert.Equal(t, 3, change.Overview.Groups.Trouble)
		assert.Empty(t, change.Gone)

		s.set(func() { s.webhook.Refused = map[string]int64{coding: 1} })
		change, ok = stream.next(t)
		require.True(t, ok)
		assert.Empty(t, change.Changed)
		assert.Equal(t, []Refused{{coding, 1}}, change.Overview.Refused)

		s.tell(t, "east", "billing", "OK", 10)
		change, ok = stream.next(t)
		require.True(t, ok)
		assert.Len(t, change.Changed, 1)
	}
}

// The script walks through these lists.
func TestAnEmptyTableHasListsNotNulls(t *testing.T) {
	s := newSite(t, nil)
	_, body, _ := s.get(t, "api/v1/groups")
	assert.Contains(t, body, `"groups":[]`)
	stream := s.stream(t, "Accept-Encoding", "identity")
	for stream.lines.Scan() && stream.lines.Text() != "" {
		if data, ok := strings.CutPrefix(stream.lines.Text(), "data: "); ok {
			assert.Contains(t, data, `"clusters":[]`)
			assert.Contains(t, data, `"refused":[]`)
			assert.Contains(t, data, `"changed":[]`)
			assert.Contains(t, data, `"gone":[]`)
		}
	}
}

func TestEventsTellOfGroupsThatAreGone(t *testing.T) {
	s := newSite(t, nil)
	s.tell(t, "east", "old", "OK", 1)
	s.set(func() { s.now = start.Add(4 * time.Minute) })
	s.tell(t, "east", "new", "OK", 1)
	stream := s.stream(t)
	_, ok := stream.next(t)
	require.True(t, ok)
	s.table.Expire(start.Add(6 * time.Minute))
	e, ok := stream.next(t)
	require.True(t, ok)
	assert.Equal(t, [][2]string{{"east", "old"}}, e.Gone)
	assert.Equal(t, 1, e.Overview.Groups.Total)
}

// What has changed since a stream began is told, also if the goroutine that tells it gets no time before the change.
func TestStreamsMissNoChange(t *testing.T) {
	s := newSite(t, nil)
	s.tell(t, "east", "old", "OK", 1)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 20 {
		s.tell(t, "east", "old", "OK", 1)
		c, ok := s.hub.join()
		require.True(t, ok)
		s.table.Expire(start.Add(6 * time.Minute))
		m, open := <-c.messages
		require.True(t, open)
		require.Contains(t, string(m.plain), `"gone":[["east","old"]]`)
		s.hub.leave(c)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := newSite(t, nil)
	for range maxClients {
		_, ok := s.stream(t).next(t)
		require.True(t, ok)
	}
	code, body, header := s.get(t, "events")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, body, "100 pages are open already")
	assert.Equal(t, "30", header.Get("Retry-After"))
	// The page itself is not concerned.
	code, _, _ = s.get(t, "")
	assert.Equal(t, http.StatusOK, code)
}

func TestCloseEndsTheStreams(t *testing.T) {
	s := newSite(t, nil)
	stream := s.stream(t)
	_, ok := stream.next(t)
	require.True(t, ok)
	s.Close()
	_, ok = stream.next(t)
	assert.False(t, ok)
	code, _, _ := s.get(t, "events")
	assert.Equal(t, http.StatusServiceUnavailable, code)
}

// A client that reads nothing is cut off, and meanwhile nobody waits for it.
func TestASlowClientIsCutOff(t *testing.T) {
	s := newSite(t, nil)
	slow, quick := s.stream(t, "Accept-Encoding", "identity"), s.stream(t)
	_, ok := quick.next(t)
	require.True(t, ok)
	require.Equal(t, 2, s.hub.count())
	name := strings.Repeat("x", 1000)
	for i := 0; s.hub.count() > 1; i++ {
		require.Less(t, i, 1000, "megabytes that nobody reads")
		last := ""
		for j := range 300 {
			last = fmt.Sprintf("%s-%d", name, j)
			s.tell(t, "east", last, "OK", int64(i))
		}
		// The quick one has all of it before the next round.
		for seen := false; !seen; {
			e, ok := quick.next(t)
			require.True(t, ok)
			seen = slices.ContainsFunc(e.Changed, func(g Group) bool { return g.Group == last && g.TotalLag == int64(i) })
		}
	}
	for {
		if _, ok := slow.next(t); !ok {
			break
		}
	}
	assert.Equal(t, 1, s.hub.count())
}

// A page takes a stream that is silent for longer than the heartbeat for lost.
func TestAStreamIsNeverSilentForLong(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Millisecond, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			limits := groups.Limits{MaxGroups: 1, MaxPartitions: 1, ExpireAfter: time.Minute}
			h := New(groups.New(limits), Options{
				Path: "/", WebhookPath: "/burrow", Interval: interval, Limits: limits, Now: time.Now, Webhook: func() Webhook { return Webhook{} },
			})
			defer h.Close()
			c, ok := h.hub.join()
			require.True(t, ok)
			for range 3 {
				before := time.Now()
				m := <-c.messages
				assert.Contains(t, string(m.plain), "event: change\n")
				assert.LessOrEqual(t, time.Since(before), heartbeat+interval%heartbeat)
				assert.GreaterOrEqual(t, time.Since(before), heartbeat-interval%heartbeat, "nothing has changed")
			}
		})
	}
}

func TestClustersOfAnEventAreBounded(t *testing.T) {
	s := newSite(t, nil)
	for i := range maxClusters + 5 {
		s.tell(t, fmt.Sprintf("cluster-%04d", i), "orders", "OK", 1)
	}
	clusters := s.overview(s.snapshots.newest()).Clusters
	assert.Len(t, clusters, maxClusters)
	assert.Equal(t, "cluster-0000", clusters[0])
}

func TestNobodyLooksNothingRuns(t *testing.T) {
	s := newSite(t, nil)
	stream := s.stream(t)
	_, ok := stream.next(t)
	require.True(t, ok)
	require.NoError(t, stream.response.Body.Close())
	s.hub.running.Wait() // would hang if the goroutine did not end with the last client
	assert.Zero(t, s.hub.count())
	again := s.stream(t)
	_, ok = again.next(t)
	assert.True(t, ok)
}

func TestSnapshotsLetGoOfStates(t *testing.T) {
	s := newSite(t, nil)
	s.tell(t, "east", "orders", "OK", 1)
	one := s.snapshots.newest()
	assert.Same(t, one, s.snapshots.newest(), "the same table is the same snapshot")
	s.tell(t, "east", "orders", "OK", 1)
	two := s.snapshots.newest()
	assert.Equal(t, one.version+1, two.version)
	s.snapshots.forget()
	assert.Greater(t, s.snapshots.newest().version, two.version, "versions are never used again")
}

func TestWords(t *testing.T) {
	for seconds, want := range map[float64]string{
		-3: "0 s", 0: "0 s", 0.9: "0 s", 59.9: "59 s", 60: "1 min", 252.4: "4 min 12 s", 3600: "1 h", 7500: "2 h 5 min", 86_400: "1 d", 273_700: "3 d 4 h", 1e9: "11,574 d 1 h",
	} {
		assert.Equal(t, want, words(seconds))
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 9223372036854775807: "9,223,372,036,854,775,807"} {
		assert.Equal(t, want, number(n))
	}
}

func TestSpark(t *testing.T) {
	heights := func(lags ...int64) (heights []int) {
		for _, b := range spark(lags) {
			heights = append(heights, b.Height)
		}
		return heights
	}
	assert.Equal(t, []int{1, 10, 20}, heights(0, 50, 100), "from 0")
	assert.Equal(t, []int{10, 20}, heights(900, 1000), "a small difference is seen")
	assert.Equal(t, []int{20, 20, 20}, heights(1000, 990, 1000), "a steady lag is flat")
	assert.Equal(t, []int{1, 1}, heights(0, 0))
	assert.Empty(t, heights())
}

func TestTrend(t *testing.T) {
	assert.Equal(t, steady, trend(0, 0))
	assert.Equal(t, steady, trend(1000, 1050))
	assert.Equal(t, growing, trend(1000, 1060))
	assert.Equal(t, shrinking, trend(1000, 940))
	assert.Equal(t, growing, trend(0, 1))
	assert.Equal(t, shrinking, trend(1, 0))
}
