package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

//go:embed templates/page.html
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"num": number[int64], "words": words, "ago": agoElement, "for": forElement, "clock": clockElement, "clockOf": clockElement,
}).ParseFS(templateFiles, "templates/page.html"))

// frame is what every page has.
type frame struct {
	Title                 string
	Base, Home            string // to the page's root
	Boot, Karrot, NowText string
	Version               int64
	Trouble               int
	Now, Started          time.Time
	Expire                float64
	Key                   *Group // of the page of a group
}

func (h *Handler) frame(title, base string, version int64) frame {
	now := h.o.Now()
	home := base
	if home == "" {
		home = "./"
	}
	return frame{
		Title: title, Base: base, Home: home, Boot: h.boot, Version: version, Karrot: h.o.Version,
		Now: now, NowText: machineTime(now), Started: h.started, Expire: h.o.Limits.ExpireAfter.Seconds(),
	}
}

// overviewView is the page of all groups.
type overviewView struct {
	Page                     frame
	Home                     string
	Overview                 Overview
	Query                    query
	Mood                     string
	Big, Headline, Breakdown string
	Furthest, FurthestGroup  string
	FurthestURL              string
	BurrowClass, BurrowText  string
	Refused                  int64
	RefusedText              string
	Chips                    []chip
	Columns                  []column
	Rows                     []*rowView
	Blank                    *rowView
	Shown, Fill              string
	NotifyURL, Template      string
	LocalHost                string
	Password                 bool
}

type chip struct {
	Status, Label, Class, URL string
	Count                     int64
	Current                   bool
}

type column struct {
	Sort, Label, Unit, Class, URL, AriaSort string
}

// columns of the table. Of those that are down, the first order is descending.
var columns = []struct {
	sort, label, unit, class string
	down                     bool
}{
	{"worst", "Verdict", "", "c-verdict", true},
	{"group", "Group", "", "c-group", false},
	{"cluster", "Cluster", "", "c-cluster", false},
	{"time_lag", "Behind", "time", "c-behind num", true},
	{"lag", "Lag", "messages", "c-lag num", true},
	{"trend", "Trend", "", "c-trend", true},
	{"partitions", "Bad partitions", "", "c-parts", true},
	{"complete", "Complete", "", "c-complete num", false},
	{"incident", "In trouble for", "", "c-incident", true},
	{"received", "Received", "", "c-heard num", true},
}

func (h *Handler) serveOverview(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), pageRows)
	if err != nil {
		h.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	q.Limit = min(q.Limit, pageRows)
	s := h.snapshots.newest()
	o := h.overview(s)
	page := h.frame(titleOf(o.Groups.Trouble), "", s.version)
	page.Trouble = o.Groups.Trouble
	v := &overviewView{
		Page: page, Home: page.Home, Overview: o, Query: q, Refused: o.RefusedTotal(), Blank: &rowView{Group: Group{Received: o.Now}, Class: "none", Now: o.Now},
		NotifyURL: h.notifyURL(r), Template: burrow.Template, Password: h.o.Password, LocalHost: localHost(r.Host),
	}
	v.Big, v.Headline, v.Breakdown, v.Mood = headline(o.Groups)
	v.Furthest, v.FurthestGroup, v.FurthestURL = furthest(s)
	v.BurrowClass, v.BurrowText = h.burrowState(&o)
	v.RefusedText = refusedText(&o)
	v.Fill = fmt.Sprintf("%s of %s groups and %s of %s partitions", number(int64(o.Groups.Total)), number(int64(o.MaxGroups)),
		number(int64(o.Partitions)), number(int64(o.MaxPartitions)))
	rows, matched := q.apply(s)
	v.Shown = shown(len(rows), matched, o.Groups.Total)
	for _, row := range rows {
		view := h.rowView(&row.Group, row.rank, "", o.Now)
		other := q
		if q.Open != nil && *q.Open == row.key() {
			if d, ok := h.detail(s, row.key(), pagePartitions); ok {
				view.Open, view.Detail = true, h.detailView(&d, o.Now)
			}
			other.Open = nil
		} else {
			other.Open = &key{row.Cluster, row.Group.Group}
		}
		view.ToggleURL = home(other)
		byCluster := q
		byCluster.Cluster, byCluster.Open = row.Cluster, nil
		view.ClusterURL = home(byCluster)
		v.Rows = append(v.Rows, view)
	}
	v.Chips, v.Columns = chips(q, &o.Groups), sortColumns(q)
	h.render(w, r, http.StatusOK, "overview", v)
}

func home(q query) string { return "./" + encode(q.values()) }

func titleOf(trouble int) string {
	if trouble == 0 {
		return "Karrot"
	}
	return fmt.Sprintf("(%d) Karrot", trouble)
}

func headline(c StatusCounts) (big, words, breakdown, mood string) {
	switch {
	case c.Total == 0:
		return "0", "groups", "", "none"
	case c.Trouble == 0 && c.OK == c.Total:
		return number(int64(c.Total)), plural(c.Total, "group is OK", "groups, all OK"), "None is in trouble", "ok"
	case c.Trouble == 0:
		return "0", "groups in trouble", fmt.Sprintf("%s OK, %s NOTFOUND", number(int64(c.OK)), number(int64(c.NotFound))), "ok"
	}
	mood = "warn"
	if c.Err > 0 {
		mood = "err"
	}
	return number(int64(c.Trouble)), plural(c.Trouble, "group in trouble", "groups in trouble"),
		fmt.Sprintf("%s ERR, %s WARN, of %s", number(int64(c.Err)), number(int64(c.Warn)), counted(int64(c.Total), "group", "groups")), mood
}

// furthest is the group with the largest time lag.
func furthest(s *snapshot) (behind, group, address string) {
	var most *row
	for _, r := range s.worst {
		if r.MaxTimeLag != nil && (most == nil || *r.MaxTimeLag > *most.MaxTimeLag) {
			most = r
		}
	}
	if most == nil {
		return "not known", "", "./"
	}
	if *most.MaxTimeLag == 0 {
		return "0 s", "", "./"
	}
	return words(*most.MaxTimeLag), most.Group.Group, groupURL(&most.Group, "")
}

// burrowState says whether notifications come.
func (h *Handler) burrowState(o *Overview) (class, text string) {
	if o.LastNotification == nil {
		return "bad", "none since Karrot started"
	}
	switch silent := o.Now.Sub(*o.LastNotification).Seconds(); {
	case silent > o.ExpireAfter:
		return "bad", "Burrow is silent, or does not reach Karrot"
	case silent > o.ExpireAfter/2:
		return "late", "Burrow is quiet"
	}
	return "good", "Burrow is notifying"
}

func refusedText(o *Overview) string {
	if len(o.Refused) == 0 {
		return "since Karrot started"
	}
	var parts []string
	for _, r := range o.Refused {
		parts = append(parts, r.Outcome+" "+number(r.Count))
	}
	return strings.Join(parts, ", ")
}

func shown(rows, matched, total int) string {
	switch {
	case rows < matched:
		return fmt.Sprintf("%s of %s groups shown", number(int64(rows)), number(int64(matched)))
	case matched < total:
		return fmt.Sprintf("%s of %s groups match", number(int64(matched)), number(int64(total)))
	}
	return counted(int64(total), "group", "groups")
}

func chips(q query, c *StatusCounts) []chip {
	list := []chip{
		{Label: "All", Count: int64(c.Total)},
		{Status: "trouble", Label: "In trouble", Count: int64(c.Trouble)},
		{Status: "err", Label: "ERR", Class: "err", Count: int64(c.Err)},
		{Status: "warn", Label: "WARN", Class: "warn", Count: int64(c.Warn)},
		{Status: "notfound", Label: "NOTFOUND", Class: "none", Count: int64(c.NotFound)},
		{Status: "ok", Label: "OK", Class: "ok", Count: int64(c.OK)},
	}
	for i := range list {
		other := q
		other.Status, other.Open = list[i].Status, nil
		list[i].URL, list[i].Current = home(other), list[i].Status == q.Status
	}
	return list
}

func sortColumns(q query) []column {
	current, reversed := strings.CutPrefix(q.Sort, "-")
	if current == "" {
		current = "worst"
	}
	var list []column
	for _, c := range columns {
		other := q
		other.Sort = c.sort
		sorted := ""
		if c.sort == current {
			sorted = "ascending"
			if c.down != reversed {
				sorted = "descending"
			}
			if !reversed {
				other.Sort = "-" + c.sort
			}
		}
		if other.Sort == "worst" {
			other.Sort = ""
		}
		list = append(list, column{c.sort, c.label, c.unit, c.class, home(other), sorted})
	}
	return list
}

// rowView is a group in words.
type rowView struct {
	Group
	Now                            time.Time
	Name, Class                    string
	URL, ToggleURL, ClusterURL     string
	Behind, Lag, Bad, Of, Complete string
	Spark                          []bar
	TrendText                      string
	Since                          *time.Time
	IncidentID, ShortID            string
	HeardClass, HeardNote          string
	Open                           bool
	Detail                         *detailView
}

type bar struct{ X, Y, Height int }

const unknownText = "not known"

func (h *Handler) rowView(g *Group, rank int, base string, now time.Time) *rowView {
	v := &rowView{
		Group: *g, Now: now, Name: g.Group, Class: statusClass(rank, g.Status), URL: groupURL(g, base),
		Lag: number(g.TotalLag), Spark: spark(g.RecentLags), TrendText: trendText(g), Complete: unknownText,
	}
	v.Behind = behind(g.MaxTimeLag)
	v.Bad, v.Of = badPartitions(&g.Partitions)
	if g.Complete != nil {
		v.Complete = percent(*g.Complete)
	}
	if rank > 1 {
		v.Since = g.Changed
		if g.Incident != nil && g.Incident.Start != nil {
			v.Since = g.Incident.Start
		}
	}
	if g.Incident != nil {
		v.IncidentID, v.ShortID = g.Incident.ID, shorten(g.Incident.ID)
	}
	v.HeardClass, v.HeardNote = heard(g, now, h.o.Limits.ExpireAfter.Seconds())
	return v
}

func groupURL(g *Group, base string) string { return base + "groups/" + namesPath(g.Cluster, g.Group) }

func statusClass(rank int, status string) string {
	switch {
	case rank >= int(burrow.StatusErr):
		return "err"
	case rank == int(burrow.StatusWarn):
		return "warn"
	case status == "OK":
		return "ok"
	}
	return "none"
}

func behind(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	return words(*seconds)
}

func percent(share float64) string { return strconv.Itoa(int(share*100)) + " %" }

func badPartitions(c *Counts) (bad, of string) {
	var parts []string
	for _, kind := range []struct {
		count int
		name  string
	}{{c.Stop, "STOP"}, {c.Stall, "STALL"}, {c.Rewind, "REWIND"}, {c.Warn, "WARN"}, {c.Other, "other"}} {
		if kind.count > 0 {
			parts = append(parts, number(int64(kind.count))+" "+kind.name)
		}
	}
	bad = strings.Join(parts, ", ")
	if bad == "" {
		bad = "0"
	}
	if c.Total != nil {
		of = "of " + number(*c.Total)
	}
	return bad, of
}

const (
	sparkHeight = 20
	sparkStep   = 8
)

// spark are bars, the newest on the right. They stand on 0, or, if the lags differ little, on a line below the least
// that lets the difference be seen.
func spark(lags []int64) []bar {
	if len(lags) == 0 {
		return nil
	}
	least, most := float64(slices.Min(lags)), math.Max(1, float64(slices.Max(lags)))
	floor := 0.0
	if most-least > steadyShare*most {
		floor = math.Max(0, 2*least-most)
	}
	var bars []bar
	for i, lag := range lags {
		height := max(1, int(math.Floor((float64(lag)-floor)/(most-floor)*sparkHeight+0.5)))
		bars = append(bars, bar{X: sparkStep * (i + groups.MaxSamples - len(lags)), Y: sparkHeight - height, Height: height})
	}
	return bars
}

func trendText(g *Group) string {
	if g.Trend == "" || g.Trend == steady || g.LagPerMinute == nil {
		return g.Trend
	}
	return g.Trend + " " + number(int64(math.Floor(math.Abs(*g.LagPerMinute)+0.5))) + "/min"
}

func shorten(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:8]
}

// heard says when the next notification is late, and when the group is about to expire.
func heard(g *Group, now time.Time, expireAfter float64) (class, note string) {
	age := now.Sub(g.Received).Seconds()
	switch {
	case age > 0.8*expireAfter:
		return "expiring", "expires soon"
	case g.UsualInterval != nil && age > max(2**g.UsualInterval, minLate):
		return "late", "late"
	}
	return "", ""
}

// minLate is how long ago a notification must be to be called late.
const minLate = 10

// detailView are the partitions of a group in words.
type detailView struct {
	Detail
	Now           time.Time
	Caption, Note string
	Rows          []partitionView
}

type partitionView struct {
	Partition
	Class, Behind, Lag, Offset string
}

func (h *Handler) detailView(d *Detail, now time.Time) *detailView {
	v := &detailView{Detail: *d, Now: now}
	listed := len(d.Listed) + d.Omitted
	v.Caption = counted(int64(listed), "partition", "partitions")
	if d.Partitions.Total != nil && *d.Partitions.Total > int64(listed) {
		v.Caption = fmt.Sprintf("%s of %s", number(int64(listed)), counted(*d.Partitions.Total, "partition", "partitions"))
	}
	if d.Omitted > 0 {
		v.Caption = fmt.Sprintf("The worst %s of %s", number(int64(len(d.Listed))), counted(int64(listed), "partition", "partitions"))
	}
	v.Note = h.listedNote(d, listed)
	for _, p := range d.Listed {
		view := partitionView{Partition: p, Class: partitionClass(p.Status), Behind: behind(p.TimeLag), Lag: number(p.Lag), Offset: unknownText}
		if p.Offset != nil {
			view.Offset = number(*p.Offset)
		}
		v.Rows = append(v.Rows, view)
	}
	return v
}

func (h *Handler) listedNote(d *Detail, listed int) string {
	switch {
	case d.Polled != nil:
		return "Burrow's API told of all partitions."
	case h.o.APIPolled:
		return "Burrow's API has not told of this group: only partitions that are not OK are in notifications."
	case listed == 0:
		return "No partition is listed: notifications list only those that are not OK. Add config/api.yaml to see all of them."
	}
	return "Notifications list only the partitions that are not OK. Add config/api.yaml to see all of them."
}

func partitionClass(status string) string {
	switch status {
	case "OK":
		return "ok"
	case "WARN":
		return "warn"
	case "STOP", "STALL", "REWIND", "ERR":
		return "err"
	}
	return "none"
}

// groupView is the page of one group.
type groupView struct {
	Page           frame
	Home           string
	Row            *rowView
	Detail         *detailView
	Past           []pastView
	Outlook, Usual string
	ExpireAfter    float64
	JSON, JSONText string
}

type pastView struct {
	Past
	Badge        *badgeView
	Lasted, Peak string
}

type badgeView struct{ Class, Status string }

func (h *Handler) serveGroup(w http.ResponseWriter, r *http.Request, k key) {
	s := h.snapshots.newest()
	d, ok := h.detail(s, k, pagePartitions)
	if !ok {
		code := http.StatusNotFound
		if k.cluster == "" || k.group == "" {
			code = http.StatusBadRequest
		}
		h.fail(w, r, code, h.unknown(k))
		return
	}
	base := h.baseOf(r)
	page := h.frame(d.Status+" "+d.Group.Group+", Karrot", base, s.version)
	page.Key = &d.Group
	known := s.rows[k]
	if known == nil {
		known = &row{Group: d.Group}
	}
	if known.rank > 1 {
		page.Trouble = 1
	}
	v := &groupView{
		Page: page, Home: page.Home, Row: h.rowView(&d.Group, known.rank, base, page.Now), Detail: h.detailView(&d, page.Now),
		Outlook: outlook(&d.Group), ExpireAfter: h.o.Limits.ExpireAfter.Seconds(),
		JSON: base + "api/v1/groups/" + namesPath(d.Cluster, d.Group.Group), JSONText: "api/v1/groups/" + namesPath(d.Cluster, d.Group.Group),
	}
	if d.UsualInterval != nil {
		v.Usual = words(*d.UsualInterval)
	}
	for _, past := range d.Past {
		view := pastView{Past: past, Lasted: unknownText, Peak: unknownText}
		if past.Worst != nil {
			view.Badge = &badgeView{partitionClass(*past.Worst), *past.Worst}
		}
		if past.Start != nil {
			view.Lasted = words(past.End.Sub(*past.Start).Seconds())
		}
		if past.PeakLag != nil {
			view.Peak = number(*past.PeakLag)
		}
		v.Past = append(v.Past, view)
	}
	h.render(w, r, http.StatusOK, "group", v)
}

// outlook says how long a shrinking lag lasts if it goes on like this.
func outlook(g *Group) string {
	if g.Trend != shrinking || g.LagPerMinute == nil || *g.LagPerMinute >= 0 || g.TotalLag == 0 {
		return ""
	}
	return "at this rate gone in about " + words(-float64(g.TotalLag) / *g.LagPerMinute * 60)
}

// baseOf leads from the address of a request back to the page's root.
func (h *Handler) baseOf(r *http.Request) string {
	rest, _ := strings.CutPrefix(r.URL.EscapedPath(), h.prefix)
	return strings.Repeat("../", strings.Count(rest, "/"))
}

type errorView struct {
	Page          frame
	Home          string
	Code          int
	Heading, Text string
}

func (h *Handler) renderError(w http.ResponseWriter, r *http.Request, code int, text string) {
	page := h.frame(strconv.Itoa(code)+" Karrot", h.baseOf(r), 0)
	h.render(w, r, code, "error", &errorView{Page: page, Home: page.Home, Code: code, Heading: http.StatusText(code), Text: text})
}

func (h *Handler) render(w http.ResponseWriter, r *http.Request, code int, name string, view any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, view); err != nil {
		http.Error(w, "The page can't be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, r, code, "text/html; charset=utf-8", page.Bytes())
}

// hostPattern is what a host in an address can be; anything else is not shown.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]{1,255}$`)

// notifyURL is where Burrow must post, as far as the reader's own way here tells.
func (h *Handler) notifyURL(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	if !hostPattern.MatchString(host) {
		host = "KARROT"
	}
	return (&url.URL{Scheme: scheme, Host: host, Path: h.o.WebhookPath}).String()
}

// localHost returns the host if other machines can't use it.
func localHost(host string) string {
	name := host
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	name = strings.Trim(name, "[]")
	if addr, err := netip.ParseAddr(name); name == "localhost" || err == nil && addr.IsLoopback() {
		return name
	}
	return ""
}
