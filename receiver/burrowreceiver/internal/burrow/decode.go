package burrow

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

const (
	// maxNameBytes bounds cluster, group and topic names, and with them what one entry of the table can
	// hold. Kafka allows 249 characters for a topic; CloudWatch takes 1024 for a dimension.
	maxNameBytes = 1024
	// maxLabelBytes bounds owner, client_id and incident ID; longer ones are ignored, because nothing
	// but a label depends on them.
	maxLabelBytes = 255
	// maxTimeBytes bounds a moment in RFC 3339, which has at most 35.
	maxTimeBytes = 64
	// maxGotBytes bounds the excerpt of a bad value in an error.
	maxGotBytes = 64
)

// What a field must be, in the words of a FieldError.
const (
	wantObject  = "an object"
	wantList    = "a list"
	wantName    = "a non-empty string of at most 1024 bytes"
	wantStatus  = "one of NOTFOUND, OK, WARN, ERR, STOP, STALL, REWIND"
	wantCount   = "an integer from 0 to 9223372036854775807"
	wantNumber  = "an integer from 0 to 2147483647"
	wantShare   = "a number from 0 to 1"
	wantNoTwins = "listed once for each topic and number"
)

var (
	// ErrForm means well-formed JSON that is none of the three body forms.
	ErrForm = errors.New("the body has neither Event nor Result nor the keys of a Result: the templates that come with Burrow have no cluster and no lag, use config/burrow/notification.tmpl")
	// ErrTooMany means that a body lists more than Limits allow.
	ErrTooMany = errors.New("more items are listed than the limit allows")
)

// Limits bound what a body is made into. The zero value bounds nothing.
type Limits struct {
	// MaxPartitions bounds the partitions that one group or topic lists.
	MaxPartitions int
	// Share pays for what is made, before it is made; without one nothing is paid for.
	Share *Share
}

// FieldError means that a field which the metrics need is missing or cannot be right.
type FieldError struct {
	// Field is the path as it stands in the body, for example Event.Result.partitions[3].topic.
	Field string
	// Want says what the field must be.
	Want string
	// Got is an excerpt of the value that was sent, empty if the field is missing.
	Got string
}

func (e *FieldError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("%s must be %s, but is missing", e.Field, e.Want)
	}
	return fmt.Sprintf("%s must be %s, got %s", e.Field, e.Want, e.Got)
}

// Decode reads one notification in any of its three forms: {"Event": {...}}, the same without Event,
// and a bare Result. If a key stands twice, the last one counts.
//
// Only what the metrics need can make a notification invalid: cluster, group, status, totallag and
// topic, partition and current_lag of each listed partition. Everything else that is missing or odd
// is left unknown. The error is a *SyntaxError, ErrForm or a *FieldError.
//
// Reading ends with the first listed partition that is wrong, so that nothing is made of what comes behind it.
// In all, a body of n bytes takes at most AllocatedPerByte * n and AllocatedAtLeast.
//
// The result shares no memory with body.
func Decode(body []byte) (*Notification, error) { return DecodeWithin(body, Limits{}) }

// DecodeWithin is Decode within limits. The error can also be ErrTooMany or ErrBusy.
func DecodeWithin(body []byte, limits Limits) (*Notification, error) {
	d := newDecoder(body, limits)
	defer d.release()
	return d.document()
}

const (
	// AllocatedPerByte bounds what decoding takes for each byte of the text, including what it drops again. Empty names
	// are the most expensive: three bytes, for which a list that has just grown takes four times 16. Of the 43 bytes of
	// the shortest partition five PartitionStatus are made.
	AllocatedPerByte = 24
	// AllocatedAtLeast is what a new decoder takes and what errors and single values take.
	AllocatedAtLeast = 64 << 10
)

// decoder is a one-pass parser for Burrow's documents. A hand-written one, because the general ones cost
// several times as much on a wide group (`make bench` compares it with encoding/json, and a
// fuzz test holds it to the same answers).
type decoder struct {
	scanner
	limits     Limits
	path       string // where the Result that is being read stands in the body
	partitions []PartitionStatus
	paid       int // for the list that is growing; one that comes from the pool is not paid for
	names      interner
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

func newDecoder(body []byte, limits Limits) *decoder {
	d := decoders.Get().(*decoder)
	d.reset(body)
	d.limits, d.path, d.paid = limits, "", 0
	return d
}

// release drops what would keep a request, or memory for an unusually large one, alive in the pool.
func (d *decoder) release() {
	d.reset(nil)
	d.limits = Limits{}
	clear(d.partitions)
	d.partitions = d.partitions[:0]
	if cap(d.partitions) > maxPooledPartitions {
		d.partitions = nil
	}
	decoders.Put(d)
}

// maxPooledPartitions keeps the list of an unusually large group out of the pool.
const maxPooledPartitions = 4096

// pay says whether there is memory for n bytes, and ends the reading if not.
func (d *decoder) pay(n int) bool {
	if d.limits.Share == nil || d.limits.Share.Take(n) {
		return true
	}
	d.stop(ErrBusy)
	return false
}

// grow returns items with room for one more. If that can't be paid it ends the reading.
func grow[T any](d *decoder, items []T) ([]T, bool) {
	if len(items) < cap(items) {
		return items, true
	}
	size, each := max(2*cap(items), 64), int(unsafe.Sizeof(*new(T)))
	if !d.pay(size * each) {
		return items, false
	}
	grown := make([]T, len(items), size)
	copy(grown, items)
	if d.limits.Share != nil {
		d.limits.Share.Return(d.paid)
	}
	d.paid = size * each
	return grown, true
}

// interner makes equal names of a notification, and of those decoded before it, share one string.
// It is a cache of fixed size: a name that is not found in its slot takes it over.
type interner [2048]string

// maxInterned bounds what an interner keeps to 512 KiB. Kafka's own names of topics are shorter.
const maxInterned = 256

var internSeed = maphash.MakeSeed()

// intern returns the name as a string. It pays for a new one.
func (d *decoder) intern(name []byte) string {
	if len(name) == 0 {
		return ""
	}
	if len(name) > maxInterned {
		if !d.pay(len(name)) {
			return ""
		}
		return string(name)
	}
	slot := &d.names[maphash.Bytes(internSeed, name)%uint64(len(d.names))]
	if *slot != string(name) && d.pay(len(name)) {
		*slot = string(name)
	}
	return *slot
}

// required is how a field that must be right was found in the body.
type required struct {
	ok  bool
	got []byte // nil if missing
}

// result is a Result object while it is read.
type result struct {
	GroupStatus
	cluster, group, status, totalLag required
	present                          bool
}

func newResult() result {
	return result{GroupStatus: GroupStatus{Complete: Unknown, PartitionCount: Unknown}}
}

// envelope is what stands around a Result.
type envelope struct {
	path           string // before the key Result
	id             string
	start          time.Time
	cluster, group string
	result         result
	resultGot      required
}

func (d *decoder) document() (*Notification, error) {
	var event, outer envelope
	var eventGot required
	bare := newResult()

	if d.peek() != '{' {
		return nil, d.notObject()
	}
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		switch {
		case string(key) == "Event":
			event = envelope{path: "Event."}
			eventGot.ok = d.peek() == '{'
			eventGot.got = d.value(func() { d.envelope(&event) })
		case d.envelopeField(&outer, key), d.resultField(&bare, key):
		default:
			d.skip()
		}
	}
	d.end()
	if d.err != nil {
		return nil, d.err
	}

	switch {
	case eventGot.got != nil:
		if !eventGot.ok {
			return nil, &FieldError{Field: "Event", Want: wantObject, Got: excerpt(eventGot.got)}
		}
		if !event.resultGot.ok {
			return nil, &FieldError{Field: "Event.Result", Want: wantObject, Got: excerpt(event.resultGot.got)}
		}
		return event.notification("Event.Result.")
	case outer.resultGot.got != nil:
		if !outer.resultGot.ok {
			return nil, &FieldError{Field: "Result", Want: wantObject, Got: excerpt(outer.resultGot.got)}
		}
		return outer.notification("Result.")
	case bare.present:
		// A bare Result has no incident; an ID or Start beside it belongs to some other form.
		return (&envelope{result: bare}).notification("")
	default:
		return nil, ErrForm
	}
}

// notObject reads a body that is something else.
func (d *decoder) notObject() error {
	start := d.pos
	d.skip()
	d.end()
	if d.err != nil {
		return d.err
	}
	return &FieldError{Field: "the body", Want: wantObject, Got: excerpt(d.data[start:d.pos])}
}

// notification checks what was read; path is where the Result stands in the body.
func (e *envelope) notification(path string) (*Notification, error) {
	r := &e.result
	if !r.cluster.ok && r.cluster.got == nil && e.cluster != "" {
		r.Cluster, r.cluster.ok = e.cluster, true
	}
	if !r.group.ok && r.group.got == nil && e.group != "" {
		r.Group, r.group.ok = e.group, true
	}
	if err := r.check(path); err != nil {
		return nil, err
	}
	return &Notification{ID: e.id, Start: e.start, Group: r.GroupStatus}, nil
}

// check says what is missing or wrong; path is where the Result stands in the body.
func (r *result) check(path string) error {
	for _, f := range [...]struct {
		required
		name, want string
	}{
		{r.cluster, "cluster", wantName},
		{r.group, "group", wantName},
		{r.status, "status", wantStatus},
		{r.totalLag, "totallag", wantCount},
	} {
		if !f.ok {
			return &FieldError{Field: path + f.name, Want: f.want, Got: excerpt(f.got)}
		}
	}
	if r.PartitionCount < int64(len(r.Partitions)) {
		r.PartitionCount = Unknown
	}
	return nil
}

// envelope reads the object around a Result.
func (d *decoder) envelope(e *envelope) {
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		if !d.envelopeField(e, key) {
			d.skip()
		}
	}
}

// envelopeField reads the value of key if it is one of an envelope.
func (d *decoder) envelopeField(e *envelope, key []byte) bool {
	switch string(key) {
	case "ID":
		e.id = d.label()
	case "Start":
		e.start = d.time()
	case "Cluster":
		e.cluster, _ = d.name()
	case "Group":
		e.group, _ = d.name()
	case "Result":
		e.result = newResult()
		e.resultGot.ok = d.peek() == '{'
		e.resultGot.got = d.value(func() { d.result(&e.result, e.path+"Result.") })
	default:
		return false
	}
	return true
}

// result reads a Result that stands at path.
func (d *decoder) result(r *result, path string) {
	before := d.path
	d.path = path
	defer func() { d.path = before }()
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		if !d.resultField(r, key) {
			d.skip()
		}
	}
}

// resultField reads the value of key if it is one of a Result.
func (d *decoder) resultField(r *result, key []byte) bool {
	start := d.skipSpace()
	switch string(key) {
	case "cluster":
		r.Cluster, r.cluster.ok = d.name()
		r.cluster.got = d.data[start:d.pos]
	case "group":
		r.Group, r.group.ok = d.name()
		r.group.got = d.data[start:d.pos]
	case "status":
		r.Status = d.status()
		r.status = required{ok: r.Status != StatusUnknown, got: d.data[start:d.pos]}
	case "totallag":
		r.TotalLag, r.totalLag.ok = d.count()
		r.totalLag.got = d.data[start:d.pos]
	case "complete":
		r.Complete = d.share()
		return true
	case "partition_count":
		r.PartitionCount = d.countOrUnknown()
		return true
	case "maxlag":
		r.MaxLag = d.maxLag()
		return true
	case "partitions":
		r.Partitions = d.partitionList()
		return true
	default:
		return false
	}
	r.present = true
	return true
}

// maxLag reads a partition that is only wanted if it is right.
func (d *decoder) maxLag() *PartitionStatus {
	if d.peek() != '{' {
		d.skip()
		return nil
	}
	p := new(PartitionStatus)
	if d.partition(p) != nil {
		return nil
	}
	return p
}

// partitionList reads the listed partitions into a slice of exactly their number, in order. The first one that is
// wrong, and the first one too many, end the reading.
func (d *decoder) partitionList() []PartitionStatus {
	start := d.skipSpace()
	if d.peek() != '[' {
		d.skip()
		if got := d.data[start:d.pos]; d.err == nil && string(got) != "null" {
			d.refuse(&FieldError{Field: "partitions", Want: wantList, Got: excerpt(got)})
		}
		return nil
	}
	listed := d.partitions[:0]
	d.enter()
	for more := d.firstItem(); more; more = d.nextItem() {
		if d.limits.MaxPartitions > 0 && len(listed) == d.limits.MaxPartitions {
			d.stop(ErrTooMany)
			break
		}
		var ok bool
		if listed, ok = grow(d, listed); !ok {
			break
		}
		listed = listed[:len(listed)+1]
		if err := d.listedPartition(&listed[len(listed)-1]); err != nil {
			err.Field = "partitions[" + strconv.Itoa(len(listed)-1) + "]" + err.Field
			d.refuse(err)
		}
	}
	d.partitions = listed
	if d.err != nil || len(listed) == 0 || !d.pay(len(listed)*int(unsafe.Sizeof(PartitionStatus{}))) {
		return nil
	}
	ordered, err := inOrder(slices.Clone(listed))
	if err != nil {
		d.refuse(err)
	}
	return ordered
}

// refuse ends the reading because of a field of the Result that is being read.
func (d *decoder) refuse(err *FieldError) {
	err.Field = d.path + err.Field
	d.stop(err)
}

func (d *decoder) listedPartition(p *PartitionStatus) *FieldError {
	start := d.skipSpace()
	if d.peek() == '{' {
		return d.partition(p)
	}
	d.skip()
	return &FieldError{Want: wantObject, Got: excerpt(d.data[start:d.pos])}
}

// inOrder sorts partitions and refuses one that is listed twice. Burrow lists the partitions of a topic
// in order, so there is seldom anything to do.
func inOrder(listed []PartitionStatus) ([]PartitionStatus, *FieldError) {
	ordered := true
	for i := 1; i < len(listed) && ordered; i++ {
		ordered = ComparePartition(&listed[i-1], &listed[i]) < 0
	}
	if ordered {
		return listed, nil
	}
	slices.SortFunc(listed, func(a, b PartitionStatus) int { return ComparePartition(&a, &b) })
	for i := 1; i < len(listed); i++ {
		if ComparePartition(&listed[i-1], &listed[i]) == 0 {
			twin := listed[i].Topic + "/" + strconv.Itoa(int(listed[i].Partition)) + " twice"
			return nil, &FieldError{Field: "partitions", Want: wantNoTwins, Got: excerpt([]byte(twin))}
		}
	}
	return listed, nil
}

// partition reads one partition object. The error's Field is relative to the partition.
func (d *decoder) partition(p *PartitionStatus) *FieldError {
	*p = PartitionStatus{Start: noCommit, End: noCommit, Complete: Unknown, Status: StatusUnknown}
	var topic, number, lag required
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		start := d.skipSpace()
		switch string(key) {
		case "topic":
			p.Topic, topic.ok = d.name()
			topic.got = d.data[start:d.pos]
		case "partition":
			var n int64
			n, number.ok = d.count()
			number.ok = number.ok && n <= math.MaxInt32
			number.got = d.data[start:d.pos]
			p.Partition = int32(n & math.MaxInt32)
		case "current_lag":
			p.CurrentLag, lag.ok = d.count()
			lag.got = d.data[start:d.pos]
		case "owner":
			p.Owner = d.label()
		case "client_id":
			p.ClientID = d.label()
		case "status":
			p.Status = d.status()
		case "start":
			p.Start = d.commit()
		case "end":
			p.End = d.commit()
		case "complete":
			p.Complete = d.share()
		default:
			d.skip()
		}
	}
	switch {
	case !topic.ok:
		return &FieldError{Field: ".topic", Want: wantName, Got: excerpt(topic.got)}
	case !number.ok:
		return &FieldError{Field: ".partition", Want: wantNumber, Got: excerpt(number.got)}
	case !lag.ok:
		return &FieldError{Field: ".current_lag", Want: wantCount, Got: excerpt(lag.got)}
	}
	return nil
}

// commit reads a commit, which is not known unless both its offset and its time are right.
func (d *decoder) commit() Commit {
	if d.peek() != '{' {
		d.skip()
		return noCommit
	}
	c := noCommit
	d.enter()
	for key := d.firstKey(); key != nil; key = d.nextKey() {
		switch string(key) {
		case "offset":
			c.Offset = d.countOrUnknown()
		case "timestamp":
			c.Timestamp = d.countOrUnknown()
		case "observedAt":
			c.ObservedAt = d.countOrUnknown()
		case "lag":
			c.Lag = d.countOrUnknown()
		default:
			d.skip()
		}
	}
	if c.Offset == Unknown || c.Timestamp == Unknown {
		return noCommit
	}
	return c
}

// name reads a string that must not be empty.
func (d *decoder) name() (string, bool) {
	text, ok := d.text()
	if !ok || len(text) == 0 || len(text) > maxNameBytes {
		return "", false
	}
	return d.intern(text), true
}

// label reads a string that is not needed.
func (d *decoder) label() string {
	text, ok := d.text()
	if !ok || len(text) > maxLabelBytes {
		return ""
	}
	return d.intern(text)
}

func (d *decoder) status() Status {
	text, ok := d.text()
	if !ok {
		return StatusUnknown
	}
	return parseStatus(text)
}

// time reads a moment in RFC 3339, as UTC; one that is not, and Burrow's 0001-01-01T00:00:00Z, give the zero time. A
// moment whose year has not four digits in UTC is none: it could not be written again.
func (d *decoder) time() time.Time {
	text, ok := d.text()
	if !ok || len(text) > maxTimeBytes {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	t = t.UTC()
	if err != nil || t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// share reads a number from 0 to 1.
func (d *decoder) share() float64 {
	switch d.peek() {
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
	default:
		d.skip()
		return Unknown
	}
	start := d.pos
	d.number()
	if d.err != nil {
		return Unknown
	}
	v, err := strconv.ParseFloat(string(d.data[start:d.pos]), 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return Unknown
	}
	return math.Abs(v) // JSON has a negative zero
}

func (d *decoder) countOrUnknown() int64 {
	n, ok := d.count()
	if !ok {
		return Unknown
	}
	return n
}

// count reads an integer from 0 to 2^63-1, written without fraction and exponent.
func (d *decoder) count() (int64, bool) {
	c := d.peek()
	if c < '0' || c > '9' {
		d.skip()
		return 0, false
	}
	start := d.pos
	var n uint64
	i := start
	for ; i < len(d.data); i++ {
		digit := d.data[i] - '0'
		if digit > 9 {
			break
		}
		n = n*10 + uint64(digit)
	}
	digits := i - start
	if digits > 1 && c == '0' || i < len(d.data) && (d.data[i] == '.' || d.data[i]|0x20 == 'e') {
		d.number()
		return 0, false
	}
	d.pos = i
	// 19 digits cannot overflow 64 bits; 2^63-1 has 19.
	if digits > 19 || n > math.MaxInt64 {
		return 0, false
	}
	return int64(n), true
}

// text reads a string; any other value is skipped. The bytes are good until the next string is read.
func (d *decoder) text() ([]byte, bool) {
	if d.peek() != '"' {
		d.skip()
		return nil, false
	}
	return d.str(), d.err == nil
}

// Printable is text as a person may read it: whatever could move a cursor, forge a line or turn the direction of
// writing around is replaced.
func Printable(text string) string { return printable([]byte(text), len(text)) }

// excerpt is a printable beginning of a value.
func excerpt(got []byte) string { return printable(got, maxGotBytes) }

// printable is the beginning of a text in characters that a log can show.
func printable(got []byte, limit int) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, string(got[:min(len(got), limit)]))
	if len(got) > limit {
		text += "..."
	}
	return text
}
