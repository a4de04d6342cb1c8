//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// attacksByTheAPI are what a broken Burrow, or whoever answers in its place, can answer to polls.
func attacksByTheAPI() map[string]attack {
	const clusters, cluster, topics = "/v3/kafka", "/v3/kafka/c", "/v3/kafka/c/topic"
	million := list("clusters", 2_000_000, func(i int) string { return "c" + strconv.Itoa(i%1_000_000) })
	eightMillion := list("consumers", 8_000_000, func(int) string { return "g" })
	manyGroups := list("consumers", 240_000, func(i int) string { return "g" + strconv.Itoa(i) })
	manyTopics := list("topics", 240_000, func(i int) string { return "t" + strconv.Itoa(i) })
	longNames := list("consumers", 30_000, func(i int) string { return strings.Repeat("g", 1000) + strconv.Itoa(i) })
	longTopics := bytes.Replace(longNames, []byte("consumers"), []byte("topics"), 1)
	odd := list("consumers", 4000, func(i int) string {
		return []string{"..", ".", `a/b`, `\u001b[2J\n2026-01-01 OK forged`, `%2e%2e`, `\u202e?#`, "", "x\\u0000"}[i%8] + strings.Repeat(".", i/8)
	})
	// The answer about a wide group says which one it is about.
	wideAnswer := func(partitions int) func(w http.ResponseWriter, group string) {
		status := wide("GROUP", partitions)
		return func(w http.ResponseWriter, group string) {
			_, _ = w.Write([]byte(`{"status":`))
			_, _ = w.Write(bytes.Replace(status, []byte("GROUP"), []byte(group), 1))
			_, _ = w.Write([]byte(`}`))
		}
	}
	tooWide, oneWide := wideAnswer(300_000), wideAnswer(1)
	var next atomic.Int64

	return map[string]attack{
		"a million clusters, each listed twice": {burrow: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(million) }},
		"240,000 clusters, other ones each time": {burrow: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == clusters {
				first := int(next.Add(240_000))
				_, _ = w.Write(list("clusters", 240_000, func(i int) string { return "c" + strconv.Itoa(first+i) }))
				return
			}
			_, _ = w.Write([]byte(`{"consumers":[],"topics":[]}`))
		}},
		"8 million names of groups": {burrow: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case clusters:
				_, _ = w.Write([]byte(`{"clusters":["c","d","e","f"]}`))
			default:
				_, _ = w.Write(eightMillion)
			}
		}},
		"30,000 groups and topics with names of 1,000 bytes in each cluster": {burrow: func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == clusters:
				_, _ = w.Write(list("clusters", 1000, strconv.Itoa))
			case strings.HasSuffix(r.URL.Path, "/consumer"):
				_, _ = w.Write(longNames)
			default:
				_, _ = w.Write(longTopics)
			}
		}},
		"answers that never end": {burrow: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"clusters":["`))
			for chunk := bytes.Repeat([]byte{'x'}, 1<<20); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}},
		"answers that trickle": {burrow: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == clusters {
				_, _ = w.Write(list("clusters", 1000, strconv.Itoa))
				return
			}
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte{' '}); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		}},
		"redirects without end": {burrow: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == clusters && r.URL.RawQuery == "" {
				_, _ = w.Write(list("clusters", 1000, strconv.Itoa))
				return
			}
			http.Redirect(w, r, "/v3/kafka?"+strconv.FormatInt(next.Add(1), 10), http.StatusFound)
		}},
		"groups named .. and worse": {burrow: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case clusters:
				_, _ = w.Write([]byte(`{"clusters":["c","..","\u001b[2J"]}`))
			case cluster + "/consumer":
				_, _ = w.Write(odd)
			default:
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = fmt.Fprintf(w, "\x1b[2J\n2026-01-01 OK forged %s", strings.Repeat("x", 1<<20))
			}
		}},
		"answers of 20 MB about each group": {full: true, burrow: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case clusters:
				_, _ = w.Write([]byte(`{"clusters":["c"]}`))
			case cluster + "/consumer":
				_, _ = w.Write(list("consumers", 1000, strconv.Itoa))
			default:
				tooWide(w, groupOf(r))
			}
		}},
		"240,000 groups, which fill the table": {full: true, burrow: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case clusters:
				_, _ = w.Write([]byte(`{"clusters":["c"]}`))
			case cluster + "/consumer":
				_, _ = w.Write(manyGroups)
			default:
				oneWide(w, groupOf(r))
			}
		}},
		"240,000 topics without partitions": {full: true, burrow: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case clusters:
				_, _ = w.Write([]byte(`{"clusters":["c"]}`))
			case cluster + "/consumer":
				_, _ = w.Write([]byte(`{"consumers":[]}`))
			case topics:
				_, _ = w.Write(manyTopics)
			default:
				_, _ = w.Write([]byte(`{"offsets":[]}`))
			}
		}},
	}
}

// list is an answer with names.
func list(key string, n int, name func(i int) string) []byte {
	answer := []byte(`{"error":false,"` + key + `":[`)
	for i := range n {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = append(answer, '"')
		answer = append(answer, name(i)...)
		answer = append(answer, '"')
	}
	return append(answer, `]}`...)
}

// groupOf is the group of a path as in /v3/kafka/CLUSTER/consumer/GROUP/lag.
func groupOf(r *http.Request) string {
	segments := strings.Split(r.URL.Path, "/")
	return segments[min(5, len(segments)-1)]
}

// brokenBurrow answers that there are no clusters, until it attacks.
type brokenBurrow struct {
	attacking atomic.Bool
	asked     atomic.Int64
}

// serve returns the address.
func (b *brokenBurrow) serve(t testing.TB, attack http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !b.attacking.Load() {
			_, _ = w.Write([]byte(`{"clusters":[]}`))
			return
		}
		b.asked.Add(1)
		attack(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

func (b *brokenBurrow) attack(ctx context.Context) error {
	b.attacking.Store(true)
	<-ctx.Done()
	b.attacking.Store(false)
	if b.asked.Load() == 0 {
		return errors.New("nothing was asked")
	}
	return nil
}
