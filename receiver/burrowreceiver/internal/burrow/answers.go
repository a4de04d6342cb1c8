package burrow

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

const wantText = "a string"

// DecodeLag reads the answer to /v3/kafka/CLUSTER/consumer/GROUP/lag. Its status object is a Result in which
// all partitions are listed, and the same rules hold for it as in Decode. The error is a *SyntaxError or a
// *FieldError.
//
// The result shares no memory with body.
func DecodeLag(body []byte) (*GroupStatus, error) {
	var r result
	var got required
	err := decodeAnswer(body, "status", func(d *decoder) {
		r = newResult()
		got.ok = d.peek() == '{'
		got.got = d.value(func() { d.result(&r) })
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

// decodeNames reads an answer that lists clusters, groups or topics. A list that is missing is an error and
// not an empty one, because whoever is no longer listed is gone. A name that no status can have
// (empty, or too long) is left out: it is no reason to lose the others.
func decodeNames(body []byte, field string) ([]string, error) {
	names, err := decodeList(body, field, func(d *decoder) (string, bool) {
		text, ok := d.text()
		if !ok || len(text) > maxNameBytes {
			return "", ok
		}
		return d.names.intern(text), true
	})
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }), err
}

// decodeOffsets reads an answer that lists head offsets; one that cannot be right is Unknown.
func decodeOffsets(body []byte) ([]int64, error) {
	return decodeList(body, "offsets", func(d *decoder) (int64, bool) { return d.countOrUnknown(), true })
}

// decodeList reads the list under a key. Only text can be demanded of its items.
func decodeList[T any](body []byte, field string, item func(*decoder) (T, bool)) ([]T, error) {
	var items []T
	bad := &FieldError{Field: field, Want: wantList}
	err := decodeAnswer(body, field, func(d *decoder) {
		items, bad = nil, nil
		start := d.skipSpace()
		if d.peek() != '[' {
			d.skip()
			bad = &FieldError{Field: field, Want: wantList, Got: excerpt(d.data[start:d.pos])}
			return
		}
		d.enter()
		for more := d.firstItem(); more; more = d.nextItem() {
			start := d.skipSpace()
			v, ok := item(d)
			if !ok && bad == nil {
				path := field + "[" + strconv.Itoa(len(items)) + "]"
				bad = &FieldError{Field: path, Want: wantText, Got: excerpt(d.data[start:d.pos])}
			}
			items = append(items, v)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case bad != nil:
		return nil, bad
	}
	return items, nil
}

// decodeAnswer reads an object of which one key counts. read must consume its value; if the key stands twice
// it is called twice.
func decodeAnswer(body []byte, field string, read func(*decoder)) error {
	d := decoders.Get().(*decoder)
	defer d.release()
	d.data, d.pos, d.depth, d.err = body, 0, 0, nil
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
	if d.err != nil {
		return d.err
	}
	return nil
}

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
	if json.Unmarshal(body, &answer) != nil {
		return false
	}
	if answer.Error {
		return strings.HasPrefix(answer.Message, "cluster ") && strings.HasSuffix(answer.Message, " not found")
	}
	return answer.Status.Status == StatusNotFound.String()
}
