package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cloudwatchLogs imitates as much of CloudWatch Logs, and of STS, as an exporter of embedded metrics uses.
type cloudwatchLogs struct {
	fakeCloudwatch
	delay   time.Duration
	streams map[string]map[string]bool // by log group
	calls   map[string]int             // by action
	puts    []time.Time                // of every PutLogEvents that was answered with success
	events  []logEvent
	roles   []url.Values
}

// logEvent is one event of a PutLogEvents that was answered with success.
type logEvent struct {
	Group, Stream string
	Timestamp     int64
	Message       string
	// AccessKey is who signed the request.
	AccessKey string
	Received  time.Time
}

const (
	eventOverhead    = 26
	maxRequestBytes  = 1 << 20
	maxRequestEvents = 10_000
)

func newCloudwatchLogs(t testing.TB) *cloudwatchLogs {
	t.Helper()
	c := &cloudwatchLogs{streams: map[string]map[string]bool{}, calls: map[string]int{}}
	c.serve(t, c)
	return c
}

// env leads the AWS SDK here.
func (c *cloudwatchLogs) env(more map[string]string) map[string]string {
	env := c.fakeCloudwatch.env(map[string]string{"AWS_ENDPOINT_URL": c.url})
	maps.Copy(env, more)
	return env
}

func (c *cloudwatchLogs) setDelay(delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = delay
}

func (c *cloudwatchLogs) putTimes() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.puts)
}

func (c *cloudwatchLogs) recorded() []logEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// documents checks all events and returns them decoded.
func (c *cloudwatchLogs) documents(t testing.TB) []document {
	t.Helper()
	var documents []document
	for _, event := range c.recorded() {
		d, err := decodeDocument([]byte(event.Message))
		require.NoError(t, err, event.Message)
		require.Empty(t, d.violations(), event.Message)
		require.Equal(t, event.Timestamp, d.timestamp, "the event and its document have one time")
		documents = append(documents, d)
	}
	return documents
}

func (c *cloudwatchLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, action, isLogs := strings.Cut(r.Header.Get("X-Amz-Target"), "Logs_20140328.")
	if !isLogs {
		c.assumeRole(w, body)
		return
	}

	c.mu.Lock()
	c.calls[action]++
	mode, delay := c.mode, c.delay
	c.mu.Unlock()

	select {
	case <-time.After(delay):
	case <-c.ended:
	}
	c.answer(w, r, mode, func(w http.ResponseWriter) { c.act(w, r, action, body) }, func(w http.ResponseWriter) {
		awsError(w, refusedLogs[mode].status, refusedLogs[mode].name)
	})
}

var refusedLogs = map[cloudwatchMode]struct {
	status int
	name   string
}{
	cloudwatchThrottles:   {http.StatusBadRequest, "ThrottlingException"},
	cloudwatchRefuses:     {http.StatusBadRequest, "AccessDeniedException"},
	cloudwatchFails:       {http.StatusInternalServerError, "InternalFailure"},
	cloudwatchUnavailable: {http.StatusServiceUnavailable, "ServiceUnavailableException"},
}

func awsError(w http.ResponseWriter, status int, name string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"__type":%q,"message":"so that a test sees it"}`, name)
}

// act does what a request asks for.
func (c *cloudwatchLogs) act(w http.ResponseWriter, r *http.Request, action string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var in struct {
		LogGroupName, LogStreamName string
		LogEvents                   []struct {
			Timestamp int64
			Message   string
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		c.problem("%s: %v", action, err)
		awsError(w, http.StatusBadRequest, "SerializationException")
		return
	}
	group, groupExists := c.streams[in.LogGroupName]
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch {
	case action == "CreateLogGroup" && groupExists, action == "CreateLogStream" && group[in.LogStreamName]:
		awsError(w, http.StatusBadRequest, "ResourceAlreadyExistsException")
	case action == "CreateLogGroup":
		c.streams[in.LogGroupName] = map[string]bool{}
	case action == "CreateLogStream" && !groupExists, action == "PutLogEvents" && !group[in.LogStreamName]:
		awsError(w, http.StatusBadRequest, "ResourceNotFoundException")
	case action == "CreateLogStream":
		group[in.LogStreamName] = true
	case action == "PutLogEvents":
		if format := r.Header.Get("X-Amzn-Logs-Format"); format != "json/emf" {
			c.problem("the log format is %q", format)
		}
		if n := len(in.LogEvents); n == 0 || n > maxRequestEvents {
			c.problem("%d events in a request", n)
		}
		c.puts = append(c.puts, time.Now())
		size := 0
		for i, event := range in.LogEvents {
			size += len(event.Message) + eventOverhead
			if i > 0 && event.Timestamp < in.LogEvents[i-1].Timestamp {
				c.problem("events are not in order of time")
			}
			c.events = append(c.events, logEvent{
				Group: in.LogGroupName, Stream: in.LogStreamName, Timestamp: event.Timestamp, Message: event.Message,
				AccessKey: accessKey(r), Received: time.Now(),
			})
		}
		if size > maxRequestBytes {
			c.problem("%d bytes in a request", size)
		}
		// Without a token awsemf sends the same events again.
		_, _ = io.WriteString(w, `{"nextSequenceToken":"1"}`)
	default:
		c.problem("%s is not part of the documented policy", action)
		awsError(w, http.StatusBadRequest, "AccessDeniedException")
	}
}

func (c *cloudwatchLogs) assumeRole(w http.ResponseWriter, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") != "AssumeRole" {
		c.problem("a request that is neither for CloudWatch Logs nor AssumeRole: %.200q", body)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.roles = append(c.roles, form)
	w.Header().Set("Content-Type", "text/xml")
	_, _ = fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>%s</AccessKeyId><SecretAccessKey>example</SecretAccessKey><SessionToken>example</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`, fakeAssumedKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// document is one event in the embedded metric format.
type document struct {
	bytes     int
	root      map[string]any
	timestamp int64
	// directives is nil in an event that is not a document of this format.
	directives []directive
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []struct {
		Name, Unit        string
		StorageResolution *int
	}
}

func decodeDocument(message []byte) (document, error) {
	d := document{bytes: len(message)}
	if err := json.Unmarshal(message, &d.root); err != nil {
		return d, err
	}
	var meta struct {
		AWS *struct {
			Timestamp         *json.Number
			CloudWatchMetrics []directive
		} `json:"_aws"`
	}
	if err := json.Unmarshal(message, &meta); err != nil {
		return d, err
	}
	if meta.AWS == nil || meta.AWS.Timestamp == nil {
		return d, nil
	}
	timestamp, err := meta.AWS.Timestamp.Int64()
	d.timestamp, d.directives = timestamp, meta.AWS.CloudWatchMetrics
	return d, err
}

// Limits and units are those of AWS's specification of the embedded metric format, its JSON schema, and the API
// reference's pages on Dimension and MetricDatum. Where they differ (the length of a metric's name is 1024
// in one and 255 in the other) the narrower one counts.
const (
	// AWS raised the size of an event from 256 KB to 1 MB, but awsemf cuts off at 256 KB.
	maxEventBytes      = 256*1024 - eventOverhead
	maxMetrics         = 100
	maxDimensions      = 30
	maxDimensionName   = 250
	maxDimensionValue  = 1024
	maxMetricName      = 255
	maxNamespace       = 255
	maxMetricMagnitude = 1 << 360
)

var cloudwatchUnits = strings.Fields(`Seconds Microseconds Milliseconds Bytes Kilobytes Megabytes Gigabytes Terabytes
	Bits Kilobits Megabits Gigabits Terabits Percent Count Bytes/Second Kilobytes/Second Megabytes/Second
	Gigabytes/Second Terabytes/Second Bits/Second Kilobits/Second Megabits/Second Gigabits/Second Terabits/Second
	Count/Second None`)

// violations lists what AWS's rules forbid in the document.
func (d *document) violations() []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if d.bytes > maxEventBytes {
		add("%d bytes", d.bytes)
	}
	if len(d.directives) == 0 {
		add("no metrics in it: stored and paid for as a plain log event")
	}
	if d.timestamp < time.Now().Add(-14*24*time.Hour).UnixMilli() || d.timestamp > time.Now().Add(2*time.Hour).UnixMilli() {
		add("Timestamp %d is too far from now, or not in milliseconds", d.timestamp)
	}
	metrics := 0
	for _, directive := range d.directives {
		if !printable(directive.Namespace, maxNamespace) || strings.HasPrefix(directive.Namespace, ":") {
			add("Namespace %q", directive.Namespace)
		}
		if len(directive.Dimensions) == 0 {
			add("no dimension set, not even an empty one")
		}
		for _, set := range directive.Dimensions {
			if len(set) > maxDimensions {
				add("%d dimensions in a set", len(set))
			}
			for _, name := range set {
				if !printable(name, maxDimensionName) || strings.HasPrefix(name, ":") {
					add("dimension name %q", name)
				}
				if value, isString := d.root[name].(string); !isString {
					add("dimension %s is %v in the root", name, d.root[name])
				} else if !printable(value, maxDimensionValue) || strings.HasPrefix(value, ":") {
					add("dimension %s has the value %q", name, value)
				}
			}
		}
		metrics += len(directive.Metrics)
		for _, metric := range directive.Metrics {
			if !printable(metric.Name, maxMetricName) || strings.HasPrefix(metric.Name, ":") {
				add("metric name %q", metric.Name)
			}
			if !slices.Contains(cloudwatchUnits, metric.Unit) {
				add("unit %q", metric.Unit)
			}
			if metric.StorageResolution != nil && *metric.StorageResolution != 1 && *metric.StorageResolution != 60 {
				add("storage resolution %d", *metric.StorageResolution)
			}
			if !isMetricValue(d.root[metric.Name]) {
				add("metric %s is %v in the root", metric.Name, d.root[metric.Name])
			}
		}
	}
	if metrics > maxMetrics {
		add("%d metrics", metrics)
	}
	return found
}

func isMetricValue(value any) bool {
	switch value := value.(type) {
	case float64:
		return math.Abs(value) <= maxMetricMagnitude
	case []any:
		return len(value) > 0 && len(value) <= maxMetrics &&
			!slices.ContainsFunc(value, func(v any) bool { _, isNumber := v.(float64); return !isNumber })
	}
	return false
}

// printable says whether s is ASCII without control characters, not all spaces, and of a length from 1 to most.
func printable(s string, most int) bool {
	return utf8.RuneCountInString(s) <= most && strings.Trim(s, " ") != "" &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// key identifies the metrics of a document: its fields that are strings.
func (d *document) key() string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(d.root)) {
		if value, isString := d.root[name].(string); isString && name != "Version" {
			fields = append(fields, fmt.Sprintf("%s=%q", name, value))
		}
	}
	return strings.Join(fields, " ")
}

// values are the metrics of the only directive: value and unit by name, and the dimension sets as "dimensions".
func (d *document) values(t testing.TB) map[string]string {
	t.Helper()
	require.Len(t, d.directives, 1)
	values := map[string]string{"dimensions": fmt.Sprint(d.directives[0].Dimensions)}
	for _, metric := range d.directives[0].Metrics {
		value := fmt.Sprint(d.root[metric.Name])
		if dependent[metric.Name] {
			require.GreaterOrEqual(t, d.root[metric.Name], 0.0, metric.Name)
			value = anyValue
		}
		if strings.HasSuffix(metric.Name, "time_lag") {
			// Whether it is known depends on the machine's clock.
			require.GreaterOrEqual(t, d.root[metric.Name], 0.0, metric.Name)
			require.Equal(t, "Seconds", metric.Unit)
			continue
		}
		values[metric.Name] = value + " " + metric.Unit
	}
	return values
}

// The rules above must find what they are there for.
func TestCloudWatchRules(t *testing.T) {
	now := time.Now().UnixMilli()
	valid := fmt.Sprintf(`{"_aws":{"Timestamp":%d,"CloudWatchMetrics":[{"Namespace":"n","Dimensions":[["d"]],`+
		`"Metrics":[{"Name":"m","Unit":"Count","StorageResolution":60}]}]},"d":"v","m":1}`, now)
	for name, test := range map[string]struct{ old, replacement, violation string }{
		"nothing changed":           {},
		"values":                    {`"m":1`, `"m":[1,2.5]`, ""},
		"without dimensions":        {`[["d"]]`, `[[]]`, ""},
		"no metadata":               {`"_aws"`, `"aws"`, "no metrics"},
		"no timestamp":              {`"Timestamp"`, `"Time"`, "Timestamp 0"},
		"timestamp in seconds":      {strconv.FormatInt(now, 10), strconv.FormatInt(now/1000, 10), "Timestamp"},
		"no directive":              {`"CloudWatchMetrics"`, `"Metrics"`, "no metrics"},
		"no namespace":              {`"Namespace":"n"`, `"Namespace":""`, "Namespace"},
		"no dimension set":          {`[["d"]]`, `[]`, "no dimension set"},
		"too many dimensions":       {`[["d"`, `[["d"` + strings.Repeat(`,"d"`, maxDimensions), "31 dimensions"},
		"dimension not in the root": {`"d":"v"`, `"e":"v"`, "dimension d is <nil>"},
		"dimension is a number":     {`"d":"v"`, `"d":3`, "dimension d is 3"},
		"dimension not ASCII":       {`"d":"v"`, `"d":"\u0436"`, "dimension d has the value"},
		"dimension with a tab":      {`"d":"v"`, `"d":"a\tb"`, "dimension d has the value"},
		"dimension of spaces":       {`"d":"v"`, `"d":"  "`, "dimension d has the value"},
		"dimension empty":           {`"d":"v"`, `"d":""`, "dimension d has the value"},
		"dimension with a colon":    {`"d":"v"`, `"d":":v"`, "dimension d has the value"},
		"dimension too long":        {`"d":"v"`, `"d":"` + strings.Repeat("v", maxDimensionValue+1) + `"`, "dimension d has the value"},
		"metric not in the root":    {`"m":1`, `"n":1`, "metric m is <nil>"},
		"metric is a string":        {`"m":1`, `"m":"1"`, "metric m is 1"},
		"metric values are strings": {`"m":1`, `"m":["1"]`, "metric m is [1]"},
		"metric name too long":      {`"Name":"m"`, `"Name":"` + strings.Repeat("m", maxMetricName+1) + `"`, "metric name"},
		"too many metrics":          {`"Metrics":[`, `"Metrics":[` + strings.Repeat(`{"Name":"m","Unit":"Count"},`, maxMetrics), "101 metrics"},
		"unit of OpenTelemetry":     {`"Count"`, `"{message}"`, "unit"},
		"unit empty":                {`"Count"`, `""`, "unit"},
		"resolution":                {`60`, `30`, "storage resolution 30"},
		"too large":                 {`"m":1`, `"m":1,"x":"` + strings.Repeat("x", maxEventBytes) + `"`, " bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, valid, test.old)
			d, err := decodeDocument([]byte(strings.Replace(valid, test.old, test.replacement, 1)))
			require.NoError(t, err)
			violations := strings.Join(d.violations(), "\n")
			if test.violation == "" {
				assert.Empty(t, violations)
			} else {
				assert.Contains(t, violations, test.violation)
			}
		})
	}
}
