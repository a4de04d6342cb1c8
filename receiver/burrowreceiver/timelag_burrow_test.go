package burrowreceiver

import (
	"container/ring"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// simWindow is intervals in Burrow's storage.
const simWindow = 10

// The wire, with Burrow's keys.
type simCommit struct {
	Offset     int64  `json:"offset"`
	Timestamp  int64  `json:"timestamp"`
	ObservedAt int64  `json:"observedAt"`
	Lag        *int64 `json:"lag"`

	ofTopic int // which making of the topic the lag was computed with
}

type simStatus struct {
	Topic      string     `json:"topic"`
	Partition  int        `json:"partition"`
	Status     string     `json:"status"`
	Start      *simCommit `json:"start"`
	End        *simCommit `json:"end"`
	CurrentLag int64      `json:"current_lag"`
	Complete   float64    `json:"complete"`

	head simHead // with which the current lag was computed
}

type simResult struct {
	Cluster    string       `json:"cluster"`
	Group      string       `json:"group"`
	Status     string       `json:"status"`
	Complete   float64      `json:"complete"`
	Partitions []*simStatus `json:"partitions"`
	Count      int          `json:"partition_count"`
	MaxLag     *simStatus   `json:"maxlag"`
	TotalLag   int64        `json:"totallag"`

	all []*simStatus // listed or not
}

// simBurrow is Burrow's storage and evaluator for one group.
type simBurrow struct {
	epoch    int64 // unix ms of the begin of the simulation, by Burrow's clock
	skew     int64 // ms by which the brokers' clocks are ahead of Burrow's
	settings *simSettings
	commits  [simPartitions]*ring.Ring // points at the oldest, as in Burrow
	heads    [simPartitions][]simHead  // the newest simWindow

	cached   *simResult
	cachedAt int64
}

type simHead struct {
	offset  int64
	ofTopic int
}

func (b *simBurrow) head(partition int) simHead {
	return b.heads[partition][len(b.heads[partition])-1]
}

func (b *simBurrow) poll(partition int, h simHead) {
	b.heads[partition] = append(b.heads[partition], h)
	b.heads[partition] = b.heads[partition][max(0, len(b.heads[partition])-simWindow):]
}

// forget is what happens when Kafka deletes the group's commits along with the topic.
func (b *simBurrow) forget(partition int) { b.commits[partition] = nil }

// commit stores a commit that was made at one moment and seen at another.
func (b *simBurrow) commit(partition int, offset, at, seen int64) {
	if b.commits[partition] == nil {
		b.commits[partition] = ring.New(simWindow)
	}
	h := b.head(partition)
	lag := max(0, h.offset-offset)
	c := &simCommit{Offset: offset, Timestamp: b.epoch + b.skew + at, ObservedAt: (b.epoch + seen) / 1000 * 1000, Lag: &lag, ofTopic: h.ofTopic}
	if last, ok := b.commits[partition].Prev().Value.(*simCommit); ok && c.Timestamp-last.Timestamp < b.settings.distance.Milliseconds() {
		c.Timestamp = last.Timestamp
		b.commits[partition].Prev().Value = c
		return
	}
	b.commits[partition].Value = c
	b.commits[partition] = b.commits[partition].Next()
}

// evaluate gives Burrow's verdict, which can be one that its evaluator has kept.
func (b *simBurrow) evaluate(now int64) *simResult {
	if b.cached == nil || now-b.cachedAt >= b.settings.cache.Milliseconds() {
		b.cached, b.cachedAt = b.judge(now), now
	}
	return b.cached
}

func (b *simBurrow) judge(now int64) *simResult {
	result := &simResult{Cluster: "c", Group: simGroupName, Status: "OK", Partitions: []*simStatus{}, Count: simPartitions}
	full := 0
	for partition := range simPartitions {
		s := &simStatus{Topic: simTopicName, Partition: partition, Status: "OK", head: b.head(partition)}
		var window []*simCommit
		if b.commits[partition] != nil {
			b.commits[partition].Do(func(v any) {
				if c, ok := v.(*simCommit); ok {
					window = append(window, c)
				}
			})
		}
		if len(window) > 0 {
			// Copies: the newest commit is still replaced while an evaluation is kept.
			start, end := *window[0], *window[len(window)-1]
			s.Start, s.End = &start, &end
			s.CurrentLag = max(0, s.head.offset-s.End.Offset)
			s.Complete = float64(len(window)) / simWindow
			s.Status = b.status(partition, window, s.CurrentLag, now)
		}
		if s.Complete == 1 {
			full++
		}
		if s.Status != "OK" {
			result.Partitions = append(result.Partitions, s)
			if s.Status != "WARN" {
				result.Status = "ERR"
			} else if result.Status == "OK" {
				result.Status = "WARN"
			}
		}
		if result.MaxLag == nil || s.CurrentLag > result.MaxLag.CurrentLag {
			result.MaxLag = s
		}
		result.TotalLag += s.CurrentLag
		result.all = append(result.all, s)
	}
	result.Complete = float64(full) / simPartitions
	return result
}

// notification is what Burrow posts.
func (r *simResult) notification(t *testing.T) []byte {
	t.Helper()
	body, err := json.Marshal(map[string]any{"Event": map[string]any{"Result": r}})
	require.NoError(t, err)
	return body
}

// status has Burrow's rules, in Burrow's order, with allowed-lag 0 and minimum-complete 0.
func (b *simBurrow) status(partition int, window []*simCommit, currentLag, now int64) string {
	if currentLag == 0 {
		return "OK"
	}
	first, last := window[0], window[len(window)-1]
	recentlyZero := false
	for _, h := range b.heads[partition] {
		recentlyZero = recentlyZero || h.offset <= last.Offset
	}
	if (b.epoch+now)/1000*1000-last.Timestamp > last.Timestamp-first.Timestamp && !recentlyZero {
		return "STOP"
	}
	everZero, moved, fell, rewound := *first.Lag == 0, false, false, false
	for i := 1; i < len(window); i++ {
		c, before := window[i], window[i-1]
		everZero = everZero || *c.Lag == 0
		moved = moved || c.Offset != before.Offset
		fell = fell || *c.Lag < *before.Lag
		if c.Offset < before.Offset && !rewound { // only the first one counts
			rewound = true
			if !slices.ContainsFunc(window[i:], func(c *simCommit) bool { return c.Offset >= before.Offset }) {
				return "REWIND"
			}
		}
	}
	switch {
	case everZero:
		return "OK"
	case !moved:
		return "STALL"
	case !fell:
		return "WARN"
	}
	return "OK"
}
