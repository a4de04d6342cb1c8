// Package burrow has what Burrow sends, as Burrow itself declares it (core/protocol in its repository).
package burrow

import (
	"encoding/json"
	"time"
)

// Notification is what a template of the HTTP notifier is given. With config/burrow/notification.tmpl it is sent as
// {"Event": ...}.
type Notification struct {
	Cluster, Group, ID string
	Start              time.Time
	Extras             map[string]string
	Result             Result
}

// Result is the verdict on a group. The API gives the same as "status".
type Result struct {
	Cluster        string      `json:"cluster"`
	Group          string      `json:"group"`
	Status         string      `json:"status"`
	Complete       float64     `json:"complete"`
	Partitions     []Partition `json:"partitions"`
	PartitionCount int         `json:"partition_count"`
	MaxLag         *Partition  `json:"maxlag"`
	TotalLag       uint64      `json:"totallag"`
}

// Partition is one of a group.
type Partition struct {
	Topic      string  `json:"topic"`
	Partition  int32   `json:"partition"`
	Owner      string  `json:"owner"`
	ClientID   string  `json:"client_id"`
	Status     string  `json:"status"`
	Start      *Commit `json:"start"`
	End        *Commit `json:"end"`
	CurrentLag uint64  `json:"current_lag"`
	Complete   float64 `json:"complete"`
}

// Commit is the first or the last of those that a verdict rests on. Times are in milliseconds.
type Commit struct {
	Offset     int64   `json:"offset"`
	Timestamp  int64   `json:"timestamp"`
	ObservedAt int64   `json:"observedAt"`
	Lag        *uint64 `json:"lag"`
}

// Read takes a body in any of its forms: with Event around it, without, or a bare Result.
func Read(body []byte) (Notification, error) {
	var form struct {
		Event  *Notification
		Result json.RawMessage
	}
	if err := json.Unmarshal(body, &form); err != nil {
		return Notification{}, err
	}
	if form.Event != nil {
		return *form.Event, nil
	}
	var n Notification
	if form.Result != nil {
		return n, json.Unmarshal(body, &n)
	}
	return n, json.Unmarshal(body, &n.Result)
}

// Number is how Burrow counts statuses, of groups and of partitions.
var Number = map[string]float64{"OK": 1, "WARN": 2, "ERR": 3, "STOP": 4, "STALL": 5, "REWIND": 6}
