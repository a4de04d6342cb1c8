package groups

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

const (
	// MaxSamples is how many of the newest evaluations of a group are remembered.
	MaxSamples = 5
	// MaxPast is how many ended incidents of a group are remembered.
	MaxPast = 10
)

// History is what is remembered of a group from before its current state, for people. It is bounded.
type History struct {
	// Samples are the newest evaluations, the current one included, oldest first; Count of them are set.
	Samples [MaxSamples]Sample
	Count   int
	// Past are the incidents that have ended, newest first. States share the slice; it is never changed.
	Past []PastIncident
	// Changed is when Karrot first knew that the group has the status it has; zero if that is not known.
	Changed time.Time
	// Worst and PeakLag are the worst status and the highest total lag of the open incident.
	Worst   burrow.Status
	PeakLag int64
}

// Sample is the lag that one evaluation told of.
type Sample struct {
	// At is in unix milliseconds.
	At       int64 `json:"at"`
	TotalLag int64 `json:"total_lag"`
}

// PastIncident is an incident that has ended.
type PastIncident struct {
	ID string `json:"id"`
	// Start is zero if it is not known.
	Start time.Time `json:"start,omitzero"`
	// End is when Karrot came to know that it has ended.
	End time.Time `json:"end"`
	// Worst is StatusUnknown, and PeakLag burrow.Unknown, if the group was not known meanwhile.
	Worst   burrow.Status `json:"worst"`
	PeakLag int64         `json:"peak_lag"`
}

// Recent are the samples that are set, oldest first.
func (h *History) Recent() []Sample { return h.Samples[:h.Count] }

// next is the history after s, whose Incidents are set; ended is the end of an incident that s is, if any, and before is nil
// if the group was not known.
func (h History) next(before, s *State, ended *Event) History {
	h.sample(Sample{At: s.Received.UnixMilli(), TotalLag: s.Group.TotalLag})
	if before == nil || before.Group.Status != s.Group.Status {
		h.Changed = s.Received
	}
	if ended != nil {
		past := PastIncident{ID: ended.ID, Start: ended.Start, End: s.Received, Worst: h.Worst, PeakLag: h.PeakLag}
		if before == nil {
			past.Worst, past.PeakLag = burrow.StatusUnknown, burrow.Unknown
		}
		h.end(past)
	}
	if s.Incidents.Open {
		h.Worst, h.PeakLag = max(h.Worst, s.Group.Status), max(h.PeakLag, s.Group.TotalLag)
	} else {
		h.Worst, h.PeakLag = burrow.StatusNotFound, 0
	}
	return h
}

func (h *History) sample(s Sample) {
	for h.Count > 0 && h.Samples[h.Count-1].At > s.At {
		h.Count-- // the clock was put back
	}
	if h.Count == MaxSamples {
		copy(h.Samples[:], h.Samples[1:])
		h.Count--
	}
	h.Samples[h.Count] = s
	h.Count++
}

func (h *History) end(incident PastIncident) {
	past := append(make([]PastIncident, 0, min(len(h.Past)+1, MaxPast)), incident)
	h.Past = append(past, h.Past[:min(len(h.Past), MaxPast-1)]...)
}

// historyRecord is a History as it is kept over a restart.
type historyRecord struct {
	Samples []Sample       `json:"samples,omitempty"`
	Past    []PastIncident `json:"past,omitempty"`
	// Changed is in unix nanoseconds; 0 if it is not known.
	Changed int64         `json:"changed,omitempty"`
	Worst   burrow.Status `json:"worst,omitempty"`
	PeakLag int64         `json:"peak_lag,omitempty"`
}

func (h *History) record() historyRecord {
	r := historyRecord{Samples: h.Recent(), Past: h.Past, Worst: h.Worst, PeakLag: h.PeakLag}
	if !h.Changed.IsZero() {
		r.Changed = h.Changed.UnixNano()
	}
	return r
}

// history checks a record, which may be anything that is JSON. None at all is the record of an older version.
func (r *historyRecord) history() (History, error) {
	h := History{Count: len(r.Samples), Past: slices.Clip(r.Past), Worst: r.Worst, PeakLag: r.PeakLag}
	if len(r.Samples) > MaxSamples || len(r.Past) > MaxPast {
		return h, fmt.Errorf("a history of %d samples and %d incidents", len(r.Samples), len(r.Past))
	}
	copy(h.Samples[:], r.Samples)
	for i, s := range r.Samples {
		if s.TotalLag < 0 || i > 0 && s.At < r.Samples[i-1].At {
			return h, errors.New("samples that are negative or not in order")
		}
	}
	for i := range r.Past {
		if p := &r.Past[i]; !validStatus(p.Worst) || p.PeakLag < burrow.Unknown {
			return h, fmt.Errorf("past incident %d is not valid", i)
		}
	}
	if !validStatus(r.Worst) || r.PeakLag < 0 {
		return h, errors.New("the worst of the open incident is not valid")
	}
	if r.Changed != 0 {
		h.Changed = time.Unix(0, r.Changed)
	}
	return h, nil
}

func validStatus(s burrow.Status) bool { return s >= burrow.StatusUnknown && s <= burrow.StatusRewind }
