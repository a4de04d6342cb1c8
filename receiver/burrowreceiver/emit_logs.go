package burrowreceiver

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// maxRecords bounds one hand-over. A record with ten partitions has some 2 KB, and one with very long names counts as several.
const maxRecords = 1000

// logsEmitter hands over what has happened to incidents. Of several pipelines one may have taken what another refused, and a
// line that is printed again and again is worse than one that a backend lacks. So every event is handed over
// twice at the most: again when a later hand-over was taken, or after lastRepeat.
type logsEmitter struct {
	handOvers
	version string // of the distribution
	next    consumer.Logs

	// refused are the events that were handed over once, the latest of them at refusedAt.
	refused   groups.EventQueue
	refusedAt time.Time
}

func (l *logsEmitter) emit(ctx context.Context, now time.Time, last bool) (done bool) {
	l.table.Expire(now)
	limit := l.limit(last)
	var firstErr error
	taken := false
	for ctx.Err() == nil {
		events := l.table.TakeEvents(maxRecords)
		if len(events) == 0 {
			break
		}
		err := l.handOver(ctx, &limit, events)
		switch {
		case err == nil:
			taken = true
			continue
		case consumererror.IsPermanent(err): // it would be refused again
			l.table.DropEvents(len(events))
		default:
			l.keep(events, now)
		}
		firstErr = errors.Join(firstErr, err)
	}
	if firstErr == nil && l.refused.Len() > 0 && (taken || last || now.Sub(l.refusedAt) >= lastRepeat) {
		firstErr, taken = l.repeatRefused(ctx, &limit), true
	}
	if taken || firstErr != nil {
		l.observe(now, firstErr, true, l.refused.Len() > 0)
	}
	return l.refused.Len() == 0
}

// keep holds events for their second attempt, the newest if there are too many.
func (l *logsEmitter) keep(events []groups.Event, now time.Time) {
	l.table.DropEvents(l.refused.Add(events...))
	l.refusedAt = now
}

// repeatRefused makes the second attempt. What is refused again is given up.
func (l *logsEmitter) repeatRefused(ctx context.Context, limit *time.Duration) error {
	var errs error
	for l.refused.Len() > 0 {
		events := l.refused.Take(maxRecords)
		if err := l.handOver(ctx, limit, events); err != nil {
			l.table.DropEvents(len(events))
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

func (l *logsEmitter) handOver(ctx context.Context, limit *time.Duration, events []groups.Event) error {
	return l.attempt(ctx, limit, func(ctx context.Context) error {
		ctx = l.obsreport.StartLogsOp(ctx)
		err := l.next.ConsumeLogs(ctx, buildLogs(events, l.version))
		l.obsreport.EndLogsOp(ctx, metadata.Type.String(), len(events), err)
		return err
	})
}
