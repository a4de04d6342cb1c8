package burrowreceiver

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// metricsMapper turns changes of the table into metrics. It keeps nothing between two calls.
type metricsMapper struct {
	cfg metadata.MetricsBuilderConfig
	set receiver.Settings
	// start is when the cumulative series began.
	start time.Time
}

// build returns a point for every series that holds and, behind them, one flagged "no recorded value" for
// every series that was sent and holds no longer. It sets Series of each change.
func (m *metricsMapper) build(changes []groups.Change[groups.State], topics []groups.Change[groups.Topic]) pmetric.Metrics {
	live, ended := m.newRecorder(), m.newRecorder()
	recordChanges(&live, &ended, changes, (*recorder).state)
	recordChanges(&live, &ended, topics, (*recorder).topic)
	md := live.emit()
	if ended.points > 0 {
		appendEnded(md, ended.emit())
	}
	return md
}

// recordChanges records the series that hold and those that hold no longer. record takes the state, and another state
// of the same thing, or nil, whose series it leaves out.
func recordChanges[S groups.State | groups.Topic](live, ended *recorder, changes []groups.Change[S], record func(r *recorder, ts pcommon.Timestamp, s, except *S)) {
	for i := range changes {
		c := &changes[i]
		ts := pcommon.NewTimestampFromTime(c.At)
		if c.Current != nil {
			before := live.points
			record(live, ts, c.Current, nil)
			c.Series = live.points - before
		}
		if c.Sent != nil {
			record(ended, ts, c.Sent, c.Current)
		}
	}
}

// newRecorder makes a builder for one use: a builder that is used again allocates for the largest
// hand-over there ever was.
func (m *metricsMapper) newRecorder() recorder {
	startTime := metadata.WithStartTime(pcommon.NewTimestampFromTime(m.start))
	return recorder{builder: metadata.NewMetricsBuilder(m.cfg, m.set, startTime), enabled: &m.cfg.Metrics}
}

// appendEnded adds every point of ended to md, flagged and in a Metric of its own: the Prometheus
// exporter drops what stands behind a flagged point in the same Metric.
func appendEnded(md, ended pmetric.Metrics) {
	from := ended.ResourceMetrics().At(0).ScopeMetrics().At(0)
	if md.ResourceMetrics().Len() == 0 {
		from.Scope().CopyTo(md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Scope())
	}
	metrics := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	metrics.EnsureCapacity(metrics.Len() + ended.DataPointCount())
	for _, metric := range from.Metrics().All() {
		for _, point := range numbers(metric).All() {
			end := metrics.AppendEmpty()
			end.SetName(metric.Name())
			end.SetDescription(metric.Description())
			end.SetUnit(metric.Unit())
			if metric.Type() == pmetric.MetricTypeSum {
				end.SetEmptySum().SetIsMonotonic(metric.Sum().IsMonotonic())
				end.Sum().SetAggregationTemporality(metric.Sum().AggregationTemporality())
			} else {
				end.SetEmptyGauge()
			}
			flagged := numbers(end).AppendEmpty()
			flagged.SetTimestamp(point.Timestamp())
			flagged.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
			point.Attributes().MoveTo(flagged.Attributes())
		}
	}
}

// numbers are the points of a gauge or a sum.
func numbers(metric pmetric.Metric) pmetric.NumberDataPointSlice {
	if metric.Type() == pmetric.MetricTypeSum {
		return metric.Sum().DataPoints()
	}
	return metric.Gauge().DataPoints()
}

// recorder records series and counts those whose metric is switched on.
type recorder struct {
	builder *metadata.MetricsBuilder
	enabled *metadata.MetricsConfig
	points  int
	// countedSince are the start times of the points of burrow.group.incidents: the builder knows only one
	// start for all.
	countedSince []pcommon.Timestamp
}

func (r *recorder) emit() pmetric.Metrics {
	md := r.builder.Emit()
	if len(r.countedSince) == 0 || !r.enabled.BurrowGroupIncidents.Enabled {
		return md
	}
	for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		if metric.Type() == pmetric.MetricTypeSum {
			for i, point := range metric.Sum().DataPoints().All() {
				point.SetStartTimestamp(r.countedSince[i])
			}
		}
	}
	return md
}

func (r *recorder) count(metric metadata.MetricConfig) {
	if metric.Enabled {
		r.points++
	}
}

// state records every series of s that is not also one of except, which is the same group at another time or nil.
func (r *recorder) state(ts pcommon.Timestamp, s, except *groups.State) {
	g := &s.Group
	has := func(condition func(*groups.State) bool) bool {
		return condition(s) && (except == nil || !condition(except))
	}
	if except == nil {
		r.builder.RecordBurrowGroupIncidentsDataPoint(ts, s.Incidents.Seen, g.Cluster, g.Group)
		r.countedSince = append(r.countedSince, pcommon.NewTimestampFromTime(s.Incidents.Since))
		r.count(r.enabled.BurrowGroupIncidents)
		r.builder.RecordBurrowGroupStatusDataPoint(ts, int64(g.Status), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupStatus)
		r.builder.RecordBurrowGroupTotalLagDataPoint(ts, g.TotalLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupTotalLag)
	}
	if has(hasIncidentDuration) {
		duration, _ := s.IncidentDuration()
		r.builder.RecordBurrowGroupIncidentDurationDataPoint(ts, duration.Seconds(), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupIncidentDuration)
	}
	if has(hasMaxLag) {
		r.builder.RecordBurrowGroupMaxLagDataPoint(ts, g.MaxLag.CurrentLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupMaxLag)
	}
	if has(hasMaxTimeLag) {
		r.builder.RecordBurrowGroupMaxTimeLagDataPoint(ts, s.MaxTimeLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupMaxTimeLag)
	}
	if has(hasComplete) {
		r.builder.RecordBurrowGroupCompleteDataPoint(ts, g.Complete, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupComplete)
	}
	if has(hasPartitionCounts) {
		for status, n := range partitionCounts(g) {
			r.builder.RecordBurrowGroupPartitionsDataPoint(ts, n, g.Cluster, g.Group, countedStatuses[status])
			r.count(r.enabled.BurrowGroupPartitions)
		}
	}

	// Both lists are in the same order.
	var others []burrow.PartitionStatus
	if except != nil {
		others = except.Group.Partitions
	}
	j := 0
	for i := range g.Partitions {
		p := &g.Partitions[i]
		for j < len(others) && burrow.ComparePartition(&others[j], p) < 0 {
			j++
		}
		exceptLag := float64(burrow.Unknown)
		if j < len(others) && burrow.ComparePartition(&others[j], p) == 0 {
			r.partition(ts, g, p, &others[j])
			exceptLag = except.TimeLag(j)
		} else {
			r.partition(ts, g, p, nil)
		}
		if lag := s.TimeLag(i); lag != burrow.Unknown && exceptLag == burrow.Unknown {
			r.builder.RecordBurrowPartitionTimeLagDataPoint(ts, lag, g.Cluster, g.Group, p.Topic, int64(p.Partition))
			r.count(r.enabled.BurrowPartitionTimeLag)
		}
	}
}

// topic records the heads of the partitions that except, the same topic at another time or nil, does not have.
func (r *recorder) topic(ts pcommon.Timestamp, t, except *groups.Topic) {
	for number := range t.Offsets {
		if !hasHead(t, number) || except != nil && hasHead(except, number) {
			continue
		}
		r.builder.RecordBurrowTopicOffsetDataPoint(ts, t.Offsets[number], t.Cluster, t.Name, int64(number))
		r.count(r.enabled.BurrowTopicOffset)
	}
}

// partition records every series of p that is not also one of except.
func (r *recorder) partition(ts pcommon.Timestamp, g *burrow.GroupStatus, p, except *burrow.PartitionStatus) {
	has := func(condition func(*burrow.PartitionStatus) bool) bool {
		return condition(p) && (except == nil || !condition(except))
	}
	number := int64(p.Partition)
	if except == nil {
		r.builder.RecordBurrowPartitionLagDataPoint(ts, p.CurrentLag, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionLag)
	}
	if has(hasPartitionStatus) {
		r.builder.RecordBurrowPartitionStatusDataPoint(ts, int64(p.Status), g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionStatus)
	}
	if has(hasCommit) {
		r.builder.RecordBurrowPartitionCommittedOffsetDataPoint(ts, p.End.Offset, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionCommittedOffset)
		r.builder.RecordBurrowPartitionLastCommitTimestampDataPoint(ts, float64(p.End.Timestamp)/1e3, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionLastCommitTimestamp)
	}
	if has(hasPartitionComplete) {
		r.builder.RecordBurrowPartitionCompleteDataPoint(ts, p.Complete, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionComplete)
	}
	// Another owner is another series.
	if hasOwner(p) && (except == nil || p.Owner != except.Owner || p.ClientID != except.ClientID) {
		r.builder.RecordBurrowPartitionOwnerDataPoint(ts, 1, g.Cluster, g.Group, p.Topic, number, p.Owner, p.ClientID)
		r.count(r.enabled.BurrowPartitionOwner)
	}
}

func hasIncidentDuration(s *groups.State) bool {
	_, known := s.IncidentDuration()
	return known
}

func hasHead(t *groups.Topic, partition int) bool {
	return partition < len(t.Offsets) && t.Offsets[partition] != burrow.Unknown
}

func hasMaxLag(s *groups.State) bool          { return s.Group.MaxLag != nil }
func hasMaxTimeLag(s *groups.State) bool      { return s.MaxTimeLag != burrow.Unknown }
func hasComplete(s *groups.State) bool        { return s.Group.Complete != burrow.Unknown }
func hasPartitionCounts(s *groups.State) bool { return countable(&s.Group) }

func hasPartitionStatus(p *burrow.PartitionStatus) bool   { return p.Status != burrow.StatusUnknown }
func hasCommit(p *burrow.PartitionStatus) bool            { return p.End.Known() }
func hasPartitionComplete(p *burrow.PartitionStatus) bool { return p.Complete != burrow.Unknown }
func hasOwner(p *burrow.PartitionStatus) bool             { return p.Owner != "" || p.ClientID != "" }

// countedStatuses are the values of the status attribute of burrow.group.partitions.
var countedStatuses = [...]metadata.AttributeStatus{
	metadata.AttributeStatusOk,
	metadata.AttributeStatusWarn,
	metadata.AttributeStatusStop,
	metadata.AttributeStatusStall,
	metadata.AttributeStatusRewind,
}

// countable says whether the counts by status would be true: all partitions are counted and
// each listed one has a status that is counted.
func countable(g *burrow.GroupStatus) bool {
	if g.PartitionCount == burrow.Unknown {
		return false
	}
	for i := range g.Partitions {
		if countedIndex(g.Partitions[i].Status) < 0 {
			return false
		}
	}
	return true
}

// partitionCounts counts the partitions by status, in the order of countedStatuses. What is not listed is OK.
func partitionCounts(g *burrow.GroupStatus) (counts [len(countedStatuses)]int64) {
	for i := range g.Partitions {
		counts[countedIndex(g.Partitions[i].Status)]++
	}
	counts[0] += g.PartitionCount - int64(len(g.Partitions))
	return counts
}

// countedIndex is the place of a partition's status in countedStatuses, -1 if it has none.
func countedIndex(s burrow.Status) int {
	switch s {
	case burrow.StatusOK:
		return 0
	case burrow.StatusWarn:
		return 1
	case burrow.StatusStop:
		return 2
	case burrow.StatusStall:
		return 3
	case burrow.StatusRewind:
		return 4
	case burrow.StatusNotFound, burrow.StatusErr, burrow.StatusUnknown:
	}
	return -1
}
