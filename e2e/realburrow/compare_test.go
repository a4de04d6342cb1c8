package realburrow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/lowess/karrot/e2e/realburrow/fakekafka"
)

// pace is the time between two looks at Burrow and Karrot.
const pace = time.Second

type group struct{ cluster, name string }

// series are the values of a group's time series, by name and labels.
type series map[string]float64

// page is what one side says about all groups.
type page map[group]series

// status maps Burrow's words to the numbers of burrow_group_status and burrow_partition_status.
var status = map[string]float64{"OK": 1, "WARN": 2, "ERR": 3, "STOP": 4, "STALL": 5, "REWIND": 6}

// observer compares Karrot's page with Burrow's API.
type observer struct {
	api, metrics string
	// wanted are the groups that both sides have to know, and no others.
	wanted map[group]bool

	// The statuses on which both sides agreed so far.
	groupStatuses     map[float64]bool
	partitionStatuses map[float64]bool
	flapping          map[float64]bool
}

func newObserver(api, metrics string, groups ...[]group) *observer {
	o := &observer{
		api:               "http://" + api,
		metrics:           "http://" + metrics + "/metrics",
		wanted:            map[group]bool{},
		groupStatuses:     map[float64]bool{},
		partitionStatuses: map[float64]bool{},
		flapping:          map[float64]bool{},
	}
	for _, g := range slices.Concat(groups...) {
		o.wanted[g] = true
	}
	return o
}

// agree waits until Karrot has said the same as Burrow about each group, though not necessarily about
// all at the same time: as long as groups move, some notification is always on its way.
func (o *observer) agree(ctx context.Context, t *testing.T, within time.Duration) {
	t.Helper()
	agreed := map[group]bool{}
	for end := time.Now().Add(within); ; {
		differences := o.look(ctx, t)
		for g := range o.wanted {
			if _, differs := differences[g]; !differs {
				agreed[g] = true
			}
		}
		maps.DeleteFunc(differences, func(g group, _ string) bool { return agreed[g] })
		if len(differences) == 0 {
			return
		}
		if time.Now().After(end) || !pause(ctx, pace) {
			t.Fatalf("no agreement within %v on %d groups:\n%s", within, len(differences), describe(differences))
		}
	}
}

// agreeAtOnce waits until Karrot says the same as Burrow about all groups and goes on to do so.
func (o *observer) agreeAtOnce(ctx context.Context, t *testing.T, lasting, within time.Duration) {
	t.Helper()
	since := time.Now()
	for end := since.Add(within); ; {
		differences := o.look(ctx, t)
		now := time.Now()
		if len(differences) > 0 {
			since = now
		}
		if now.Sub(since) >= lasting {
			return
		}
		if now.After(end) || !pause(ctx, pace) {
			t.Fatalf("no lasting agreement within %v; the last differences:\n%s", within, describe(differences))
		}
	}
}

// watch compares until a point in time, and demands that no disagreement about a group lasts longer
// than patience.
func (o *observer) watch(ctx context.Context, t *testing.T, until time.Time, patience time.Duration) {
	t.Helper()
	agreed := map[group]time.Time{}
	for g := range o.wanted {
		agreed[g] = time.Now()
	}
	var longest time.Duration
	for time.Now().Before(until) {
		differences := o.look(ctx, t)
		now := time.Now()
		for g := range o.wanted {
			difference, differs := differences[g]
			lasts := now.Sub(agreed[g])
			longest = max(longest, lasts)
			switch {
			case !differs:
				agreed[g] = now
			case lasts > patience:
				t.Fatalf("no agreement for %v on %s %q:\n\t%s", lasts, g.cluster, g.name, difference)
			}
		}
		if !pause(ctx, pace) {
			t.Fatal(ctx.Err())
		}
	}
	t.Logf("no disagreement lasted longer than %v", longest.Round(time.Second))
}

// checkVariety fails the test if a status never occurred, since then nothing was learnt about it.
func (o *observer) checkVariety(t *testing.T) {
	t.Helper()
	for _, check := range []struct {
		of   string
		seen map[float64]bool
		want []string
	}{
		{"a group", o.groupStatuses, []string{"OK", "WARN", "ERR"}},
		{"a partition", o.partitionStatuses, []string{"WARN", "STOP", "STALL", "REWIND"}},
		{"group " + fakekafka.FlappingGroup, o.flapping, []string{"OK", "WARN"}},
	} {
		for _, word := range check.want {
			if !check.seen[status[word]] {
				t.Errorf("status %s of %s was never seen on both sides", word, check.of)
			}
		}
	}
}

// look compares both sides once and returns what differs, by group.
func (o *observer) look(ctx context.Context, t *testing.T) map[group]string {
	t.Helper()
	before := o.burrowPage(ctx, t)
	karrot := o.karrotPage(ctx, t)
	burrow := o.burrowPage(ctx, t)

	differences := map[group]string{}
	for _, side := range []struct {
		name string
		page page
	}{{"Burrow", burrow}, {"Karrot", karrot}} {
		for g := range side.page {
			if !o.wanted[g] {
				differences[g] = side.name + " has it, but should not"
			}
		}
	}
	for g := range o.wanted {
		switch {
		case burrow[g] == nil:
			differences[g] = "Burrow does not know it"
		case karrot[g] == nil:
			differences[g] = "Karrot does not know it"
		case !maps.Equal(before[g], burrow[g]):
			differences[g] = "Burrow's verdict changed at this moment"
		case !maps.Equal(burrow[g], karrot[g]):
			differences[g] = compare(burrow[g], karrot[g])
		default:
			o.note(g, burrow[g])
		}
	}
	return differences
}

func (o *observer) note(g group, agreed series) {
	for id, value := range agreed {
		switch name, _, _ := strings.Cut(id, "{"); name {
		case "burrow_group_status":
			o.groupStatuses[value] = true
			if g.name == fakekafka.FlappingGroup {
				o.flapping[value] = true
			}
		case "burrow_partition_status":
			o.partitionStatuses[value] = true
		}
	}
}

func compare(burrow, karrot series) string {
	ids := maps.Clone(burrow)
	maps.Copy(ids, karrot)
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		want, inBurrow := burrow[id]
		got, inKarrot := karrot[id]
		switch {
		case !inKarrot:
			lines = append(lines, fmt.Sprintf("%s is missing, should be %v", id, want))
		case !inBurrow:
			lines = append(lines, fmt.Sprintf("%s should not be there, is %v", id, got))
		case want != got:
			lines = append(lines, fmt.Sprintf("%s is %v, should be %v", id, got, want))
		}
	}
	return strings.Join(lines, "\n\t")
}

func describe(differences map[group]string) string {
	var lines []string
	for g, difference := range differences {
		lines = append(lines, fmt.Sprintf("%s %q:\n\t%s", g.cluster, g.name, difference))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// karrotPage reads the series that can be told from Burrow's API. A group of which only others are
// left is there all the same, without series.
func (o *observer) karrotPage(ctx context.Context, t *testing.T) page {
	t.Helper()
	p := page{}
	for name, family := range metricFamilies(ctx, t, o.metrics) {
		for _, metric := range family.GetMetric() {
			labels := labelsOf(metric)
			g := group{labels["cluster"], labels["group"]}
			if g.name == "" {
				continue
			}
			if p[g] == nil {
				p[g] = series{}
			}
			switch name {
			case "burrow_group_status", "burrow_group_total_lag", "burrow_group_max_lag",
				"burrow_group_complete_ratio", "burrow_group_partitions",
				"burrow_partition_status", "burrow_partition_lag", "burrow_partition_committed_offset":
				p[g][id(name, labels)] = metric.GetGauge().GetValue()
			}
		}
	}
	return p
}

// The part of Burrow's answers that the series are made of.
type (
	groupStatus struct {
		Status         string
		Complete       float64
		Partitions     []partitionStatus
		PartitionCount int `json:"partition_count"`
		MaxLag         *struct {
			CurrentLag uint64 `json:"current_lag"`
		}
		TotalLag uint64
	}
	partitionStatus struct {
		Topic      string
		Partition  int
		Status     string
		CurrentLag uint64 `json:"current_lag"`
		End        struct{ Offset int64 }
	}
)

// burrowPage asks Burrow's API for every group and makes the series that Karrot should have.
func (o *observer) burrowPage(ctx context.Context, t *testing.T) page {
	t.Helper()
	p := page{}
	var clusters struct{ Clusters []string }
	getJSON(ctx, t, o.api+"/v3/kafka", &clusters)
	for _, cluster := range clusters.Clusters {
		consumers := o.api + "/v3/kafka/" + url.PathEscape(cluster) + "/consumer"
		var groups struct{ Consumers []string }
		getJSON(ctx, t, consumers, &groups)
		for _, name := range groups.Consumers {
			g := group{cluster, name}
			var answer struct{ Status groupStatus }
			if strings.Contains(name, "/") {
				// The API has no address for such a name.
				answer.Status = o.fromBurrowMetrics(ctx, t, g)
			} else {
				getJSON(ctx, t, consumers+"/"+url.PathEscape(name)+"/status", &answer)
			}
			if answer.Status.Status != "NOTFOUND" {
				p[g] = seriesOf(g, answer.Status)
			}
		}
	}
	return p
}

func seriesOf(g group, s groupStatus) series {
	result := series{}
	set := func(name string, value float64, labels ...string) {
		all := map[string]string{"cluster": g.cluster, "group": g.name}
		for i := 0; i < len(labels); i += 2 {
			all[labels[i]] = labels[i+1]
		}
		result[id(name, all)] = value
	}
	set("burrow_group_status", status[s.Status])
	set("burrow_group_total_lag", float64(s.TotalLag))
	set("burrow_group_complete_ratio", s.Complete)
	if s.MaxLag != nil {
		set("burrow_group_max_lag", float64(s.MaxLag.CurrentLag))
	}
	// Burrow lists the partitions that are not OK.
	partitions := map[string]int{"ok": s.PartitionCount - len(s.Partitions), "warn": 0, "stop": 0, "stall": 0, "rewind": 0}
	for _, p := range s.Partitions {
		partitions[strings.ToLower(p.Status)]++
		number := strconv.Itoa(p.Partition)
		set("burrow_partition_status", status[p.Status], "topic", p.Topic, "partition", number)
		set("burrow_partition_lag", float64(p.CurrentLag), "topic", p.Topic, "partition", number)
		set("burrow_partition_committed_offset", float64(p.End.Offset), "topic", p.Topic, "partition", number)
	}
	for word, count := range partitions {
		set("burrow_group_partitions", float64(count), "status", word)
	}
	return result
}

// fromBurrowMetrics puts together what the API would say from Burrow's own metrics, which name every
// group. Burrow gives status and offset of a partition there only if its window is full.
func (o *observer) fromBurrowMetrics(ctx context.Context, t *testing.T, g group) groupStatus {
	t.Helper()
	families := metricFamilies(ctx, t, o.api+"/metrics")
	each := func(name string, do func(topic string, partition int, value float64)) {
		for _, metric := range families[name].GetMetric() {
			labels := labelsOf(metric)
			if labels["cluster"] != g.cluster || labels["consumer_group"] != g.name {
				continue
			}
			partition, _ := strconv.Atoi(labels["partition"])
			do(labels["topic"], partition, metric.GetGauge().GetValue())
		}
	}
	word := func(number float64) string {
		for word, n := range status {
			if n == number {
				return word
			}
		}
		return "NOTFOUND"
	}

	s := groupStatus{Status: "NOTFOUND"}
	each("burrow_kafka_consumer_status", func(_ string, _ int, value float64) { s.Status = word(value) })
	each("burrow_kafka_consumer_lag_total", func(_ string, _ int, value float64) { s.TotalLag = uint64(value) })
	type partition struct {
		topic  string
		number int
	}
	lags, offsets := map[partition]uint64{}, map[partition]int64{}
	each("burrow_kafka_consumer_partition_lag", func(topic string, number int, value float64) {
		s.PartitionCount++
		lags[partition{topic, number}] = uint64(value)
	})
	each("burrow_kafka_consumer_current_offset", func(topic string, number int, value float64) {
		offsets[partition{topic, number}] = int64(value)
	})
	if s.PartitionCount > 0 {
		s.Complete = float64(len(offsets)) / float64(s.PartitionCount)
		s.MaxLag = &struct {
			CurrentLag uint64 `json:"current_lag"`
		}{slices.Max(slices.Collect(maps.Values(lags)))}
	}
	each("burrow_kafka_topic_partition_status", func(topic string, number int, value float64) {
		if value == status["OK"] {
			return
		}
		p := partitionStatus{Topic: topic, Partition: number, Status: word(value), CurrentLag: lags[partition{topic, number}]}
		p.End.Offset = offsets[partition{topic, number}]
		s.Partitions = append(s.Partitions, p)
	})
	return s
}

// getJSON reads an answer of Burrow's API. An unknown group is not an error: Burrow lists some that
// it then does not find.
func getJSON(ctx context.Context, t *testing.T, url string, into any) {
	t.Helper()
	code, body, err := fetch(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusOK && code != http.StatusNotFound {
		t.Fatalf("GET %s: status %d: %s", url, code, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("GET %s: %v in %s", url, err, body)
	}
}

func metricFamilies(ctx context.Context, t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	code, body, err := fetch(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusOK {
		t.Fatalf("GET %s: status %d: %s", url, code, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return families
}

func labelsOf(metric *dto.Metric) map[string]string {
	labels := make(map[string]string, len(metric.GetLabel()))
	for _, label := range metric.GetLabel() {
		labels[label.GetName()] = label.GetValue()
	}
	return labels
}

func id(name string, labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, label+"="+strconv.Quote(labels[label]))
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}
