package burrowreceiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrowtest"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

// reporting is a receiver that hands over and reports, on the clock of the bubble, without a server.
type reporting struct {
	*burrowReceiver
	logs *observer.ObservedLogs
}

func newReporting(t *testing.T, change func(*Config)) *reporting {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	r, err := newMetricsReceiver(set, cfg, consumertest.NewNop())
	require.NoError(t, err)
	r.started, r.listening = time.Now(), "http://karrot:5000/burrow"
	r.startLoops(t.Context())
	t.Cleanup(func() { require.NoError(t, r.Shutdown(context.Background())) })
	return &reporting{r, logs}
}

func (r *reporting) notify(t *testing.T, body string) {
	t.Helper()
	answer := httptest.NewRecorder()
	r.webhook.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, defaultPath, strings.NewReader(body)))
	require.Equal(t, http.StatusOK, answer.Code, answer.Body)
}

// lines are those since the last call, with their fields.
func (r *reporting) lines() (lines []string) {
	for _, entry := range r.logs.TakeAll() {
		parts := []string{entry.Level.String(), entry.Message}
		for _, field := range entry.Context {
			parts = append(parts, fmt.Sprintf("%s=%v", field.Key, entry.ContextMap()[field.Key]))
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	return lines
}

func withStatus(name, status string) string {
	quoted, err := json.Marshal(name)
	if err != nil {
		panic(err) // a string has a form in JSON
	}
	return fmt.Sprintf(`{"cluster":"c","group":%s,"status":%q,"totallag":7,"partitions":[]}`, quoted, status)
}

func TestFirstNotificationIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, nil)
		r.notify(t, withStatus("a\u202e\n", "WARN"))
		r.notify(t, withStatus("b", "OK"))
		assert.Equal(t, []string{"info The first notification has arrived cluster=c group=a\ufffd\ufffd status=WARN"}, r.lines())
	})
}

func TestEndOfGroupsIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.API.GetOrInsertDefault() })
		r.notify(t, withStatus("alone\x1b", "OK"))
		pass(time.Minute)
		for i := range 3000 {
			r.notify(t, withStatus(fmt.Sprint("many-", i), "OK"))
		}
		pass(10 * time.Second)
		r.notify(t, withStatus("stays", "OK"))
		r.lines()
		pass(4 * time.Minute)
		assert.Equal(t, []string{"info A group has expired: nothing was received of it for expire_after. Its series have ended. cluster=c group=alone\ufffd"}, r.lines())
		r.notify(t, withStatus("stays", "OK"))
		pass(62 * time.Second)
		lines := r.lines()
		require.Len(t, lines, 1, "one line for all of them")
		assert.Regexp(t, `^info Groups have ended, and their series with them. expired=3000 gone=0 first=\[(c/many-\d+ ){4}c/many-\d+\]$`, lines[0])

		pass(6 * time.Minute) // the last group expires, too
		r.lines()
		asked := time.Now()
		require.NoError(t, r.table.UpdateFromAPI(&burrow.GroupStatus{Cluster: "c", Group: "polled", Status: burrow.StatusOK}, asked))
		r.table.EndCluster("c", asked.Add(1), asked.Add(1))
		pass(time.Minute)
		assert.Contains(t, r.lines(), "info A group is gone: Burrow's API does not list it any more. Its series have ended. cluster=c group=polled")
	})
}

// A group that ends each second has a line a minute.
func TestEndsHaveALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.ExpireAfter = 2 * time.Second })
		for i := range 300 {
			r.notify(t, withStatus(strconv.Itoa(i), "OK"))
			pass(time.Second)
		}
		pass(time.Minute)
		ended := 0
		for _, entry := range r.logs.All() {
			switch {
			case strings.HasPrefix(entry.Message, "A group has expired"):
				ended++
			case strings.HasPrefix(entry.Message, "Groups have ended"):
				ended += int(entry.ContextMap()["expired"].(int64))
			}
		}
		// The first one has a line of its own unless two expired in the same moment.
		assert.Equal(t, 300, ended)
		assert.LessOrEqual(t, r.logs.FilterMessageSnippet("ended").Len(), 7)
	})
}

func TestSilenceIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.Groups.Exclude = []string{"^left-out$"} })
		r.notify(t, withStatus("left-out", "OK"))
		pass(299 * time.Second)
		assert.Empty(t, r.lines())
		pass(2 * time.Second)
		assert.Equal(t, []string{"warn No notification has been accepted since the start. In Burrow's configuration, url-open of the notifier must lead here. " +
			"url=http://karrot:5000/burrow refused=0 filtered=1"}, r.lines())
		pass(time.Hour)
		assert.Empty(t, r.lines(), "said once")
		r.notify(t, withStatus("a", "OK"))
		pass(2 * time.Second)
		assert.Equal(t, []string{"info The first notification has arrived cluster=c group=a status=OK"}, r.lines(), "that is its end")

		last := time.Now().Add(-2 * time.Second)
		pass(299 * time.Second)
		assert.Contains(t, r.lines(), fmt.Sprintf("warn No notification has been accepted for expire_after. What only notifications told has expired. last=%v refused=0 filtered=1", last))
		pass(time.Hour)
		r.lines()
		r.notify(t, withStatus("a", "OK"))
		pass(2 * time.Second)
		assert.Equal(t, []string{"info Notifications are accepted again. silent=1h5m1s"}, r.lines())
	})
}

// A clock that is put forward or back makes no silence, and hides none.
func TestSilenceAfterTheClockWasPut(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := newReporting(t, nil)
			for range 2 {
				r.notify(t, withStatus("a", "OK"))
				pass(299 * time.Second)
			}
			r.notify(t, withStatus("a", "OK"))
			pass(2 * time.Second)
			r.lines()
			// What was noted before the clock was put is now that much older, or younger.
			r.webhook.lastAccepted.Add(-by.Nanoseconds())
			pass(4 * time.Minute)
			assert.Empty(t, r.lines(), by)
			pass(62 * time.Second)
			lines := r.lines()
			require.Len(t, lines, 2, by)
			assert.Contains(t, strings.Join(lines, "\n"), "No notification has been accepted for expire_after.", by)
			r.notify(t, withStatus("a", "OK"))
			pass(2 * time.Second)
			assert.Equal(t, []string{"info Notifications are accepted again. silent=5m4s"}, r.lines(), by)
		})
	}
}

// Who only polls has no notifications, and nothing is wrong with that.
func TestPollingAloneIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := newReporting(t, func(c *Config) { c.API.GetOrInsertDefault() })
		alone := newReporting(t, func(c *Config) {
			c.API.GetOrInsertDefault()
			c.Webhook = configoptional.None[WebhookConfig]()
		})
		pass(time.Hour)
		assert.Empty(t, both.lines())
		assert.Empty(t, alone.lines())
	})
}

// Groups that have expired while the process was away are told of, too: they end before anything is reported.
func TestEndsBeforeTheStartAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newReporting(t, nil)
		before.notify(t, withStatus("was-bad", "ERR"))
		var record []byte
		before.table.Each(func(s *groups.State) {
			var err error
			record, err = groups.New(groups.Limits{}).Record(s)
			require.NoError(t, err)
		})
		pass(time.Hour)

		core, logs := observer.New(zap.InfoLevel)
		set := receivertest.NewNopSettings(metadata.Type)
		set.Logger = zap.New(core)
		cfg := createDefaultConfig().(*Config)
		cfg.LogIncidents = true
		r, err := newMetricsReceiver(set, cfg, consumertest.NewNop())
		require.NoError(t, err)
		_, err = r.table.Restore(record, groups.Times{}, time.Now())
		require.ErrorIs(t, err, groups.ErrOld)
		r.started = time.Now()
		r.startLoops(t.Context())
		pass(2 * time.Second)
		again := &reporting{r, logs}
		lines := again.lines()
		require.Len(t, lines, 2)
		assert.Equal(t, "info A group has expired: nothing was received of it for expire_after. Its series have ended. cluster=c group=was-bad", lines[0])
		assert.Regexp(t, "^info Nothing was received of consumer group was-bad in cluster c any more after 1h0m0s, last ERR", lines[1])
		require.NoError(t, r.Shutdown(context.Background()))
	})
}

func TestSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.ExpireAfter = 24 * time.Hour })
		pass(11 * time.Minute)
		assert.Empty(t, r.lines(), "nothing has happened")
		r.notify(t, withStatus("a", "OK"))
		r.notify(t, withStatus("b", "ERR"))
		r.notify(t, withStatus("c", "WARN"))
		r.webhook.refused.add("syntax")
		r.webhook.refused.add("path")
		r.lines()
		pass(10 * time.Minute)
		assert.Equal(t, []string{"info Summary of the last ten minutes groups=3 warn=1 err=1 topics=0 notifications=3 refused=1 polls=0 incomplete_polls=0 " +
			"incidents_opened=2 incidents_ended=0 groups_expired=0 groups_gone=0"}, r.lines())
		for range 30 {
			r.notify(t, withStatus("a", "OK"))
			pass(time.Minute)
		}
		assert.Empty(t, r.lines(), "more of the same")
		r.notify(t, withStatus("b", "OK"))
		pass(10 * time.Minute)
		assert.Equal(t, []string{"info Summary of the last ten minutes groups=3 warn=1 err=0 topics=0 notifications=2 refused=0 polls=0 incomplete_polls=0 " +
			"incidents_opened=0 incidents_ended=1 groups_expired=0 groups_gone=0"}, r.lines())
		pass(10 * time.Minute)
		require.Len(t, r.lines(), 1, "notifications have ceased")
		pass(time.Hour)
		assert.Empty(t, r.lines())
	})
}

func TestIncidentsAreLoggedIfAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent, r := newReporting(t, nil), newReporting(t, func(c *Config) { c.LogIncidents = true })
		body := `{"Event":{"ID":"i\u009b1","Start":"2026-11-22T13:00:00Z","Result":` + withStatus("g\u2028", "ERR") + `}}`
		for _, x := range []*reporting{silent, r} {
			x.notify(t, withStatus("other", "OK"))
			x.lines()
			x.notify(t, body)
			x.notify(t, strings.Replace(body, "ERR", "WARN", 1))
			x.notify(t, strings.Replace(body, "ERR", "OK", 1))
			pass(2 * time.Second)
		}
		assert.Empty(t, silent.lines())
		lines := r.lines()
		require.Len(t, lines, 3)
		assert.Equal(t, "info Consumer group g\ufffd in cluster c is ERR: total lag 7 cluster=c group=g\ufffd event=burrow.incident.opened status=ERR incident=i\ufffd1", lines[0])
		assert.Regexp(t, `^info Consumer group g\x{fffd} in cluster c went from ERR to WARN after \S+: total lag 7 .* event=burrow.incident.changed status=WARN `, lines[1])
		assert.Regexp(t, `^info Consumer group g\x{fffd} in cluster c is OK again after \S+, total lag 7 .* event=burrow.incident.ended status=OK `, lines[2])
	})
}

// All groups of a large Burrow become bad at once.
func TestManyIncidents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.LogIncidents = true })
		pass(time.Second)
		for i := range 5000 {
			r.notify(t, withStatus(strconv.Itoa(i), "ERR"))
		}
		r.lines()
		pass(30 * time.Second)
		assert.Len(t, r.lines(), maxIncidentLines)
		r.notify(t, withStatus("0", "OK"))
		pass(28 * time.Second)
		assert.Empty(t, r.lines())
		pass(3 * time.Second)
		assert.Equal(t, []string{"info More has happened to incidents than is logged. left_out=4941 lines_a_minute=60"}, r.lines())
		r.notify(t, withStatus("1", "OK"))
		pass(2 * time.Second)
		assert.Len(t, r.lines(), 1, "there is room again")
	})
}

// What is still to be told is told at the end.
func TestTheLastReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, func(c *Config) { c.LogIncidents = true })
		pass(time.Second)
		for i := range 100 {
			r.notify(t, withStatus(strconv.Itoa(i), "ERR"))
		}
		pass(2 * time.Second)
		r.lines()
		require.NoError(t, r.Shutdown(context.Background()))
		assert.Equal(t, []string{"info More has happened to incidents than is logged. left_out=40 lines_a_minute=60"}, r.lines())
	})
}

// What comes and goes has two lines a minute: the begin of an outage, and its end.
func TestOutagesThatComeAndGo(t *testing.T) {
	begin := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	var o outage
	var told []string
	for second := range 181 {
		now := begin.Add(time.Duration(second) * time.Second)
		if second%2 == 1 {
			if o.end() {
				told = append(told, fmt.Sprint(second, " ends"))
			}
			continue
		}
		if untold, tell := o.fail(now); tell {
			told = append(told, fmt.Sprint(second, " begins, untold ", untold))
		}
		_, again := o.fail(now)
		assert.False(t, again, "an outage begins once")
	}
	assert.Equal(t, []string{
		"0 begins, untold 0", "1 ends", "60 begins, untold 29", "61 ends", "120 begins, untold 29", "121 ends", "180 begins, untold 29",
	}, told)
	assert.True(t, o.end())
	assert.False(t, o.end(), "and ends once")
}

// An outage that begins soon after the last line and stays has its line as soon as one is due.
func TestOutageThatStays(t *testing.T) {
	begin := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	var o outage
	o.fail(begin)
	assert.True(t, o.end())
	o.fail(begin.Add(5 * time.Second))
	assert.False(t, o.end(), "it had no line")
	var told []string
	for second := 20; second < 36_000; second++ {
		if untold, tell := o.fail(begin.Add(time.Duration(second) * time.Second)); tell {
			told = append(told, fmt.Sprint(second, ", untold ", untold))
		}
	}
	assert.Equal(t, []string{"60, untold 1"}, told)
	assert.True(t, o.end())
}

// So a pipeline that takes every other hand-over does not fill the log.
func TestAPipelineThatComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, next, logs := emitting(t, nil)
		for i := range 600 {
			next.refuse(map[bool]error{true: errors.New("full"), false: nil}[i%2 == 0])
			answer := httptest.NewRecorder()
			r.webhook.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, defaultPath, strings.NewReader(group("a", i))))
			pass(time.Second)
		}
		assert.Greater(t, logs.FilterMessageSnippet("A pipeline refuses").Len(), 5)
		assert.LessOrEqual(t, logs.Len(), 21+1, "two a minute, and the first notification")
	})
}

func TestFirstCompletePollIsLogged(t *testing.T) {
	server := &swap{}
	empty := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"clusters":[],"consumers":[],"topics":[]}`))
	})
	server.use(http.NotFoundHandler())
	p := newPolling(t, server, nil)
	p.poll(t)
	assert.Zero(t, p.polls.complete.Load())
	assert.Zero(t, p.polls.completed.Load())
	server.use(empty)
	p.poll(t)
	p.poll(t)
	assert.Equal(t, 1, p.logs.FilterMessage("Burrow's API answers, and tells of no group.").Len())
	server.use(burrowtest.RecordedAPI(t, recordedAPI))
	p.poll(t)
	p.poll(t)
	lines := p.logs.FilterMessage("The first complete poll of Burrow's API").All()
	require.Len(t, lines, 1)
	fields := lines[0].ContextMap()
	assert.EqualValues(t, 2, fields["clusters"])
	assert.EqualValues(t, p.table.Stats().Groups, fields["groups"])
	assert.EqualValues(t, p.table.Stats().Topics, fields["topics"])
	assert.Positive(t, fields["length"])
	assert.EqualValues(t, 4, p.polls.complete.Load())
	assert.EqualValues(t, 1, p.polls.incomplete.Load())
}

// Whatever Burrow's API says, a line of the log stays a line.
func TestAnswersOfTheAPIArePrintable(t *testing.T) {
	const evil = `x\n2026 forged\u001b[2J\u202e`
	partition := func(n int) string {
		return fmt.Sprintf(`{"topic":"%s","partition":%d,"current_lag":0,"status":"OK","end":{"offset":1,"timestamp":1,"lag":0}}`, evil, n)
	}
	p := newPolling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v3/kafka":
			fmt.Fprint(w, `{"clusters":["c"]}`)
		case strings.HasSuffix(r.URL.Path, "/consumer"):
			fmt.Fprintf(w, `{"consumers":["%s/","%s","g"]}`, evil, evil)
		case strings.HasSuffix(r.URL.Path, "/g/lag"):
			fmt.Fprintf(w, `{"status":{"cluster":"c","group":"g","status":"OK","complete":1,"totallag":0,"partition_count":2,"partitions":[%s,%s]}}`, partition(0), partition(1))
		case strings.HasSuffix(r.URL.Path, "/topic"):
			fmt.Fprintf(w, `{"topics":["%s"]}`, evil)
		case strings.Contains(r.URL.Path, "/topic/"):
			fmt.Fprint(w, `{"offsets":[5]}`) // of two partitions
		default:
			http.Error(w, "no", http.StatusInternalServerError)
		}
	}), nil)
	p.poll(t)
	for _, message := range []string{"a slash in its name", "A request to Burrow's API failed", "asked for everything", "Head offsets are left out"} {
		require.Equal(t, 1, p.logs.FilterMessageSnippet(message).Len(), message)
	}
	for _, entry := range p.logs.All() {
		assert.NotRegexp(t, `[\n\x1b\x{202e}]`, fmt.Sprint(entry.Message, entry.ContextMap()))
	}
}

// The moments that alerts are made of are there from the start, and begin with it.
func TestContactIsThereFromTheStart(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*Config)
		sources []string
	}{
		"webhook": {change: func(*Config) {}, sources: []string{"webhook"}},
		"api": {change: func(c *Config) {
			c.Webhook = configoptional.None[WebhookConfig]()
			c.API.GetOrInsertDefault().InitialDelay = time.Hour
		}, sources: []string{"api"}},
		"both": {change: func(c *Config) { c.API.GetOrInsertDefault().InitialDelay = time.Hour }, sources: []string{"api", "webhook"}},
	} {
		t.Run(name, func(t *testing.T) {
			telemetry := componenttest.NewTelemetry()
			set := receivertest.NewNopSettings(metadata.Type)
			set.TelemetrySettings = telemetry.NewTelemetrySettings()
			cfg := testConfig(func(*Config) {})
			tc.change(cfg)
			r, err := newMetricsReceiver(set, cfg, consumertest.NewNop())
			require.NoError(t, err)
			before := unixSeconds(time.Now())
			require.NoError(t, r.Start(t.Context(), host{}))
			t.Cleanup(func() {
				require.NoError(t, r.Shutdown(context.Background()))
				require.NoError(t, telemetry.Shutdown(context.Background()))
			})
			after := unixSeconds(time.Now().Add(time.Millisecond))
			contact := gaugeBy(t, telemetry, "otelcol_receiver_burrow_last_contact_timestamp", "source")
			require.Len(t, contact, len(tc.sources))
			for _, source := range tc.sources {
				assert.GreaterOrEqual(t, contact[source], before, source)
				assert.LessOrEqual(t, contact[source], after, source)
			}
			polls := gaugeBy(t, telemetry, "otelcol_receiver_burrow_api_last_complete_poll_timestamp", "receiver")
			if !cfg.API.HasValue() {
				assert.Empty(t, polls)
				return
			}
			assert.Equal(t, map[string]float64{set.ID.String(): contact["api"]}, polls)

			// An answer about one group is a sign of life, and no complete poll.
			asked := time.Now().Add(time.Hour)
			r.polls.answered.Store(asked.UnixNano())
			assert.InDelta(t, unixSeconds(asked), gaugeBy(t, telemetry, "otelcol_receiver_burrow_last_contact_timestamp", "source")["api"], 1e-3)
			assert.Equal(t, polls, gaugeBy(t, telemetry, "otelcol_receiver_burrow_api_last_complete_poll_timestamp", "receiver"))
		})
	}
}

// What counts as a sign of life, and what does not.
func TestSignsOfLife(t *testing.T) {
	good := burrowtest.RecordedAPI(t, recordedAPI)
	server := &swap{}
	server.use(http.NotFoundHandler())
	p := newPolling(t, server, nil)
	p.poll(t)
	assert.Zero(t, p.polls.answered.Load(), "nothing answers")
	server.use(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/topic") {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		good.ServeHTTP(w, r)
	}))
	p.poll(t)
	answered := p.polls.answered.Load()
	assert.NotZero(t, answered, "groups were told of")
	assert.Zero(t, p.polls.completed.Load(), "but not everything was answered")
	server.use(good)
	p.poll(t)
	assert.Greater(t, p.polls.answered.Load(), answered)
	assert.Equal(t, p.polls.answered.Load(), p.polls.completed.Load())

	r := run(t, nil, nil, func(c *Config) { c.Groups.Exclude = []string{"^left-out$"} })
	start := gaugeBy(t, r.telemetry, "otelcol_receiver_burrow_last_contact_timestamp", "source")["webhook"]
	r.post(t, group("left-out", 1))
	r.post(t, "no JSON")
	assert.InDelta(t, start, gaugeBy(t, r.telemetry, "otelcol_receiver_burrow_last_contact_timestamp", "source")["webhook"], 0)
	r.post(t, group("taken", 1))
	assert.Greater(t, gaugeBy(t, r.telemetry, "otelcol_receiver_burrow_last_contact_timestamp", "source")["webhook"], start)
}

// gaugeBy are the values of a gauge of own telemetry by one attribute; none if it is not there.
func gaugeBy(t *testing.T, telemetry *componenttest.Telemetry, name, attribute string) map[string]float64 {
	t.Helper()
	m, err := telemetry.GetMetric(name)
	if err != nil {
		return nil
	}
	values := map[string]float64{}
	for _, point := range m.Data.(metricdata.Gauge[float64]).DataPoints {
		for _, pair := range point.Attributes.ToSlice() {
			if string(pair.Key) == attribute {
				values[pair.Value.AsString()] = point.Value
			}
		}
	}
	return values
}
