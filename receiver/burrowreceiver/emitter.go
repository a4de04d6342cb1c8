package burrowreceiver

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// emitter hands what has changed in the table to the pipelines of one signal. It owns the clock of this
// half. Each signal has an emitter of its own, so that the pipelines of one do not hold up those of the other.
type emitter struct {
	interval time.Duration
	// handOver returns whether the pipelines have taken all there was.
	handOver func(ctx context.Context, now time.Time) bool
}

// run hands over at once, for what was known before a restart, and every interval until stop is closed, and then until nothing is left or ctx ends.
func (e *emitter) run(ctx context.Context, stop <-chan struct{}) {
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
	e.handOver(ctx, time.Now())
	for {
		select {
		case <-ticker.C:
			e.handOver(ctx, time.Now())
		case <-stop:
			e.drain(ctx, ticker.C)
			return
		}
	}
}

// drain hands over once more, and again as long as the pipelines refuse.
func (e *emitter) drain(ctx context.Context, tick <-chan time.Time) {
	for !e.handOver(ctx, time.Now()) {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

// outlet is what hand-overs of any signal have in common.
type outlet struct {
	signal    string
	table     *groups.Table
	obsreport *receiverhelper.ObsReport
	telemetry *metadata.TelemetryBuilder
	logger    *zap.Logger

	failing bool
}

// observe counts a hand-over and logs when the pipelines begin and when they cease to refuse. What they refuse is
// handed over again, whatever the reason of the refusal: with several pipelines behind it, the error of one
// says nothing about the others. It returns whether the hand-over was taken.
func (o *outlet) observe(ctx context.Context, err error) bool {
	if err != nil {
		o.telemetry.ReceiverBurrowHandoverFailures.Add(ctx, 1)
		if !o.failing {
			o.logger.Error("The pipelines refuse what is handed over. It is handed over again every interval.",
				zap.String("signal", o.signal), zap.Error(err))
		}
	} else if o.failing {
		o.logger.Info("The pipelines take what is handed over again.", zap.String("signal", o.signal))
	}
	o.failing = err != nil
	return err == nil
}

// metricsOutlet hands over the groups that have changed.
type metricsOutlet struct {
	outlet
	mapper *metricsMapper
	next   consumer.Metrics
}

func (o *metricsOutlet) handOver(ctx context.Context, now time.Time) bool {
	o.table.Expire(now)
	changes, topics := o.table.Collect(), o.table.CollectTopics()
	if len(changes)+len(topics) == 0 {
		return true
	}
	md := o.mapper.build(changes, topics)
	points := md.DataPointCount()
	if points > 0 { // or every metric is switched off
		ctx = o.obsreport.StartMetricsOp(ctx)
		err := o.next.ConsumeMetrics(ctx, md)
		o.obsreport.EndMetricsOp(ctx, metadata.Type.String(), points, err)
		o.telemetry.ReceiverBurrowHandoverDuration.Record(ctx, time.Since(now).Seconds())
		if !o.observe(ctx, err) {
			return false
		}
	}
	o.table.Commit(changes)
	o.table.CommitTopics(topics)
	return true
}

// logsOutlet hands over what has happened to incidents.
type logsOutlet struct {
	outlet
	version string // of the distribution
	next    consumer.Logs
}

func (o *logsOutlet) handOver(ctx context.Context, now time.Time) bool {
	o.table.Expire(now)
	events, end := o.table.Events()
	if len(events) == 0 {
		return true
	}
	ctx = o.obsreport.StartLogsOp(ctx)
	err := o.next.ConsumeLogs(ctx, buildLogs(events, o.version))
	o.obsreport.EndLogsOp(ctx, metadata.Type.String(), len(events), err)
	if !o.observe(ctx, err) {
		return false
	}
	o.table.CommitEvents(end)
	return true
}
