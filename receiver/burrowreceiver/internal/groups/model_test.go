package groups

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// page is what a backend behind one pipeline shows: names of series.
type page map[string]bool

// series are the names of a set's series.
func series(cluster, name string, set *SeriesSet) (list []string) {
	for kind := GroupSeries; kind <= lastGroupSeries; kind <<= 1 {
		if set.Group&kind != 0 {
			list = append(list, fmt.Sprintf("%s/%s kind %d", cluster, name, kind))
		}
	}
	for _, p := range set.Partitions {
		for kind := PartitionSeries; kind <= lastPartitionSeries; kind <<= 1 {
			if p.Kinds&kind != 0 {
				list = append(list, fmt.Sprintf("%s/%s %s/%d kind %d", cluster, name, p.Topic, p.Partition, kind))
			}
		}
	}
	for _, o := range set.Owners {
		list = append(list, fmt.Sprintf("%s/%s %s/%d owner %s", cluster, name, o.Topic, o.Partition, o.Owner))
	}
	return list
}

func (p page) take(c *Change, owners bool) {
	live := seriesOfTopic(c.Topic)
	if c.Topic == nil {
		live = seriesOfGroup(c.Group, owners)
	}
	for _, id := range series(c.Cluster, c.Name, &live) {
		p[id] = true
	}
	for _, id := range series(c.Cluster, c.Name, &c.Ended) {
		delete(p, id)
	}
}

// shown are the series that hold.
func shown(table *Table) page {
	p := page{}
	table.mu.Lock()
	defer table.mu.Unlock()
	for k, e := range table.groups {
		set := table.seriesOfGroup(e.current)
		for _, id := range series(k.cluster, k.name, &set) {
			p[id] = true
		}
	}
	for k, e := range table.topics {
		set := seriesOfTopic(e.current)
		for _, id := range series(k.cluster, k.name, &set) {
			p[id] = true
		}
	}
	return p
}

// world is a table with two pipelines, one of which takes everything, and the incidents that were told.
type world struct {
	t      *testing.T
	random *rand.Rand
	limits Limits
	table  *Table
	now    time.Time
	// full means that the limits are reached, and that names are long.
	full bool

	healthy, other page
	refusing       bool
	underway       []Change
	open           map[string]bool
	opened         map[string]int64
}

var worldLimits = Limits{MaxGroups: 100, MaxPartitions: 1000, ExpireAfter: 30 * time.Second, Owners: true}

const (
	worldGroups = 8
	worldTopics = 3
)

// step does one thing that can happen at any moment.
func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.random.IntN(1500)) * time.Millisecond)
	switch w.random.IntN(14) {
	case 0, 1, 2:
		n := notified(w.evaluation())
		if n.Group.Status > burrow.StatusOK || w.random.IntN(2) == 0 {
			n.ID, n.Start = fmt.Sprint("incident ", w.random.IntN(30)), w.now.Add(-time.Duration(w.random.IntN(20))*time.Second)
		}
		w.taken(w.table.Update(n, w.now))
	case 3, 4, 5:
		w.taken(w.table.UpdateFromAPI(w.evaluation(), w.now.Add(-time.Duration(w.random.IntN(3))*time.Second)))
	case 6:
		offsets := make([]int64, 1+w.random.IntN(4))
		for i := range offsets {
			offsets[i] = int64(w.random.IntN(3000)) - 1
		}
		_ = w.table.UpdateTopic(&Topic{Cluster: "c", Name: w.name("t", w.random.IntN(worldTopics)), Offsets: offsets, Received: w.now})
	case 7:
		w.table.Expire(w.now)
	case 8:
		var list []string
		for g := range worldGroups {
			if w.random.IntN(4) > 0 {
				list = append(list, fmt.Sprint("g", g))
			}
		}
		w.table.ListGroups(List{Cluster: "c", Names: list, Asked: w.now, Interval: 5 * time.Second}, w.now)
	case 9:
		w.table.ListTopics(List{Cluster: "c", Names: []string{"t0", "t1"}, Asked: w.now, Interval: 5 * time.Second}, w.now)
	case 10:
		if w.random.IntN(20) == 0 {
			w.table.EndCluster("c", w.now, w.now)
		}
	case 11:
		w.hear()
	case 12:
		if w.random.IntN(10) == 0 {
			w.refusing = !w.refusing
		}
	case 13:
		if w.random.IntN(30) == 0 && w.underway == nil {
			w.restart()
		}
	}
}

// taken demands that a state has a place.
func (w *world) taken(err error) {
	if !w.full || !errors.Is(err, ErrTooManyGroups) && !errors.Is(err, ErrTooManyPartitions) {
		require.NoError(w.t, err)
	}
}

// name is that of a group or topic, some of which are long in a world that is full.
func (w *world) name(kind string, i int) string {
	if w.full && i > 1 {
		return fmt.Sprint(kind, i) + strings.Repeat("x", 120*i)
	}
	return fmt.Sprint(kind, i)
}

// evaluation is one of a random group, whose window and commits may go back a little.
func (w *world) evaluation() *burrow.GroupStatus {
	g := &burrow.GroupStatus{
		Cluster: "c", Group: w.name("g", w.random.IntN(worldGroups)), Status: burrow.StatusOK,
		Complete: float64(w.random.IntN(3) - 1), PartitionCount: int64(w.random.IntN(8) - 1), TotalLag: int64(w.random.IntN(3)),
	}
	if g.Complete > 1 {
		g.Complete = burrow.Unknown
	}
	for topic := range worldTopics {
		for partition := range int32(3) {
			if w.random.IntN(3) > 0 {
				continue
			}
			p := burrow.PartitionStatus{
				Topic: w.name("t", topic), Partition: partition, Status: burrow.StatusOK, CurrentLag: int64(w.random.IntN(20)),
				Complete: burrow.Unknown, Start: none, End: none,
			}
			if w.random.IntN(4) == 0 {
				p.Status, g.Status = burrow.StatusStop, burrow.StatusErr
			}
			if w.random.IntN(3) > 0 {
				p.Owner = fmt.Sprint("/10.0.0.", w.random.IntN(3))
			}
			if w.full {
				p.ClientID = strings.Repeat("c", w.random.IntN(255))
			}
			if w.random.IntN(4) > 0 {
				at := w.now.Add(-time.Duration(w.random.IntN(10)) * time.Second).UnixMilli()
				p.End = burrow.Commit{Offset: w.now.Unix() - start.Unix() + int64(w.random.IntN(20)), Timestamp: at, ObservedAt: at, Lag: int64(w.random.IntN(20))}
			}
			g.Partitions = append(g.Partitions, p)
		}
	}
	if len(g.Partitions) > 0 && w.random.IntN(2) == 0 {
		g.MaxLag = &g.Partitions[w.random.IntN(len(g.Partitions))]
	}
	if g.PartitionCount < int64(len(g.Partitions)) {
		g.PartitionCount = burrow.Unknown
	}
	return g
}

// begin starts a hand-over of some of what is due, in chunks as the emitter does.
func (w *world) begin() {
	fresh, refused := w.table.Due()
	due := fresh
	if w.random.IntN(4) == 0 {
		due = append(due, refused...)
	}
	for _, ref := range due[:min(len(due), 1+w.random.IntN(6))] {
		c := w.table.Begin(ref)
		holds := seriesOfGroup(c.Group, true)
		if c.Topic != nil {
			holds = seriesOfTopic(c.Topic)
		}
		ended := c.Ended.minus(&holds)
		require.Equal(w.t, c.Ended, ended, "nothing ends that holds")
		w.underway = append(w.underway, c)
	}
}

// finish ends the hand-over that is under way: a pipeline that refuses may have taken it all the same, such as one that answers too late.
func (w *world) finish() {
	tookIt := !w.refusing || w.random.IntN(3) == 0
	for i := range w.underway {
		w.healthy.take(&w.underway[i], true)
		if tookIt {
			w.other.take(&w.underway[i], true)
		}
	}
	w.table.Finish(w.underway, !w.refusing, w.now)
	w.underway = nil
}

// hear takes the events of incidents and holds them to each other.
func (w *world) hear() {
	for _, e := range w.table.TakeEvents(1000) {
		switch e.Kind {
		case Opened:
			require.False(w.t, w.open[e.Group], "%s opens twice", e.Group)
			w.open[e.Group] = true
			w.opened[e.Group]++
			require.NotEqual(w.t, burrow.StatusErr, e.Previous, "it was bad already")
		case Changed:
			require.True(w.t, w.open[e.Group], "%s changes, and none is open", e.Group)
		case Ended:
			require.True(w.t, w.open[e.Group], "%s ends, and none is open", e.Group)
			w.open[e.Group] = false
			require.False(w.t, e.At.Before(e.Start), "it ends before it starts")
		}
	}
}

// restart brings what the storage has into a new table. The pages stay, as those of a backend elsewhere do.
func (w *world) restart() {
	w.hear()
	old := w.table
	limits := w.limits
	if w.full { // with less room than before
		limits.MaxGroups -= w.random.IntN(limits.MaxGroups)
		limits.MaxPartitions -= w.random.IntN(limits.MaxPartitions)
	}
	w.table = New(limits)
	w.table.KeepEvents(1000)
	old.Each(func(s *State) {
		old.mu.Unlock()
		defer old.mu.Lock()
		data, err := old.Record(s)
		require.NoError(w.t, err)
		_, err = w.table.Restore(data, Times{}, w.now)
		if !errors.Is(err, ErrOld) {
			w.taken(err)
		}
	})
	// What ended before it was handed over dies with the process, and so does the page that the process serves.
	w.healthy, w.other = page{}, page{}
	w.hear()
}

// Whatever comes in, ends, restarts, is refused or taken late, in whatever order: when the last refusal ends, every page equals
// the table; and the page of a pipeline that takes everything equals it whenever all that is new was handed over.
func TestPagesEqualTheTable(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			w := &world{
				t: t, random: rand.New(rand.NewPCG(seed, 7)), limits: worldLimits, table: New(worldLimits), now: start,
				healthy: page{}, other: page{}, open: map[string]bool{}, opened: map[string]int64{},
			}
			w.table.KeepEvents(1000)
			refusedOnce := 0
			for range 4000 {
				w.step()
				switch {
				case w.underway != nil && w.random.IntN(3) == 0:
					if w.refusing {
						refusedOnce++
					}
					w.finish()
				case w.underway == nil && w.random.IntN(3) == 0:
					w.begin()
				}
				if w.random.IntN(40) == 0 && w.underway == nil {
					for fresh, _ := w.table.Due(); len(fresh) > 0; fresh, _ = w.table.Due() {
						w.begin()
						w.finish()
					}
					require.Equal(t, shown(w.table), w.healthy, "the healthy pipeline is fresh while the other refuses")
				}
			}
			require.Positive(t, refusedOnce)
			if w.underway != nil {
				w.finish()
			}
			w.refusing = false
			for fresh, refused := w.table.Due(); len(fresh)+len(refused) > 0; fresh, refused = w.table.Due() {
				w.begin()
				w.finish()
			}
			require.Equal(t, shown(w.table), w.healthy)
			require.Equal(t, shown(w.table), w.other)
			require.Zero(t, w.table.Stats().Pending)
			require.Zero(t, w.table.replaced)

			w.hear()
			w.table.Each(func(s *State) {
				require.Equal(t, s.Incidents.Open && !s.Incidents.late, w.open[s.Group.Group], s.Group.Group)
				require.Equal(t, s.Incidents.Open, s.Group.Status > burrow.StatusOK)
				require.LessOrEqual(t, s.Incidents.Seen, w.opened[s.Group.Group])
			})
			w.now = w.now.Add(time.Hour)
			w.table.Expire(w.now)
			w.hear()
			for group, open := range w.open {
				require.False(t, open, group)
			}
			for fresh, _ := w.table.Due(); len(fresh) > 0; fresh, _ = w.table.Due() {
				w.begin()
				w.finish()
			}
			require.Empty(t, w.healthy)
			require.Empty(t, w.other)
			w.table.Expire(w.now.Add(time.Hour))
			require.Empty(t, w.table.groups)
			require.Empty(t, w.table.topics)
			require.Zero(t, w.table.partitions+w.table.partitionPlaces+w.table.headPlaces+w.table.groupPlaces+w.table.groupsHeld+w.table.topicsHeld+w.table.replaced)
		})
	}
}

// The same calls from goroutines, for the race detector.
func TestConcurrentWaysInAndOut(t *testing.T) {
	table := New(worldLimits)
	table.KeepEvents(100)
	var running sync.WaitGroup
	for goroutine := range uint64(4) {
		running.Go(func() {
			w := &world{t: t, random: rand.New(rand.NewPCG(goroutine, 9)), table: table, now: start}
			for range 2000 {
				w.now = w.now.Add(100 * time.Millisecond)
				switch w.random.IntN(5) {
				case 0:
					assert.NoError(t, table.Update(notified(w.evaluation()), w.now))
				case 1:
					assert.NoError(t, table.UpdateFromAPI(w.evaluation(), w.now))
				case 2:
					table.Expire(w.now)
				case 3:
					table.ListGroups(List{Cluster: "c", Names: []string{"g0", "g1", "g2", "g3", "g4"}, Asked: w.now}, w.now)
				case 4:
					_ = table.TakeEvents(3)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	random, healthy := rand.New(rand.NewPCG(1, 1)), page{}
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		fresh, refused := table.Due()
		var changes []Change
		for _, ref := range append(fresh, refused...) {
			c := table.Begin(ref)
			healthy.take(&c, true)
			changes = append(changes, c)
		}
		table.Finish(changes, ended || random.IntN(2) == 0, start)
	}
	assert.Equal(t, shown(table), healthy)
}
