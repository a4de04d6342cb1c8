package page

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

type key struct{ cluster, group string }

// row is a group as it is shown. It does not change.
type row struct {
	Group
	rank int
	json []byte
	// state is weak: the table replaces its states, and what it has let go must not be held here.
	state weak.Pointer[groups.State]
}

func (r *row) key() key { return key{r.Cluster, r.Group.Group} }

// snapshot is the table at one version. It does not change.
type snapshot struct {
	version int64
	rows    map[key]*row
	worst   []*row // all rows, worst first
	counts  StatusCounts
	// clusters are their names, in order, maxClusters at most.
	clusters []string

	// whole is the JSON of all groups, made when it is first asked for.
	once        sync.Once
	whole       []byte
	wholeZipped []byte
}

// StatusCounts are groups by status. Trouble is all that is worse than OK.
type StatusCounts struct {
	Total    int `json:"total"`
	Trouble  int `json:"trouble"`
	Err      int `json:"err"`
	Warn     int `json:"warn"`
	NotFound int `json:"notfound"`
	OK       int `json:"ok"`
}

// snapshots makes them. What has not changed is taken over from the one before.
type snapshots struct {
	table *groups.Table

	mu     sync.Mutex
	last   *snapshot
	states []*groups.State // kept for its memory
	count  int64
	idle   *time.Timer
}

// maxClusters bounds the names of clusters that a reader can choose from; they are in every event.
const maxClusters = 200

// idleAfter is how long a snapshot is kept that nobody asks for.
const idleAfter = time.Minute

// newest returns the table as it is now. A snapshot has another version than the one before only if it differs.
func (s *snapshots) newest() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle == nil {
		s.idle = time.AfterFunc(idleAfter, s.forget)
	} else {
		s.idle.Reset(idleAfter)
	}
	// Only pointers are copied while the table is locked.
	s.table.Each(func(state *groups.State) { s.states = append(s.states, state) })
	defer func() {
		clear(s.states)
		s.states = s.states[:0]
	}()
	var before map[key]*row
	if s.last != nil {
		before = s.last.rows
	}
	rows := make(map[key]*row, len(s.states))
	changed := s.last == nil || len(before) != len(s.states)
	for _, state := range s.states {
		k := key{state.Group.Cluster, state.Group.Group}
		this := weak.Make(state)
		known := before[k]
		if known == nil || known.state != this {
			known = newRow(state, this)
			changed = true
		}
		rows[k] = known
	}
	if changed {
		s.count++
		s.last = newSnapshot(s.count, rows)
	}
	return s.last
}

func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.states = nil, nil
}

func (s *snapshots) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
	}
}

func newRow(state *groups.State, this weak.Pointer[groups.State]) *row {
	r := &row{Group: viewGroup(state), rank: rank(state.Group.Status), state: this}
	r.json = mustMarshal(&r.Group)
	return r
}

// mustMarshal is for types of this package, whose numbers are finite.
func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func newSnapshot(version int64, rows map[key]*row) *snapshot {
	s := &snapshot{version: version, rows: rows, worst: make([]*row, 0, len(rows))}
	clusters := map[string]bool{}
	for _, r := range rows {
		s.worst = append(s.worst, r)
		s.counts.add(r)
		clusters[r.Cluster] = true
	}
	s.clusters = slices.AppendSeq([]string{}, maps.Keys(clusters))
	slices.Sort(s.clusters)
	s.clusters = s.clusters[:min(len(s.clusters), maxClusters)]
	slices.SortFunc(s.worst, compareWorst)
	return s
}

func (c *StatusCounts) add(r *row) {
	c.Total++
	switch {
	case r.is("ok"):
		c.OK++
	case r.is("warn"):
		c.Warn++
	case r.is("err"):
		c.Err++
	default:
		c.NotFound++
	}
	if r.is("trouble") {
		c.Trouble++
	}
}

// compareWorst puts the worst first: by status, then seconds, then messages.
func compareWorst(a, b *row) int {
	return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(orMinus(b.MaxTimeLag), orMinus(a.MaxTimeLag)),
		cmp.Compare(b.TotalLag, a.TotalLag), compareNames(a, b))
}

func compareNames(a, b *row) int {
	return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Group.Group, b.Group.Group))
}

// orMinus orders what is not known below everything else.
func orMinus(value *float64) float64 {
	if value == nil {
		return -1
	}
	return *value
}

// all is the JSON of all groups, worst first, plain or zipped.
func (s *snapshot) all(header func(*snapshot) []byte, zipped bool) []byte {
	s.once.Do(func() {
		s.whole = listJSON(header(s), "groups", s.worst)
		s.wholeZipped = zip(s.whole)
	})
	if zipped {
		return s.wholeZipped
	}
	return s.whole
}

// listJSON puts rows into the open object head, as a list.
func listJSON(head []byte, name string, rows []*row) []byte {
	size := len(head) + 16
	for _, r := range rows {
		size += len(r.json) + 2
	}
	list := append(make([]byte, 0, size), head...)
	list = append(list, `,"`+name+`":[`...)
	for i, r := range rows {
		if i > 0 {
			list = append(list, ",\n"...)
		}
		list = append(list, r.json...)
	}
	return append(list, "]}\n"...)
}

func zip(data []byte) []byte {
	var zipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a buffer takes everything, and the level is a constant
	}
	return zipped.Bytes()
}
