package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/e2e/internal/prom"
)

// With config/incidents.yaml the log has one line each time something happens, and no other because of it.
func TestIncidentsAreOneLineEach(t *testing.T) {
	names := []string{"escalate-1-warn", "escalate-1-warn", "escalate-2-err", "escalate-2-err", "escalate-3-close", "escalate-3-close"}
	lines := func(configs ...string) (lines []string) {
		k := start(t, options{Configs: append([]string{"config/karrot.yaml"}, configs...), Env: fast})
		for _, name := range names {
			k.accept(t, testdata(t, "notifications", name+".json"))
		}
		k.stop(t)
		for line := range strings.Lines(k.log()) {
			lines = append(lines, strings.TrimSpace(strings.SplitN(line, "\t", 3)[2]))
		}
		return lines
	}
	without := lines()
	var incidents []string
	for _, line := range lines("config/incidents.yaml") {
		if strings.Contains(line, "burrow.incident.") {
			incidents = append(incidents, line)
			continue
		}
		without = slices.DeleteFunc(without, func(other string) bool { return message(other) == message(line) })
	}
	assert.Empty(t, without, "every line that is there without incidents.yaml is there with it")
	require.Len(t, incidents, 3)
	for i, sentence := range []string{
		"Consumer group mailer in cluster east is WARN: total lag 2400",
		"Consumer group mailer in cluster east went from WARN to ERR",
		"Consumer group mailer in cluster east is OK again",
	} {
		assert.True(t, strings.HasPrefix(incidents[i], sentence), incidents[i])
	}
}

// message is the sentence of a line: what stands before the fields.
func message(line string) string {
	text, _, _ := strings.Cut(line, "\t")
	return text
}

// A line of the log is a time, a level, a sentence and fields, also where something fails; as JSON with one variable.
func TestLogIsForPeople(t *testing.T) {
	for _, encoding := range []string{"console", "json"} {
		t.Run(encoding, func(t *testing.T) {
			env := map[string]string{"KARROT_BURROW_API": "http://127.0.0.1:1", "KARROT_INTERVAL": "10ms", "KARROT_EXPIRE_AFTER": "61s"}
			if encoding != "console" {
				env["KARROT_LOG_ENCODING"] = encoding
			}
			k := start(t, options{Configs: []string{"config/karrot.yaml", "config/api.yaml"}, Env: env})
			status, _ := k.post(t, []byte("no JSON"))
			require.Equal(t, 400, status)
			waitFor(t, 10*time.Second, func() string {
				if !strings.Contains(k.log(), "asked for everything") {
					return "the outage is not logged"
				}
				return ""
			})
			k.stop(t)
			assert.Equal(t, 1, strings.Count(k.log(), "asked for everything"), "one line for an outage")
			levels := map[string]bool{}
			for line := range strings.Lines(k.log()) {
				assert.NotContains(t, line, "service.instance.id", "which process it is, on each line")
				assert.NotContains(t, line, ".go:", "a place in the source")
				if encoding == "json" {
					var document map[string]any
					require.NoError(t, json.Unmarshal([]byte(line), &document), line)
					assert.NotContains(t, document, "stacktrace")
					levels[fmt.Sprint(document["level"])] = true
					continue
				}
				found := regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d{4})\t(\w+)\t\S.*\n$`).FindStringSubmatch(line)
				require.NotNil(t, found, "not a line of its own: %q", line)
				levels[found[1]] = true
			}
			assert.Equal(t, map[string]bool{"info": true, "warn": true, "error": true}, levels)
		})
	}
}

// The log answers whether it works: the first notification, the first complete poll, and the end of a group.
func TestLogSaysThatItWorks(t *testing.T) {
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml"},
		Env: map[string]string{
			"KARROT_INTERVAL": "100ms", "KARROT_BURROW_API": recordedAPI(t).URL, "KARROT_BURROW_API_INTERVAL": "1s", "KARROT_EXPIRE_AFTER": "3s",
		},
	})
	k.accept(t, listing("goes", 1))
	waitFor(t, 15*time.Second, func() string {
		for _, line := range []string{
			`The first notification has arrived\t\{.*"cluster": "c", "group": "goes", "status": "OK"\}`,
			`The first complete poll of Burrow's API\t\{.*"clusters": 2, "groups": [1-9]\d*, "topics": [1-9]\d*, "length": [\d.e-]+\}`,
			`A group has expired: .*"cluster": "c", "group": "goes"\}`,
		} {
			if len(regexp.MustCompile(line).FindAllString(k.log(), -1)) != 1 {
				return "not there once: " + line
			}
		}
		return ""
	})
	k.stop(t)
}

// Who only polls has incidents: one of each group that is bad, since the first bad poll, with an ID of Karrot's own. They end when a poll says so.
func TestPollingAloneHasIncidents(t *testing.T) {
	begin := time.Now()
	burrow := recordedAPI(t)
	k := start(t, options{
		Configs: []string{"config/karrot.yaml", "config/api.yaml", "config/incidents.yaml", overlayFile(t, "receivers: {burrow: {webhook: {enabled: false}}}")},
		Env:     map[string]string{"KARROT_INTERVAL": "100ms", "KARROT_BURROW_API": burrow.URL, "KARROT_BURROW_API_INTERVAL": "1s", "KARROT_LOG_ENCODING": "json"},
	})
	bad := 0
	waitFor(t, 15*time.Second, func() string {
		text, err := prom.Fetch(t.Context(), k.metrics)
		require.NoError(t, err)
		page, err := prom.Parse(text)
		require.NoError(t, err)
		bad = 0
		for id, status := range page {
			labels, found := strings.CutPrefix(id, "burrow_group_status")
			if !found {
				continue
			}
			incidents, told := page["burrow_group_incidents_total"+labels]
			duration, lasts := page["burrow_group_incident_duration_seconds"+labels]
			switch {
			case !told:
				return "no count of " + labels
			case status > 1 && (incidents != 1 || !lasts):
				return "a bad group without an incident: " + labels
			case status == 1 && (incidents != 0 || lasts):
				return "a good group with an incident: " + labels
			case duration > time.Since(begin).Seconds():
				return fmt.Sprintf("%s since before the first poll: %f s", labels, duration)
			}
			if status > 1 {
				bad++
				if duration < 1 {
					return "not yet polled twice"
				}
			}
		}
		if bad == 0 {
			return "no bad group yet"
		}
		return ""
	})
	k.stop(t)
	ids := map[string]string{}
	for line := range strings.Lines(k.log()) {
		var event struct{ Event, Cluster, Group, Status, Incident string }
		require.NoError(t, json.Unmarshal([]byte(line), &event), line)
		if event.Event == "" {
			continue
		}
		assert.Equal(t, "burrow.incident.opened", event.Event)
		assert.Regexp(t, `^[0-9a-f]{16}-karrot$`, event.Incident)
		assert.Empty(t, ids[event.Incident], "an ID is of one incident")
		ids[event.Incident] = event.Cluster + "/" + event.Group
	}
	assert.Len(t, ids, bad)
	require.Less(t, bad, 60, "the log has a line for each")
}

// Whatever a group is called, a line stays a line: that of its first notification, of its incident, of its end, and what an exporter prints of it.
func TestNamesInTheLogArePrintable(t *testing.T) {
	for _, exporter := range []string{"nop/incidents", "debug/incidents"} {
		t.Run(exporter, func(t *testing.T) {
			k := start(t, options{Configs: []string{"config/karrot.yaml", "config/incidents.yaml"}, Env: map[string]string{
				"KARROT_INTERVAL": "10ms", "KARROT_EXPIRE_AFTER": "1s", "KARROT_INCIDENT_EXPORTERS": exporter,
			}})
			k.accept(t, []byte(forging))
			k.accept(t, []byte(strings.Replace(forging, "ERR", "OK", 1)))
			waitFor(t, 10*time.Second, func() string {
				for _, line := range []string{"The first notification", "is ERR: total lag 1", "is OK again", "A group has expired"} {
					if !strings.Contains(k.log(), line) {
						return "not logged: " + line
					}
				}
				return ""
			})
			k.stop(t)
			assert.NotRegexp(t, unprintable, k.log())
			assert.Equal(t, exporter == "debug/incidents", strings.Contains(k.log(), "ScopeLog"), "the exporter prints too")
		})
	}
}

// Thousands of groups that break and then end have a few lines, and with config/incidents.yaml 60 more.
func TestManyGroupsHaveFewLines(t *testing.T) {
	const count = 3000
	for _, configs := range [][]string{nil, {"config/incidents.yaml"}} {
		t.Run(strings.Join(configs, ""), func(t *testing.T) {
			k := start(t, options{Configs: append([]string{"config/karrot.yaml"}, configs...), Env: map[string]string{"KARROT_INTERVAL": "100ms", "KARROT_EXPIRE_AFTER": "4s"}})
			before := strings.Count(k.log(), "\n")
			for i := range count {
				k.accept(t, listing(fmt.Sprint("many-", i), 1, 0))
			}
			waitFor(t, 20*time.Second, func() string {
				if own := scrape(t, k.telemetry); own[`otelcol_receiver_burrow_groups_expired_total{receiver="burrow"}`] < count {
					return fmt.Sprint("not all groups have expired: ", own[`otelcol_receiver_burrow_groups_expired_total{receiver="burrow"}`])
				}
				return ""
			})
			lines := strings.Count(k.log(), "\n") - before
			t.Logf("%d lines", lines)
			assert.LessOrEqual(t, lines, 4+60*len(configs), "the first notification, the first end, silence")
			assert.GreaterOrEqual(t, lines, 2+60*len(configs))
			k.stop(t)
			assert.Regexp(t, `Groups have ended, and their series with them\.\t\{.*"expired": \d{3,4}, "gone": 0, "first": \["c/many-\d+"`, k.log(), "the others are counted")
		})
	}
}
