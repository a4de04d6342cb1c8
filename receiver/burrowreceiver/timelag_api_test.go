package burrowreceiver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// RoundTrip answers the poller as Burrow's API does.
func (s *simulation) RoundTrip(request *http.Request) (*http.Response, error) {
	const cluster = "/v3/kafka/c"
	answer := map[string]any{"error": false, "message": "returned"}
	code := http.StatusOK
	switch request.URL.Path {
	case "/v3/kafka":
		answer["clusters"] = []string{"c"}
	case cluster + "/consumer":
		answer["consumers"] = []string{simGroupName}
	case cluster + "/topic":
		answer["topics"] = []string{simTopicName}
	case cluster + "/topic/" + simTopicName:
		answer["offsets"] = s.tellHeads()
	case cluster + "/consumer/" + simGroupName + "/lag":
		if status := s.tellGroup(); status != nil {
			answer["status"] = status
			break
		}
		fallthrough
	default:
		code, answer = http.StatusNotFound, map[string]any{"error": true, "message": "cluster or consumer not found"}
	}
	body, err := json.Marshal(answer)
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, err
}

func (s *simulation) tellHeads() []int64 {
	var offsets []int64
	for p := range s.consumers {
		head := s.burrow.head(p)
		offsets = append(offsets, head.offset)
		s.told(p, head)
	}
	return offsets
}

// tellGroup is nil if Burrow does not know the group.
func (s *simulation) tellGroup() *simResult {
	result := s.burrow.evaluate(s.now)
	if result.MaxLag.End == nil {
		return nil
	}
	s.evaluated(result.all)
	s.polled = result
	all := *result
	all.Partitions = result.all
	return &all
}
