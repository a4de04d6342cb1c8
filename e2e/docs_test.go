package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// A document is a page that people read.
type article struct {
	path     string // from the top
	prose    []string
	snippets []snippet
}

// A snippet is a fenced block. A comment in front of it can say how it is tested:
//
//	<!-- snippet: not run: why -->
//	<!-- snippet: with config/karrot.yaml config/cloudwatch.yaml -->   the configuration that it adds to
//	<!-- snippet: annotations of an alert -->
type snippet struct {
	where    string // path and line
	language string
	text     string
	how      string
}

var (
	fence       = regexp.MustCompile("^ *```(\\w*)$")
	snippetNote = regexp.MustCompile(`^ *<!-- snippet: (.*) -->$`)
)

func (s snippet) notRun() bool { return strings.HasPrefix(s.how, "not run: ") }

// pages are all documents but those that a generator writes.
func pages(t testing.TB) []article {
	t.Helper()
	var found []article
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "build", "node_modules"}, entry.Name()) {
			return filepath.SkipDir
		}
		if !entry.IsDir() && filepath.Ext(path) == ".md" && entry.Name() != "documentation.md" { // mdatagen writes that one
			found = append(found, readDocument(t, path))
		}
		return nil
	}))
	require.Greater(t, len(found), 40)
	return found
}

func readDocument(t testing.TB, path string) article {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	name, err := filepath.Rel(root, path)
	require.NoError(t, err)
	page := article{path: name}
	var open *snippet
	var block []string
	how, indent := "", ""
	for i, line := range strings.Split(string(text), "\n") {
		mark := fence.FindStringSubmatch(line)
		switch {
		case mark != nil && open == nil:
			open = &snippet{where: fmt.Sprintf("%s:%d", name, i+1), language: mark[1], how: how}
			block, how = nil, ""
			indent = line[:len(line)-len(strings.TrimLeft(line, " "))]
		case mark != nil:
			open.text = strings.Join(block, "\n") + "\n"
			page.snippets = append(page.snippets, *open)
			open = nil
		case open != nil:
			block = append(block, strings.TrimPrefix(line, indent))
		case snippetNote.MatchString(line):
			how = snippetNote.FindStringSubmatch(line)[1]
		default:
			page.prose = append(page.prose, line)
		}
	}
	require.Nil(t, open, "%s: a block has no end", name)
	require.Empty(t, how, "%s: a note on a snippet has none", name)
	return page
}

var (
	heading      = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	inlineCode   = regexp.MustCompile("`[^`]*`")
	linkTarget   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	linkText     = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	reference    = regexp.MustCompile(`^\[[^\]]+\]: +(\S+)`)
	anchorInHTML = regexp.MustCompile(`<a (?:id|name)="([^"]+)">`)
)

// anchors are the places of a page that a link can name, as GitHub makes them.
func (p *article) anchors() map[string]bool {
	found := map[string]bool{}
	for _, line := range p.prose {
		for _, id := range anchorInHTML.FindAllStringSubmatch(line, -1) {
			found[id[1]] = true
		}
		title := heading.FindStringSubmatch(line)
		if title == nil {
			continue
		}
		anchor := slug(title[1])
		unique := anchor
		for i := 1; found[unique]; i++ {
			unique = anchor + "-" + strconv.Itoa(i)
		}
		found[unique] = true
	}
	return found
}

func slug(title string) string {
	title = linkText.ReplaceAllString(title, "$1")
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			b.WriteRune('-')
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (p *article) links() (targets []string) {
	for _, line := range p.prose {
		line = inlineCode.ReplaceAllString(line, "")
		for _, link := range linkTarget.FindAllStringSubmatch(line, -1) {
			targets = append(targets, link[1])
		}
		if link := reference.FindStringSubmatch(line); link != nil {
			targets = append(targets, link[1])
		}
	}
	return targets
}

// Every link from one page to another, to a section, a picture or a file leads somewhere.
// writtenPart is what a command has written into a page of docs, between the line that says so and the next <!-- end -->.
func writtenPart(t testing.TB, page, begin string) (before, written, after string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", page))
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found, "%s has no %s", page, begin)
	written, after, found = strings.Cut(rest, writtenEnd)
	require.True(t, found, "%s has no %s", page, writtenEnd)
	return before, written, after
}

const writtenEnd = "<!-- end -->\n"

func writePart(t testing.TB, page, begin, text string) {
	t.Helper()
	before, _, after := writtenPart(t, page, begin)
	require.NoError(t, os.WriteFile(filepath.Join(root, "docs", page), []byte(before+begin+text+writtenEnd+after), 0o600))
}

func TestDocumentsLinks(t *testing.T) {
	anchors := map[string]map[string]bool{}
	all := pages(t)
	for _, page := range all {
		anchors[page.path] = page.anchors()
	}
	counted := 0
	for _, page := range all {
		for _, link := range page.links() {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			counted++
			file, anchor, hasAnchor := strings.Cut(link, "#")
			target := page.path
			if file != "" {
				target = filepath.Join(filepath.Dir(page.path), file)
				if _, err := os.Stat(filepath.Join(root, target)); !assert.NoError(t, err, "%s links to %s", page.path, link) {
					continue
				}
			}
			if hasAnchor {
				assert.True(t, anchors[target][anchor], "%s links to %s: there is no such section", page.path, link)
			}
		}
	}
	assert.Greater(t, counted, 200)
}

// docs/README.md leads to every page of docs/, and each of its questions to the section with the answer.
func TestDocumentsIndex(t *testing.T) {
	index := readDocument(t, filepath.Join(root, "docs", "README.md"))
	linked := map[string]bool{}
	for _, link := range index.links() {
		file, _, _ := strings.Cut(link, "#")
		linked[filepath.Join("docs", file)] = true
	}
	for _, page := range pages(t) {
		if dir := filepath.Dir(page.path); dir == "docs" && filepath.Base(page.path) != "README.md" {
			assert.True(t, linked[page.path], "docs/README.md does not lead to %s", page.path)
		}
	}
	questions := 0
	answer := regexp.MustCompile(`^\| .*\? \| .*\]\([^)]*#[^)]+\)`)
	for _, line := range index.prose {
		if strings.HasPrefix(line, "| ") && strings.Contains(line, "? |") {
			questions++
			assert.Regexp(t, answer, line, "the answer is a section")
		}
	}
	assert.GreaterOrEqual(t, questions, 20)
}

// The figures of README.md are those of the pages that it links to.
func TestDocumentsFigures(t *testing.T) {
	page := readDocument(t, filepath.Join(root, "README.md"))
	figures := 0
	number := regexp.MustCompile(`\d[\d,.]*\d|\d+`)
	for _, line := range page.prose {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| **") {
			continue
		}
		link := linkTarget.FindStringSubmatch(cells[2])
		require.NotNil(t, link, "%s: where is this measured?", line)
		file, _, _ := strings.Cut(link[1], "#")
		source, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		known := map[string]bool{}
		for _, figure := range number.FindAllString(string(source), -1) {
			known[figure] = true
		}
		for _, figure := range number.FindAllString(strings.ReplaceAll(cells[1], "Karrot 1", ""), -1) {
			figures++
			assert.True(t, known[figure], "README.md says %s, and %s does not", figure, file)
		}
	}
	assert.Greater(t, figures, 3)
}

// The pages call things by the words of the field, as people search for them.
func TestDocumentsWords(t *testing.T) {
	words := map[*regexp.Regexp]string{
		regexp.MustCompile(`(?i)page (of|for) prometheus|prometheus' page`): "/metrics",
		regexp.MustCompile(`\bheard of\b`):                                  "received",
		regexp.MustCompile(`(?:^|[^-])\bdistances?\b`):                      "interval, or time between",
		regexp.MustCompile(`\bmade again\b`):                                "recreated",
	}
	for _, page := range pages(t) {
		for i, line := range page.prose {
			line = inlineCode.ReplaceAllString(line, "")
			for word, better := range words {
				if found := word.FindString(line); found != "" && page.path != "CHANGELOG.md" {
					t.Errorf("%s, line %d of the text: write %q instead of %q", page.path, i+1, better, found)
				}
			}
		}
	}
}

// docs/troubleshooting.md has every outcome that the webhook counts.
func TestDocumentsOutcomes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "| Status | Outcome |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	k := start(t, options{Configs: []string{"config/karrot.yaml"}})
	outcomes := 0
	for series := range scrape(t, k.telemetry) {
		if found := regexp.MustCompile(`^otelcol_receiver_burrow_notifications_total{outcome="(\w+)"`).FindStringSubmatch(series); found != nil {
			outcomes++
			assert.Contains(t, table, "`"+found[1]+"`", "docs/troubleshooting.md")
		}
	}
	assert.Greater(t, outcomes, 10)
	k.stop(t)
}

// Every block is of a kind that is tested, unless it says why it is not.
func TestDocumentsSnippetsAreTested(t *testing.T) {
	tested := map[string]int{}
	for _, page := range pages(t) {
		for _, s := range page.snippets {
			switch {
			case s.notRun():
				tested["not run"]++
				assert.Greater(t, len(s.how), len("not run: needs x"), "%s says why", s.where)
			case s.language == "sh" || s.language == "promql" || s.language == "yaml":
				tested[s.language]++
			case s.language == "json":
				tested[s.language]++
				assert.True(t, json.Valid([]byte(s.text)), s.where)
			case s.language == "toml":
				tested[s.language]++
				checkBurrowSettings(t, s)
			case s.language == "" || s.language == "text":
				// What is printed, or the template.
			default:
				t.Errorf("%s: nothing tests a block of %s", s.where, s.language)
			}
		}
	}
	t.Logf("blocks by kind: %v", tested)
	assert.LessOrEqual(t, tested["not run"], 20, "blocks that are not run are few")
	for _, kind := range []string{"sh", "promql", "yaml", "json", "toml"} {
		assert.Positive(t, tested[kind], kind)
	}
}

// checkBurrowSettings holds the settings of a block to those that config/burrow/burrow.toml knows. Burrow ignores keys it
// does not know, so a wrong one would not be noticed.
func checkBurrowSettings(t testing.TB, s snippet) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "config", "burrow", "burrow.toml"))
	require.NoError(t, err)
	key := regexp.MustCompile(`(?m)^#?([a-z][a-z-]*)=`)
	known := map[string]bool{}
	for _, found := range key.FindAllStringSubmatch(string(text), -1) {
		known[found[1]] = true
	}
	section := ""
	for line := range strings.Lines(s.text) {
		line = strings.TrimSpace(line)
		switch found := key.FindStringSubmatch(line); {
		case line == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "["):
			section = line
		case found == nil:
			assert.True(t, strings.HasSuffix(section, ".headers]"), "%s: %s is no setting", s.where, line)
		case strings.HasPrefix(section, "[tls.") || strings.HasPrefix(section, "[sasl.") || strings.HasPrefix(section, "[iam.") || strings.HasPrefix(section, "[client-profile."):
			assert.True(t, known[found[1]] || kafkaSettings[found[1]], "%s: Burrow has no setting %s", s.where, found[1])
		default:
			assert.True(t, known[found[1]], "%s: config/burrow/burrow.toml has no setting %s", s.where, found[1])
		}
	}
}

// kafkaSettings are what Burrow 1.9.6 reads of its client profiles and of their TLS, SASL and IAM (core/internal/helpers).
var kafkaSettings = map[string]bool{
	"client-id": true, "kafka-version": true, "tls": true, "sasl": true, "iam": true,
	"certfile": true, "keyfile": true, "cafile": true, "noverify": true,
	"mechanism": true, "username": true, "password": true, "handshake-first": true,
	"region": true, "role-arn": true, "profile": true,
}

// Every block of configuration is taken by the binary, on top of the files it is for.
func TestDocumentsConfigurations(t *testing.T) {
	env := everyOverlay(t)
	checked := 0
	for _, page := range pages(t) {
		for _, s := range page.snippets {
			kind, top := s.configuration(t)
			if kind != "collector" {
				continue
			}
			checked++
			t.Run(strings.ReplaceAll(s.where, "/", "_"), func(t *testing.T) {
				var base []string
				files, named := strings.CutPrefix(s.how, "with ")
				_, whole := top["exporters"]
				if named {
					base = strings.Fields(files)
				} else if !whole {
					base = []string{"config/karrot.yaml"}
				}
				file := filepath.Join(t.TempDir(), "snippet.yaml")
				require.NoError(t, os.WriteFile(file, []byte(s.text), 0o600))
				validate := command(t, options{Configs: append(base, file), Env: env})
				validate.cmd.Args = slices.Insert(validate.cmd.Args, 1, "validate")
				require.NoError(t, validate.cmd.Run(), "%s: %s", s.where, validate.log())
			})
		}
	}
	assert.GreaterOrEqual(t, checked, 3)
}

// configuration says what a block of YAML is.
func (s snippet) configuration(t testing.TB) (kind string, top map[string]any) {
	t.Helper()
	if s.language != "yaml" || s.notRun() {
		return "", nil
	}
	require.NoError(t, yaml.Unmarshal([]byte(s.text), &top), s.where)
	_, components := top["receivers"].([]any)
	switch {
	case s.how == "annotations of an alert":
		return "annotations", top
	case top["readinessProbe"] != nil:
		manifest, err := os.ReadFile(filepath.Join(root, "deploy", "kubernetes", "base", "karrot.yaml"))
		require.NoError(t, err)
		indented := strings.ReplaceAll(strings.TrimSpace(s.text), "\n", "\n          ")
		require.Contains(t, string(manifest), indented, "%s: the manifest has other probes", s.where)
		return "probes", top
	case top["scrape_configs"] != nil:
		return "prometheus", top
	case top["groups"] != nil:
		return "rules", top
	case components:
		return "manifest", top // TestForeignDistribution builds from these lines
	}
	for key := range top {
		require.Contains(t, []string{"receivers", "processors", "exporters", "connectors", "extensions", "service"}, key, "%s: nothing tests this", s.where)
	}
	return "collector", top
}

// promtool takes every query, every rule and every scrape configuration of the pages.
func TestPeerPromtoolTakesTheDocuments(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	require.NoError(t, err, "promtool is needed (Debian's package prometheus)")
	check := func(t *testing.T, what, text, where string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "checked.yml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		output, err := exec.CommandContext(t.Context(), promtool, "check", what, "--lint=none", file).CombinedOutput()
		assert.NoError(t, err, "%s: %s\n%s", where, output, text)
	}
	counted := map[string]int{}
	for _, page := range pages(t) {
		var rules []map[string]any
		for _, s := range page.snippets {
			kind, top := s.configuration(t)
			switch {
			case s.language == "promql" && !s.notRun():
				for _, query := range queriesOf(s.text) {
					rules = append(rules, map[string]any{"record": "checked", "expr": query, "labels": map[string]any{"n": strconv.Itoa(len(rules))}})
				}
			case kind == "annotations":
				rules = append(rules, map[string]any{"alert": "Checked", "expr": "vector(1)", "annotations": top})
			case kind == "rules":
				check(t, "rules", s.text, s.where)
			case kind == "prometheus":
				// The files that it names are not on this machine.
				file := filepath.Join(t.TempDir(), "named")
				require.NoError(t, os.WriteFile(file, nil, 0o600))
				text := regexp.MustCompile(`\b(credentials_file|ca_file): \S+`).ReplaceAllString(s.text, "$1: "+file)
				check(t, "config", text, s.where)
			default:
				continue
			}
			counted[s.language+kind]++
		}
		if len(rules) > 0 {
			text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "checked", "rules": rules}}})
			require.NoError(t, err)
			check(t, "rules", string(text), page.path)
		}
	}
	t.Logf("checked: %v", counted)
	assert.Greater(t, counted["promql"], 20)
	assert.Positive(t, counted["yamlprometheus"])
	assert.Positive(t, counted["yamlannotations"])
}

// queriesOf takes a block apart: queries stand between empty lines and comments, or have a line each.
func queriesOf(block string) (queries []string) {
	var query []string
	end := func() {
		if len(query) > 0 {
			queries = append(queries, strings.Join(query, "\n"))
		}
		query = nil
	}
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
			end()
		default:
			// A line that begins at the margin begins a query, unless one is open in parentheses or goes on with an operator.
			joined := strings.Join(query, "\n")
			goesOn := strings.Count(joined, "(") > strings.Count(joined, ")") || line != trimmed ||
				regexp.MustCompile(`^(and|or|unless|[-+*/><=)])`).MatchString(trimmed) || regexp.MustCompile(`(and|or|unless|by|on|[-+*/><=(,])$`).MatchString(strings.TrimSpace(joined))
			if len(query) > 0 && !goesOn {
				end()
			}
			query = append(query, line)
		}
	}
	end()
	return queries
}
