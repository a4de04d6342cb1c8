package page

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

// Group is what the page and the JSON say of a consumer group. A pointer is nil, and null in the JSON, where the
// value is not known.
type Group struct {
	Cluster string `json:"cluster"`
	Group   string `json:"group"`
	// Status is Burrow's word.
	Status string `json:"status"`
	// Changed is when Karrot first knew this status.
	Changed *time.Time `json:"status_since"`
	// TotalLag is in messages.
	TotalLag int64 `json:"total_lag"`
	// MaxTimeLag is in seconds, of the moment Received.
	MaxTimeLag *float64 `json:"max_time_lag"`
	// RecentLags are the total lags of the last notifications, oldest first, the current one included.
	RecentLags []int64 `json:"recent_total_lags"`
	// Trend is growing, shrinking or steady; empty with a single notification.
	Trend string `json:"trend"`
	// LagPerMinute is the change of the total lag over the last notifications, in messages.
	LagPerMinute *float64 `json:"total_lag_per_minute"`
	// Partitions counts the partitions by status.
	Partitions Counts `json:"partitions"`
	// Complete is the filled share of Burrow's window, 0 to 1.
	Complete *float64 `json:"complete"`
	// Incident is the open one.
	Incident *Incident `json:"incident"`
	// Incidents counts those seen since the group was first known.
	Incidents int64 `json:"incidents"`
	// Received is when the newest evaluation arrived, UsualInterval the usual distance of them in seconds.
	Received      time.Time `json:"received"`
	UsualInterval *float64  `json:"usual_interval"`
}

// Counts are partitions by status. Total is nil if Burrow did not say how many there are.
type Counts struct {
	Total  *int64 `json:"total"`
	Warn   int    `json:"warn"`
	Stop   int    `json:"stop"`
	Stall  int    `json:"stall"`
	Rewind int    `json:"rewind"`
	// Other are listed partitions with a status that is none of these.
	Other int `json:"other"`
}

// Incident is an open incident. ID is empty until a notification brings it.
type Incident struct {
	ID    string     `json:"id"`
	Start *time.Time `json:"start"`
}

// Past is an incident that has ended.
type Past struct {
	ID      string     `json:"id"`
	Start   *time.Time `json:"start"`
	End     time.Time  `json:"end"`
	Worst   *string    `json:"worst_status"`
	PeakLag *int64     `json:"peak_total_lag"`
}

// Partition is a partition that is listed.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Status    string `json:"status"`
	// Lag is in messages, TimeLag in seconds.
	Lag     int64    `json:"lag"`
	TimeLag *float64 `json:"time_lag"`
	// Offset is the last one that was committed, at the time Committed.
	Offset    *int64     `json:"committed_offset"`
	Committed *time.Time `json:"last_commit"`
	Complete  *float64   `json:"complete"`
	Owner     string     `json:"owner"`
	ClientID  string     `json:"client_id"`
}

// Detail is a group with its partitions, worst first, and its past incidents, newest first.
type Detail struct {
	Group
	Listed []Partition `json:"listed_partitions"`
	// Omitted is how many listed partitions were left out.
	Omitted int `json:"listed_partitions_omitted"`
	// Polled is when Burrow's API last told of all partitions; nil if only those that are not OK are listed.
	Polled *time.Time `json:"polled"`
	Past   []Past     `json:"past_incidents"`
}

// What the lag does.
const (
	growing   = "growing"
	shrinking = "shrinking"
	steady    = "steady"
)

// steadyShare is how much of the larger lag a change must be to be a trend.
const steadyShare = 0.05

// viewGroup and viewDetail are all that reads the table's states.
func viewGroup(s *groups.State) Group {
	g := &s.Group
	v := Group{
		Cluster: g.Cluster, Group: g.Group, Status: g.Status.String(), Changed: timeOrNil(s.History.Changed),
		TotalLag: g.TotalLag, MaxTimeLag: secondsOrNil(s.MaxTimeLag), Complete: shareOrNil(g.Complete),
		Partitions: countPartitions(g), Incidents: s.Incidents.Seen, Received: s.Received,
	}
	if s.Incidents.Open {
		v.Incident = &Incident{ID: s.IncidentID(), Start: timeOrNil(s.Incidents.Start)}
	}
	recent := s.History.Recent()
	v.RecentLags = make([]int64, len(recent))
	for i, sample := range recent {
		v.RecentLags[i] = sample.TotalLag
	}
	if n := len(recent); n > 1 {
		first, last := recent[0], recent[n-1]
		v.Trend = trend(first.TotalLag, last.TotalLag)
		if ms := last.At - first.At; ms > 0 {
			v.LagPerMinute = pointer((float64(last.TotalLag) - float64(first.TotalLag)) / float64(ms) * 60_000)
			v.UsualInterval = pointer(float64(ms) / float64(n-1) / 1000)
		}
	}
	return v
}

func viewDetail(s *groups.State, limit int) Detail {
	d := Detail{Group: viewGroup(s), Polled: timeOrNil(s.Polled), Listed: []Partition{}, Past: []Past{}}
	order := make([]int, len(s.Group.Partitions))
	for i := range order {
		order[i] = i
	}
	// Stable: topics and numbers are in order already.
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &s.Group.Partitions[i], &s.Group.Partitions[j]
		return cmp.Or(cmp.Compare(rank(b.Status), rank(a.Status)), cmp.Compare(b.CurrentLag, a.CurrentLag))
	})
	d.Omitted = max(len(order)-limit, 0)
	for _, i := range order[:len(order)-d.Omitted] {
		p := &s.Group.Partitions[i]
		v := Partition{
			Topic: p.Topic, Partition: p.Partition, Status: p.Status.String(), Lag: p.CurrentLag, TimeLag: secondsOrNil(s.TimeLag(i)),
			Complete: shareOrNil(p.Complete), Owner: p.Owner, ClientID: p.ClientID,
		}
		if p.End.Known() {
			v.Offset = pointer(p.End.Offset)
			if p.End.Timestamp > 0 {
				v.Committed = pointer(time.UnixMilli(p.End.Timestamp))
			}
		}
		d.Listed = append(d.Listed, v)
	}
	for _, past := range s.History.Past {
		v := Past{ID: past.ID, Start: timeOrNil(past.Start), End: past.End}
		if past.Worst != burrow.StatusUnknown {
			v.Worst = pointer(past.Worst.String())
		}
		if past.PeakLag != burrow.Unknown {
			v.PeakLag = pointer(past.PeakLag)
		}
		d.Past = append(d.Past, v)
	}
	return d
}

func countPartitions(g *burrow.GroupStatus) Counts {
	var c Counts
	if g.PartitionCount != burrow.Unknown {
		c.Total = pointer(g.PartitionCount)
	}
	for i := range g.Partitions {
		switch g.Partitions[i].Status {
		case burrow.StatusOK:
		case burrow.StatusWarn:
			c.Warn++
		case burrow.StatusStop:
			c.Stop++
		case burrow.StatusStall:
			c.Stall++
		case burrow.StatusRewind:
			c.Rewind++
		default:
			c.Other++
		}
	}
	return c
}

func trend(first, last int64) string {
	change := float64(last) - float64(first)
	switch {
	case math.Abs(change) <= steadyShare*float64(max(first, last)):
		return steady
	case change > 0:
		return growing
	}
	return shrinking
}

// rank orders statuses from good to bad; the numbers of Burrow do not: NOTFOUND is 0.
func rank(s burrow.Status) int {
	switch s {
	case burrow.StatusOK:
		return 0
	case burrow.StatusNotFound, burrow.StatusUnknown:
		return 1
	default:
		return int(s)
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func secondsOrNil(seconds float64) *float64 {
	if seconds == burrow.Unknown || math.IsNaN(seconds) || math.IsInf(seconds, 0) {
		return nil
	}
	return &seconds
}

func shareOrNil(share float64) *float64 {
	if share == burrow.Unknown {
		return nil
	}
	return &share
}

func pointer[T any](value T) *T { return &value }
