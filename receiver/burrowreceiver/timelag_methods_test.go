package burrowreceiver

import "math"

// simExporter is the method of kafka-lag-exporter in one partition: it asks for head and commit itself, keeps 60 points,
// interpolates from the newest on, and extrapolates what is older than all.
type simExporter struct{ heads, times []float64 }

func (o *simExporter) poll(now, head, committed int64) (seconds float64, ok bool) {
	const size = 60
	h, at := float64(head), float64(now)/1000
	n := len(o.heads)
	switch {
	case n > 0 && h < o.heads[n-1]: // refused
	case n > 1 && h == o.heads[n-1] && h == o.heads[n-2]:
		o.times[n-1] = at
	default:
		o.heads, o.times = append(o.heads, h), append(o.times, at)
		if n++; n > size {
			o.heads, o.times, n = o.heads[1:], o.times[1:], size
		}
	}
	c := float64(committed)
	if c == o.heads[n-1] {
		return 0, true
	}
	if n < 2 {
		return 0, false
	}
	line := func(i, j int) float64 {
		return o.times[i] + (o.times[j]-o.times[i])*(c-o.heads[i])/(o.heads[j]-o.heads[i])
	}
	predicted := line(0, n-1)
	for i := n - 2; i >= 0; i-- {
		if o.heads[i] <= c && c <= o.heads[i+1] {
			if predicted = line(i, i+1); o.heads[i] == o.heads[i+1] {
				predicted = o.times[i+1]
			}
			break
		}
	}
	seconds = at - predicted
	return seconds, !math.IsNaN(seconds) && !math.IsInf(seconds, 0)
}

// simQuotient is what people do by hand: the total lag, divided by how many messages a second the group has read in the last five minutes.
type simQuotient struct{ times, committed []int64 }

const simRateWindow = 300_000

func (q *simQuotient) poll(now, lag, committed int64) (seconds float64, ok bool) {
	q.times, q.committed = append(q.times, now), append(q.committed, committed)
	for len(q.times) > 1 && q.times[1] <= now-simRateWindow {
		q.times, q.committed = q.times[1:], q.committed[1:]
	}
	if lag <= 0 {
		return 0, true
	}
	read, span := committed-q.committed[0], now-q.times[0]
	if read <= 0 || span == 0 {
		return 0, false // nothing was read, or the group went back
	}
	return float64(lag) * float64(span) / float64(read) / 1000, true
}
