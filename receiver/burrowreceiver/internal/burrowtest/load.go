package burrowtest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// LoadCluster is the only cluster of a Load.
	LoadCluster = "east"
	// groupsOfTopic is how many groups of a Load read the same topic.
	groupsOfTopic = 10
)

// Load answers as a Burrow with many groups, in bytes made beforehand, about 330 for each partition of each
// group. Every group reads all partitions of one topic; one group of 20 is WARN with one partition that stalls.
type Load struct {
	// Delay is how long each answer waits. It is set before the first request.
	Delay time.Duration

	answers      map[string][]byte
	requests     atomic.Int64
	simultaneous peak
	connections  peak
}

// peak is a number that goes up and down, and the highest it was.
type peak struct{ now, highest atomic.Int64 }

func (p *peak) add() {
	now := p.now.Add(1)
	for highest := p.highest.Load(); now > highest && !p.highest.CompareAndSwap(highest, now); {
		highest = p.highest.Load()
	}
}

// LoadAPI makes a Load of so many groups of so many partitions each.
func LoadAPI(groups, partitions int) *Load {
	l := &Load{answers: map[string][]byte{}}
	topics := (groups + groupsOfTopic - 1) / groupsOfTopic
	topicNames, groupNames := make([]string, topics), make([]string, groups)
	const cluster = "/v3/kafka/" + LoadCluster
	for i := range topics {
		topicNames[i] = fmt.Sprintf("orders.of-region-%d", i)
		l.put(cluster+"/topic/"+topicNames[i], "topic offsets returned", "offsets", heads(partitions))
	}
	for i := range groups {
		groupNames[i] = fmt.Sprintf("billing-service-%d", i)
		l.put(cluster+"/consumer/"+groupNames[i]+"/lag", "consumer status returned", "status",
			groupStatus(groupNames[i], topicNames[i/groupsOfTopic], partitions, i%20 == 19))
	}
	l.put("/v3/kafka", "cluster list returned", "clusters", nameList(LoadCluster))
	l.put(cluster+"/consumer", "consumer list returned", "consumers", nameList(groupNames...))
	l.put(cluster+"/topic", "topic list returned", "topics", nameList(topicNames...))
	return l
}

func (l *Load) put(path, message, field string, value []byte) {
	l.answers[path] = fmt.Appendf(nil, `{"error":false,"message":%q,%q:%s,"request":{"url":%q,"host":"burrow.example.net"}}`,
		message, field, value, path)
}

func (l *Load) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.requests.Add(1)
	l.simultaneous.add()
	defer l.simultaneous.now.Add(-1)
	if l.Delay > 0 {
		select {
		case <-time.After(l.Delay):
		case <-r.Context().Done():
			return
		}
	}
	body, ok := l.answers[r.URL.Path]
	if !ok {
		http.Error(w, `{"error":true,"message":"invalid request type","result":{}}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// A client that has gone away is no failure of the server.
	_, _ = w.Write(body)
}

// ConnState counts connections when it is set in the http.Server.
func (l *Load) ConnState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.connections.add()
	case http.StateClosed, http.StateHijacked:
		l.connections.now.Add(-1)
	default:
	}
}

// Requests is how many there were.
func (l *Load) Requests() int64 { return l.requests.Load() }

// MaxRequests is how many there were at once, at most.
func (l *Load) MaxRequests() int64 { return l.simultaneous.highest.Load() }

// MaxConnections is how many were open at once, at most.
func (l *Load) MaxConnections() int64 { return l.connections.highest.Load() }

// nameList is a list of names without characters that JSON escapes.
func nameList(names ...string) []byte {
	list := []byte{'['}
	for i, name := range names {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendQuote(list, name)
	}
	return append(list, ']')
}

func heads(partitions int) []byte {
	list := []byte{'['}
	for i := range partitions {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, head(i), 10)
	}
	return append(list, ']')
}

func head(partition int) int64 { return 9_000_000 + 1_000*int64(partition) }

// now is the time of Burrow's clock in the answers, in milliseconds; they are the same at every poll.
const now = 1_795_355_290_000

// groupStatus is a group whose lag grows with the number of the partition.
func groupStatus(group, topic string, partitions int, stalls bool) []byte {
	var list bytes.Buffer
	var partition []byte
	var totalLag int64
	status := "OK"
	for i := range partitions {
		lag, partitionStatus := int64(i), "OK"
		committed := head(i) - lag
		start := committed - 500
		if stalls && i == partitions-1 {
			status, partitionStatus, start = "WARN", "STALL", committed
		}
		totalLag += lag
		partition = fmt.Appendf(partition[:0], `{"topic":%q,"partition":%d,"owner":"/192.0.2.11","client_id":"worker-%d","status":%q,`+
			`"start":{"offset":%d,"timestamp":%d,"observedAt":%d,"lag":%d},`+
			`"end":{"offset":%d,"timestamp":%d,"observedAt":%d,"lag":%d},"current_lag":%d,"complete":1}`,
			topic, i, i%8, partitionStatus, start, now-10_000, now-10_000, lag/2, committed, now, now, lag, lag)
		if i > 0 {
			list.WriteByte(',')
		}
		list.Write(partition)
	}
	if partition == nil {
		partition = []byte("null")
	}
	return fmt.Appendf(nil, `{"cluster":%q,"group":%q,"status":%q,"complete":1,"partitions":[%s],"partition_count":%d,"maxlag":%s,"totallag":%d}`,
		LoadCluster, group, status, list.Bytes(), partitions, partition, totalLag)
}
