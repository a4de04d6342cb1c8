package burrowreceiver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

var storageID = component.MustNewID("file_storage")

// fileStorage is the extension with its files in a directory.
func fileStorage(t testing.TB, dir string) extension.Extension {
	t.Helper()
	factory := filestorage.NewFactory()
	cfg := factory.CreateDefaultConfig().(*filestorage.Config)
	cfg.Directory = dir
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

func openStored(t testing.TB, source component.Component) *stored {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.ID = component.NewID(metadata.Type)
	set.Logger = zap.New(core)
	s := &stored{metrics: new(consumertest.MetricsSink), events: new(consumertest.LogsSink), logs: logs}
	var err error
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	s.burrowReceiver, err = newMetricsReceiver(set, cfg, s.metrics)
	require.NoError(t, err)
	s.addLogs(s.events)
	s.store, err = openStore(context.Background(), host{storageID: source}, s.burrowReceiver, time.Now())
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
		require.True(t, e.handOver(context.Background(), time.Now()))
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
	require.NoError(t, s.closeStore(context.Background()))
}

func (s *stored) save(t testing.TB) {
	t.Helper()
	require.True(t, s.store.save(context.Background(), time.Now()))
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
	records := map[string]string{}
	for _, c := range s.table.Collect() {
		s.table.Commit(nil)
		record, _ := s.table.Record(c.Current)
		records[c.Current.Group.Cluster+"/"+c.Current.Group.Group] = string(record)
	}
	if len(records) > 0 {
		return records
	}
	for _, kept := range s.store.kept {
		record, _ := s.table.Record(kept.state)
		records[kept.state.Group.Cluster+"/"+kept.state.Group.Group] = string(record)
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
	held := after.handOver(t)
	for id := range held {
		assert.Contains(t, id, decode("stall.json").Group.Group)
	}
	assert.NotEmpty(t, held)
	require.Equal(t, 1, after.events.LogRecordCount(), "its incident has ended")
	record := after.events.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	by, _ := record.Attributes().Get("burrow.incident.ended_by")
	assert.Equal(t, "expiry", by.Str())
	assert.Len(t, after.store.kept, 2)
	after.save(t)
	assert.Len(t, after.store.kept, 1, "the old one is removed")
	assert.Len(t, after.store.free, 1)
	after.post(t, recordedBody(t, "ok.json"))
	after.save(t)
	assert.Empty(t, after.store.free, "its slot is used again")
	assert.Equal(t, 2, after.store.slots)
	after.kill(t)
}

func TestOnlyChangesAreWritten(t *testing.T) {
	client := &countingClient{Client: storage.NewNopClient()}
	s := openStored(t, clientSource{client: client})
	s.post(t, recordedBody(t, "warn.json"))
	s.post(t, recordedBody(t, "stall.json"))
	s.save(t)
	assert.Equal(t, []string{"set group/0", "set group/1", "set slots"}, client.written())
	s.save(t)
	assert.Empty(t, client.written())
	s.post(t, recordedBody(t, "stall.json"))
	s.save(t)
	require.Len(t, client.operations, 1)

	client.err = errors.New("disk full")
	client.written()
	s.post(t, recordedBody(t, "ok.json"))
	s.save(t)
	s.save(t)
	client.err = nil
	s.save(t)
	assert.Equal(t, []string{"set group/2", "set slots", "set group/2", "set slots", "set group/2", "set slots"}, client.written(), "until it is written")
	assert.Equal(t, 1, s.logs.FilterMessageSnippet("can't be written").Len())
	assert.Equal(t, 1, s.logs.FilterMessageSnippet("can be written again").Len())
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

type countingClient struct {
	storage.Client
	operations []string
	err        error
}

func (c *countingClient) Batch(_ context.Context, operations ...*storage.Operation) error {
	for _, o := range operations {
		c.operations = append(c.operations, map[storage.OpType]string{storage.Get: "get", storage.Set: "set", storage.Delete: "delete"}[o.Type]+" "+o.Key)
	}
	return c.err
}

func (c *countingClient) written() []string {
	list := c.operations
	c.operations = nil
	if len(list) > 1 && list[0] > list[1] && strings.HasPrefix(list[0], "set group/") {
		list[0], list[1] = list[1], list[0] // the table has no order
	}
	return list
}

// Records that are not ours, or not whole, are left out.
func TestDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	before := openStored(t, fileStorage(t, dir))
	names := []string{"warn.json", "stall.json", "ok.json", "stop.json", "rewind.json", "many-partitions.json", "no-maxlag.json"}
	for _, name := range names {
		before.post(t, recordedBody(t, name))
	}
	before.save(t)
	whole, err := before.store.client.Get(context.Background(), slotKey(0))
	require.NoError(t, err)
	for slot, record := range [][]byte{nil, []byte("{}"), []byte("foreign"), whole[:len(whole)/2], []byte(strings.Replace(string(whole), `"version":1`, `"version":2`, 1)), whole} {
		if slot > 0 {
			require.NoError(t, before.store.client.Set(context.Background(), slotKey(slot), record))
		}
	}
	before.kill(t)

	after := openStored(t, fileStorage(t, dir))
	assert.Equal(t, len(names)-5, after.table.Stats().Groups, "five slots can't be used, one of them because its group is there already")
	lines := after.logs.FilterMessageSnippet("can't be used").All()
	require.Len(t, lines, 1, "one line")
	assert.EqualValues(t, 5, lines[0].ContextMap()["groups"])
	for _, name := range names {
		after.post(t, recordedBody(t, name))
	}
	after.save(t)
	after.kill(t)
	again := openStored(t, fileStorage(t, dir))
	assert.Equal(t, len(names), again.table.Stats().Groups)
	assert.Zero(t, again.logs.FilterMessageSnippet("can't be used").Len())
	require.NoError(t, again.store.client.Set(context.Background(), slotsKey, []byte("foreign")))
	again.kill(t)
	empty := openStored(t, fileStorage(t, dir))
	assert.Zero(t, empty.table.Stats().Groups)
	empty.kill(t)
}

// Whatever stands in the file, the receiver starts, and keeps its table from then on.
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
			s := openStored(t, fileStorage(t, dir))
			require.NotNil(t, s.store, "%v", s.logs.All())
			s.post(t, recordedBody(t, "warn.json"))
			s.save(t)
			require.False(t, s.store.failing)
			s.kill(t)

			again := openStored(t, fileStorage(t, dir))
			require.NotNil(t, again.store)
			found := false
			for _, kept := range again.store.kept {
				found = found || kept.state.Group.Group == "fraud-check"
			}
			assert.True(t, found, "it is kept")
			again.kill(t)
		})
	}
}

func TestStorageThatCannotWork(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	r, err := newBurrowReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	_, err = openStore(context.Background(), host{}, r, time.Now())
	require.EqualError(t, err, "storage: file_storage must be listed in service.extensions")
	_, err = openStore(context.Background(), host{storageID: authenticator{}}, r, time.Now())
	require.EqualError(t, err, "storage: file_storage must be a storage extension, such as file_storage")
	s, err := openStore(context.Background(), host{storageID: clientSource{err: errors.New("no permission")}}, r, time.Now())
	require.NoError(t, err)
	assert.Nil(t, s, "it starts without")
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
			update := func(i int) {
				g := burrow.GroupStatus{Cluster: "c", Group: fmt.Sprintf("group-%05d", i), Status: burrow.StatusErr, Complete: 1, PartitionCount: 10}
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
			require.Len(b, s.store.kept, n)
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
			require.False(b, s.store.failing)
			size, err := os.Stat(filepath.Join(dir, "receiver_burrow_"))
			require.NoError(b, err)
			b.ReportMetric(float64(size.Size())/n, "B/group")
			s.kill(b)
		})
	}
}
