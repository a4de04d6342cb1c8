package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func withStorage(dir string, more map[string]string) options {
	env := maps.Clone(more)
	env["KARROT_STORAGE_DIRECTORY"] = dir
	return options{Configs: []string{"config/karrot.yaml", "config/storage.yaml"}, Env: env}
}

// kill -9 in the middle of traffic, and a start two seconds later: everything is on the page at once, to the last value.
func TestKilledAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	k := start(t, withStorage(dir, map[string]string{"KARROT_INTERVAL": "100ms"}))
	known := newest{}
	requests := sequence(t)
	for _, r := range requests[:700] {
		k.accept(t, []byte(r.Body))
		known.take(read(t, []byte(r.Body)))
	}
	k.eventually(t, settled, known.series())
	time.Sleep(time.Second) // some intervals in which it is written
	timeLags := func(k *karrot) map[string]float64 {
		page := k.series(t)
		maps.DeleteFunc(page, func(id string, _ float64) bool { return !strings.Contains(id, "time_lag_seconds") })
		return page
	}
	lags := timeLags(k)

	// Traffic of other groups goes on while it is killed. Of those nobody can say which of their states is kept.
	const others = "others"
	stop := make(chan struct{})
	sent := make(chan int)
	go func() {
		accepted := 0
		defer func() { sent <- accepted }()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				body := fmt.Sprintf(`{"cluster":%q,"group":"g%d","status":"OK","totallag":%d}`, others, i%50, i)
				response, err := client.Post(k.webhook, "application/json", strings.NewReader(body))
				if err == nil {
					_ = response.Body.Close()
					accepted++
				}
			}
		}
	}()
	waitFor(t, settled, func() string {
		for id := range k.series(t) {
			if strings.Contains(id, others) {
				return ""
			}
		}
		return "no traffic"
	})
	require.NoError(t, k.cmd.Process.Signal(syscall.SIGKILL))
	<-k.exited
	close(stop)
	require.Positive(t, <-sent)
	time.Sleep(2 * time.Second)

	again := start(t, withStorage(dir, map[string]string{"KARROT_INTERVAL": "1h", "KARROT_EXPIRE_AFTER": "2h"}))
	waitFor(t, settled, func() string {
		page := again.series(t)
		maps.DeleteFunc(page, func(id string, _ float64) bool { return strings.Contains(id, fmt.Sprintf(`cluster=%q`, others)) })
		return withoutTimeLags(page) + difference(known.series(), page)
	})
	assert.NotEmpty(t, lags)
	assert.NotEmpty(t, timeLags(again))
	again.stop(t)
}

// After a clean stop the page is the same, to the last value.
func TestStoppedAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	k := start(t, withStorage(dir, fast))
	known := newest{}
	for _, r := range sequence(t)[:500] {
		k.accept(t, []byte(r.Body))
		known.take(read(t, []byte(r.Body)))
	}
	k.eventually(t, settled, known.series())
	want := k.series(t)
	k.stop(t)
	again := start(t, withStorage(dir, map[string]string{"KARROT_INTERVAL": "1h", "KARROT_EXPIRE_AFTER": "2h"}))
	waitFor(t, settled, func() string { return difference(want, again.series(t)) })
	again.stop(t)
	assert.Contains(t, again.log(), "Read the groups that were known before the restart")

	// Groups that are older than expire_after are not there.
	time.Sleep(time.Second)
	late := start(t, withStorage(dir, map[string]string{"KARROT_INTERVAL": "100ms", "KARROT_EXPIRE_AFTER": "1s"}))
	assert.Empty(t, late.series(t))
	late.stop(t)
}

func TestDamagedStorage(t *testing.T) {
	for name, content := range map[string][]byte{
		"foreign": []byte("not a database"),
		"random":  []byte(strings.Repeat("\x93\x01\xfe", 30_000)),
		"empty":   {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "receiver_burrow_"), content, 0o600))
			damagedStart(t, dir)
		})
	}
	dir := t.TempDir()
	k := start(t, withStorage(dir, fast))
	bodies, _ := manyGroups(200, 5, "STOP")
	for _, body := range bodies {
		k.accept(t, body)
	}
	k.stop(t)
	whole, err := os.ReadFile(filepath.Join(dir, "receiver_burrow_"))
	require.NoError(t, err)
	for _, size := range []int{100, 5000, len(whole) / 2, len(whole) - 5000} {
		t.Run(fmt.Sprint("truncated at ", size), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "receiver_burrow_"), whole[:size], 0o600))
			damagedStart(t, dir)
		})
	}
}

func damagedStart(t *testing.T, dir string) {
	t.Helper()
	k := start(t, withStorage(dir, fast))
	body := testdata(t, "notifications", "warn.json")
	k.accept(t, body)
	known := newest{}
	known.take(read(t, body))
	waitFor(t, settled, func() string {
		if _, found := k.series(t)[`burrow_group_total_lag{cluster="east",group="fraud-check"}`]; !found {
			return "not on the page"
		}
		return ""
	})
	k.stop(t)
}
