package groups

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// recordVersion is raised when a record would be read wrongly by an older or newer version.
const recordVersion = 1

// record is a group as it is kept over a restart.
type record struct {
	Version      int                 `json:"version"`
	Notification burrow.Notification `json:"notification"`
	// Received is in unix nanoseconds.
	Received int64 `json:"received"`
	// Polled too; 0 if the state is not from the API.
	Polled     int64           `json:"polled,omitempty"`
	InAPI      bool            `json:"in_api,omitempty"`
	Incidents  incidentsRecord `json:"incidents"`
	TimeLags   []float64       `json:"time_lags,omitempty"`
	MaxTimeLag float64         `json:"max_time_lag"`
	Heads      []headRecord    `json:"heads,omitempty"`
}

type incidentsRecord struct {
	Incidents
	Recent recentIDs `json:"recent"`
	Late   bool      `json:"late"`
}

// headRecord is the history of one partition that the group reads.
type headRecord struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Points are pairs of offset and unix milliseconds.
	Points [][2]int64 `json:"points"`
}

// Each calls visit with the current state of every group. It must not call the table.
func (t *Table) Each(visit func(*State)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.groups {
		if e.current != nil {
			visit(e.current)
		}
	}
}

// Record returns a state of this table, with the histories of the heads that it refers to, in a form
// that Restore reads.
func (t *Table) Record(s *State) ([]byte, error) {
	r := record{
		Version: recordVersion, Notification: s.Notification, Received: s.Received.UnixNano(),
		Incidents: incidentsRecord{Incidents: s.Incidents, Recent: s.Incidents.recent, Late: s.Incidents.late},
		TimeLags:  s.TimeLags, MaxTimeLag: s.MaxTimeLag, InAPI: s.InAPI,
	}
	if !s.Polled.IsZero() {
		r.Polled = s.Polled.UnixNano()
	}
	t.mu.Lock()
	r.Heads = t.heads.records(&s.Group)
	t.mu.Unlock()
	return json.Marshal(r)
}

// ErrOld means a record of a group that has expired meanwhile.
var ErrOld = errors.New("the group has expired")

// Restore brings a record into the table as the current state of its group, as of the time it was
// received. The state is returned also with ErrOld, and then is not in the table; if an incident was open,
// its end is an event. Any other error means that the record is damaged, foreign, or more than the table may hold.
func (t *Table) Restore(data []byte, now time.Time) (*State, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	s, err := r.state(now)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(s.Received) >= t.limits.ExpireAfter {
		t.endIncident(s, EndedByExpiry, now)
		return s, ErrOld
	}
	k := key{s.Group.Cluster, s.Group.Group}
	listed := len(s.Group.Partitions)
	switch {
	case t.groups[k] != nil:
		return nil, fmt.Errorf("group %q of cluster %q is there already", k.group, k.cluster)
	case len(t.groups) >= t.limits.MaxGroups:
		return nil, ErrTooManyGroups
	case t.partitions+listed > t.limits.MaxPartitions:
		return nil, ErrTooManyPartitions
	}
	t.partitions += listed
	t.groups[k] = &entry[State]{current: s}
	t.heads.restore(s, r.Heads)
	return s, nil
}

// state checks a record, which may be anything that is JSON.
func (r *record) state(now time.Time) (*State, error) {
	if r.Version != recordVersion {
		return nil, fmt.Errorf("version %d, not %d", r.Version, recordVersion)
	}
	if err := r.Notification.Group.Valid(); err != nil {
		return nil, err
	}
	if r.Incidents.Seen < 0 {
		return nil, errors.New("a negative number of incidents")
	}
	if r.TimeLags != nil && len(r.TimeLags) != len(r.Notification.Group.Partitions) {
		return nil, errors.New("time lags of other partitions")
	}
	for _, lag := range append(slices.Clone(r.TimeLags), r.MaxTimeLag) {
		if lag != burrow.Unknown && (lag < 0 || math.IsInf(lag, 0)) {
			return nil, fmt.Errorf("time lag %v", lag)
		}
	}
	incidents := r.Incidents.Incidents
	incidents.recent, incidents.late = r.Incidents.Recent, r.Incidents.Late
	received := time.Unix(0, r.Received)
	if received.After(now) { // the clock was put back
		received = now
	}
	s := &State{
		Notification: r.Notification, Received: received, Incidents: incidents,
		TimeLags: r.TimeLags, MaxTimeLag: r.MaxTimeLag, InAPI: r.InAPI,
	}
	if r.Polled != 0 {
		s.Polled = time.Unix(0, min(r.Polled, received.UnixNano()))
	}
	return s, nil
}

// records are the histories of the partitions that a group's evaluation names.
func (h *heads) records(g *burrow.GroupStatus) []headRecord {
	var list []headRecord
	add := func(p *burrow.PartitionStatus) {
		history := h.topics[headTopic{g.Cluster, p.Topic}][p.Partition]
		if history == nil || len(history.points) == 0 {
			return
		}
		points := make([][2]int64, len(history.points))
		for i, point := range history.points {
			points[i] = [2]int64{point.offset, point.at}
		}
		list = append(list, headRecord{Topic: p.Topic, Partition: p.Partition, Points: points})
	}
	listed := false
	for i := range g.Partitions {
		add(&g.Partitions[i])
		listed = listed || g.MaxLag != nil && burrow.ComparePartition(&g.Partitions[i], g.MaxLag) == 0
	}
	if g.MaxLag != nil && !listed {
		add(g.MaxLag)
	}
	return list
}

// restore takes over histories that are in order, unless another group has brought a longer one.
func (h *heads) restore(s *State, list []headRecord) {
	for _, r := range list {
		if r.Topic == "" || r.Partition < 0 || len(r.Points) > maxHeadPoints || !ascending(r.Points) {
			continue
		}
		history := h.history(s.Group.Cluster, &burrow.PartitionStatus{Topic: r.Topic, Partition: r.Partition}, s.Received.UnixMilli())
		if len(history.points) >= len(r.Points) {
			continue
		}
		history.points = history.points[:0]
		for _, point := range r.Points {
			history.points = append(history.points, headPoint{offset: point[0], at: point[1]})
		}
	}
}

func ascending(points [][2]int64) bool {
	for i, point := range points {
		if point[0] < 0 || point[1] < 0 || i > 0 && (point[0] < points[i-1][0] || point[1] < points[i-1][1]) {
			return false
		}
	}
	return true
}
