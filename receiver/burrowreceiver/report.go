package burrowreceiver

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
)

const (
	// maxReportInterval is how long the log waits at the most before it tells of what has happened.
	maxReportInterval = time.Second
	// linesInterval is the time in which groups that end have one line, and incidents have maxIncidentLines.
	linesInterval    = time.Minute
	maxIncidentLines = 60
	// maxNamed is how many groups that have ended a line names.
	maxNamed = 5
	// summaryInterval is the time from one summary to the next.
	summaryInterval = 10 * time.Minute
)

// polls is what has become of polls of Burrow's API, for own telemetry and the log.
type polls struct {
	// answered is when a group was last told of, completed when the last complete poll ended; in unix nanoseconds, 0 before
	// the first time.
	answered, completed atomic.Int64
	// complete and incomplete count polls.
	complete, incomplete atomic.Int64
}

// reporter tells people in the log what the receiver sees. It says the same with ten thousand groups as with one: what
// happens often is counted in one line.
type reporter struct {
	logger    *zap.Logger
	table     *groups.Table
	webhook   *webhook
	polls     *polls
	cfg       *Config
	started   time.Time
	listening string // url of the webhook, empty if it is off

	// accepted is how many notifications were, and acceptedAt when the last of them was seen here; zero if none has come. That of the
	// webhook is on the clock of the machine, which can be put forward and back.
	accepted   int64
	acceptedAt time.Time
	// silent says that the log has told that no notification comes any more, since silentSince; that is zero if none ever came.
	silent      bool
	silentSince time.Time

	// left are groups that have ended, and are to be told of.
	left   groups.News
	leftAt time.Time

	// room is how many lines incidents may have before linesFrom is linesInterval ago, leftOut what had none.
	room, leftOut int
	linesFrom     time.Time

	// now is what was counted since the start, told what was so at the last summary, at toldAt.
	now, told totals
	toldAt    time.Time
	// receiving and polling say whether notifications and complete polls were told of.
	receiving, polling bool
}

// totals are what a summary is made of.
type totals struct {
	groups, warn, err, topics                      int
	accepted, refused, complete, incomplete        int64
	incidentsOpened, incidentsEnded, expired, gone int64
}

func (r *burrowReceiver) newReporter() *reporter {
	return &reporter{
		logger: r.set.Logger, table: r.table, webhook: r.webhook, polls: &r.polls, cfg: r.cfg, started: r.started, listening: r.listening,
		toldAt: r.started,
	}
}

// emit is called every interval.
func (r *reporter) emit(_ context.Context, now time.Time, last bool) (done bool) {
	news := r.table.TakeNews()
	r.now.incidentsOpened += int64(news.Opened)
	r.now.incidentsEnded += int64(news.Ended)
	r.now.expired += int64(news.Expired)
	r.now.gone += int64(news.Gone)
	r.departures(&news, now, last)
	if r.cfg.LogIncidents {
		r.incidents(&news, now, last)
	}
	r.silence(now)
	if now.Sub(r.toldAt) >= summaryInterval {
		r.toldAt = now
		r.summary()
	}
	return true
}

// departures tells of groups that have ended: of the first one at once, of those that follow in one line a minute.
func (r *reporter) departures(news *groups.News, now time.Time, last bool) {
	r.left.Expired += news.Expired
	r.left.Gone += news.Gone
	r.left.Left = append(r.left.Left, news.Left...)
	r.left.Left = r.left.Left[:min(len(r.left.Left), maxNamed)]
	count := r.left.Expired + r.left.Gone
	if count == 0 || now.Sub(r.leftAt) < linesInterval && !last {
		return
	}
	first := r.left.Left[0]
	switch {
	case count > 1:
		var names []string
		for _, d := range r.left.Left {
			names = append(names, burrow.Printable(d.Cluster+"/"+d.Group))
		}
		r.logger.Info("Groups have ended, and their series with them.", zap.Int("expired", r.left.Expired), zap.Int("gone", r.left.Gone), zap.Strings("first", names))
	case first.By == groups.EndedByGone:
		r.logger.Info("A group is gone: Burrow's API does not list it any more. Its series have ended.", groupFields(first.Cluster, first.Group)...)
	default:
		r.logger.Info("A group has expired: nothing was received of it for expire_after. Its series have ended.", groupFields(first.Cluster, first.Group)...)
	}
	r.left, r.leftAt = groups.News{}, now
}

// incidents has a line for each thing that happens to one, up to maxIncidentLines in a minute.
func (r *reporter) incidents(news *groups.News, now time.Time, last bool) {
	if now.Sub(r.linesFrom) >= linesInterval {
		r.logLeftOut()
		r.room, r.linesFrom = maxIncidentLines, now
	}
	told := min(len(news.Events), r.room)
	for i := range news.Events[:told] {
		e := &news.Events[i]
		fields := append(groupFields(e.Cluster, e.Group), zap.String("event", eventNames[e.Kind]), zap.Stringer("status", e.Status), zap.String("incident", burrow.Printable(e.ID)))
		r.logger.Info(burrow.Printable(sentence(e)), fields...)
	}
	r.room -= told
	r.leftOut += news.Opened + news.Changed + news.Ended - told
	if last {
		r.logLeftOut()
	}
}

func (r *reporter) logLeftOut() {
	if r.leftOut > 0 {
		r.logger.Info("More has happened to incidents than is logged.", zap.Int("left_out", r.leftOut), zap.Int("lines_a_minute", maxIncidentLines))
	}
	r.leftOut = 0
}

// silence tells when notifications cease to come, and when they come again. Where the API is polled, they need not come at all; that a
// poll fails is told by the poller.
func (r *reporter) silence(now time.Time) {
	if !r.cfg.Webhook.HasValue() {
		return
	}
	if accepted := r.webhook.accepted.Load(); accepted != r.accepted {
		r.accepted, r.acceptedAt = accepted, now
	}
	never := r.acceptedAt.IsZero()
	quiet := now.Sub(r.started) >= r.cfg.ExpireAfter && (never || now.Sub(r.acceptedAt) >= r.cfg.ExpireAfter)
	counts := []zap.Field{zap.Int64("refused", r.webhook.refused.notifications()), zap.Int64("filtered", r.webhook.filtered.Load())}
	switch {
	case quiet && !r.silent && never && r.cfg.API.HasValue():
		return
	case quiet && !r.silent && never:
		r.logger.Warn("No notification has been accepted since the start. In Burrow's configuration, url-open of the notifier must lead here.",
			append([]zap.Field{zap.String("url", r.listening)}, counts...)...)
	case quiet && !r.silent:
		r.logger.Warn("No notification has been accepted for expire_after. What only notifications told has expired.",
			append([]zap.Field{zap.Time("last", time.Unix(0, r.webhook.lastAccepted.Load()))}, counts...)...)
	case !quiet && r.silent && !r.silentSince.IsZero():
		r.logger.Info("Notifications are accepted again.", zap.Duration("silent", r.acceptedAt.Sub(r.silentSince)))
	}
	if quiet != r.silent {
		r.silent, r.silentSince = quiet, r.acceptedAt
	}
}

// summary tells of what was counted since the last one, if it is not the same as ever.
func (r *reporter) summary() {
	now := r.now
	stats := r.table.Stats()
	now.groups, now.topics = stats.Groups, stats.Topics
	r.table.Each(func(s *groups.State) {
		switch {
		case s.Group.Status == burrow.StatusWarn:
			now.warn++
		case s.Group.Status > burrow.StatusWarn:
			now.err++
		}
	})
	now.accepted, now.refused = r.webhook.accepted.Load(), r.webhook.refused.notifications()
	now.complete, now.incomplete = r.polls.complete.Load(), r.polls.incomplete.Load()
	told, receiving, polling := r.told, r.receiving, r.polling
	r.told, r.receiving, r.polling = now, now.accepted > told.accepted, now.complete > told.complete
	// That notifications and polls go on as before is not worth a line.
	same := now
	same.accepted, same.complete = told.accepted, told.complete
	if same == told && r.receiving == receiving && r.polling == polling {
		return
	}
	r.logger.Info("Summary of the last ten minutes", zap.Int("groups", now.groups), zap.Int("warn", now.warn), zap.Int("err", now.err), zap.Int("topics", now.topics),
		zap.Int64("notifications", now.accepted-told.accepted), zap.Int64("refused", now.refused-told.refused),
		zap.Int64("polls", now.complete-told.complete), zap.Int64("incomplete_polls", now.incomplete-told.incomplete),
		zap.Int64("incidents_opened", now.incidentsOpened-told.incidentsOpened), zap.Int64("incidents_ended", now.incidentsEnded-told.incidentsEnded),
		zap.Int64("groups_expired", now.expired-told.expired), zap.Int64("groups_gone", now.gone-told.gone))
}

func groupFields(cluster, group string) []zap.Field {
	return []zap.Field{zap.String("cluster", burrow.Printable(cluster)), zap.String("group", burrow.Printable(group))}
}

// outage is something that fails for a while. Its begin and its end have a line each. While the begin of the last one that had is less than
// linesInterval ago it waits for its line, and has none if it ends before: what comes and goes would fill the log.
type outage struct {
	failing, told bool
	begun         time.Time // of the last one that had a line
	untold        int       // since then
}

// fail takes a failure, and says whether the outage that it belongs to gets its line now. untold is how many had none since the last one that had.
func (o *outage) fail(now time.Time) (untold int, tell bool) {
	o.failing = true
	if o.told || now.Sub(o.begun) < linesInterval {
		return 0, false
	}
	untold, o.untold = o.untold, 0
	o.told, o.begun = true, now
	return untold, true
}

// end takes a success, and says whether an outage ends with it that had a line.
func (o *outage) end() (tell bool) {
	tell = o.told
	if o.failing && !o.told {
		o.untold++
	}
	o.failing, o.told = false, false
	return tell
}
