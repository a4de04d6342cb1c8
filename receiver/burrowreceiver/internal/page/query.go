package page

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

const (
	// pageRows is how many groups the server renders.
	pageRows = 500
	// maxLimit bounds the groups or partitions that one answer is asked for.
	maxLimit = 1_000_000
	// defaultPartitions is how many listed partitions of a group an answer has, unless it is asked for more.
	defaultPartitions = 1000
	// pagePartitions is how many the page shows.
	pagePartitions = 200
	// maxQueryText bounds a text to look for, in bytes; a name is not longer.
	maxQueryText = 1024
)

// query is what a reader wants to see of the groups.
type query struct {
	Text    string // q: a part of the name of group or cluster, in either case
	Cluster string
	Status  string // one of statusFilters; empty for all
	Sort    string // one of sorts, with a minus in front for the other direction
	Open    *key   // the row that is open
	Limit   int
}

// statusFilters are the values of status.
var statusFilters = []string{"trouble", "err", "warn", "notfound", "ok"}

// sorts are the orders of the table: in each, what is more interesting comes first.
var sorts = map[string]func(a, b *row) int{
	"worst":      compareWorst,
	"group":      func(a, b *row) int { return cmp.Compare(a.Group.Group, b.Group.Group) },
	"cluster":    func(a, b *row) int { return cmp.Compare(a.Cluster, b.Cluster) },
	"time_lag":   func(a, b *row) int { return cmp.Compare(orMinus(b.MaxTimeLag), orMinus(a.MaxTimeLag)) },
	"lag":        func(a, b *row) int { return cmp.Compare(b.TotalLag, a.TotalLag) },
	"trend":      func(a, b *row) int { return cmp.Compare(orZero(b.LagPerMinute), orZero(a.LagPerMinute)) },
	"partitions": func(a, b *row) int { return cmp.Compare(b.Partitions.bad(), a.Partitions.bad()) },
	"complete":   func(a, b *row) int { return cmp.Compare(orMinus(a.Complete), orMinus(b.Complete)) },
	"incident":   compareIncident,
	"received":   func(a, b *row) int { return a.Received.Compare(b.Received) },
}

func orZero(value *float64) float64 {
	if value == nil {
		return 0
	}
	return *value
}

// compareIncident puts the longest incident first, then those whose start is not known, then groups without.
func compareIncident(a, b *row) int {
	kind := func(r *row) int {
		switch {
		case r.Incident == nil:
			return 0
		case r.Incident.Start == nil:
			return 1
		}
		return 2
	}
	x, y := kind(a), kind(b)
	if x != 2 || y != 2 {
		return cmp.Compare(y, x)
	}
	return a.Incident.Start.Compare(*b.Incident.Start)
}

func (c *Counts) bad() int { return c.Warn + c.Stop + c.Stall + c.Rewind + c.Other }

// parseQuery reads the parameters of an address. The error says which one is wrong, and what would be right.
func parseQuery(values url.Values, limit int) (query, error) {
	q := query{Text: values.Get("q"), Cluster: values.Get("cluster"), Status: values.Get("status"), Sort: values.Get("sort"), Limit: limit}
	if len(q.Text) > maxQueryText {
		return q, fmt.Errorf("q must have at most %d bytes, got %d", maxQueryText, len(q.Text))
	}
	if q.Status != "" && !slices.Contains(statusFilters, q.Status) {
		return q, fmt.Errorf("status must be one of %s, got %.100q", strings.Join(statusFilters, ", "), q.Status)
	}
	if _, known := sorts[strings.TrimPrefix(q.Sort, "-")]; q.Sort != "" && !known {
		return q, fmt.Errorf("sort must be one of %s, with - in front for the other direction, got %.100q", strings.Join(sortNames(), ", "), q.Sort)
	}
	if open := (key{values.Get("open_cluster"), values.Get("open")}); open != (key{}) {
		if open.cluster == "" || open.group == "" {
			return q, fmt.Errorf("open and open_cluster must be given both, got %.100q and %.100q", open.group, open.cluster)
		}
		q.Open = &open
	}
	var err error
	q.Limit, err = parseLimit(values, limit)
	return q, err
}

func parseLimit(values url.Values, otherwise int) (int, error) {
	text := values.Get("limit")
	if text == "" {
		return otherwise, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxLimit {
		return 0, fmt.Errorf("limit must be a number from 1 to %d, got %.100q", maxLimit, text)
	}
	return limit, nil
}

func sortNames() []string {
	names := make([]string, 0, len(sorts))
	for name := range sorts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// plain says that the query chooses and orders nothing.
func (q *query) plain() bool {
	return q.Text == "" && q.Cluster == "" && q.Status == "" && (q.Sort == "" || q.Sort == "worst") && q.Limit == maxLimit
}

// apply returns the rows that match, in order and within the limit, and how many match.
func (q *query) apply(s *snapshot) (rows []*row, matched int) {
	text := strings.ToLower(q.Text)
	for _, r := range s.worst {
		if q.matches(r, text) {
			rows = append(rows, r)
		}
	}
	name, reverse := strings.CutPrefix(q.Sort, "-")
	if compare := sorts[name]; compare != nil && (name != "worst" || reverse) {
		// Stable, so that equal ones stay worst first.
		slices.SortStableFunc(rows, func(a, b *row) int {
			if reverse {
				a, b = b, a
			}
			return compare(a, b)
		})
	}
	return rows[:min(len(rows), q.Limit)], len(rows)
}

func (q *query) matches(r *row, text string) bool {
	if q.Cluster != "" && r.Cluster != q.Cluster {
		return false
	}
	if q.Status != "" && !r.is(q.Status) {
		return false
	}
	return text == "" || strings.Contains(strings.ToLower(r.Group.Group), text) || strings.Contains(strings.ToLower(r.Cluster), text)
}

// is says whether the row belongs to one of statusFilters.
func (r *row) is(filter string) bool {
	switch filter {
	case "trouble":
		return r.rank > 1
	case "err":
		return r.rank >= int(burrow.StatusErr)
	}
	return strings.EqualFold(filter, r.Status)
}

// values are the parameters of an address that shows the same.
func (q query) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("q", q.Text)
	set("cluster", q.Cluster)
	set("status", q.Status)
	set("sort", q.Sort)
	if q.Open != nil {
		set("open_cluster", q.Open.cluster)
		set("open", q.Open.group)
	}
	return v
}

// escapeName makes a name one segment of a path.
func escapeName(name string) string { return url.PathEscape(name) }

// splitNames reads a cluster and a group, each escaped, with a slash between.
func splitNames(path string) (cluster, group string, ok bool) {
	first, second, found := strings.Cut(path, "/")
	if !found || strings.Contains(second, "/") {
		return "", "", false
	}
	cluster, errCluster := url.PathUnescape(first)
	group, errGroup := url.PathUnescape(second)
	return cluster, group, errCluster == nil && errGroup == nil && cluster != "" && group != ""
}

// namesPath is the path of a group below groups/. A segment of dots alone means another folder to every
// browser, escaped or not, so such names stand in the query.
func namesPath(cluster, group string) string {
	if onlyDots(cluster) || onlyDots(group) {
		return "?" + url.Values{"cluster": {cluster}, "group": {group}}.Encode()
	}
	return escapeName(cluster) + "/" + escapeName(group)
}

func onlyDots(name string) bool { return name == "." || name == ".." }
