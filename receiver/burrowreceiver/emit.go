package burrowreceiver

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const (
	// What the pipelines refused is handed over again after a second, and then at twice the distance up to a minute.
	firstRepeat = time.Second
	lastRepeat  = time.Minute

	// minHandOverTimeout and handOverAfterTimeout bound a hand-over. One takes as long as the interval at the most: the
	// Collector hands data to one pipeline after the other, so one that hangs holds up those behind it. After one that timed
	// out, the others of the same pass are only carried past the pipeline that hangs.
	minHandOverTimeout   = time.Second
	handOverAfterTimeout = 50 * time.Millisecond
	// lastHandOverTimeout leaves time for more than one of the last.
	lastHandOverTimeout = 2 * time.Second
)

// emitter owns the clock of the way out for one signal. Each signal has an emitter of its own, so that the pipelines of one do
// not hold up those of the other.
type emitter struct {
	interval time.Duration
	// emit hands over what is due and returns whether nothing is left. The last time everything is due.
	emit func(ctx context.Context, now time.Time, last bool) (done bool)
}

// run hands over at once, for what was known before a restart, and every interval until passes ends: then the hand-over that is under way
// is broken off, and the last passes follow, until nothing is left or ctx ends.
func (e *emitter) run(ctx, passes context.Context) {
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
	e.emit(passes, time.Now(), false)
	for {
		select {
		case <-ticker.C:
			e.emit(passes, time.Now(), false)
		case <-passes.Done():
			e.drain(ctx)
			return
		}
	}
}

// drain hands over once more, and again as long as the pipelines refuse, ever less often.
func (e *emitter) drain(ctx context.Context) {
	for pause := firstRepeat; !e.emit(ctx, time.Now(), true); pause *= 2 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// handOvers are those of one signal: what they have in common, whatever is handed over.
type handOvers struct {
	signal string
	// promise says what becomes of that which is refused.
	promise   string
	table     *groups.Table
	obsreport *receiverhelper.ObsReport
	telemetry *metadata.TelemetryBuilder
	own       metric.MeasurementOption // says which receiver it is
	logger    *zap.Logger
	timeout   time.Duration

	// repeat is the distance of the next repeat to the last one, 0 while the pipelines take everything; then repeatAt is when
	// it is due.
	repeat   time.Duration
	repeatAt time.Time
	outage   outage
}

// limit is the time of the first hand-over of a pass.
func (h *handOvers) limit(last bool) time.Duration {
	if last {
		return min(h.timeout, lastHandOverTimeout)
	}
	return h.timeout
}

// repeatDue says whether what was refused may be handed over again.
func (h *handOvers) repeatDue(now time.Time) bool { return h.repeat == 0 || !now.Before(h.repeatAt) }

// attempt bounds one hand-over and counts it if it fails. limit is what the pass still allows.
func (h *handOvers) attempt(ctx context.Context, limit *time.Duration, consume func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	err := consume(bounded)
	if err == nil {
		return nil
	}
	if errors.Is(bounded.Err(), context.DeadlineExceeded) {
		*limit = min(*limit, handOverAfterTimeout)
	}
	h.telemetry.ReceiverBurrowHandoverFailures.Add(ctx, 1, h.own)
	return err
}

// observe ends a pass. err is of its first hand-over that failed; repeated says that the pass had repeats in it, left that something
// that was refused is still to be repeated. It logs when the pipelines begin and when they cease to refuse.
func (h *handOvers) observe(now time.Time, err error, repeated, left bool) {
	if err != nil {
		if untold, tell := h.outage.fail(now); tell {
			h.logger.Error("A pipeline refuses what is handed over. "+h.promise, zap.String("signal", h.signal), zap.Error(err), zap.Int("outages_since_last_line", untold))
		}
	}
	switch {
	case err != nil && h.repeat == 0:
		h.repeat, h.repeatAt = firstRepeat, now.Add(firstRepeat)
	case err != nil && repeated:
		h.repeat = min(2*h.repeat, lastRepeat)
		h.repeatAt = now.Add(h.repeat)
	case err == nil && !left && h.repeat != 0:
		h.repeat = 0
		if h.outage.end() {
			h.logger.Info("The pipelines take what is handed over again.", zap.String("signal", h.signal))
		}
	}
}
