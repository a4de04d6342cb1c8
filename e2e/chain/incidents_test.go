package chain

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// event is a log record that Karrot's config/incidents.yaml sends.
type event struct {
	at                       time.Time
	name, group, id, endedBy string
	start, previous, status  string
}

func (e event) String() string {
	text := e.at.Format("15:04:05.000") + " " + e.name + " " + e.status
	if e.previous != "" {
		text += " (was " + e.previous + ")"
	}
	if e.endedBy != "" {
		text += " by " + e.endedBy
	}
	return text
}

// incidents receives them by OTLP.
type incidents struct {
	mu     sync.Mutex
	events []event
}

// serve answers at an address until the end of the test.
func serve(t *testing.T, address string, handler http.Handler) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

func receiveIncidents(t *testing.T, address string) *incidents {
	t.Helper()
	i := &incidents{}
	serve(t, address, http.HandlerFunc(i.receive))
	return i
}

func (i *incidents) receive(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ResourceLogs []struct {
			ScopeLogs []struct {
				LogRecords []struct {
					EventName    string
					TimeUnixNano int64 `json:",string"`
					Attributes   []struct {
						Key   string
						Value struct{ StringValue string }
					}
				}
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, resource := range body.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			for _, record := range scope.LogRecords {
				a := map[string]string{}
				for _, attribute := range record.Attributes {
					a[attribute.Key] = attribute.Value.StringValue
				}
				if a["cluster"] != cluster {
					continue
				}
				i.events = append(i.events, event{
					at:    time.Unix(0, record.TimeUnixNano),
					name:  strings.TrimPrefix(record.EventName, "burrow.incident."),
					group: a["group"], id: a["burrow.incident.id"], start: a["burrow.incident.start"], endedBy: a["burrow.incident.ended_by"],
					previous: a["burrow.group.previous_status"], status: a["burrow.group.status"],
				})
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}"))
}

// of lists what happened to a group.
func (i *incidents) of(group string) []event {
	i.mu.Lock()
	defer i.mu.Unlock()
	var events []event
	for _, e := range i.events {
		if e.group == group {
			events = append(events, e)
		}
	}
	return events
}

// names of a group's events but for changes of severity, which depend on when Burrow was asked.
func names(events []event) []string {
	var result []string
	for _, e := range events {
		if e.name != "changed" {
			result = append(result, e.name)
		}
	}
	return result
}

// agreed leaves out an OK in the first moments of an incident, and what opens again by the next poll. Two Burrows, or a poll and a
// notification of an evaluation that Burrow kept, can differ for as long as a head and an evaluation may be old.
func agreed(events []event) []event {
	const differ, again = (offsetRefresh + expireCache) * time.Second, (pollEvery + 1) * time.Second
	result := slices.Clone(events)
	for n := 1; n+1 < len(result); n++ {
		opened, ended, next := result[n-1], result[n], result[n+1]
		if opened.name == "opened" && ended.name == "ended" && endsOK[ended.endedBy] && next.name == "opened" &&
			ended.at.Sub(opened.at) <= differ && next.at.Sub(ended.at) <= again {
			return slices.Delete(result, n, n+2)
		}
	}
	return result
}

// endsOK says of all that can end an incident whether the group is OK then.
var endsOK = map[string]bool{"close": true, "ok": true, "poll": true, "expiry": false, "gone": false}

// contradictions are what no sequence of events of one group may have.
func contradictions(events []event) []string {
	var problems []string
	open := false
	for n, e := range events {
		switch e.name {
		case "opened":
			if open {
				problems = append(problems, fmt.Sprintf("event %d opens an open incident", n))
			}
			if e.status == "OK" {
				problems = append(problems, fmt.Sprintf("event %d opens with OK", n))
			}
			if e.previous != "" && e.previous != "OK" {
				problems = append(problems, fmt.Sprintf("event %d opens, and the group was already %s", n, e.previous))
			}
			open = true
		case "changed":
			if !open {
				problems = append(problems, fmt.Sprintf("event %d changes an incident that is not open", n))
			}
		case "ended":
			if !open {
				problems = append(problems, fmt.Sprintf("event %d ends an incident that is not open", n))
			}
			if ok, known := endsOK[e.endedBy]; !known || ok != (e.status == "OK") {
				problems = append(problems, fmt.Sprintf("event %d ends by %q with status %s", n, e.endedBy, e.status))
			}
			open = false
		default:
			problems = append(problems, fmt.Sprintf("event %d is %q", n, e.name))
		}
	}
	return problems
}

func TestContradictions(t *testing.T) {
	opened, changed := event{name: "opened", status: "WARN", previous: "OK"}, event{name: "changed", status: "ERR", previous: "WARN"}
	ended := event{name: "ended", status: "OK", previous: "ERR", endedBy: "ok"}
	if problems := contradictions([]event{opened, changed, ended, opened}); len(problems) > 0 {
		t.Errorf("right events: %v", problems)
	}
	for name, wrong := range map[string][]event{
		"opened twice":          {opened, opened},
		"ended twice":           {opened, ended, ended},
		"ended first":           {ended},
		"changed first":         {changed},
		"opened with OK":        {{name: "opened", status: "OK"}},
		"opened when bad":       {{name: "opened", status: "ERR", previous: "ERR"}},
		"ok without an OK":      {opened, {name: "ended", status: "ERR", endedBy: "ok"}},
		"ended by nothing":      {opened, {name: "ended", status: "OK"}},
		"gone, and OK":          {opened, {name: "ended", status: "OK", endedBy: "gone"}},
		"something of no known": {{name: "closed"}},
	} {
		if len(contradictions(wrong)) == 0 {
			t.Errorf("%s: nothing was found", name)
		}
	}
	if got := names([]event{opened, changed, ended}); !slices.Equal(got, []string{"opened", "ended"}) {
		t.Errorf("names: %v", got)
	}
}
