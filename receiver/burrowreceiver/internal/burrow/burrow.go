// Package burrow is the wire: what Burrow sends and answers, decoded and checked, and how to ask it.
//
// It knows nothing of OpenTelemetry, HTTP servers or state. Field meanings are those of Burrow 1.9
// (core/protocol/evaluator.go and core/internal/notifier/helpers.go in its repository) and of the
// recorded requests under testdata.
package burrow

import (
	"strconv"
	"time"
)

// Template is the notification template that Karrot asks for, as a user would write it for
// template-open and template-close.
const Template = `{ "Event": {{ jsonencoder . }} }`

// Status is Burrow's verdict on a group or on a partition. The numbers are Burrow's own.
type Status int8

// Groups are NOTFOUND, OK, WARN or ERR; partitions are OK, WARN, STOP, STALL or REWIND.
const (
	StatusNotFound Status = iota
	StatusOK
	StatusWarn
	StatusErr
	StatusStop
	StatusStall
	StatusRewind

	// StatusUnknown stands for a partition status that is missing or not one of Burrow's. It has no number.
	StatusUnknown Status = -1
)

var statusNames = [...]string{"NOTFOUND", "OK", "WARN", "ERR", "STOP", "STALL", "REWIND"}

// String is Burrow's name for the status.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return "unknown"
	}
	return statusNames[s]
}

func parseStatus(name []byte) Status {
	for i, known := range statusNames {
		if string(name) == known {
			return Status(i)
		}
	}
	return StatusUnknown
}

// Unknown is the value of an optional count or offset that Burrow did not send, or sent in a form
// that cannot be right. All such fields are otherwise never negative.
const Unknown = -1

// Notification is one call of Burrow's HTTP notifier.
type Notification struct {
	// ID names the incident, a UUID; empty outside an incident and in body form c, which has no ID.
	ID string
	// Start is when Burrow first saw the group bad; zero outside an incident and in form c.
	Start time.Time
	// Group is the evaluation that the call is about.
	Group GroupStatus
}

// GroupStatus is Burrow's evaluation of one consumer group.
type GroupStatus struct {
	Cluster string
	Group   string
	Status  Status
	// Complete is the share of the group's partitions whose window is full, 0 to 1, or Unknown.
	Complete float64
	// PartitionCount counts all partitions of the group, listed or not; Unknown if it was not sent or
	// is less than what is listed.
	PartitionCount int64
	// TotalLag is the sum over all partitions, in messages.
	TotalLag int64
	// MaxLag is the partition with the highest current lag, of whatever status; nil when Burrow sent none.
	MaxLag *PartitionStatus
	// Partitions are those that Burrow listed (a notification lists only those that are not OK, the API all),
	// ordered by topic and number, each at most once.
	Partitions []PartitionStatus
}

// Valid says whether a status that does not come from Decode could have come from it.
func (g *GroupStatus) Valid() error {
	switch {
	case g.Cluster == "" || len(g.Cluster) > maxNameBytes:
		return &FieldError{Field: "cluster", Want: wantName, Got: excerpt([]byte(g.Cluster))}
	case g.Group == "" || len(g.Group) > maxNameBytes:
		return &FieldError{Field: "group", Want: wantName, Got: excerpt([]byte(g.Group))}
	case !g.Status.valid() || g.Status == StatusUnknown:
		return &FieldError{Field: "status", Want: wantStatus, Got: g.Status.String()}
	case g.TotalLag < 0:
		return &FieldError{Field: "totallag", Want: wantCount, Got: strconv.FormatInt(g.TotalLag, 10)}
	case !validShare(g.Complete):
		return &FieldError{Field: "complete", Want: wantShare}
	case g.PartitionCount != Unknown && g.PartitionCount < int64(len(g.Partitions)):
		return &FieldError{Field: "partition_count", Want: wantCount, Got: strconv.FormatInt(g.PartitionCount, 10)}
	case g.MaxLag != nil && !g.MaxLag.valid():
		return &FieldError{Field: "maxlag", Want: wantObject}
	}
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if !p.valid() || i > 0 && ComparePartition(&g.Partitions[i-1], p) >= 0 {
			return &FieldError{Field: "partitions[" + strconv.Itoa(i) + "]", Want: wantNoTwins}
		}
	}
	return nil
}

func (s Status) valid() bool { return s >= StatusUnknown && int(s) < len(statusNames) }

func validShare(share float64) bool { return share == Unknown || share >= 0 && share <= 1 }

func (p *PartitionStatus) valid() bool {
	return p.Topic != "" && len(p.Topic) <= maxNameBytes && p.Partition >= 0 && p.CurrentLag >= 0 &&
		len(p.Owner) <= maxLabelBytes && len(p.ClientID) <= maxLabelBytes &&
		p.Status.valid() && validShare(p.Complete) && p.Start.valid() && p.End.valid()
}

func (c Commit) valid() bool {
	return c.Offset >= Unknown && c.Timestamp >= Unknown && c.Lag >= Unknown
}

// PartitionStatus is Burrow's evaluation of one partition.
type PartitionStatus struct {
	Topic string
	// Owner is the address of the consumer that holds the partition ("/" and an address); empty if not known.
	Owner    string
	ClientID string
	// Start and End are the oldest and the newest commit in Burrow's window.
	Start, End Commit
	// CurrentLag is the newest head offset minus the last commit, in messages.
	CurrentLag int64
	// Complete is the filled share of the partition's window, 0 to 1, or Unknown.
	Complete  float64
	Partition int32
	// Status is StatusUnknown if Burrow sent none that is known.
	Status Status
}

// Commit is one offset commit as Burrow stored it.
type Commit struct {
	// Offset that was committed; Unknown if the partition has no such commit.
	Offset int64
	// Timestamp of the commit in unix milliseconds.
	Timestamp int64
	// ObservedAt is when Burrow saw the commit and computed Lag, in unix milliseconds, rounded down to seconds.
	ObservedAt int64
	// Lag at the time of the commit, in messages; Unknown for commits that Burrow read late.
	Lag int64
}

// Known says whether there is such a commit.
func (c Commit) Known() bool { return c.Offset != Unknown }

var noCommit = Commit{Offset: Unknown, Timestamp: Unknown, ObservedAt: Unknown, Lag: Unknown}

// ComparePartition orders partitions by topic, then number.
func ComparePartition(a, b *PartitionStatus) int {
	if a.Topic != b.Topic {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	}
	return int(a.Partition) - int(b.Partition)
}
