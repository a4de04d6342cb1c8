package deploy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

var pictures = flag.Bool("pictures", false, "replay the recorded traffic as slowly as it came, and write pictures of the dashboard into docs/dashboard (five minutes; needs Chromium)")

const (
	pictureDir = root + "/docs/dashboard"
	// drawnFrom says of which panels each picture is.
	drawnFrom = pictureDir + "/drawn-from.json"
)

// drawnRow is what the drawing program says of a row.
type drawnRow struct {
	Row, File     string
	Width, Height int
	// Panels are the IDs in the order of the page.
	Panels []int
}

func runDrawing(t testing.TB, args ...string) []byte {
	t.Helper()
	require.DirExists(t, "dashboard/node_modules", "make test-deploy installs what the drawing needs")
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"dashboard/draw.mjs"}, args...)...)
	var said, complained bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complained
	require.NoError(t, cmd.Run(), complained.String())
	return said.Bytes()
}

// drawDashboard makes a page of HTML for each row, in dir.
func drawDashboard(t testing.TB, prometheus string, from, to time.Time, scrape time.Duration, dir string) []drawnRow {
	t.Helper()
	var rows []drawnRow
	require.NoError(t, json.Unmarshal(runDrawing(t, "--dashboard", dashboardFile, "--prometheus", prometheus, "--out", dir,
		"--from", strconv.FormatInt(from.Unix(), 10), "--to", strconv.FormatInt(to.Unix(), 10), "--scrape", strconv.Itoa(int(scrape.Seconds()))), &rows))
	require.Len(t, rows, len(rowsOf(t)))
	return rows
}

// listen returns an address at which Prometheus answers as ever, and its answers by query. What a query picks among equals
// can be different each time, so that to ask again is no check.
func listen(t testing.TB, prometheus string) (address string, answers func(query string) []sample) {
	t.Helper()
	target, err := url.Parse(prometheus)
	require.NoError(t, err)
	var mu sync.Mutex
	heard := map[string][]sample{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: func(r *http.Response) error {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			r.Body = io.NopCloser(bytes.NewReader(text))
			var answer struct{ Data struct{ Result []sample } }
			if err := json.Unmarshal(text, &answer); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			heard[r.Request.URL.Query().Get("query")] = answer.Data.Result
			return nil
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL, func(query string) []sample {
		mu.Lock()
		defer mu.Unlock()
		found, ok := heard[query]
		assert.True(t, ok, "nobody asked for %s", query)
		return found
	}
}

// checkDrawing draws the dashboard, and compares what is in the HTML with what Prometheus has answered.
func checkDrawing(t *testing.T, r *running) {
	t.Helper()
	from, to := r.since.Truncate(time.Second), time.Now().Truncate(time.Second)
	dir := t.TempDir()
	address, answersTo := listen(t, r.prometheus)
	d := readDashboard(t)
	seen := map[int]bool{}
	for _, row := range drawDashboard(t, address, from, to, time.Second, dir) {
		page, err := os.ReadFile(filepath.Join(dir, row.File))
		require.NoError(t, err)
		sections := strings.Split(string(page), `<section id="panel-`)[1:]
		require.Len(t, sections, len(row.Panels))
		for i, drawn := range row.Panels {
			p := d.Panels[slices.IndexFunc(d.Panels, func(p panel) bool { return p.ID == drawn })]
			seen[p.ID] = true
			require.True(t, strings.HasPrefix(sections[i], strconv.Itoa(p.ID)+`"`), row.Row)
			series := 0
			distinct := map[string]bool{}
			for _, target := range p.Targets {
				// Four scrapes, as Grafana has it.
				found := answersTo(d.expr(strings.NewReplacer("$__rate_interval", "4s", "$__range", fmt.Sprintf("%ds", to.Unix()-from.Unix())).Replace(target.Expr)))
				series += len(found)
				for _, s := range found {
					distinct[fmt.Sprint(s.Metric)] = true
				}
			}
			marks, want := `class="line"`, series
			switch p.Type {
			case "table":
				want = len(distinct)
				assert.Regexp(t, `<td class="number" style="color:#[0-9A-F]{6}">(ERR|STOP)</td>`, sections[i], "a verdict is a word with a color")
			case "state-timeline":
				marks = `class="row"`
			case "stat":
				marks = `class="value"`
			}
			assert.Equal(t, want, strings.Count(sections[i], marks), p.Title)
			assert.Equal(t, series == 0, strings.Contains(sections[i], `class="nothing"`), p.Title)
		}
	}
	for _, p := range d.Panels {
		assert.Equal(t, p.Type != "row", seen[p.ID], p.Title)
	}
}

// A picture must not leave out what the drawing does not know.
func TestDrawingRefusesWhatItDoesNotKnow(t *testing.T) {
	original, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	dir := t.TempDir()
	files := []string{dashboardFile}
	spoilt := [][3]string{
		{`"type": "state-timeline"`, `"type": "heatmap"`, "the type heatmap is not known"},
		{`"unit": "mps"`, `"unit": "mpss"`, `field.unit "mpss" is not known`},
		{`"id": "merge"`, `"id": "joinByField"`, `transformations[].id "joinByField" is not known`},
		{`"type": "value"`, `"type": "range"`, `field.mappings[].type "range" is not known`},
		{`"color": "green"`, `"color": "greenish"`, `"greenish" is not known`},
		{`"id": "byName"`, `"id": "byNam"`, `fieldConfig.overrides[].matcher.id "byNam" is not known`},
		{`"id": "custom.cellOptions"`, `"id": "custom.hidden"`, "field.custom.hidden.type is not known"},
		{`"lastNotNull"`, `"lastButOne"`, `"lastButOne" is not known`},
		{`"drawStyle": "line"`, `"drawStyle": "bars"`, `field.custom.drawStyle "bars" is not known`},
		{`"mergeValues": true`, `"mergeValues": false`, "options.mergeValues false is not known"},
		{`"showHeader": true`, `"showFilter": true`, "options.showFilter is not known"},
		{`"instant": true`, `"instant": false`, "must be either instant or range"},
		{`"type": "query"`, `"type": "interval"`, "the type interval is not known"},
	}
	for i, s := range spoilt {
		require.Contains(t, string(original), s[0])
		file := filepath.Join(dir, fmt.Sprintf("%d.json", i))
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(original), s[0], s[1], 1)), 0o600))
		files = append(files, file)
	}
	var problems map[string][]string
	require.NoError(t, json.Unmarshal(runDrawing(t, append([]string{"--check"}, files...)...), &problems))
	assert.Empty(t, problems[dashboardFile])
	for i, s := range spoilt {
		assert.Contains(t, strings.Join(problems[files[i+1]], "\n"), s[2], "%s for %s", s[1], s[0])
	}

	cmd := exec.CommandContext(t.Context(), "node", "dashboard/draw.mjs", "--dashboard", files[1], "--prometheus", "http://127.0.0.1:1", "--from", "0", "--to", "60", "--scrape", "1", "--out", dir)
	said, err := cmd.CombinedOutput()
	require.Error(t, err, "it draws a dashboard that it does not know")
	assert.Contains(t, string(said), "the type heatmap is not known")
}

// Data, units and transformations are those of the Grafana that Compose starts.
func TestDrawingHasTheGrafanaOfCompose(t *testing.T) {
	var module struct{ Dependencies map[string]string }
	text, err := os.ReadFile("dashboard/package.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &module))
	env, err := os.ReadFile(root + "/deploy/compose/.env")
	require.NoError(t, err)
	image := regexp.MustCompile(`(?m)^GRAFANA_IMAGE=grafana/grafana:(\d+\.\d+)\.`).FindStringSubmatch(string(env))
	require.NotNil(t, image)
	assert.True(t, strings.HasPrefix(module.Dependencies["@grafana/data"], image[1]+"."), "%s, and %s", module.Dependencies["@grafana/data"], image[0])
}

// rowsOf returns the digest of what each row shows by the name of its picture: the panels, wherever the row stands.
func rowsOf(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var d struct{ Panels []map[string]any }
	require.NoError(t, json.Unmarshal(text, &d))
	place := func(p map[string]any) map[string]any { return p["gridPos"].(map[string]any) }
	slices.SortStableFunc(d.Panels, func(a, b map[string]any) int { return cmp.Compare(place(a)["y"].(float64), place(b)["y"].(float64)) })
	rows := map[string][]map[string]any{}
	var name string
	var top float64
	for _, p := range d.Panels {
		if p["type"] == "row" {
			name, top = strings.ToLower(p["title"].(string))+".png", place(p)["y"].(float64)
		}
		place(p)["y"] = place(p)["y"].(float64) - top
		delete(p, "id")
		rows[name] = append(rows[name], p)
	}
	out := map[string]string{}
	for name, panels := range rows {
		text, err := json.Marshal(panels)
		require.NoError(t, err)
		out[name] = fmt.Sprintf("%x", sha256.Sum256(text))
	}
	return out
}

// The pictures in the docs are those of this dashboard, each row has one, and who looks at one is told who drew it.
func TestDashboardPicturesAreShown(t *testing.T) {
	var drawn map[string]string
	text, err := os.ReadFile(drawnFrom)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &drawn))
	assert.Equal(t, rowsOf(t), drawn, "the dashboard has changed since: make dashboard-pictures draws it again")

	found, err := filepath.Glob(pictureDir + "/*.png")
	require.NoError(t, err)
	var names []string
	for _, path := range found {
		name := filepath.Base(path)
		names = append(names, name)
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		picture, err := png.DecodeConfig(file)
		require.NoError(t, err, path)
		assert.Equal(t, 1280, picture.Width, path)
		info, err := file.Stat()
		require.NoError(t, err)
		assert.Less(t, info.Size(), int64(250<<10), path)
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(drawn)), names)

	shown := regexp.MustCompile(`!\[([^]]+)\]\((?:docs/)?dashboard/([\w-]+\.png)\)`)
	for page, want := range map[string][]string{"docs/deploying.md": names, "README.md": {"incidents.png"}} {
		text, err := os.ReadFile(filepath.Join(root, page))
		require.NoError(t, err)
		var links []string
		for _, link := range shown.FindAllStringSubmatch(string(text), -1) {
			assert.Greater(t, len(link[1]), 20, "%s: %s needs a text for those who do not see it", page, link[2])
			links = append(links, link[2])
		}
		assert.ElementsMatch(t, want, links, page)
		assert.Contains(t, string(text), "not Grafana's own rendering", page)
	}
}

// TestDashboardPictures writes the pictures of the docs: of a Karrot that is notified as slowly as the traffic was recorded.
func TestDashboardPictures(t *testing.T) {
	if !*pictures {
		t.Skip("make dashboard-pictures runs it")
	}
	const scrape = 5 * time.Second
	karrot := run.StartKarrot(t, root, nil)
	dir := t.TempDir()
	// The names that people give their targets, and not the ports of this run.
	prometheus := startPrometheus(t, dir, scrape,
		map[string]any{"targets": []string{karrot.Page}, "labels": map[string]string{"instance": "karrot:8889"}},
		map[string]any{"targets": []string{karrot.Own}, "labels": map[string]string{"instance": "karrot:8888"}})
	r := &running{prometheus: prometheus}
	r.waitForSamples(t, "otelcol_receiver_burrow_groups", 1)
	from := time.Now()
	replay(t, 1, func(body, _ string) {
		status, answer := run.Post(t, "http://"+karrot.Webhook+"/burrow", body)
		require.Equal(t, http.StatusOK, status, answer)
	})
	rows := drawDashboard(t, prometheus, from, time.Now(), scrape, dir)

	require.NoError(t, os.MkdirAll(pictureDir, 0o750))
	for _, row := range rows {
		file := filepath.Join(pictureDir, strings.TrimSuffix(row.File, ".html")+".png")
		require.NoError(t, os.WriteFile(file, withFewColors(t, photograph(t, dir, row)), 0o600))
		t.Log(file)
	}
	text, err := json.MarshalIndent(rowsOf(t), "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(drawnFrom, append(text, '\n'), 0o600))
}

// photograph lets Chromium draw the page of a row.
func photograph(t testing.TB, dir string, row drawnRow) []byte {
	t.Helper()
	chromium := cmp.Or(os.Getenv("CHROMIUM"), "chromium")
	page, err := filepath.Abs(filepath.Join(dir, row.File))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	picture := page + ".png"
	said, err := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
		"--user-data-dir="+filepath.Join(dir, "chromium"), "--screenshot="+picture, fmt.Sprintf("--window-size=%d,%d", row.Width, row.Height), "file://"+page).CombinedOutput()
	require.NoError(t, err, "%s", said)
	text, err := os.ReadFile(picture)
	require.NoError(t, err)
	return text
}

// withFewColors draws a picture with 256 colors, which makes it a third of the size: those of the large areas, and of the others
// that are nearly the same the one with most pixels, so that a small mark in a legend keeps its color.
func withFewColors(t testing.TB, picture []byte) []byte {
	t.Helper()
	in, err := png.Decode(bytes.NewReader(picture))
	require.NoError(t, err)
	count := map[color.RGBA]int{}
	for y := in.Bounds().Min.Y; y < in.Bounds().Max.Y; y++ {
		for x := in.Bounds().Min.X; x < in.Bounds().Max.X; x++ {
			count[color.RGBAModel.Convert(in.At(x, y)).(color.RGBA)]++
		}
	}
	alike := map[color.RGBA]color.RGBA{}
	for c, n := range count {
		about := color.RGBA{c.R >> 4, c.G >> 4, c.B >> 4, 0}
		if n > count[alike[about]] {
			alike[about] = c
		}
	}
	most := func(a, b color.RGBA) int { return count[b] - count[a] }
	areas := slices.SortedFunc(maps.Keys(count), most)
	var palette color.Palette
	for _, c := range slices.Concat(areas[:min(8, len(areas))], slices.SortedFunc(maps.Values(alike), most)) {
		if len(palette) < 256 && !slices.Contains(palette, color.Color(c)) {
			palette = append(palette, c)
		}
	}
	out := image.NewPaletted(in.Bounds(), palette)
	draw.Draw(out, in.Bounds(), in, in.Bounds().Min, draw.Src)
	var small bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	require.NoError(t, encoder.Encode(&small, out))
	return small.Bytes()
}
