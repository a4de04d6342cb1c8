package burrow

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"
)

var errReference = errors.New("refused")

// reference is Decode written with encoding/json into maps: slow, and short enough to be believed.
func reference(body []byte) (*Notification, error) {
	var top any
	if err := json.Unmarshal(body, &top); err != nil {
		return nil, err
	}
	outer, ok := asMap(top, body)
	if !ok {
		return nil, errReference
	}
	if event, found := outer["Event"]; found {
		envelope, ok := object(event)
		if !ok {
			return nil, errReference
		}
		return referenceEnvelope(envelope)
	}
	if _, found := outer["Result"]; found {
		return referenceEnvelope(outer)
	}
	return referenceResult(outer, nil)
}

type fields map[string]json.RawMessage

func asMap(top any, body []byte) (fields, bool) {
	if _, ok := top.(map[string]any); !ok {
		return nil, false
	}
	var m fields
	err := json.Unmarshal(body, &m)
	return m, err == nil
}

func object(raw json.RawMessage) (fields, bool) {
	var m fields
	if len(raw) == 0 || raw[0] != '{' {
		return nil, false
	}
	err := json.Unmarshal(raw, &m)
	return m, err == nil
}

func referenceEnvelope(envelope fields) (*Notification, error) {
	r, ok := object(envelope["Result"])
	if !ok {
		return nil, errReference
	}
	n, err := referenceResult(r, envelope)
	if err != nil {
		return nil, err
	}
	n.ID = label(envelope["ID"])
	if start, ok := text(envelope["Start"]); ok {
		if t, err := time.Parse(time.RFC3339Nano, start); err == nil && !t.IsZero() && len(start) <= maxTimeBytes && t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 {
			n.Start = t.UTC()
		}
	}
	return n, nil
}

func referenceResult(r, envelope fields) (*Notification, error) {
	g := GroupStatus{Status: status(r["status"]), Complete: share(r["complete"]), PartitionCount: count(r["partition_count"])}
	g.TotalLag = count(r["totallag"])
	named := func(inner, outer string) string {
		if raw, found := r[inner]; found {
			return name(raw)
		}
		return name(envelope[outer])
	}
	g.Cluster, g.Group = named("cluster", "Cluster"), named("group", "Group")
	if g.Cluster == "" || g.Group == "" || g.Status == StatusUnknown || g.TotalLag == Unknown {
		return nil, errReference
	}
	if p, ok := partition(r["maxlag"]); ok {
		g.MaxLag = &p
	}
	if raw := r["partitions"]; raw != nil {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return nil, errReference
		}
		for _, item := range list {
			p, ok := partition(item)
			if !ok {
				return nil, errReference
			}
			g.Partitions = append(g.Partitions, p)
		}
	}
	slices.SortFunc(g.Partitions, func(a, b PartitionStatus) int { return ComparePartition(&a, &b) })
	for i := 1; i < len(g.Partitions); i++ {
		if ComparePartition(&g.Partitions[i-1], &g.Partitions[i]) == 0 {
			return nil, errReference
		}
	}
	if g.PartitionCount < int64(len(g.Partitions)) {
		g.PartitionCount = Unknown
	}
	return &Notification{Group: g}, nil
}

func partition(raw json.RawMessage) (PartitionStatus, bool) {
	m, ok := object(raw)
	number := count(m["partition"])
	p := PartitionStatus{
		Topic: name(m["topic"]), Partition: int32(number), CurrentLag: count(m["current_lag"]),
		Owner: label(m["owner"]), ClientID: label(m["client_id"]), Status: status(m["status"]),
		Start: commit(m["start"]), End: commit(m["end"]), Complete: share(m["complete"]),
	}
	return p, ok && p.Topic != "" && number >= 0 && number <= math.MaxInt32 && p.CurrentLag != Unknown
}

func commit(raw json.RawMessage) Commit {
	m, _ := object(raw)
	c := Commit{Offset: count(m["offset"]), Timestamp: count(m["timestamp"]), ObservedAt: count(m["observedAt"]), Lag: count(m["lag"])}
	if c.Offset == Unknown || c.Timestamp == Unknown {
		return noCommit
	}
	return c
}

func text(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

func name(raw json.RawMessage) string {
	if s, _ := text(raw); len(s) <= maxNameBytes {
		return s
	}
	return ""
}

func label(raw json.RawMessage) string {
	if s, _ := text(raw); len(s) <= maxLabelBytes {
		return s
	}
	return ""
}

func status(raw json.RawMessage) Status {
	s, _ := text(raw)
	return parseStatus([]byte(s))
}

func count(raw json.RawMessage) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || raw[0] == '-' {
		return Unknown
	}
	return n
}

func share(raw json.RawMessage) float64 {
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1 {
		return Unknown
	}
	return math.Abs(v)
}
