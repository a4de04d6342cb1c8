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
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxNameBytes bounds cluster, group and topic names, and with them what one entry of the table can
	// hold. Kafka allows 249 characters for a topic; CloudWatch takes 1024 for a dimension.
	maxNameBytes = 1024
	// maxLabelBytes bounds owner, client_id and incident ID; longer ones are ignored, because nothing
	// but a label depends on them.
	maxLabelBytes = 255
	// maxDepth bounds nesting; Burrow's deepest value is at 6.
	maxDepth = 64
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

// ErrForm means well-formed JSON that is none of the three body forms.
var ErrForm = errors.New("the body has neither Event nor Result nor the keys of a Result")

// SyntaxError means that the body is not JSON.
type SyntaxError struct {
	// Offset is the position of the first byte that cannot be right.
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string {
	return "not JSON at byte " + strconv.Itoa(e.Offset) + ": " + e.Reason
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
// The result shares no memory with body.
func Decode(body []byte) (*Notification, error) {
	d := decoders.Get().(*decoder)
	defer d.release()
	d.data, d.pos, d.depth, d.err = body, 0, 0, nil
	return d.document()
}

// decoder is a one-pass parser for Burrow's documents. A hand-written one, because the general ones cost
// several times as much on a wide group (`make bench` compares it with encoding/json, and a
// fuzz test holds it to the same answers).
type decoder struct {
	data       []byte
	pos        int
	depth      int
	err        *SyntaxError
	unescaped  []byte
	partitions []PartitionStatus
	names      interner
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// release drops what would keep a request, or memory for an unusually large one, alive in the pool.
func (d *decoder) release() {
	d.data = nil
	if cap(d.unescaped) > 1<<16 {
		d.unescaped = nil
	}
	clear(d.partitions)
	d.partitions = d.partitions[:0]
	if cap(d.partitions) > 4096 {
		d.partitions = nil
	}
	decoders.Put(d)
}

// interner makes equal names of a notification, and of those decoded before it, share one string.
// It is a cache of fixed size: a name that is not found in its slot takes it over.
type interner [2048]string

var internSeed = maphash.MakeSeed()

func (n *interner) intern(name []byte) string {
	if len(name) == 0 {
		return ""
	}
	slot := &n[maphash.Bytes(internSeed, name)%uint64(len(n))]
	if *slot != string(name) {
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
	partitionsErr                    *FieldError
}

func newResult() result {
	return result{GroupStatus: GroupStatus{Complete: Unknown, PartitionCount: Unknown}}
}

// envelope is what stands around a Result.
type envelope struct {
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
			event = envelope{}
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
	if r.partitionsErr != nil {
		err := *r.partitionsErr
		err.Field = path + err.Field
		return &err
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
		e.resultGot.got = d.value(func() { d.result(&e.result) })
	default:
		return false
	}
	return true
}

func (d *decoder) result(r *result) {
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
		r.Partitions, r.partitionsErr = d.partitionList()
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

// partitionList reads the listed partitions into a slice of exactly their number, in order.
func (d *decoder) partitionList() ([]PartitionStatus, *FieldError) {
	start := d.skipSpace()
	if d.peek() != '[' {
		d.skip()
		if got := d.data[start:d.pos]; string(got) != "null" {
			return nil, &FieldError{Field: "partitions", Want: wantList, Got: excerpt(got)}
		}
		return nil, nil
	}
	var bad *FieldError
	listed := d.partitions[:0]
	d.enter()
	for more := d.firstItem(); more; more = d.nextItem() {
		listed = append(listed, PartitionStatus{})
		start := d.skipSpace()
		var err *FieldError
		if d.peek() == '{' {
			err = d.partition(&listed[len(listed)-1])
		} else {
			d.skip()
			err = &FieldError{Want: wantObject, Got: excerpt(d.data[start:d.pos])}
		}
		if err != nil && bad == nil {
			bad = err
			bad.Field = "partitions[" + strconv.Itoa(len(listed)-1) + "]" + bad.Field
		}
	}
	d.partitions = listed
	if bad != nil || d.err != nil || len(listed) == 0 {
		return nil, bad
	}
	return inOrder(slices.Clone(listed))
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
	return d.names.intern(text), true
}

// label reads a string that is not needed.
func (d *decoder) label() string {
	text, ok := d.text()
	if !ok || len(text) > maxLabelBytes {
		return ""
	}
	return d.names.intern(text)
}

func (d *decoder) status() Status {
	text, ok := d.text()
	if !ok {
		return StatusUnknown
	}
	return parseStatus(text)
}

// time reads a moment in RFC 3339; one that is not, and Burrow's 0001-01-01T00:00:00Z, give the zero time.
func (d *decoder) time() time.Time {
	text, ok := d.text()
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || t.IsZero() {
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

// The grammar of JSON (RFC 8259), from here on.

// value runs read on an object, skips any other value, and returns what was passed.
func (d *decoder) value(read func()) []byte {
	start := d.skipSpace()
	if d.peek() == '{' {
		read()
	} else {
		d.skip()
	}
	return d.data[start:d.pos]
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &SyntaxError{Offset: d.pos, Reason: reason}
	}
	d.pos = len(d.data)
}

// skipSpace moves to the next byte that counts and returns its position.
func (d *decoder) skipSpace() int {
	d.peek()
	return d.pos
}

// peek returns the next byte that counts, 0 at the end. Burrow writes hardly any space.
func (d *decoder) peek() byte {
	if d.pos < len(d.data) && d.data[d.pos] > ' ' {
		return d.data[d.pos]
	}
	return d.peekBehindSpace()
}

func (d *decoder) peekBehindSpace() byte {
	for ; d.pos < len(d.data); d.pos++ {
		switch d.data[d.pos] {
		case ' ', '\n', '\r', '\t':
		default:
			return d.data[d.pos]
		}
	}
	return 0
}

// enter consumes the opening bracket that peek has shown.
func (d *decoder) enter() {
	d.pos++
	d.depth++
	if d.depth > maxDepth {
		d.fail("nested deeper than " + strconv.Itoa(maxDepth))
	}
}

func (d *decoder) leave() {
	d.pos++
	d.depth--
}

// firstKey returns the first key of an object, nil if there is none or the body is broken.
func (d *decoder) firstKey() []byte {
	if d.peek() == '}' {
		d.leave()
		return nil
	}
	return d.key()
}

func (d *decoder) nextKey() []byte {
	switch d.peek() {
	case ',':
		d.pos++
		return d.key()
	case '}':
		d.leave()
	default:
		d.fail("a comma or } is missing")
	}
	return nil
}

func (d *decoder) key() []byte {
	if d.peek() != '"' {
		d.fail("a key is missing")
		return nil
	}
	key := d.str()
	if d.peek() != ':' {
		d.fail("a colon is missing")
		return nil
	}
	d.pos++
	return key
}

func (d *decoder) firstItem() bool {
	if d.peek() == ']' {
		d.leave()
		return false
	}
	return d.err == nil
}

func (d *decoder) nextItem() bool {
	switch d.peek() {
	case ',':
		d.pos++
		return true
	case ']':
		d.leave()
	default:
		d.fail("a comma or ] is missing")
	}
	return false
}

// end demands that nothing follows.
func (d *decoder) end() {
	if d.skipSpace() < len(d.data) {
		d.fail("something follows the value")
	}
}

// skip reads any value.
func (d *decoder) skip() {
	switch c := d.peek(); c {
	case '{':
		d.enter()
		for key := d.firstKey(); key != nil; key = d.nextKey() {
			d.skip()
		}
	case '[':
		d.enter()
		for more := d.firstItem(); more; more = d.nextItem() {
			d.skip()
		}
	case '"':
		d.str()
	case 't':
		d.literal("true")
	case 'f':
		d.literal("false")
	case 'n':
		d.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		d.number()
	default:
		d.fail("a value is missing")
	}
}

func (d *decoder) literal(word string) {
	if len(d.data)-d.pos < len(word) || string(d.data[d.pos:d.pos+len(word)]) != word {
		d.fail("unknown word")
		return
	}
	d.pos += len(word)
}

func (d *decoder) number() {
	if d.data[d.pos] == '-' {
		d.pos++
	}
	if d.pos < len(d.data) && d.data[d.pos] == '0' {
		d.pos++
	} else if !d.digits() {
		return
	}
	if d.pos < len(d.data) && d.data[d.pos] == '.' {
		d.pos++
		if !d.digits() {
			return
		}
	}
	if d.pos < len(d.data) && d.data[d.pos]|0x20 == 'e' {
		d.pos++
		if d.pos < len(d.data) && (d.data[d.pos] == '+' || d.data[d.pos] == '-') {
			d.pos++
		}
		d.digits()
	}
}

func (d *decoder) digits() bool {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos]-'0' <= 9 {
		d.pos++
	}
	if d.pos == start {
		d.fail("a digit is missing")
		return false
	}
	return true
}

// str reads a string whose opening quote peek has shown. Without escapes it is a part of the body,
// otherwise it stands in d.unescaped. Bytes that are not UTF-8 become U+FFFD, as encoding/json has it.
func (d *decoder) str() []byte {
	start := d.pos + 1
	for i, c := range d.data[start:] {
		if plain[c] {
			continue
		}
		if c == '"' {
			d.pos = start + i + 1
			return d.data[start : start+i]
		}
		return d.strSlow(start, start+i)
	}
	d.pos = len(d.data)
	d.fail("a quote is missing")
	return nil
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (table [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

func (d *decoder) strSlow(start, i int) []byte {
	d.unescaped = append(d.unescaped[:0], d.data[start:i]...)
	out := d.unescaped
	defer func() { d.unescaped = out }()
	for i < len(d.data) {
		c := d.data[i]
		switch {
		case c == '"':
			d.pos = i + 1
			return out
		case c < ' ':
			d.pos = i
			d.fail("a control character stands in a string")
			return nil
		case c < utf8.RuneSelf && c != '\\':
			out = append(out, c)
			i++
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(d.data[i:])
			out = utf8.AppendRune(out, r)
			i += size
		default:
			r, size := unescape(d.data[i:])
			if size == 0 {
				d.pos = i
				d.fail("unknown escape")
				return nil
			}
			out = utf8.AppendRune(out, r)
			i += size
		}
	}
	d.pos = len(d.data)
	d.fail("a quote is missing")
	return nil
}

// unescape reads the escape at the start of s and returns its character and length; 0 if it is none.
func unescape(s []byte) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(s[2:])
		if r < 0 {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(s) > 7 && s[6] == '\\' && s[7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(s[8:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return 0, 0
}

func hex4(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

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
