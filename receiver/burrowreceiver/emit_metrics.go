package burrowreceiver

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// metricsEmitter hands over the groups and topics that have changed.
type metricsEmitter struct {
	handOvers
	mapper *metricsMapper
	next   consumer.Metrics

	// repeatPoints bounds a repeat. It is halved whenever one is refused, so that what a backend never takes stands alone in the
	// end, and does not keep the others from it.
	repeatPoints int
	// lastPoints is what the last hand-over had.
	lastPoints int
}

// emit makes one pass: all that is new, and what was refused, if its repeat is due, up to the first hand-over that is refused again.
// So a healthy pipeline behind the same receiver stays as fresh as ever, and gets few repeats.
func (m *metricsEmitter) emit(ctx context.Context, now time.Time, last bool) (done bool) {
	m.table.Expire(now)
	fresh, refused := m.table.Due()
	if len(fresh)+len(refused) == 0 {
		return true
	}
	limit := m.limit(last)
	var firstErr error
	left := len(refused) > 0
	repeated := left && (last || m.repeatDue(now))
	if len(fresh) == 0 && !repeated {
		return false // nothing is handed over, and so nothing takes time
	}
	for len(fresh) > 0 && ctx.Err() == nil {
		var err error
		if fresh, err = m.handOver(ctx, now, &limit, fresh, maxPoints); err != nil && firstErr == nil {
			firstErr = err
		}
	}
	for repeated && len(refused) > 0 && ctx.Err() == nil {
		var err error
		if refused, err = m.handOver(ctx, now, &limit, refused, m.repeatPoints); err != nil {
			m.repeatPoints = max(min(m.repeatPoints, m.lastPoints)/2, 1)
			if firstErr == nil {
				firstErr = err
			}
			break
		}
		left = len(refused) > 0
	}
	m.telemetry.ReceiverBurrowHandoverDuration.Record(ctx, time.Since(now).Seconds(), m.own)
	m.observe(now, firstErr, repeated, left)
	if m.repeat == 0 {
		m.repeatPoints = maxPoints
	}
	return firstErr == nil && !left
}

// handOver hands over as many of the groups and topics as go into one hand-over of so many points, and returns the others.
func (m *metricsEmitter) handOver(ctx context.Context, now time.Time, limit *time.Duration, refs []groups.Ref, points int) (others []groups.Ref, err error) {
	begun, payloads, others := m.mapper.build(m.table.Begin, refs, points)
	m.lastPoints = 0
	for _, md := range payloads {
		points := md.DataPointCount()
		m.lastPoints += points
		if failure := m.consume(ctx, limit, md, points); failure != nil && err == nil {
			err = failure
		}
	}
	m.table.Finish(begun, err == nil, now)
	return others, err
}

func (m *metricsEmitter) consume(ctx context.Context, limit *time.Duration, md pmetric.Metrics, points int) error {
	return m.attempt(ctx, limit, func(ctx context.Context) error {
		ctx = m.obsreport.StartMetricsOp(ctx)
		err := m.next.ConsumeMetrics(ctx, md)
		m.obsreport.EndMetricsOp(ctx, metadata.Type.String(), points, err)
		return err
	})
}
