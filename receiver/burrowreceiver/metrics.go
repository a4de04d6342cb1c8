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

// maxPoints bounds one hand-over. One of 10,000 points has some 1.2 MB as OTLP; backends take 20 MiB a request by default, and less behind
// some proxies.
const maxPoints = 10_000

// build begins the hand-over of refs, as many as go into one of so many points, and turns them into metrics: a point for every series that holds and,
// behind them, one flagged "no recorded value" for every series that some pipeline may have and that holds no longer. There is
// one payload, more only if a single group does not go into one, and none if there are no points.
func (m *metricsMapper) build(begin func(groups.Ref) groups.Change, refs []groups.Ref, points int) (begun []groups.Change, payloads []pmetric.Metrics, others []groups.Ref) {
	b := payloadBuilder{mapper: m, live: m.newRecorder(), ended: m.newRecorder()}
	for len(refs) > 0 && b.points() < points && len(b.payloads) == 0 {
		c := begin(refs[0])
		refs = refs[1:]
		b.add(&c)
		begun = append(begun, c)
	}
	b.flush()
	return begun, b.payloads, refs
}

// payloadBuilder cuts what it is given into payloads of about maxPoints.
type payloadBuilder struct {
	mapper      *metricsMapper
	live, ended recorder
	payloads    []pmetric.Metrics
}

func (b *payloadBuilder) points() int { return b.live.points + b.ended.points }

func (b *payloadBuilder) flushIfFull() {
	if b.points() >= maxPoints {
		b.flush()
	}
}

func (b *payloadBuilder) flush() {
	if b.points() == 0 {
		return
	}
	md := b.live.emit()
	if b.ended.points > 0 {
		appendEnded(md, b.ended.emit())
	}
	b.payloads = append(b.payloads, md)
	b.live, b.ended = b.mapper.newRecorder(), b.mapper.newRecorder()
}

// add records a change and sets its Series.
func (b *payloadBuilder) add(c *groups.Change) {
	ts := pcommon.NewTimestampFromTime(c.At)
	count := func(record func(*recorder)) {
		before := b.live.points
		record(&b.live)
		c.Series += b.live.points - before
	}
	if s := c.Group; s != nil {
		count(func(r *recorder) { r.group(ts, s.Series(), s) })
		for i := range s.Group.Partitions {
			b.flushIfFull()
			count(func(r *recorder) { r.groupPartition(ts, s, i) })
		}
	}
	if t := c.Topic; t != nil {
		for number, offset := range t.Offsets {
			b.flushIfFull()
			if offset != burrow.Unknown {
				count(func(r *recorder) { r.head(ts, c.Cluster, c.Name, int64(number), offset) })
			}
		}
	}
	b.addEnded(ts, c)
}

// addEnded records the series of a change that hold no longer.
func (b *payloadBuilder) addEnded(ts pcommon.Timestamp, c *groups.Change) {
	ghost := &groups.State{Notification: burrow.Notification{Group: burrow.GroupStatus{Cluster: c.Cluster, Group: c.Name, MaxLag: &burrow.PartitionStatus{}}}}
	if c.Ended.Group != 0 {
		b.ended.group(ts, c.Ended.Group, ghost)
	}
	for i := range c.Ended.Partitions {
		b.flushIfFull()
		p := &c.Ended.Partitions[i]
		if p.Kinds&groups.HeadSeries != 0 {
			b.ended.head(ts, c.Cluster, p.Topic, int64(p.Partition), 0)
			continue
		}
		b.ended.partition(ts, &ghost.Group, p.Kinds, &burrow.PartitionStatus{Topic: p.Topic, Partition: p.Partition}, 0, time.Time{})
	}
	for i := range c.Ended.Owners {
		b.flushIfFull()
		b.ended.owner(ts, &ghost.Group, &c.Ended.Owners[i])
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
		if metric.Name() != metadata.MetricsInfo.BurrowGroupIncidents.Name {
			continue
		}
		for i, point := range metric.Sum().DataPoints().All() {
			point.SetStartTimestamp(r.countedSince[i])
		}
	}
	return md
}

func (r *recorder) count(metric metadata.MetricConfig) {
	if metric.Enabled {
		r.points++
	}
}

// group records the series of these kinds of a group itself.
func (r *recorder) group(ts pcommon.Timestamp, kinds groups.Series, s *groups.State) {
	g := &s.Group
	if kinds&groups.GroupSeries != 0 {
		r.builder.RecordBurrowGroupIncidentsDataPoint(ts, s.Incidents.Seen, g.Cluster, g.Group)
		r.countedSince = append(r.countedSince, pcommon.NewTimestampFromTime(s.Incidents.Since))
		r.count(r.enabled.BurrowGroupIncidents)
		r.builder.RecordBurrowGroupStatusDataPoint(ts, int64(g.Status), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupStatus)
		r.builder.RecordBurrowGroupTotalLagDataPoint(ts, g.TotalLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupTotalLag)
	}
	if kinds&groups.IncidentDurationSeries != 0 {
		duration, _ := s.IncidentDuration()
		r.builder.RecordBurrowGroupIncidentDurationDataPoint(ts, duration.Seconds(), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupIncidentDuration)
	}
	if kinds&groups.MaxLagSeries != 0 {
		r.builder.RecordBurrowGroupMaxLagDataPoint(ts, g.MaxLag.CurrentLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupMaxLag)
	}
	if kinds&groups.MaxTimeLagSeries != 0 {
		r.builder.RecordBurrowGroupMaxTimeLagDataPoint(ts, s.MaxTimeLag, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupMaxTimeLag)
		r.builder.RecordBurrowGroupTimeLagIsLowerBoundDataPoint(ts, oneIf(s.AtLeast), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupTimeLagIsLowerBound)
	}
	if kinds&groups.CompleteSeries != 0 {
		r.builder.RecordBurrowGroupCompleteDataPoint(ts, g.Complete, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupComplete)
	}
	if kinds&groups.NotificationSeries != 0 {
		r.builder.RecordBurrowGroupLastNotificationDataPoint(ts, unixSeconds(s.Notified), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupLastNotification)
	}
	if kinds&groups.LastCommitSeries != 0 {
		r.builder.RecordBurrowGroupLastCommitTimestampDataPoint(ts, float64(s.LastCommit)/1e3, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupLastCommitTimestamp)
	}
	if kinds&groups.AheadSeries != 0 {
		r.builder.RecordBurrowGroupPartitionsAheadDataPoint(ts, s.Ahead, g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupPartitionsAhead)
	}
	if kinds&groups.MaxUnreadSeries != 0 {
		r.builder.RecordBurrowGroupOldestUnreadTimestampDataPoint(ts, unixSeconds(s.OldestUnreadOfAll()), g.Cluster, g.Group)
		r.count(r.enabled.BurrowGroupOldestUnreadTimestamp)
	}
	if kinds&groups.PartitionCountSeries != 0 {
		for status, n := range partitionCounts(g) {
			r.builder.RecordBurrowGroupPartitionsDataPoint(ts, n, g.Cluster, g.Group, countedStatuses[status])
			r.count(r.enabled.BurrowGroupPartitions)
		}
	}
}

// groupPartition records every series of partition i of a group.
func (r *recorder) groupPartition(ts pcommon.Timestamp, s *groups.State, i int) {
	p := &s.Group.Partitions[i]
	r.partition(ts, &s.Group, s.PartitionSeries(i), p, s.TimeLag(i), s.OldestUnread(i))
	if groups.HasOwner(p) {
		r.owner(ts, &s.Group, &groups.Owner{Topic: p.Topic, Partition: p.Partition, Owner: p.Owner, ClientID: p.ClientID})
	}
}

// partition records the series of these kinds of a partition of a group.
func (r *recorder) partition(ts pcommon.Timestamp, g *burrow.GroupStatus, kinds groups.Series, p *burrow.PartitionStatus, timeLag float64, oldestUnread time.Time) {
	number := int64(p.Partition)
	if kinds&groups.PartitionSeries != 0 {
		r.builder.RecordBurrowPartitionLagDataPoint(ts, p.CurrentLag, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionLag)
	}
	if kinds&groups.PartitionStatusSeries != 0 {
		r.builder.RecordBurrowPartitionStatusDataPoint(ts, int64(p.Status), g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionStatus)
	}
	if kinds&groups.CommitSeries != 0 {
		r.builder.RecordBurrowPartitionCommittedOffsetDataPoint(ts, p.End.Offset, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionCommittedOffset)
		r.builder.RecordBurrowPartitionLastCommitTimestampDataPoint(ts, float64(p.End.Timestamp)/1e3, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionLastCommitTimestamp)
	}
	if kinds&groups.PartitionCompleteSeries != 0 {
		r.builder.RecordBurrowPartitionCompleteDataPoint(ts, p.Complete, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionComplete)
	}
	if kinds&groups.TimeLagSeries != 0 {
		r.builder.RecordBurrowPartitionTimeLagDataPoint(ts, timeLag, g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionTimeLag)
	}
	if kinds&groups.UnreadSeries != 0 {
		r.builder.RecordBurrowPartitionOldestUnreadTimestampDataPoint(ts, unixSeconds(oldestUnread), g.Cluster, g.Group, p.Topic, number)
		r.count(r.enabled.BurrowPartitionOldestUnreadTimestamp)
	}
}

// unixSeconds has the milliseconds of a moment: doubles carry no more.
func unixSeconds(moment time.Time) float64 { return float64(moment.UnixMilli()) / 1e3 }

func oneIf(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func (r *recorder) owner(ts pcommon.Timestamp, g *burrow.GroupStatus, o *groups.Owner) {
	r.builder.RecordBurrowPartitionOwnerDataPoint(ts, 1, g.Cluster, g.Group, o.Topic, int64(o.Partition), o.Owner, o.ClientID)
	r.count(r.enabled.BurrowPartitionOwner)
}

func (r *recorder) head(ts pcommon.Timestamp, cluster, topic string, partition, offset int64) {
	r.builder.RecordBurrowTopicOffsetDataPoint(ts, offset, cluster, topic, partition)
	r.count(r.enabled.BurrowTopicOffset)
}

// countedStatuses are the values of the status attribute of burrow.group.partitions.
var countedStatuses = [...]metadata.AttributeStatus{
	metadata.AttributeStatusOk,
	metadata.AttributeStatusWarn,
	metadata.AttributeStatusStop,
	metadata.AttributeStatusStall,
	metadata.AttributeStatusRewind,
}

// partitionCounts counts the partitions by status, in the order of countedStatuses. What is not listed is OK.
func partitionCounts(g *burrow.GroupStatus) (counts [len(countedStatuses)]int64) {
	for i := range g.Partitions {
		counts[countedIndex(g.Partitions[i].Status)]++
	}
	counts[0] += g.PartitionCount - int64(len(g.Partitions))
	return counts
}

// countedIndex is the place of a partition's status in countedStatuses. Others do not occur where partitions are counted.
func countedIndex(s burrow.Status) int {
	switch s {
	case burrow.StatusWarn:
		return 1
	case burrow.StatusStop:
		return 2
	case burrow.StatusStall:
		return 3
	case burrow.StatusRewind:
		return 4
	default:
		return 0
	}
}
