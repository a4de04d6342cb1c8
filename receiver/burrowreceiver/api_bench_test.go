package burrowreceiver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrowtest"
)

var apiReport = flag.Bool("api-report", false, "measure polls of a large Burrow: make bench-api")

const (
	reportRole   = "KARROT_API_REPORT_ROLE" // what the child process of the report is
	reportURL    = "KARROT_API_REPORT_URL"
	reportGroups = 2000
	reportParts  = 50
	reportRounds = 5
)

// TestAPIReport measures one poll of 2,000 groups of 50 partitions, each in a process of its own, so that CPU and
// memory are its alone: by the receiver, and by the plainest client there can be, which asks one thing after the
// other, reads the same with encoding/json and keeps nothing. The two take turns.
func TestAPIReport(t *testing.T) {
	switch os.Getenv(reportRole) {
	case "karrot":
		reportPoll(t, os.Getenv(reportURL))
		os.Exit(0) // with connections still open
	case "plain":
		reportPlain(t, os.Getenv(reportURL))
		os.Exit(0)
	default:
		if !*apiReport {
			t.Skip("only with -api-report: make bench-api")
		}
		report(t)
	}
}

// measured is what a child says of itself in JSON.
type measured struct{ Wall, CPU, MiB float64 }

func report(t *testing.T) {
	t.Helper()
	load := burrowtest.LoadAPI(reportGroups, reportParts)
	server := httptest.NewUnstartedServer(load)
	server.Config.ConnState = load.ConnState
	server.Start()
	defer server.Close()
	results := map[string][]measured{}
	for range reportRounds {
		for _, role := range []string{"karrot", "plain"} {
			results[role] = append(results[role], child(t, role, server.URL))
		}
	}
	fmt.Printf("%d groups of %d partitions, median of %d polls in turns; the server's own cost is not in them\n", reportGroups, reportParts, reportRounds)
	for _, role := range []string{"karrot", "plain"} {
		median := func(value func(measured) float64) float64 {
			var values []float64
			for _, m := range results[role] {
				values = append(values, value(m))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		fmt.Printf("%-7s wall %.2f s, CPU %.2f s, peak memory %.0f MiB\n", role, median(func(m measured) float64 { return m.Wall }),
			median(func(m measured) float64 { return m.CPU }), median(func(m measured) float64 { return m.MiB }))
	}
	fmt.Printf("connections of karrot at the most: %d\n", load.MaxConnections())

	slow := burrowtest.LoadAPI(200, reportParts)
	slow.Delay = time.Second
	p := newPolling(t, slow, func(c *Config) { c.API.Get().MaxConcurrentRequests = 50 })
	begin := time.Now()
	p.poller.poll(context.Background(), time.Now())
	fmt.Printf("200 groups of a Burrow that takes 1 s for each answer, 50 requests at once: %.1f s\n", time.Since(begin).Seconds())
	require.Equal(t, 200, p.table.Stats().Groups)
}

func child(t *testing.T, role, url string) measured {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestAPIReport$", "-test.count=1")
	cmd.Env = append(os.Environ(), reportRole+"="+role, reportURL+"="+url)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	lines := bufio.NewScanner(strings.NewReader(string(output)))
	for lines.Scan() {
		var m measured
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Wall > 0 {
			return m
		}
	}
	t.Fatalf("no result in %s", output)
	return measured{}
}

// say prints what this process has used.
func say(t *testing.T, begin time.Time) {
	t.Helper()
	wall := time.Since(begin).Seconds()
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	result, err := json.Marshal(measured{Wall: wall, CPU: cpu, MiB: float64(usage.Maxrss) / 1024})
	require.NoError(t, err)
	fmt.Println(string(result))
}

func reportPoll(t *testing.T, url string) {
	t.Helper()
	begin := time.Now()
	p := newPolling(t, http.NotFoundHandler(), func(c *Config) { c.API.Get().Client.Endpoint = url })
	p.poller.poll(context.Background(), time.Now())
	say(t, begin)
	stats := p.table.Stats()
	require.Equal(t, reportGroups, stats.Groups)
	require.Equal(t, reportGroups*reportParts, stats.Partitions)
}

func reportPlain(t *testing.T, url string) {
	t.Helper()
	begin := time.Now()
	partitions, err := plainPoll(url)
	require.NoError(t, err)
	say(t, begin)
	require.Equal(t, reportGroups*reportParts, partitions)
}

// plainPoll asks for everything, one after the other.
func plainPoll(base string) (partitions int, err error) {
	base += "/v3/kafka"
	var clusters struct{ Clusters []string }
	err = plainGet(base, &clusters)
	for _, cluster := range clusters.Clusters {
		var names struct{ Consumers, Topics []string }
		err = errors.Join(err, plainGet(base+"/"+cluster+"/consumer", &names), plainGet(base+"/"+cluster+"/topic", &names))
		for _, group := range names.Consumers {
			var answer struct {
				Status struct {
					Cluster, Group, Status string
					Partitions             []struct {
						Topic, Owner, Status string
						Partition            int32
						Start, End           *struct{ Offset, Timestamp, Lag int64 }
						CurrentLag           int64 `json:"current_lag"`
						Complete             float64
					}
				}
			}
			err = errors.Join(err, plainGet(base+"/"+cluster+"/consumer/"+url.PathEscape(group)+"/lag", &answer))
			partitions += len(answer.Status.Partitions)
		}
		for _, topic := range names.Topics {
			var answer struct{ Offsets []int64 }
			err = errors.Join(err, plainGet(base+"/"+cluster+"/topic/"+url.PathEscape(topic), &answer))
		}
	}
	return partitions, err
}

func plainGet(url string, into any) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
