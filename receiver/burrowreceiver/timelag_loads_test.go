package burrowreceiver

import (
	"math"
	"math/rand/v2"
	"sort"
)

// Everything here happens at known times, in milliseconds since the simulation began: messages are written, a group
// commits every second, Burrow asks for heads every offset-refresh, sends a notification every minute or two, and is polled.
const (
	simPartitions = 3
	simInterval   = 60_000
	simTopicName  = "orders"
	simGroupName  = "orders-writer"
)

// simScenario is a kind of load and of consumer.
type simScenario struct {
	name, about string
	// alone and polled are what is reached where it is less than is wanted, in seconds: 10 and 20 with notifications alone, 2 and 10
	// with polling.
	alone, polled simReached
	// aloneAbove is by how much a lower bound can be above the truth with notifications alone, because a topic was recreated and has passed what was
	// known of it before the next one came.
	aloneAbove float64
	// rate is how many messages are written to a partition in a second.
	rate func(r *rand.Rand, partition, second int) int
	// consume moves the group's position in a partition; without a commit it returns false.
	consume func(c *simConsumer, second int) bool
	// recreated says in which seconds the topic is deleted and recreated; nil for never. With unnoticed Burrow sees nothing of it but other heads: it
	// keeps the commits of the old topic.
	recreated func(second int) bool
	unnoticed bool
	// transactional loads end each second's messages with a marker, which takes an offset; each third second is aborted.
	transactional bool
	// kept is how many offsets apart the messages are that compaction leaves of those that are older than simCompacted; 0 for all.
	kept int64
	// brokerClock and burrowClock are how far, in milliseconds, these clocks are ahead of Karrot's.
	brokerClock, burrowClock int64
}

// simReached is a median and a 95th percentile.
type simReached struct{ median, p95 float64 }

func (r simReached) or(wanted simReached) simReached {
	if r == (simReached{}) {
		return wanted
	}
	return r
}

// simCompacted is the age, in milliseconds, at which compaction has reached a message.
const simCompacted = 60_000

// clocks is how far a time lag can be wrong, in seconds, because of clocks.
func (s *simScenario) clocks() float64 {
	return float64(max(s.brokerClock, -s.brokerClock, s.burrowClock, -s.burrowClock)) / 1000
}

// simConsumer is the group in one partition.
type simConsumer struct {
	number, second int
	log            *simLog
	position       int64
}

// behind moves to where the head was so many seconds ago.
func (c *simConsumer) behind(seconds int) bool {
	c.position = max(c.position, c.log.head(1000*int64(c.second-seconds)))
	return true
}

// atMost moves by at most n messages.
func (c *simConsumer) atMost(n int64) bool {
	now := 1000 * int64(c.second)
	end := c.log.head(now)
	if c.log.kept == 0 {
		c.position = min(c.position+n, end)
		return true
	}
	for ; n > 0; n-- {
		next := c.log.unread(c.position, now)
		if next >= end {
			break
		}
		c.position = next + 1
	}
	return true
}

// rewind moves back to where the head was so many seconds ago.
func (c *simConsumer) rewind(seconds int) bool {
	c.position = c.log.head(1000 * int64(c.second-seconds))
	return true
}

var simScenarios = []simScenario{
	{
		name: "steady", about: "constant load; the partitions are read 20, 40 and 60 s late",
		rate:    func(_ *rand.Rand, partition, _ int) int { return 40 + 10*partition },
		consume: func(c *simConsumer, _ int) bool { return c.behind(20 + 20*c.number) },
	},
	{
		name: "bursty", about: "bursts of up to a minute every few minutes, read at a third of their speed",
		alone: simReached{60, 120}, // shorter than the time between two notifications
		rate: func(r *rand.Rand, partition, second int) int {
			const period = 240
			length := 20 + 20*partition
			if second%period/length != 1 {
				return r.IntN(2)
			}
			return 280 + r.IntN(40)
		},
		consume: func(c *simConsumer, _ int) bool { return c.atMost(100) },
	},
	{
		name: "idle-then-busy", about: "no message for 10 minutes, then load for 10, which is read 5% too slowly",
		rate: func(r *rand.Rand, _, second int) int {
			if second/600%2 == 0 {
				return 0
			}
			return 90 + r.IntN(21)
		},
		consume: func(c *simConsumer, _ int) bool { return c.atMost(95 - 10*int64(c.number)) },
	},
	{
		name: "growing", about: "the load is a quarter more than the group can read",
		rate:    func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, _ int) bool { return c.atMost(40) },
	},
	{
		name: "stalled", about: "the group commits the same offsets for 20 minutes of each hour, then catches up",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, second int) bool {
			if second%3600 >= 600 && second%3600 < 1800 {
				return true
			}
			return c.atMost(120)
		},
	},
	{
		name: "stopped", about: "the group stops committing for 30 minutes of each hour, then catches up",
		rate: func(r *rand.Rand, _, second int) int { return int(60+40*math.Sin(float64(second)/300)) + r.IntN(10) },
		consume: func(c *simConsumer, second int) bool {
			return (second%3600 < 900 || second%3600 >= 2700) && c.atMost(400)
		},
	},
	{
		name: "rewind", about: "the group goes back by 10 minutes, later to before anything that Burrow spoke of, and reads again at twice the load",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, second int) bool {
			switch second {
			case 2000:
				return c.rewind(600)
			case 4500:
				return c.rewind(4500 + 1000)
			}
			return c.atMost(110)
		},
	},
	{
		name: "recreated", about: "the topic is deleted and recreated while the group is behind",
		rate:      func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume:   func(c *simConsumer, _ int) bool { return c.atMost(40 + 2*int64(c.number)) },
		recreated: func(second int) bool { return second == 3000 },
	},
	{
		name: "recreated-young", about: "each ten minutes the topic is recreated twice, a minute and a half apart; it is read 15 s late, and Burrow does not notice",
		aloneAbove: 93,
		rate:       func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume:    func(c *simConsumer, _ int) bool { return c.behind(15) && c.position > 0 },
		recreated:  func(second int) bool { return second%617 == 300 || second%617 == 393 },
		unnoticed:  true,
	},
	{
		name: "transactional", about: "each second's messages are a transaction, each third one is aborted; read 30 s late, and not at all for 10 minutes of each 40",
		rate:          func(r *rand.Rand, _, _ int) int { return 20 + r.IntN(11) },
		transactional: true,
		consume: func(c *simConsumer, second int) bool {
			return second%2400 < 1800 && c.behind(30)
		},
	},
	{
		name: "compacted", about: "what is older than a minute is compacted to each fiftieth message; read a fifth too slowly, and not at all for 20 minutes of each hour",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		kept: 50,
		consume: func(c *simConsumer, second int) bool {
			return second%3600 < 2400 && c.atMost(40)
		},
	},
	{
		name: "uneven", about: "2000, 20 and a twentieth messages a second in the three partitions, read 5, 30 and 120 s late",
		alone:  simReached{120, 120}, // the last one is not told of
		polled: simReached{2.5, 10},
		rate: func(r *rand.Rand, partition, _ int) int {
			switch partition {
			case 0:
				return 1900 + r.IntN(201)
			case 1:
				return 15 + r.IntN(11)
			}
			if r.IntN(20) == 0 {
				return 1
			}
			return 0
		},
		consume: func(c *simConsumer, _ int) bool { return c.behind([]int{5, 30, 120}[c.number]) },
	},
	{
		name: "jump", about: "the group reads a fifth too slowly and stops for 15 minutes of each hour; after each half hour it jumps forward to the head",
		rate: func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume: func(c *simConsumer, second int) bool {
			switch {
			case second%1800 == 0:
				return c.behind(0)
			case second%3600 >= 900 && second%3600 < 1800:
				return false
			}
			return c.atMost(40)
		},
	},
	{
		name: "sparse", about: "a message each minute; the group stops for 15 minutes of each 40",
		alone: simReached{30, 130},
		rate: func(r *rand.Rand, _, _ int) int {
			if r.IntN(60) == 0 {
				return 1
			}
			return 0
		},
		consume: func(c *simConsumer, second int) bool { return second%2400 < 1500 && c.behind(0) },
	},
	{
		name: "clocks-ahead", about: "read 30 s late, and not at all for 10 minutes of each 40; the brokers' and Burrow's clocks are 2 s ahead of Karrot's",
		rate:        func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume:     func(c *simConsumer, second int) bool { return second%2400 < 1800 && c.behind(30) },
		brokerClock: 2000, burrowClock: 2000,
	},
	{
		name: "clocks-behind", about: "the same; they are 2 s behind",
		polled:      simReached{2.5, 10},
		rate:        func(r *rand.Rand, _, _ int) int { return 45 + r.IntN(11) },
		consume:     func(c *simConsumer, second int) bool { return second%2400 < 1800 && c.behind(30) },
		brokerClock: -2000, burrowClock: -2000,
	},
}

// simLog is what was written to one partition. Loads begin a while before the simulation, so that there is something to rewind to.
type simLog struct {
	begin         int64   // ms of the first second
	heads         []int64 // at the begin of each second
	transactional bool
	kept          int64
}

const simBefore = 3600

func writeLog(r *rand.Rand, scenario *simScenario, partition, from, to int) *simLog {
	l := &simLog{begin: 1000 * int64(from), heads: []int64{0}, transactional: scenario.transactional, kept: scenario.kept}
	for second := from; second < to+10; second++ {
		// The load repeats before the simulation.
		n := int64(scenario.rate(r, partition, second+simBefore))
		if l.transactional && n > 0 {
			n++ // the marker
		}
		l.heads = append(l.heads, l.heads[len(l.heads)-1]+n)
	}
	return l
}

// head is the head at a moment.
func (l *simLog) head(at int64) int64 {
	at -= l.begin
	if at <= 0 {
		return 0
	}
	second := int(at / 1000)
	if second >= len(l.heads)-1 {
		return l.heads[len(l.heads)-1]
	}
	// Within a second, messages come at equal distances.
	n := float64(l.heads[second+1] - l.heads[second])
	return l.heads[second] + int64(n*float64(at%1000)/1000)
}

// second is that in which an offset was written.
func (l *simLog) second(offset int64) int {
	return sort.Search(len(l.heads), func(i int) bool { return l.heads[i] > offset }) - 1
}

// written is when the message with the offset was.
func (l *simLog) written(offset int64) int64 {
	second := l.second(offset)
	n := float64(l.heads[second+1] - l.heads[second])
	return l.begin + int64(second)*1000 + int64(math.Ceil(1000*float64(offset-l.heads[second]+1)/n))
}

// unread is the first message from an offset on that a consumer can read: not a marker, not aborted, not compacted away. It can be
// one that is not written yet.
func (l *simLog) unread(offset, now int64) int64 {
	end := l.heads[len(l.heads)-1]
	switch {
	case l.transactional:
		for offset < end {
			second := l.second(offset)
			if next := l.heads[second+1]; offset == next-1 || second%3 == 2 {
				offset = next
				continue
			}
			break
		}
	case l.kept > 0 && offset < l.head(now-simCompacted):
		offset = min((offset+l.kept-1)/l.kept*l.kept, l.head(now-simCompacted))
	}
	return offset
}

// lag is how long, at a moment, the oldest message that can be read and is not committed has been written, in seconds.
func (l *simLog) lag(committed, now int64) float64 {
	head := l.head(now)
	if committed >= head {
		return 0
	}
	if committed = l.unread(committed, now); committed >= head {
		return 0
	}
	return float64(now-l.written(committed)) / 1000
}
