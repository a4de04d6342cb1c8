package burrowreceiver

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// The names of the events. README.md lists them with their attributes.
var eventNames = map[groups.EventKind]string{
	groups.Opened:  "burrow.incident.opened",
	groups.Changed: "burrow.incident.changed",
	groups.Ended:   "burrow.incident.ended",
}

// buildLogs turns events of incidents into log records, in their order.
func buildLogs(events []groups.Event, version string) plog.Logs {
	logs := plog.NewLogs()
	scope := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
	scope.Scope().SetName(metadata.ScopeName)
	scope.Scope().SetVersion(version)
	scope.LogRecords().EnsureCapacity(len(events))
	for i := range events {
		fillRecord(scope.LogRecords().AppendEmpty(), &events[i])
	}
	return logs
}

func fillRecord(record plog.LogRecord, e *groups.Event) {
	severity := eventSeverity(e)
	record.SetEventName(eventNames[e.Kind])
	record.SetTimestamp(pcommon.NewTimestampFromTime(e.At))
	record.SetObservedTimestamp(pcommon.NewTimestampFromTime(e.At))
	record.SetSeverityNumber(severity)
	record.SetSeverityText(strings.ToUpper(severity.String()))
	record.Body().SetStr(sentence(e))

	attributes := record.Attributes()
	attributes.PutStr("cluster", e.Cluster)
	attributes.PutStr("group", e.Group)
	if e.ID != "" {
		attributes.PutStr("burrow.incident.id", e.ID)
	}
	if !e.Start.IsZero() {
		attributes.PutStr("burrow.incident.start", e.Start.UTC().Format(time.RFC3339Nano))
		attributes.PutDouble("burrow.incident.duration", e.Duration().Seconds())
	}
	if e.Kind == groups.Ended {
		attributes.PutStr("burrow.incident.ended_by", string(e.EndedBy))
	}
	if e.Previous != burrow.StatusUnknown {
		attributes.PutStr("burrow.group.previous_status", e.Previous.String())
	}
	attributes.PutStr("burrow.group.status", e.Status.String())
	attributes.PutInt("burrow.group.total_lag", e.TotalLag)
	attributes.PutInt("burrow.partitions.listed", int64(e.Listed))
	if len(e.Worst) > 0 {
		fillPartitions(attributes.PutEmptySlice("burrow.partitions"), e.Worst)
	}
}

func fillPartitions(list pcommon.Slice, worst []burrow.PartitionStatus) {
	for i := range worst {
		p := &worst[i]
		m := list.AppendEmpty().SetEmptyMap()
		m.PutStr("topic", p.Topic)
		m.PutInt("partition", int64(p.Partition))
		m.PutStr("status", p.Status.String())
		m.PutInt("lag", p.CurrentLag)
	}
}

func eventSeverity(e *groups.Event) plog.SeverityNumber {
	switch {
	case e.Kind == groups.Ended:
		return plog.SeverityNumberInfo
	case e.Status == burrow.StatusWarn:
		return plog.SeverityNumberWarn
	}
	return plog.SeverityNumberError
}

// sentence says what has happened, for somebody who is on call.
func sentence(e *groups.Event) string {
	group := fmt.Sprintf("Consumer group %s in cluster %s", e.Group, e.Cluster)
	lag := "total lag " + strconv.FormatInt(e.TotalLag, 10)
	lasted := ""
	if !e.Start.IsZero() {
		lasted = " after " + e.Duration().Round(time.Second).String()
	}
	switch {
	case e.Kind == groups.Opened:
		return fmt.Sprintf("%s is %s: %s%s", group, e.Status, lag, partitionsSentence(e))
	case e.Kind == groups.Changed:
		return fmt.Sprintf("%s went from %s to %s%s: %s%s", group, e.Previous, e.Status, lasted, lag, partitionsSentence(e))
	case e.EndedBy == groups.EndedByExpiry:
		return fmt.Sprintf("Nothing was received of %s any more%s, last %s, %s", lowerFirst(group), lasted, e.Status, lag)
	case e.EndedBy == groups.EndedByGone:
		return fmt.Sprintf("%s is gone%s: Burrow does not list it any more, last %s, %s", group, lasted, e.Status, lag)
	case e.EndedBy == groups.EndedByFilter:
		return fmt.Sprintf("%s is left out by the filters of the configuration now%s, last %s, %s", group, lasted, e.Status, lag)
	case e.EndedBy == groups.EndedByPoll:
		return fmt.Sprintf("%s is OK again%s, as Burrow's API says, %s", group, lasted, lag)
	default:
		return fmt.Sprintf("%s is OK again%s, %s", group, lasted, lag)
	}
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// partitionsSentence names some bad partitions and counts the others.
func partitionsSentence(e *groups.Event) string {
	if e.Listed == 0 {
		return ""
	}
	const named = 3
	var names []string
	for _, p := range e.Worst[:min(len(e.Worst), named)] {
		names = append(names, fmt.Sprintf("%s/%d %s %d", p.Topic, p.Partition, p.Status, p.CurrentLag))
	}
	text := ", " + strings.Join(names, ", ")
	if more := e.Listed - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
