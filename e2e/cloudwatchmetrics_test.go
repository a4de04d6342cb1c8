package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// cloudwatchMetrics imitates CloudWatch's endpoint for metrics by OTLP.
type cloudwatchMetrics struct {
	fakeCloudwatch
	points   []metricPoint
	requests int
	keys     map[string]int // requests by who signed them
}

// metricPoint is a point that was taken.
type metricPoint struct {
	metric     string
	attributes map[string]any
	value      float64
	at         time.Time
	received   time.Time
}

// What AWS's page on its OTLP endpoints says of metrics.
const (
	maxRequestPoints   = 1000
	maxPointAttributes = 150
)

func newCloudwatchMetrics(t testing.TB) *cloudwatchMetrics {
	t.Helper()
	c := &cloudwatchMetrics{keys: map[string]int{}}
	c.serve(t, c)
	return c
}

// configs is the overlay, with an address that leads here.
func (c *cloudwatchMetrics) configs(t testing.TB) []string {
	t.Helper()
	here := filepath.Join(t.TempDir(), "here.yaml")
	require.NoError(t, os.WriteFile(here, []byte("exporters: {otlp_http/cloudwatch: {metrics_endpoint: '"+c.url+"/v1/metrics'}}"), 0o600))
	return []string{"config/karrot.yaml", "config/cloudwatch-otlp.yaml", here}
}

func (c *cloudwatchMetrics) recorded() []metricPoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]metricPoint(nil), c.points...)
}

func (c *cloudwatchMetrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.mu.Lock()
	mode := c.mode
	c.mu.Unlock()
	c.answer(w, r, mode, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(c.take(r, body))
	}, func(w http.ResponseWriter) { w.WriteHeader(refusedMetrics[mode]) })
}

var refusedMetrics = map[cloudwatchMode]int{
	cloudwatchThrottles:   http.StatusTooManyRequests,
	cloudwatchRefuses:     http.StatusForbidden,
	cloudwatchFails:       http.StatusInternalServerError,
	cloudwatchUnavailable: http.StatusServiceUnavailable,
}

// take returns the status of the answer.
func (c *cloudwatchMetrics) take(r *http.Request, body []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.keys[accessKey(r)]++
	refuse := func(status int, format string, args ...any) int {
		c.problem(format, args...)
		return status
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/metrics" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return refuse(http.StatusBadRequest, "%s %s of %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	if err := checkSignature(r, body, "eu-west-1", "monitoring"); err != nil {
		return refuse(http.StatusForbidden, "%v", err)
	}
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "":
	case "gzip":
		unzip, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return refuse(http.StatusBadRequest, "%v", err)
		}
		if body, err = io.ReadAll(unzip); err != nil {
			return refuse(http.StatusBadRequest, "%v", err)
		}
	default:
		return refuse(http.StatusUnsupportedMediaType, "compression %q", encoding)
	}
	request := pmetricotlp.NewExportRequest()
	if err := request.UnmarshalProto(body); err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	if n := request.Metrics().DataPointCount(); n > maxRequestPoints {
		return refuse(http.StatusBadRequest, "%d points in a request", n)
	}
	points, err := pointsOf(request.Metrics())
	if err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	c.points = append(c.points, points...)
	return http.StatusOK
}

func pointsOf(metrics pmetric.Metrics) ([]metricPoint, error) {
	var points []metricPoint
	for _, rm := range metrics.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				var all pmetric.NumberDataPointSlice
				switch metric.Type() {
				case pmetric.MetricTypeGauge:
					all = metric.Gauge().DataPoints()
				case pmetric.MetricTypeSum:
					all = metric.Sum().DataPoints()
				default:
					return nil, fmt.Errorf("%s is a %s", metric.Name(), metric.Type())
				}
				for _, point := range all.All() {
					if point.Flags().NoRecordedValue() {
						return nil, fmt.Errorf("a point of %s without a value", metric.Name())
					}
					if n := point.Attributes().Len(); n > maxPointAttributes {
						return nil, fmt.Errorf("a point of %s with %d attributes", metric.Name(), n)
					}
					value := point.DoubleValue()
					if point.ValueType() == pmetric.NumberDataPointValueTypeInt {
						value = float64(point.IntValue())
					}
					points = append(points, metricPoint{
						metric: metric.Name(), attributes: point.Attributes().AsRaw(), value: value,
						at: point.Timestamp().AsTime(), received: time.Now(),
					})
				}
			}
		}
	}
	return points, nil
}

// checkSignature signs the request again, as AWS's SDK does, and compares.
func checkSignature(r *http.Request, body []byte, region, service string) error {
	given := r.Header.Get("Authorization")
	_, names, found := strings.Cut(given, "SignedHeaders=")
	if !found {
		return fmt.Errorf("no signature: Authorization is %q", given)
	}
	names, _, _ = strings.Cut(names, ",")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return err
	}
	if age := time.Since(at).Abs(); age > 5*time.Minute {
		return fmt.Errorf("signed %s ago", age)
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), http.NoBody)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(names, ";") {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = int64(len(body))
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	credentials := awssdk.Credentials{AccessKeyID: accessKey(r), SecretAccessKey: "example", SessionToken: r.Header.Get("X-Amz-Security-Token")}
	hash := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), credentials, again, hex.EncodeToString(hash[:]), service, region, at); err != nil {
		return err
	}
	if computed := again.Header.Get("Authorization"); computed != given {
		return fmt.Errorf("the signature is %q, not %q", given, computed)
	}
	return nil
}

// The check of signatures must find what it is there for.
func TestSignatureCheck(t *testing.T) {
	sign := func(region, service, secret string, at time.Time) *http.Request {
		r, err := http.NewRequest(http.MethodPost, "http://localhost:1/v1/metrics", strings.NewReader("body"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-protobuf")
		hash := sha256.Sum256([]byte("body"))
		credentials := awssdk.Credentials{AccessKeyID: fakeAccessKey, SecretAccessKey: secret}
		require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), credentials, r, hex.EncodeToString(hash[:]), service, region, at))
		return r
	}
	now := time.Now()
	require.NoError(t, checkSignature(sign("eu-west-1", "monitoring", "example", now), []byte("body"), "eu-west-1", "monitoring"))
	for name, r := range map[string]*http.Request{
		"region":  sign("eu-west-2", "monitoring", "example", now),
		"service": sign("eu-west-1", "logs", "example", now),
		"secret":  sign("eu-west-1", "monitoring", "other", now),
		"old":     sign("eu-west-1", "monitoring", "example", now.Add(-time.Hour)),
	} {
		require.Error(t, checkSignature(r, []byte("body"), "eu-west-1", "monitoring"), name)
	}
	require.Error(t, checkSignature(sign("eu-west-1", "monitoring", "example", now), []byte("other"), "eu-west-1", "monitoring"), "body")
	changed := sign("eu-west-1", "monitoring", "example", now)
	changed.Header.Set("Content-Type", "application/json")
	require.Error(t, checkSignature(changed, []byte("body"), "eu-west-1", "monitoring"), "header")
	changed.Header.Del("Authorization")
	require.Error(t, checkSignature(changed, []byte("body"), "eu-west-1", "monitoring"), "no signature")
}

// What goes to CloudWatch by OTLP: every series of the page with its own name, in requests that CloudWatch takes, signed.
func TestCloudWatchOTLP(t *testing.T) {
	t.Parallel()
	cw, sts := newCloudwatchMetrics(t), newCloudwatchLogs(t)
	k := start(t, options{Configs: cw.configs(t), Env: cw.env(map[string]string{
		"KARROT_INTERVAL":      "2s",
		"KARROT_EXPIRE_AFTER":  "4s",
		"KARROT_IAM_ROLE":      "arn:aws:iam::123456789012:role/karrot",
		"AWS_ENDPOINT_URL_STS": sts.url,
	})})
	e := evaluation{Cluster: "east", Group: "заказы", Status: "WARN", PartitionCount: 1500, TotalLag: 7}
	for i := range 1500 {
		e.Partitions = append(e.Partitions, partition{Topic: "orders", Partition: int32(i), Status: "WARN", CurrentLag: uint64(i)})
	}
	k.accept(t, e.body(t))
	lags := map[any]float64{}
	waitFor(t, 20*time.Second, func() string {
		clear(lags)
		for _, p := range cw.recorded() {
			if p.metric == "burrow.partition.lag" {
				assert.Equal(t, map[string]any{"cluster": "east", "group": "заказы", "topic": "orders", "partition": p.attributes["partition"]}, p.attributes)
				lags[p.attributes["partition"]] = p.value
			}
		}
		if len(lags) < 1500 {
			return fmt.Sprintf("%d partitions, not 1500", len(lags))
		}
		return ""
	})
	names := map[string]bool{}
	for _, p := range cw.recorded() {
		names[p.metric] = true
	}
	assert.Contains(t, names, "burrow.group.partitions", "with the status as a label")
	assert.Contains(t, names, "burrow.group.incidents")
	// The end of the series must not be sent: take() refuses points without a value.
	waitFor(t, 15*time.Second, func() string { return difference(nil, k.series(t)) })
	k.stop(t)
	cw.mu.Lock()
	defer cw.mu.Unlock()
	assert.Equal(t, map[string]int{fakeAssumedKey: cw.requests}, cw.keys, "signed as the role")
	assert.Greater(t, cw.requests, 3)
	require.NotEmpty(t, sts.roles)
	assert.Equal(t, "arn:aws:iam::123456789012:role/karrot", sts.roles[0].Get("RoleArn"))
}

// Without a region there is no address, and nothing can be signed: Karrot says so at the start.
func TestCloudWatchOTLPNeedsRegionAndCredentials(t *testing.T) {
	configs := []string{"config/karrot.yaml", "config/cloudwatch-otlp.yaml"}
	for name, test := range map[string]struct {
		env  map[string]string
		says string
	}{
		"no region":      {map[string]string{"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy"}, "metrics_endpoint"},
		"no credentials": {map[string]string{"AWS_REGION": "eu-west-1"}, "sigv4auth/cloudwatch: could not retrieve credential"},
		"no storage": {map[string]string{
			"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy", "KARROT_QUEUE_STORAGE": "file_storage",
		}, "no storage client extension found"},
	} {
		t.Run(name, func(t *testing.T) {
			k := command(t, options{Configs: configs, Env: test.env})
			require.Error(t, k.cmd.Run())
			assert.Contains(t, k.log(), test.says)
		})
	}
}
