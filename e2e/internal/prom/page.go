// Package prom reads pages in Prometheus' text format, and asks a Prometheus.
package prom

import (
	"context"
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
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Page is a value by series, as ID writes them.
type Page map[string]float64

// ID names a series: `name{label="value",...}`, labels in order.
func ID(name string, labels map[string]string) string {
	var text strings.Builder
	text.WriteString(name)
	text.WriteByte('{')
	for i, label := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(label)
		text.WriteByte('=')
		text.WriteString(strconv.Quote(labels[label]))
	}
	text.WriteByte('}')
	return text.String()
}

// Parse reads a page of gauges and counters. Histograms and summaries are left out.
func Parse(text string) (Page, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	page := Page{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetHistogram() != nil || metric.GetSummary() != nil {
				continue
			}
			labels := make(map[string]string, len(metric.GetLabel()))
			for _, pair := range metric.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			// One of them is there, the others are nil and read as 0.
			page[ID(name, labels)] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + metric.GetUntyped().GetValue()
		}
	}
	return page, nil
}

// Fetch gets what a URL answers with 200.
func Fetch(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", address, response.Status, body)
	}
	return string(body), nil
}

// Point is a sample.
type Point struct {
	At    time.Time
	Value float64
}

// Series is one series of an answer, oldest point first.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Query asks a Prometheus. A range selector, as in `up[5m]`, gives the samples as they were scraped.
func Query(ctx context.Context, server, query string, at time.Time) ([]Series, error) {
	parameters := url.Values{"query": {query}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	text, err := Fetch(ctx, server+"/api/v1/query?"+parameters.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  *sample
				Values []sample
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	var result []Series
	for _, r := range answer.Data.Result {
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		series := Series{Labels: r.Metric}
		for _, v := range r.Values {
			series.Points = append(series.Points, Point(v))
		}
		result = append(result, series)
	}
	return result, nil
}

// sample is written as [seconds, "value"].
type sample Point

func (s *sample) UnmarshalJSON(text []byte) error {
	var seconds float64
	var value string
	if err := json.Unmarshal(text, &[]any{&seconds, &value}); err != nil {
		return err
	}
	s.At = time.UnixMilli(int64(math.Round(seconds * 1000)))
	var err error
	s.Value, err = strconv.ParseFloat(value, 64)
	return err
}
