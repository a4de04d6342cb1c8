package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/groups"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

var storageID = component.MustNewID("file_storage")

// fileStorage is the extension with its files in a directory.
func fileStorage(t testing.TB, dir string) extension.Extension {
	t.Helper()
	factory := filestorage.NewFactory()
	cfg := factory.CreateDefaultConfig().(*filestorage.Config)
	cfg.Directory, cfg.Recreate = dir, true // as config/storage.yaml has it
	e, err := factory.Create(context.Background(), extensiontest.NewNopSettings(factory.Type()), cfg)
	require.NoError(t, err)
	require.NoError(t, e.Start(context.Background(), componenttest.NewNopHost()))
	return e
}

// stored is a receiver that keeps its table, without a server: what would arrive is handed to the webhook.
type stored struct {
	*burrowReceiver
	metrics *consumertest.MetricsSink
	events  *consumertest.LogsSink
	logs    *observer.ObservedLogs
}

func openStored(t testing.TB, source component.Component, changes ...func(*Config)) *stored {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.ID = component.NewID(metadata.Type)
	set.Logger = zap.New(core)
	s := &stored{metrics: new(consumertest.MetricsSink), events: new(consumertest.LogsSink), logs: logs}
	var err error
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	for _, change := range changes {
		change(cfg)
	}
	s.burrowReceiver, err = newMetricsReceiver(set, cfg, s.metrics)
	require.NoError(t, err)
	s.addLogs(s.events)
	s.keeper, err = openKeeper(context.Background(), host{storageID: source}, s.burrowReceiver, time.Now)
	require.NoError(t, err)
	return s
}

func (s *stored) post(t testing.TB, body string) {
	t.Helper()
	require.Empty(t, send(s.webhook, "POST", []byte(body)))
}

// handOver is what the backend has after a hand-over.
func (s *stored) handOver(t *testing.T) backend {
	t.Helper()
	for _, e := range s.emitters {
		require.True(t, e.emit(context.Background(), time.Now(), false))
	}
	held := backend{}
	for _, md := range s.metrics.AllMetrics() {
		held.take(t, md)
	}
	return held
}

// kill ends it as kill -9 does: nothing is written any more. (The file has to be closed for the next one.)
func (s *stored) kill(t testing.TB) {
	t.Helper()
	s.closeKeeper(context.Background())
}

func (s *stored) save(t testing.TB) {
	t.Helper()
	require.True(t, s.keeper.save(context.Background(), time.Now(), false))
}

func TestTableSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	for _, name := range []string{"warn.json", "many-partitions.json", "ok-with-lag.json", "no-maxlag.json", "odd-names-quotes.json", "escalate-1-warn.json"} {
		before.post(t, recordedBody(t, name))
	}
	before.save(t)
	before.post(t, recordedBody(t, "escalate-2-err.json"))
	before.save(t)
	want := before.handOver(t)
	require.NotEmpty(t, want)
	wantStates := states(before)
	before.kill(t)

	after := openStored(t, fileStorage(t, dir))
	assert.Equal(t, want, after.handOver(t), "values, incident starts and counts, and time lags")
	assert.Equal(t, wantStates, states(after), "and histories")
	assert.Zero(t, after.events.LogRecordCount(), "an incident that goes on does not open again")
	after.post(t, recordedBody(t, "escalate-3-close.json"))
	after.handOver(t)
	assert.Equal(t, 1, after.events.LogRecordCount(), "but it ends")

	after.post(t, recordedBody(t, "close.json"))
	after.save(t)
	after.kill(t)
	again := openStored(t, fileStorage(t, dir))
	assert.Equal(t, len(wantStates), again.table.Stats().Groups)
	again.kill(t)
}

// states are the records of all groups, with their histories.
func states(s *stored) map[string]string {
	var all []*groups.State
	s.table.Each(func(state *groups.State) { all = append(all, state) })
	records := map[string]string{}
	for _, state := range all {
		record, _ := s.table.Record(state)
		records[state.Group.Cluster+"/"+state.Group.Group] = string(record)
	}
	return records
}

func TestOldGroupsDoNotComeBack(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	decode := func(name string) *burrow.Notification {
		n, err := burrow.Decode([]byte(recordedBody(t, name)))
		require.NoError(t, err)
		return n
	}
	require.NoError(t, before.table.Update(decode("warn.json"), time.Now().Add(-defaultExpireAfter-time.Second)))
	require.NoError(t, before.table.Update(decode("stall.json"), time.Now().Add(-defaultExpireAfter+time.Minute)))
	before.save(t)
	before.kill(t)

	after := openStored(t, fileStorage(t, dir))
	for _, e := range after.emitters {
		require.True(t, e.emit(context.Background(), time.Now(), false))
	}
	live, ended := 0, 0
	for _, md := range after.metrics.AllMetrics() {
		for _, metric := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
			for _, point := range numbers(metric).All() {
				name, _ := point.Attributes().Get("group")
				if point.Flags().NoRecordedValue() {
					ended++
					assert.Equal(t, decode("warn.json").Group.Group, name.Str(), "a backend elsewhere may have it from before")
				} else {
					live++
					assert.Equal(t, decode("stall.json").Group.Group, name.Str())
				}
			}
		}
	}
	assert.Positive(t, live)
	assert.Positive(t, ended)
	require.Equal(t, 1, after.events.LogRecordCount(), "its incident has ended")
	record := after.events.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	by, _ := record.Attributes().Get("burrow.incident.ended_by")
	assert.Equal(t, "expiry", by.Str())
	after.kill(t)
}

type clientSource struct {
	component.StartFunc
	component.ShutdownFunc
	client storage.Client
	err    error
}

func (s clientSource) GetClient(context.Context, component.Kind, component.ID, string) (storage.Client, error) {
	return s.client, s.err
}

// Whatever stands in the file, the receiver starts. A damaged file is put aside by file_storage (recreate), and the table is kept
// from then on; one that is no database at all stays where it is, and the log says so.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	for i := range 300 {
		before.post(t, group(fmt.Sprint("group ", i), i))
	}
	before.post(t, recordedBody(t, "all-50-partitions-stop.json"))
	before.save(t)
	before.kill(t)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	whole, err := os.ReadFile(files[0])
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(7, 8))
	noise := make([]byte, len(whole))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	damaged := map[string][]byte{"empty": {}, "noise": noise, "text": []byte("not a database\n"), "zeros": make([]byte, len(whole))}
	for _, size := range []int{1, 100, 4096, 8192, 16384, len(whole) / 2, len(whole) - 4096, len(whole) - 1} {
		damaged[fmt.Sprint("cut at ", size)] = whole[:size]
	}
	for i := range 8 {
		pages := append([]byte(nil), whole...)
		page := random.IntN(len(pages)/4096) * 4096
		copy(pages[page:], noise[:4096])
		damaged[fmt.Sprint("noise in page ", page/4096, " ", i)] = pages
	}
	for name, content := range damaged {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), content, 0o600))
			if strings.HasPrefix(name, "noise in page") {
				startOnDamagedPage(t, dir)
				return
			}
			startOnDamagedFile(t, dir, slices.Contains([]string{"noise", "text", "zeros", "cut at 1", "cut at 100", "cut at 4096"}, name))
		})
	}
}

// startOnDamagedFile demands that a receiver starts on what stands in dir, and keeps its table there, unless it is no database.
func startOnDamagedFile(t *testing.T, dir string, noDatabase bool) {
	t.Helper()
	s := openStored(t, fileStorage(t, dir))
	if s.keeper.store == nil {
		require.True(t, noDatabase, "%v", s.logs.All())
		require.Equal(t, 1, s.logs.FilterMessageSnippet("can't be opened: nothing is kept").Len())
		return
	}
	s.post(t, recordedBody(t, "warn.json"))
	s.save(t)
	require.False(t, s.keeper.outage.failing)
	s.kill(t)

	again := openStored(t, fileStorage(t, dir))
	require.NotNil(t, again.keeper.store)
	assert.Contains(t, states(again), "east/fraud-check", "it is kept")
	again.kill(t)
}

// uncatchable is the beginning of what the database's library panics with in a goroutine of its own, where pages contradict each
// other. Nobody can catch it; docs/operating.md says what to do.
const uncatchable = "panic: freepages: failed to get all reachable pages"

// startOnDamagedPage does the same in a process of its own, which may end in the one way that can't be caught: whether noise in a page
// makes pages contradict each other depends on what stands in the page.
func startOnDamagedPage(t *testing.T, dir string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestDamagedPage$", "-test.count=1", "-test.v")
	child.Env = append(os.Environ(), damagedPage+"="+dir)
	output, err := child.CombinedOutput()
	if err != nil {
		require.Contains(t, string(output), uncatchable)
		t.Log("the library ended the process")
		return
	}
	require.Contains(t, string(output), "--- PASS: TestDamagedPage")
}

// damagedPage tells TestDamagedPage where the file is.
const damagedPage = "KARROT_TEST_DAMAGED_PAGE"

// TestDamagedPage is the process that TestDamagedFiles starts.
func TestDamagedPage(t *testing.T) {
	dir := os.Getenv(damagedPage)
	if dir == "" {
		t.Skip("TestDamagedFiles starts it")
	}
	startOnDamagedFile(t, dir, false)
}

func TestStorageThatCannotWork(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	r, err := newBurrowReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	_, err = openKeeper(context.Background(), host{}, r, time.Now)
	require.EqualError(t, err, "storage: file_storage must be listed in service.extensions")
	_, err = openKeeper(context.Background(), host{storageID: authenticator{}}, r, time.Now)
	require.EqualError(t, err, "storage: file_storage must be a storage extension, such as file_storage")
	s, err := openKeeper(context.Background(), host{storageID: clientSource{err: errors.New("no permission")}}, r, time.Now)
	require.NoError(t, err)
	assert.Nil(t, s.store, "it starts without")
}

// Without recreate a damaged file stays where it is, and the receiver starts all the same.
func TestDamagedFileWithoutRecreate(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	for i := range 300 {
		before.post(t, group(fmt.Sprint("group ", i), i))
	}
	before.save(t)
	before.kill(t)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.NoError(t, os.Truncate(files[0], 8192))
	factory := filestorage.NewFactory()
	cfg := factory.CreateDefaultConfig().(*filestorage.Config)
	cfg.Directory = dir
	e, err := factory.Create(context.Background(), extensiontest.NewNopSettings(factory.Type()), cfg)
	require.NoError(t, err)
	require.NoError(t, e.Start(context.Background(), componenttest.NewNopHost()))
	after := openStored(t, e)
	assert.Nil(t, after.keeper.store)
	lines := after.logs.FilterMessageSnippet("can't be opened: nothing is kept").All()
	require.Len(t, lines, 1)
	assert.Contains(t, lines[0].ContextMap()["error"], "remove its file")
}

// A file that becomes shorter while it is open, or a disk that fails, does not end the process. The table goes on, and it is kept again after the
// file was removed.
func TestFileIsDamagedWhileItIsOpen(t *testing.T) {
	for _, size := range []int64{0, 4096, 8192} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			dir := t.TempDir()
			s := openStored(t, fileStorage(t, dir))
			for i := range 300 {
				s.post(t, group(fmt.Sprint("group ", i), i))
			}
			s.save(t)
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			require.NoError(t, err)
			require.Len(t, files, 1)
			require.NoError(t, os.Truncate(files[0], size))
			for i := range 300 {
				s.post(t, group(fmt.Sprint("group ", i), i+1))
				s.save(t)
			}
			if s.keeper.store != nil { // which is too much to print
				t.Error("a damaged storage is still asked")
			}
			failed := s.logs.FilterMessageSnippet("can't be written").All()
			require.Len(t, failed, 1)
			assert.Contains(t, failed[0].ContextMap()["error"], "remove its file")
			assert.Equal(t, 300, s.table.Stats().Groups)
			s.kill(t)

			require.NoError(t, os.Remove(files[0]))
			again := openStored(t, fileStorage(t, dir))
			require.NotNil(t, again.keeper.store)
			again.kill(t)
		})
	}
}

// In a rolling restart the process before holds the file until it has handed over everything.
func TestStorageIsLockedByTheProcessBefore(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	before.post(t, recordedBody(t, "warn.json"))
	before.save(t)
	go func() {
		time.Sleep(1500 * time.Millisecond) // longer than one attempt waits
		before.kill(t)
	}()
	after := openStored(t, fileStorage(t, dir))
	require.NotNil(t, after.keeper.store)
	assert.Equal(t, 1, after.table.Stats().Groups)
	assert.Equal(t, 1, after.logs.FilterMessageSnippet("can't be opened yet").Len())
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	assert.Len(t, files, 1, "nothing is put aside")
	after.kill(t)
}

// lateSource is a storage that can't be opened at first.
type lateSource struct {
	extension.Extension
	attempts, failures int
}

func (s *lateSource) GetClient(ctx context.Context, kind component.Kind, receiver component.ID, name string) (storage.Client, error) {
	if s.attempts++; s.attempts <= s.failures {
		return nil, errors.New("read-only file system")
	}
	return s.Extension.(storage.Extension).GetClient(ctx, kind, receiver, name)
}

// A storage that can't be opened at the start is opened later, and counts as one that can't be written until then. What it held is older
// than what the table has by then, and does not come back.
func TestStorageThatOpensLater(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	before.post(t, group("ended meanwhile", 1))
	before.post(t, group("goes on", 1))
	before.save(t)
	before.kill(t)

	source := &lateSource{Extension: fileStorage(t, dir), failures: 3}
	after := openStored(t, source)
	require.Zero(t, after.table.Stats().Groups)
	after.post(t, group("goes on", 2))
	begin, seconds := time.Now(), 0
	for ; after.keeper.store == nil; seconds++ {
		require.Less(t, seconds, 60)
		require.True(t, after.keeper.save(context.Background(), begin.Add(time.Duration(seconds)*time.Second), false))
	}
	assert.Equal(t, source.failures+1, source.attempts)
	assert.InDelta(t, float64(source.failures)*reopenInterval.Seconds(), float64(seconds), 2)
	assert.Equal(t, 1, after.logs.FilterMessageSnippet("can't be opened").Len())
	assert.Equal(t, 1, after.logs.FilterMessageSnippet("can be opened now").Len())
	want := states(after)
	after.kill(t)

	again := openStored(t, fileStorage(t, dir))
	require.NotNil(t, again.keeper.store)
	assert.Equal(t, want, states(again))
	again.kill(t)
}

// A group that the filters leave out since the restart ends at once, in every pipeline and with its incident, and is not kept any more.
func TestFiltersHoldForTheStorage(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	before.post(t, recordedBody(t, "warn.json"))
	before.post(t, group("stays", 1))
	before.save(t)
	held := before.handOver(t)
	before.kill(t)

	after := openStored(t, fileStorage(t, dir), func(c *Config) { c.Groups.Exclude = []string{"^fraud-"} })
	assert.Equal(t, []string{"c/stays"}, slices.Sorted(maps.Keys(states(after))))
	for _, e := range after.emitters {
		require.True(t, e.emit(context.Background(), time.Now(), false))
	}
	for _, md := range after.metrics.AllMetrics() {
		held.take(t, md)
	}
	require.NotEmpty(t, held)
	for series := range held {
		assert.NotContains(t, series, "fraud-check")
	}
	require.Equal(t, 1, after.events.LogRecordCount())
	record := after.events.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	by, _ := record.Attributes().Get("burrow.incident.ended_by")
	assert.Equal(t, "filter", by.Str())
	assert.Contains(t, record.Body().Str(), "is left out by the filters")
	assert.Zero(t, after.table.Stats().Expired)
	after.save(t)
	after.kill(t)

	again := openStored(t, fileStorage(t, dir))
	assert.Equal(t, 1, again.table.Stats().Groups)
	again.kill(t)
}

// What the filters leave out does not keep a group that they take out of a table that is smaller now.
func TestFilteredGroupsTakeNoPlaceAfterARestart(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	for i := range 5 {
		before.post(t, group(fmt.Sprint("stranger ", i), 1))
		before.save(t)
	}
	before.post(t, group("stays", 1))
	before.save(t)
	before.kill(t)

	after := openStored(t, fileStorage(t, dir), func(c *Config) {
		c.Groups.Exclude = []string{"^stranger "}
		c.MaxGroups = 2
	})
	assert.Equal(t, []string{"c/stays"}, slices.Sorted(maps.Keys(states(after))))
	assert.Zero(t, after.logs.FilterMessageSnippet("can't be used").Len())
	after.kill(t)
}

// While nothing is kept there are failures to alert on: the first at the start.
func TestStorageThatIsNotOpenFails(t *testing.T) {
	r := run(t, nil, host{storageID: clientSource{err: errors.New("read-only file system")}}, func(c *Config) { c.Storage = &storageID })
	m, err := r.telemetry.GetMetric("otelcol_receiver_burrow_storage_failures")
	require.NoError(t, err)
	assert.EqualValues(t, 1, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	require.NoError(t, r.Shutdown(context.Background()))
}

// The last attempt is at the end, when the process before may have let go of the file.
func TestStorageThatOpensAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := openStored(t, &lateSource{Extension: fileStorage(t, dir), failures: 1})
	s.post(t, group("a", 1))
	require.True(t, s.keeper.save(context.Background(), time.Now(), false))
	require.Nil(t, s.keeper.store)
	require.True(t, s.keeper.save(context.Background(), time.Now(), true))
	require.NotNil(t, s.keeper.store)
	s.kill(t)
	again := openStored(t, fileStorage(t, dir))
	assert.Equal(t, 1, again.table.Stats().Groups)
	again.kill(t)
}

// What Start has opened is closed when it fails.
func TestFailedStartLeavesNothingOpen(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	r, err := newMetricsReceiver(receivertest.NewNopSettings(metadata.Type), testConfig(func(c *Config) {
		c.Storage = &storageID
		c.Webhook.Get().Server.NetAddr.Endpoint = taken.Addr().String()
	}), consumertest.NewNop())
	require.NoError(t, err)
	require.Error(t, r.Start(context.Background(), host{storageID: fileStorage(t, dir)}))
	other := openStored(t, fileStorage(t, dir))
	require.NotNil(t, other.keeper.store)
	assert.Zero(t, other.logs.FilterMessageSnippet("can't be opened yet").Len(), "no lock was left")
	other.kill(t)
	require.NoError(t, r.Shutdown(context.Background()))
}

// A receiver that is started and stopped by the Collector keeps its table, too.
func TestStorageInTheLifecycle(t *testing.T) {
	dir := t.TempDir()
	withStorage := func(c *Config) { c.Storage = &storageID }
	first := run(t, nil, host{storageID: fileStorage(t, dir)}, withStorage)
	status, text := first.post(t, recordedBody(t, "warn.json"))
	require.Equal(t, 200, status, text)
	require.NoError(t, first.Shutdown(context.Background()))

	second := run(t, nil, host{storageID: fileStorage(t, dir)}, func(c *Config) { withStorage(c); c.Interval = time.Minute })
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Len(c, second.sink.AllMetrics(), 1) }, 5*time.Second, time.Millisecond, "at once, not after the interval")
	require.NoError(t, second.Shutdown(context.Background()))
}

// BenchmarkStore writes what one interval of a second brings when 10,000 groups with 4 listed partitions are notified
// once a minute, and all of them.
func BenchmarkStore(b *testing.B) {
	const n, partitions = 10_000, 4
	for name, changed := range map[string]int{"one second": n / 60, "all": n} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			s := openStored(b, fileStorage(b, dir))
			now := time.Now()
			round := int64(0)
			update := func(i int) {
				round++
				g := burrow.GroupStatus{Cluster: "c", Group: fmt.Sprintf("group-%05d", i), TotalLag: round, Status: burrow.StatusErr, Complete: 1, PartitionCount: 10}
				for p := range int32(partitions) {
					g.Partitions = append(g.Partitions, burrow.PartitionStatus{
						Topic: "topic", Partition: p, Status: burrow.StatusStop, CurrentLag: 5,
						Start: burrow.Commit{Offset: 3, Timestamp: 1, Lag: 4}, End: burrow.Commit{Offset: 7, Timestamp: 2, Lag: 5},
					})
				}
				require.NoError(b, s.table.Update(&burrow.Notification{Group: g}, now))
			}
			for i := range n {
				update(i)
			}
			s.save(b)
			next := 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for range changed {
					update(next % n)
					next++
				}
				b.StartTimer()
				s.save(b)
			}
			require.False(b, s.keeper.outage.failing)
			size, err := os.Stat(filepath.Join(dir, "receiver_burrow_"))
			require.NoError(b, err)
			b.ReportMetric(float64(size.Size())/n, "B/group")
			s.kill(b)
		})
	}
}
