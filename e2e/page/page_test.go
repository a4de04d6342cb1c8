// Package page tests the page of the built binary in Debian's Chromium.
//
// KARROT_BIN names the binary; `make e2e-page` builds it first, and fetches axe with npm.
package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/page/internal/browser"
)

// root is the top of the repository.
const root = "../.."

// interval is how often the binary tells pages of changes, by default.
const interval = time.Second

// patience is spent only when something is wrong.
const patience = 20 * time.Second

var chromium context.Context

func TestMain(m *testing.M) {
	var cancel context.CancelFunc
	var err error
	chromium, cancel, err = browser.Chromium(context.Background()) //nolint:fatcontext // one browser for all tests
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	cancel()
	os.Exit(code)
}

func start(t testing.TB, env ...string) *browser.Karrot {
	t.Helper()
	bin := os.Getenv("KARROT_BIN")
	if bin == "" {
		bin = filepath.Join(root, "bin", "karrot")
	}
	k, err := browser.Start(context.Background(), bin, root, nil, env)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, k.Kill())
		if t.Failed() {
			_, since, _ := strings.Cut(k.Output.String(), "Everything is ready")
			t.Log(since)
		}
	})
	return k
}

// tab is an open page. What it asks for and complains of is recorded.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex
	requests   []string
	complaints []string
}

func open(t testing.TB, address string) *tab {
	t.Helper()
	p := &tab{t: t}
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	p.ctx = ctx
	require.NoError(t, chromedp.Do(ctx))
	require.NoError(t, chromedp.Listen(ctx, p.record))
	require.NoError(t, browser.Looks(ctx, 1280, 900, "light"))
	p.goTo(address)
	return p
}

func (p *tab) record(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.complaints = append(p.complaints, "exception: "+text)
	case *runtime.EventConsoleAPICalled:
		p.complaints = append(p.complaints, fmt.Sprintf("console: %v", e.Args))
	case *log.EventEntryAdded:
		p.complaints = append(p.complaints, e.Entry.Text+" "+e.Entry.URL)
	}
}

// clean demands that the page has asked only its own server, and has not complained but of what is expected.
func (p *tab) clean(k *browser.Karrot, expected ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.NotEmpty(p.t, p.requests)
	for _, request := range p.requests {
		assert.True(p.t, strings.HasPrefix(request, k.Root), "a foreign request: %s", request)
	}
	for _, complaint := range p.complaints {
		assert.True(p.t, slices.ContainsFunc(expected, func(e string) bool { return strings.Contains(complaint, e) }), complaint)
	}
}

func (p *tab) goTo(address string) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.Navigate(address)))
}

func evaluate[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	require.NoError(p.t, err, expression)
	return value
}

// wait waits until a JavaScript expression is true, and returns how long that took.
func (p *tab) wait(expression string) time.Duration {
	p.t.Helper()
	begin := time.Now()
	for {
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return time.Since(begin)
		}
		if time.Since(begin) > patience {
			text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 2000)"))
			p.t.Fatalf("not within %s: %s (%v)\n%s", patience, expression, err, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *tab) state(state string) {
	p.t.Helper()
	p.wait(`document.getElementById('live').dataset.state === '` + state + `'`)
}

func (p *tab) live() {
	p.t.Helper()
	p.state("live")
	// All rows are the script's own, unless it is the page of one group.
	p.wait(`!document.getElementById('rows') || document.body.dataset.rendered`)
}

// names are the groups in the table, from top to bottom.
func (p *tab) names() []string {
	p.t.Helper()
	return evaluate[[]string](p, `[...document.querySelectorAll('#rows .name')].map(e => e.textContent)`)
}

func (p *tab) click(selector string) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS(selector))))
}

func (p *tab) search() string {
	p.t.Helper()
	return evaluate[string](p, "location.search")
}

func post(t testing.TB, k *browser.Karrot, body string) {
	t.Helper()
	require.NoError(t, k.Post(context.Background(), body))
}

func body(group, status string, lag int) string {
	name, _ := json.Marshal(group)
	return fmt.Sprintf(`{"cluster":"east","group":%s,"status":%q,"totallag":%d,"complete":1,"partition_count":4,"partitions":[%s]}`, name, status, lag,
		map[bool]string{true: "", false: fmt.Sprintf(`{"topic":"orders","partition":2,"status":"STALL","current_lag":%d,"owner":"/192.0.2.7","client_id":"worker-1"}`, lag)}[status == "OK"])
}

func recorded(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "testdata", "notifications", name))
	require.NoError(t, err)
	return string(data)
}

func TestANotificationIsSeenAtOnce(t *testing.T) {
	k := start(t)
	p := open(t, k.Root)
	p.live()
	assert.Equal(t, "Karrot", evaluate[string](p, "document.title"))
	p.wait(`!document.getElementById('empty').hidden && document.getElementById('list').hidden`)
	for i, step := range []struct{ status, title, headline string }{
		{"OK", "Karrot", "1 group is OK"},
		{"ERR", "(1) Karrot", "1 group in trouble"},
		{"WARN", "(1) Karrot", "1 group in trouble"},
		{"OK", "Karrot", "1 group is OK"},
	} {
		post(t, k, body("billing", step.status, 100+i))
		took := p.wait(fmt.Sprintf(`document.querySelector('#rows .c-lag')?.textContent === '%d' && document.querySelector('#rows .badge b').textContent === %q`, 100+i, step.status))
		t.Logf("%s is seen after %s", step.status, took)
		assert.Less(t, took, interval+time.Second)
		assert.Equal(t, step.title, evaluate[string](p, "document.title"))
		assert.Equal(t, step.headline, evaluate[string](p, "document.getElementById('headline').innerText.replace(/\\s+/g, ' ')"))
	}
	assert.True(t, evaluate[bool](p, `document.getElementById('empty').hidden`))
	p.clean(k)
}

func TestRefusalsAreSeen(t *testing.T) {
	k := start(t)
	p := open(t, k.Root)
	p.live()
	require.Error(t, k.Post(context.Background(), `{"cluster":"east","group":"<b>billing</b>","status":"BAD","totallag":1}`))
	p.wait(`document.getElementById('refused-count').textContent === '1'`)
	assert.Contains(t, evaluate[string](p, `document.getElementById('refusal').innerText`), "field: ")
	p.clean(k)
}

func someGroups(t testing.TB, k *browser.Karrot) {
	t.Helper()
	post(t, k, body("billing", "OK", 5))
	post(t, k, body("orders", "ERR", 300))
	post(t, k, body("orders-replay", "WARN", 900))
	post(t, k, body("search", "OK", 70))
}

func TestSortAndFilterSurviveUpdatesAndReload(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root)
	p.live()
	assert.Equal(t, []string{"orders", "orders-replay", "search", "billing"}, p.names(), "worst first")

	p.click(`[data-sort="lag"]`)
	p.wait(`document.querySelector('#rows .name').textContent === 'orders-replay'`)
	assert.Equal(t, []string{"orders-replay", "orders", "search", "billing"}, p.names())
	p.click(`[data-sort="lag"]`)
	p.wait(`document.querySelector('#rows .name').textContent === 'billing'`)
	assert.Equal(t, "ascending", evaluate[string](p, `document.querySelector('.c-lag[role=columnheader]').getAttribute('aria-sort')`))
	require.NoError(t, chromedp.Do(p.ctx, chromedp.SendKeys(chromedp.CSS("#q"), "OrD")))
	p.wait(`document.querySelectorAll('#rows .row').length === 2`)
	assert.Equal(t, []string{"orders", "orders-replay"}, p.names())
	assert.Equal(t, "?q=OrD&sort=-lag", p.search())

	// An update keeps what was chosen, the text and its focus.
	post(t, k, body("orders", "ERR", 5000))
	p.wait(`document.querySelector('#rows .name').textContent === 'orders-replay'`)
	assert.Equal(t, []string{"orders-replay", "orders"}, p.names())
	assert.Equal(t, "q", evaluate[string](p, "document.activeElement.id"))

	// A reload, too; and the server knows it as well.
	require.NoError(t, chromedp.Do(p.ctx, chromedp.Reload()))
	p.live()
	assert.Equal(t, []string{"orders-replay", "orders"}, p.names())
	assert.Equal(t, "OrD", evaluate[string](p, "document.getElementById('q').value"))
	assert.Equal(t, "?q=OrD&sort=-lag", p.search())

	// The way back.
	p.goTo(k.Root)
	p.live()
	p.click(`[data-status="trouble"]`)
	p.wait(`document.querySelectorAll('#rows .row').length === 2`)
	require.NoError(t, chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](`history.back()`)))
	p.wait(`document.querySelectorAll('#rows .row').length === 4`)
	p.clean(k)
}

func TestARowOpensAndStaysOpen(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root)
	p.live()
	p.click(`[aria-label="Partitions of orders-replay"]`)
	p.wait(`document.querySelector('.detail .partitions tbody')?.innerText.includes('/192.0.2.7')`)
	assert.Equal(t, "true", evaluate[string](p, `document.querySelector('[aria-label="Partitions of orders-replay"]').getAttribute('aria-expanded')`))
	assert.Equal(t, "?open_cluster=east&open=orders-replay", p.search())
	post(t, k, body("orders-replay", "ERR", 4321))
	p.wait(`document.querySelector('.detail .partitions tbody')?.innerText.includes('4,321')`)
	assert.Equal(t, "orders-replay", evaluate[string](p, `document.querySelector('.detail').previousElementSibling.querySelector('.name').textContent`))
	require.NoError(t, chromedp.Do(p.ctx, chromedp.Reload()))
	p.live()
	p.wait(`document.querySelector('.detail .partitions tbody')?.innerText.includes('4,321')`)
	p.click(`[aria-label="Partitions of orders-replay"]`)
	p.wait(`!document.querySelector('.detail')`)
	assert.Empty(t, p.search())
	p.clean(k)
}

func TestTheKeyboardIsEnough(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root)
	p.live()
	require.NoError(t, chromedp.Do(p.ctx, chromedp.KeyEvent(kb.Tab)))
	assert.Equal(t, "Skip to the content", evaluate[string](p, "document.activeElement.textContent"))
	for i := 0; !evaluate[bool](p, "document.activeElement.matches('.toggle')"); i++ {
		require.Less(t, i, 40, "the first row is not reached")
		require.NoError(t, chromedp.Do(p.ctx, chromedp.KeyEvent(kb.Tab)))
	}
	require.NoError(t, chromedp.Do(p.ctx, chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.Enter)))
	p.wait(`document.querySelector('.detail')?.previousElementSibling.querySelector('.name').textContent === 'orders-replay'`)
	// The row moves to the top with its focus.
	post(t, k, body("orders-replay", "ERR", 4321))
	p.wait(`document.querySelector('#rows .name').textContent === 'orders-replay'`)
	assert.Equal(t, "Partitions of orders-replay", evaluate[string](p, `document.activeElement.getAttribute('aria-label')`))
	p.clean(k)
}

func TestAServerThatGoesAndComesBack(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root+"?sort=lag&q=ord")
	p.live()
	require.NoError(t, k.Stop())
	p.state("lost")
	assert.Equal(t, "RECONNECTING", evaluate[string](p, `document.getElementById('live-text').textContent`))
	assert.Equal(t, []string{"orders-replay", "orders"}, p.names(), "what was known stays")
	require.NoError(t, k.Restart(context.Background()))
	p.live()
	p.wait(`document.querySelectorAll('#rows .row').length === 0`) // nothing was stored
	post(t, k, body("orders", "ERR", 77))
	p.wait(`document.querySelector('#rows .c-lag')?.textContent === '77'`)
	assert.Equal(t, "?sort=lag&q=ord", p.search())
	p.clean(k, "net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING")
}

func TestAServerThatIsKilledMakesThePageStale(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root)
	p.live()
	require.NoError(t, k.Kill())
	p.state("lost")
	p.state("stale")
	assert.Regexp(t, `^STALE SINCE \d\d:\d\d:\d\d$`, evaluate[string](p, `document.getElementById('live-text').textContent`))
	assert.InDelta(t, 0.45, evaluate[float64](p, `Number(getComputedStyle(document.querySelector('main')).opacity)`), 0.001)
	assert.Len(t, p.names(), 4)
	require.NoError(t, k.Restart(context.Background()))
	p.live()
	assert.InDelta(t, 1, evaluate[float64](p, `Number(getComputedStyle(document.querySelector('main')).opacity)`), 0.001)
	p.clean(k, "net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING")
}

func TestOddNamesAreText(t *testing.T) {
	k := start(t)
	names := []string{
		`<script>document.title='harmed'</script>`, `"><img src=x onerror="document.title='harmed'">`, `<svg/onload=document.title='harmed'>`,
		`javascript:document.title='harmed'`, "..", ".", "a/b", "a%2Fb", "%", "?q=1#x", "constructor", "__proto__", "\u202eright-to-left",
	}
	for _, name := range names {
		post(t, k, body(name, "ERR", 5))
	}
	for _, file := range []string{"quotes", "backslash", "cyrillic", "percent", "dots"} {
		text := recorded(t, "odd-names-"+file+".json")
		post(t, k, text)
		var notification struct{ Event struct{ Group string } }
		require.NoError(t, json.Unmarshal([]byte(text), &notification))
		names = append(names, notification.Event.Group)
	}
	p := open(t, k.Root)
	p.live()
	p.wait(fmt.Sprintf(`document.querySelectorAll('#rows .row').length === %d`, len(names)))
	assert.ElementsMatch(t, names, p.names())
	assert.Zero(t, evaluate[int](p, `document.querySelectorAll('main img, main script, svg[onload]').length`))
	assert.Equal(t, fmt.Sprintf("(%d) Karrot", len(names)), evaluate[string](p, "document.title"))
	for _, name := range names {
		quoted, _ := json.Marshal(name)
		find := fmt.Sprintf(`[...document.querySelectorAll('#rows .name')].find(e => e.textContent === %s)`, quoted)
		// The row opens.
		require.NoError(t, chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](find+`.closest('tr').querySelector('.toggle').click()`)))
		p.wait(find + `.closest('tr').nextElementSibling?.querySelector('.partitions')`)
		// The address with the open row is understood by the server, and its own page is found.
		for _, address := range []string{evaluate[string](p, "location.href"), evaluate[string](p, find+".href")} {
			own := open(t, address)
			own.live()
			if strings.Contains(address, "/groups/") {
				assert.Equal(t, name, evaluate[string](own, `document.querySelector('h1').textContent`), address)
			} else {
				own.wait(find + `.closest('tr').nextElementSibling?.querySelector('.partitions')`)
			}
			assert.NotEqual(t, "harmed", evaluate[string](own, "document.title"))
			own.clean(k)
			require.NoError(t, chromedp.Cancel(own.ctx))
		}
	}
	assert.Equal(t, fmt.Sprintf("(%d) Karrot", len(names)), evaluate[string](p, "document.title"), "nothing was run")
	p.clean(k)
}

// What the policy says holds: even markup that got in by some fault would not run.
func TestThePolicyHolds(t *testing.T) {
	k := start(t)
	p := open(t, k.Root)
	p.live()
	require.NoError(t, chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](`
		window.harmed = 0;
		document.body.insertAdjacentHTML('beforeend', '<img src="static/none" onerror="window.harmed++"><p style="color: rgb(1, 2, 3)" id="styled"></p>');
		document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.harmed++'}));
		document.body.append(Object.assign(document.createElement('script'), {src: 'data:text/javascript,window.harmed++'}));
		fetch('http://127.0.0.1:1/').catch(() => { window.fetched = 'refused'; });
	`)))
	p.wait(`window.fetched`)
	assert.Zero(t, evaluate[int](p, "window.harmed"))
	assert.NotEqual(t, "rgb(1, 2, 3)", evaluate[string](p, "getComputedStyle(document.getElementById('styled')).color"))
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.NotEmpty(t, p.complaints, "the browser says that it refused")
}

func TestThePageOfAGroup(t *testing.T) {
	k := start(t)
	someGroups(t, k)
	p := open(t, k.Root+"groups/east/orders")
	p.live()
	assert.Equal(t, "ERR orders, Karrot", evaluate[string](p, "document.title"))
	post(t, k, body("orders", "WARN", 12_345))
	p.wait(`document.querySelector('#group .badge b').textContent === 'WARN' && document.getElementById('group').innerText.includes('12,345')`)
	assert.Equal(t, "WARN orders, Karrot", evaluate[string](p, "document.title"))
	p.click(".back")
	p.live()
	p.wait(`document.querySelectorAll('#rows .row').length === 4`)
	p.clean(k)
}

func TestAGroupThatIsNotThere(t *testing.T) {
	k := start(t)
	p := open(t, k.Root+"groups/east/"+url.PathEscape("no/such"))
	assert.Contains(t, evaluate[string](p, "document.body.innerText"), `Group "no/such" of cluster "east" is not known.`)
	p.click(".back")
	p.live()
	p.clean(k, "404")
}

func TestAGroupThatExpiresWhileItIsLookedAt(t *testing.T) {
	k := start(t, "KARROT_EXPIRE_AFTER=3s")
	post(t, k, body("orders", "ERR", 5))
	p := open(t, k.Root+"groups/east/orders")
	p.live()
	p.wait(`!document.getElementById('lost').hidden`)
	assert.Equal(t, "orders", evaluate[string](p, `document.querySelector('h1').textContent`), "the last that was known stays")
	p.clean(k, "404")
}

// Without JavaScript the page says the same, in the same words.
func TestServerAndScriptWriteTheSame(t *testing.T) {
	k := start(t)
	for _, file := range []string{"warn", "stop", "stall", "rewind", "ok", "ok-with-lag", "many-partitions", "incomplete-stop", "offsets-above-2-53"} {
		post(t, k, browser.Shift(recorded(t, file+".json"), 24*time.Hour))
		post(t, k, browser.Shift(recorded(t, file+".json"), 24*time.Hour))
	}
	p := open(t, "about:blank")
	_, err := chromedp.Call(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
	const query = "?sort=group&open_cluster=east&open=warehouse-etl"
	// Ages go on, and the state of the connection differs.
	const text = `[...document.querySelectorAll('main, footer')].map(e => {
		const copy = e.cloneNode(true);
		copy.querySelectorAll('time, .note, .js, template, option').forEach(e => e.remove());
		copy.querySelectorAll('.spark').forEach(e => { e.outerHTML = [...e.children].map(r => ['x', 'y', 'height'].map(a => r.getAttribute(a)).join(' ')).join('; '); });
		return copy.textContent.replace(/\s+/g, ' ');
	}).join('\n')`
	p.goTo(k.Root + query)
	assert.True(t, evaluate[bool](p, `document.querySelector('.search').hidden`))
	still := evaluate[string](p, text)
	assert.Contains(t, still, "warehouse-etl")
	_, err = chromedp.Call(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	require.NoError(t, err)
	p.goTo(k.Root + query)
	p.live()
	p.wait(`document.querySelector('.detail .partitions')`)
	assert.Equal(t, still, evaluate[string](p, text))
}

func TestAxeFindsNothing(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	require.NoError(t, err, "axe is missing: npm ci in e2e/page, or make e2e-page")
	k := start(t)
	empty := start(t)
	for _, file := range []string{"warn", "stop", "stall", "rewind", "ok", "many-partitions", "odd-names-quotes", "close"} {
		post(t, k, recorded(t, file+".json"))
	}
	require.Error(t, k.Post(context.Background(), "no JSON"))
	for name, address := range map[string]string{
		"groups": k.Root, "an open row": k.Root + "?open_cluster=east&open=warehouse-etl", "a filter without a match": k.Root + "?q=nothing",
		"a group": k.Root + "groups/east/warehouse-etl", "no group": empty.Root, "an error": k.Root + "groups/east/none",
	} {
		for _, width := range []int64{1280, 390} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%s, %d, %s", name, width, scheme), func(t *testing.T) {
					p := open(t, "about:blank")
					require.NoError(t, browser.Looks(p.ctx, width, 850, scheme))
					p.goTo(address)
					if name != "an error" {
						p.live()
					}
					if name == "an open row" {
						p.wait(`document.querySelector('.detail .partitions')`)
					}
					require.NoError(t, chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](string(axe))))
					found, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`axe.run().then(r => {
						if (r.passes.length < 10) return 'axe checked only ' + r.passes.length + ' rules';
						return r.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 200) + ' ' + n.failureSummary)).join('\n');
					})`, chromedp.EvalAwaitPromise))
					require.NoError(t, err)
					assert.Empty(t, found)
					wide := evaluate[int](p, "document.documentElement.scrollWidth")
					assert.LessOrEqual(t, wide, int(width), "the page is wider than the window")
				})
			}
		}
	}
}
