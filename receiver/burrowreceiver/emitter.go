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

// emitter hands what has changed in the table to the pipelines. It owns the clock of this half.
type emitter struct {
	interval  time.Duration
	table     *groups.Table
	mapper    *metricsMapper
	next      consumer.Metrics
	obsreport *receiverhelper.ObsReport
	telemetry *metadata.TelemetryBuilder
	logger    *zap.Logger

	failing bool
}

// run hands over every interval until stop is closed, and then until nothing is left or ctx ends.
func (e *emitter) run(ctx context.Context, stop <-chan struct{}) {
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
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

// handOver gives every changed group to the pipelines and returns whether they have taken all there was.
// What they refuse is handed over again, in its newest form, whatever the reason of the refusal: with
// several pipelines behind it, the error of one says nothing about the others.
func (e *emitter) handOver(ctx context.Context, now time.Time) bool {
	changes := e.table.Collect(now)
	if len(changes) == 0 {
		return true
	}
	md := e.mapper.build(changes)
	points := md.DataPointCount()
	if points == 0 { // every metric is switched off
		e.table.Commit(changes)
		return true
	}

	ctx = e.obsreport.StartMetricsOp(ctx)
	err := e.next.ConsumeMetrics(ctx, md)
	e.obsreport.EndMetricsOp(ctx, metadata.Type.String(), points, err)
	e.telemetry.ReceiverBurrowHandoverDuration.Record(ctx, time.Since(now).Seconds())

	if err != nil {
		e.telemetry.ReceiverBurrowHandoverFailures.Add(ctx, 1)
		if !e.failing {
			e.logger.Error("The pipelines refuse metrics. The groups are handed over again every interval.",
				zap.Error(err), zap.Int("groups", len(changes)))
		}
		e.failing = true
		return false
	}
	if e.failing {
		e.logger.Info("The pipelines take metrics again.", zap.Int("groups", len(changes)))
	}
	e.failing = false
	e.table.Commit(changes)
	return true
}
