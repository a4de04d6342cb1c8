package groups

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// recordVersion is raised when a record would be read wrongly by an older or newer version. Version 1 had no Open.
const recordVersion = 2

func readable(version int) bool { return version == recordVersion || version == 1 }

// record is a group as it is kept over a restart.
type record struct {
	Version      int                 `json:"version"`
	Notification burrow.Notification `json:"notification"`
	// Received is in unix nanoseconds.
	Received int64 `json:"received"`
	// Polled too; 0 if the state is not from the API.
	Polled     int64           `json:"polled,omitempty"`
	FromAPI    bool            `json:"in_api,omitempty"`
	Incidents  incidentsRecord `json:"incidents"`
	TimeLags   []float64       `json:"time_lags,omitempty"`
	MaxTimeLag float64         `json:"max_time_lag"`
	AtLeast    bool            `json:"at_least,omitempty"`
	// LowerBounds are the places in TimeLags of those that are lower bounds. nil is that of an older version: not known.
	LowerBounds []int `json:"lower_bounds,omitzero"`
	// Answer is nil if the API has not told of the group, and in an older version.
	Answer *answerRecord `json:"answer,omitempty"`
	// Ahead is absent if it is not known.
	Ahead *int64 `json:"partitions_ahead,omitempty"`
	// Notified is in unix nanoseconds; 0 if no notification has come.
	Notified int64         `json:"notified,omitempty"`
	Heads    []headRecord  `json:"heads,omitempty"`
	History  historyRecord `json:"history,omitzero"`
}

type incidentsRecord struct {
	Incidents
	Recent   recentIDs `json:"recent"`
	LastFrom time.Time `json:"last_start,omitzero"`
	LastTo   time.Time `json:"last_end,omitzero"`
	Late     bool      `json:"late"`
	Reopened time.Time `json:"reopened,omitzero"`
}

// answerRecord is what the API told last of all partitions together.
type answerRecord struct {
	// At is in unix nanoseconds.
	At         int64   `json:"at"`
	MaxTimeLag float64 `json:"max_time_lag"`
	AtLeast    bool    `json:"at_least,omitempty"`
	Ahead      int64   `json:"partitions_ahead"`
	// Held says that the state has its time lag.
	Held bool `json:"held,omitempty"`
}

// headRecord is the history of one partition that the group reads.
type headRecord struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Points are pairs of offset and unix milliseconds.
	Points [][2]int64 `json:"points"`
}

// Times are the moments of a state, of which a poll that finds nothing new changes nothing else. They are in unix
// nanoseconds; Polled is 0 if the state is not from the API, and Notified if no notification has come.
type Times struct {
	// Record is Received of the state whose record they belong to.
	Record                     int64
	Received, Polled, Notified int64
}

// Times returns the moments of the state.
func (s *State) Times() Times {
	return Times{Record: s.Received.UnixNano(), Received: s.Received.UnixNano(), Polled: unixNano(s.Polled), Notified: unixNano(s.Notified)}
}

func unixNano(moment time.Time) int64 {
	if moment.IsZero() {
		return 0
	}
	return moment.UnixNano()
}

// Digest is a hash of all that a record of the state has, but for its Times and what follows from them: time lags,
// how long heads have stood still, and the moments of the samples. The rest of the History changes only with what is hashed.
func (s *State) Digest(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	number := func(values ...int64) {
		for _, v := range values {
			maphash.WriteComparable(&h, v)
		}
	}
	text := func(values ...string) {
		for _, v := range values {
			number(int64(len(v)))
			_, _ = h.WriteString(v) // never fails
		}
	}
	partition := func(p *burrow.PartitionStatus) {
		text(p.Topic, p.Owner, p.ClientID)
		for _, c := range [...]burrow.Commit{p.Start, p.End} {
			number(c.Offset, c.Timestamp, c.ObservedAt, c.Lag)
		}
		number(p.CurrentLag, int64(p.Partition), int64(p.Status))
		maphash.WriteComparable(&h, p.Complete)
	}
	g, i := &s.Group, s.Incidents
	text(s.ID, g.Cluster, g.Group, i.ID)
	number(s.Start.UnixNano(), s.Ahead, int64(g.Status), g.PartitionCount, g.TotalLag, int64(len(g.Partitions)))
	maphash.WriteComparable(&h, g.Complete)
	for j := range g.Partitions {
		partition(&g.Partitions[j])
	}
	if g.MaxLag != nil {
		partition(g.MaxLag)
	}
	maphash.WriteComparable(&h, [...]bool{s.FromAPI, s.AtLeast, g.MaxLag != nil, i.Open, i.late})
	number(i.Start.UnixNano(), i.Seen, i.Since.UnixNano(), i.last.start.UnixNano(), i.last.end.UnixNano(), i.reopened.UnixNano())
	maphash.WriteComparable(&h, i.recent)
	for _, bound := range s.bounds {
		maphash.WriteComparable(&h, bound)
	}
	if s.Polled.IsZero() {
		// Without all partitions the answer decides.
		number(s.answer.ahead)
		maphash.WriteComparable(&h, [...]bool{s.held, s.answer.timeLag.bound})
	}
	return h.Sum64()
}

// Record returns a state of this table, with the histories of the heads that it refers to, in a form
// that Restore reads.
func (t *Table) Record(s *State) ([]byte, error) {
	i := s.Incidents
	times := s.Times()
	r := record{
		Version: recordVersion, Notification: s.Notification, Received: times.Received, Polled: times.Polled,
		Incidents: incidentsRecord{Incidents: i, Recent: i.recent, LastFrom: i.last.start, LastTo: i.last.end, Late: i.late, Reopened: i.reopened},
		TimeLags:  s.TimeLags, MaxTimeLag: s.MaxTimeLag, FromAPI: s.FromAPI,
		AtLeast: s.AtLeast, Notified: times.Notified, History: s.History.record(),
	}
	if s.Ahead != burrow.Unknown {
		r.Ahead = &s.Ahead
	}
	if s.TimeLags != nil {
		r.LowerBounds = []int{}
	}
	for i, bound := range s.bounds {
		if bound {
			r.LowerBounds = append(r.LowerBounds, i)
		}
	}
	if !s.answered.IsZero() {
		a := s.answer
		r.Answer = &answerRecord{s.answered.UnixNano(), a.timeLag.seconds, a.timeLag.bound, a.ahead, s.held}
	}
	t.mu.Lock()
	r.Heads = t.heads.records(&s.Group)
	t.mu.Unlock()
	return json.Marshal(r)
}

// RecordName says of which group a record is, and when its state was received, in unix nanoseconds; ok is false if it is none.
func RecordName(data []byte) (cluster, group string, received int64, ok bool) {
	var r struct {
		Version      int `json:"version"`
		Notification struct {
			Group struct{ Cluster, Group string }
		} `json:"notification"`
		Received int64 `json:"received"`
	}
	err := json.Unmarshal(data, &r)
	return r.Notification.Group.Cluster, r.Notification.Group.Group, r.Received, err == nil && readable(r.Version)
}

// ErrOld means a record of a group that has expired meanwhile.
var ErrOld = errors.New("the group has expired")

// Restore brings a record into the table as the current state of its group. Times are those of a later state with the same
// Digest; they count only if they belong to this record. The state is returned also with ErrOld, and then the group has ended: its series too, and if an incident was
// open, its end is an event. Any other error means that the record is damaged, foreign, or that of one group more than the table may
// hold. Partitions that have no place are left out.
func (t *Table) Restore(data []byte, times Times, now time.Time) (*State, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	s, err := r.state(times, now)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{s.Group.Cluster, s.Group.Group}
	s.places = listedPlaces(&s.Group)
	expired := now.Sub(s.Received) >= t.limits.ExpireAfter
	switch {
	case t.groups[k] != nil:
		return nil, fmt.Errorf("group %q of cluster %q is there already", k.name, k.cluster)
	case expired && (t.groupPlaces+k.places() > t.limits.MaxGroups || !t.hasPlaces(nil, s.places)):
		// It takes no place away, and its series end elsewhere by their age.
		t.endIncident(s, EndedByExpiry, now)
		return s, ErrOld
	case !t.makeRoom(k, now):
		// The limit is lower now. That the group is bad can't be told any more.
		t.endIncident(s, EndedByExpiry, now)
		return nil, ErrTooManyGroups
	}
	e := t.addGroup(k)
	t.setGroup(e, s)
	// A pipeline may have it from before the restart.
	e.begun = true
	if !t.hasPlaces(nil, s.places) {
		without := *s
		t.leftOut += int64(len(s.Group.Partitions))
		without.leaveOutPartitions()
		s = &without
		t.setGroup(e, s)
		t.boundReplaced(&e.outgoing, now)
	}
	t.hold(s, 1)
	if expired {
		t.endGroup(e, EndedByExpiry, now)
		return s, ErrOld
	}
	t.heads.restore(s, r.Heads)
	return s, nil
}

// state checks a record, which may be anything that is JSON.
func (r *record) state(times Times, now time.Time) (*State, error) {
	if !readable(r.Version) {
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
		if !validTimeLag(lag) {
			return nil, fmt.Errorf("time lag %v", lag)
		}
	}
	incidents := r.Incidents.Incidents
	incidents.recent, incidents.late, incidents.reopened = r.Incidents.Recent, r.Incidents.Late, r.Incidents.Reopened
	incidents.last.start, incidents.last.end = r.Incidents.LastFrom, r.Incidents.LastTo
	if r.Version == 1 {
		incidents.Open = r.Notification.Group.Status > burrow.StatusOK
	}
	if times.Record != r.Received {
		times = Times{}
	}
	history, err := r.History.history()
	if err != nil {
		return nil, err
	}
	received := min(max(r.Received, times.Received), now.UnixNano()) // the clock was put back
	if reopened := incidents.reopened; !reopened.IsZero() {
		incidents.reopened = moment(min(reopened.UnixNano(), received), now)
	}
	s := &State{
		Notification: r.Notification, Received: moment(received, now), Incidents: incidents,
		TimeLags: r.TimeLags, MaxTimeLag: r.MaxTimeLag, AtLeast: r.AtLeast, FromAPI: r.FromAPI,
		History: history, Ahead: burrow.Unknown, answer: noAnswer,
	}
	if r.Ahead != nil {
		if *r.Ahead < 0 {
			return nil, fmt.Errorf("%d partitions ahead", *r.Ahead)
		}
		s.Ahead = *r.Ahead
	}
	if polled := max(r.Polled, times.Polled); polled > 0 {
		s.Polled = moment(min(polled, received), now)
		s.answered = s.Polled
	}
	if notified := max(r.Notified, times.Notified); notified > 0 {
		s.Notified = moment(min(notified, received), now)
	}
	s.LastCommit = s.lastCommit()
	if err := s.restoreBounds(r); err != nil {
		return nil, err
	}
	if err := s.restoreAnswer(r); err != nil {
		return nil, err
	}
	s.age(r)
	return s, nil
}

func (s *State) restoreBounds(r *record) error {
	if len(s.TimeLags) == 0 {
		return nil
	}
	s.bounds = make([]bool, len(s.TimeLags))
	for _, i := range r.LowerBounds {
		if i < 0 || i >= len(s.bounds) {
			return fmt.Errorf("a lower bound of partition %d of %d", i, len(s.bounds))
		}
		s.bounds[i] = true
	}
	if r.LowerBounds == nil {
		for i, lag := range s.TimeLags {
			s.bounds[i] = r.AtLeast && lag == r.MaxTimeLag
		}
	}
	return nil
}

func (s *State) restoreAnswer(r *record) error {
	a := r.Answer
	if a == nil {
		return nil
	}
	if a.At <= 0 || a.Ahead < burrow.Unknown || !validTimeLag(a.MaxTimeLag) {
		return errors.New("an answer that nobody gave")
	}
	at := moment(min(a.At, s.Received.UnixNano()), s.Received)
	if s.answered = later(s.answered, at); s.Received.After(s.Notified) {
		s.answered = s.Received // what was received last was an answer
	}
	s.answer = answer{timeLag{a.MaxTimeLag, a.AtLeast}, a.Ahead}
	if a.MaxTimeLag > 0 {
		s.answer.timeLag.seconds += s.answered.Sub(at).Seconds()
	}
	s.held = a.Held
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func validTimeLag(seconds float64) bool {
	return seconds == burrow.Unknown || seconds >= 0 && !math.IsInf(seconds, 0)
}

// moment is one of the time before this process, in unix nanoseconds, as by a clock that already ran then as that of now does: so that those of the
// table can be compared however the wall clock is put.
func moment(ns int64, now time.Time) time.Time { return now.Add(time.Unix(0, ns).Sub(now)) }

// age makes the time lags of a record those of s, which is later. Nothing else has changed meanwhile: a message that was not read then is
// older by the time that has passed when it was told of again.
func (s *State) age(r *record) {
	since := func(told time.Time, ns int64) float64 { return max(0, told.Sub(time.Unix(0, ns)).Seconds()) }
	most := noTimeLag
	switch {
	case s.held:
		most = s.answer.timeLag
	case !slices.Contains(s.TimeLags, s.MaxTimeLag):
		// That of the partition with the highest lag, which is not listed.
		if most = (timeLag{s.MaxTimeLag, s.AtLeast}); most.seconds > 0 {
			most.seconds += since(s.Received, r.Received)
		}
	}
	s.MaxTimeLag, s.AtLeast = most.seconds, most.bound
	for i, lag := range s.TimeLags {
		if lag > 0 {
			told, before := s.told(i), r.Received
			if told.Equal(s.Polled) {
				before = cmp.Or(r.Polled, r.Received)
			}
			s.TimeLags[i] = lag + since(told, before)
		}
		s.atLeast(s.timeLag(i))
	}
}

// records are the histories of the partitions that a group's evaluation names.
func (h *heads) records(g *burrow.GroupStatus) []headRecord {
	var list []headRecord
	add := func(p *burrow.PartitionStatus) {
		packed := h.find(g.Cluster, p)
		if packed == nil || packed.length == 0 {
			return
		}
		history := &h.working
		packed.open(history)
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
		packed := h.history(s.Group.Cluster, &burrow.PartitionStatus{Topic: r.Topic, Partition: r.Partition}, s.Received.UnixMilli())
		history := &h.working
		packed.open(history)
		if len(history.points) >= len(r.Points) {
			continue
		}
		history.points = history.points[:0]
		for _, point := range r.Points {
			history.points = append(history.points, headPoint{offset: point[0], at: point[1]})
		}
		packed.close(history)
	}
	// The record can be older than the state: where heads stood still, they did until then.
	again := func(p *burrow.PartitionStatus) {
		if p.End.Known() {
			packed := h.history(s.Group.Cluster, p, s.Received.UnixMilli())
			packed.open(&h.working)
			h.working.head(p.End.Offset, p.CurrentLag, s.Received.UnixMilli())
			packed.close(&h.working)
		}
	}
	for i := range s.Group.Partitions {
		if p := &s.Group.Partitions[i]; p.Status != burrow.StatusOK || s.Polled.Equal(s.Received) {
			again(p)
		}
	}
	if s.Group.MaxLag != nil {
		again(s.Group.MaxLag)
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
