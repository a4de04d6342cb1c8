package burrow

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

const wantText = "a string"

// DecodeLag reads the answer to /v3/kafka/CLUSTER/consumer/GROUP/lag. Its status object is a Result in which
// all partitions are listed, and the same rules hold for it as in Decode. The error is a *SyntaxError, a
// *FieldError, ErrTooMany or ErrBusy.
//
// The result shares no memory with body.
func DecodeLag(body []byte, limits Limits) (*GroupStatus, error) {
	var r result
	var got required
	err := decodeAnswer(body, limits, "status", func(d *decoder) {
		r = newResult()
		got.ok = d.peek() == '{'
		got.got = d.value(func() { d.result(&r, "status.") })
	})
	if err != nil {
		return nil, err
	}
	if !got.ok {
		return nil, &FieldError{Field: "status", Want: wantObject, Got: excerpt(got.got)}
	}
	if err := r.check("status."); err != nil {
		return nil, err
	}
	return &r.GroupStatus, nil
}

// maxNames bounds the names that one answer lists: more than any Kafka cluster has topics or groups.
const maxNames = 250_000

// decodeNames reads an answer that lists clusters, groups or topics, and returns each name once, in order. A list
// that is missing is an error and not an empty one, because whoever is no longer listed is gone. A name that no
// status can have (empty, or too long) is left out: it is no reason to lose the others.
func decodeNames(body []byte, limits Limits, field string) ([]string, error) {
	names, err := decodeList(body, limits, field, maxNames, func(d *decoder) (name string, ok bool) {
		text, ok := d.text()
		if !ok || len(text) > maxNameBytes {
			return "", ok
		}
		return d.intern(text), true
	})
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 0 && names[0] == "" {
		names = names[1:]
	}
	return names, err
}

// decodeOffsets reads an answer that lists head offsets; one that cannot be right is Unknown.
func decodeOffsets(body []byte, limits Limits) ([]int64, error) {
	return decodeList(body, limits, "offsets", limits.MaxPartitions, func(d *decoder) (int64, bool) { return d.countOrUnknown(), true })
}

// decodeList reads the list under a key, of at most limit items (0: any number). Only text can be demanded of its
// items; the first that is none ends the reading, and so does the first too many.
func decodeList[T any](body []byte, limits Limits, field string, limit int, item func(*decoder) (T, bool)) ([]T, error) {
	var items []T
	found := false
	err := decodeAnswer(body, limits, field, func(d *decoder) {
		items, found, d.paid = nil, true, 0
		start := d.skipSpace()
		if d.peek() != '[' {
			d.skip()
			d.refuse(&FieldError{Field: field, Want: wantList, Got: excerpt(d.data[start:d.pos])})
			return
		}
		d.enter()
		for more := d.firstItem(); more; more = d.nextItem() {
			if limit > 0 && len(items) == limit {
				d.stop(ErrTooMany)
				return
			}
			var ok bool
			if items, ok = grow(d, items); !ok {
				return
			}
			start := d.skipSpace()
			v, ok := item(d)
			if !ok {
				d.refuse(&FieldError{Field: field + "[" + strconv.Itoa(len(items)) + "]", Want: wantText, Got: excerpt(d.data[start:d.pos])})
			}
			items = append(items, v)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, &FieldError{Field: field, Want: wantList}
	}
	return items, nil
}

// decodeAnswer reads an object of which one key counts. read must consume its value; if the key stands twice
// it is called twice.
func decodeAnswer(body []byte, limits Limits, field string, read func(*decoder)) error {
	d := newDecoder(body, limits)
	defer d.release()
	if d.peek() != '{' {
		return d.notObject()
	}
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		if string(key) == field {
			read(d)
		} else {
			d.skip()
		}
	}
	d.end()
	return d.err
}

// maxGoneBytes bounds an answer that can say that something is gone. Burrow's have a few hundred bytes.
const maxGoneBytes = 16 << 10

// saysGone tells Burrow's answers about what it does not know from any other 404, such as that of a proxy or
// of a path that Burrow does not serve. For a group the answer is a status, otherwise a message.
func saysGone(body []byte) bool {
	var answer struct {
		Error   bool   `json:"error"`
		Message string `json:"message"`
		Status  struct {
			Status string `json:"status"`
		} `json:"status"`
	}
	if len(body) > maxGoneBytes || json.Unmarshal(body, &answer) != nil {
		return false
	}
	if answer.Error {
		return strings.HasPrefix(answer.Message, "cluster ") && strings.HasSuffix(answer.Message, " not found")
	}
	return answer.Status.Status == StatusNotFound.String()
}
