package burrow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const recorded = "../../../../testdata/notifications"

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(append([]string{recorded}, elem...)...))
	require.NoError(t, err)
	return body
}

func TestDecodeForms(t *testing.T) {
	want := &Notification{
		ID:    "3c3caec2-6a0e-4d56-80b6-bd0b24b1e2d9",
		Start: time.Time{},
		Group: GroupStatus{},
	}
	a, err := Decode(read(t, "forms", "warn.a.json"))
	require.NoError(t, err)
	b, err := Decode(read(t, "forms", "warn.b.json"))
	require.NoError(t, err)
	c, err := Decode(read(t, "forms", "warn.c.json"))
	require.NoError(t, err)
	want.ID, want.Start = a.ID, a.Start
	assert.NotEmpty(t, a.ID)
	assert.False(t, a.Start.IsZero())
	assert.Empty(t, cmp.Diff(a, b), "forms a and b are of one evaluation")
	want.Group = c.Group
	assert.Empty(t, cmp.Diff(a, want), "form c has the group and no incident")
	assert.Equal(t, &Notification{Group: c.Group}, c)
}

func TestDecodeFields(t *testing.T) {
	n, err := Decode(read(t, "offsets-above-2-53.json"))
	require.NoError(t, err)
	assert.Equal(t, "east", n.Group.Cluster)
	assert.Equal(t, "huge-offsets", n.Group.Group)
	assert.Equal(t, StatusErr, n.Group.Status)
	assert.EqualValues(t, 2, n.Group.PartitionCount)
	require.Len(t, n.Group.Partitions, 2)
	assert.Equal(t, PartitionStatus{
		Topic: "huge.offsets", Status: StatusStall, CurrentLag: 278, Complete: 1,
		Start: Commit{Offset: 9007199254741043, Timestamp: 1795355787467, ObservedAt: 1795355787000, Lag: 239},
		End:   Commit{Offset: 9007199254741043, Timestamp: 1795355799168, ObservedAt: 1795355799000, Lag: 275},
	}, n.Group.Partitions[0], "offsets that a double cannot hold")
	require.NotNil(t, n.Group.MaxLag)

	n, err = Decode(read(t, "no-maxlag.json"))
	require.NoError(t, err)
	assert.Nil(t, n.Group.MaxLag)
	assert.Zero(t, n.Group.PartitionCount)
	assert.Zero(t, n.Group.Complete)

	n, err = Decode(read(t, "stop.json"))
	require.NoError(t, err)
	assert.Empty(t, n.Group.Partitions[0].Owner, "the members have left")

	n, err = Decode(read(t, "odd-names-quotes.json"))
	require.NoError(t, err)
	assert.Equal(t, `team "A" <orders> & 'co'`, n.Group.Group)
}

// Everything that Burrow was recorded to send with the templates that we can read is read.
func TestDecodeRecorded(t *testing.T) {
	var bodies []string
	for _, glob := range []string{"*.json", "forms/*.a.json", "forms/*.b.json", "forms/*.c.json", "forms/*.e.json"} {
		found, err := filepath.Glob(filepath.Join(recorded, glob))
		require.NoError(t, err)
		require.NotEmpty(t, found)
		bodies = append(bodies, found...)
	}
	for _, path := range bodies {
		if filepath.Base(path) == "index.json" {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			body, err := os.ReadFile(path)
			require.NoError(t, err)
			got, err := Decode(body)
			require.NoError(t, err)
			want, err := reference(body)
			require.NoError(t, err)
			assert.Empty(t, cmp.Diff(want, got))
		})
	}
}

func TestDecodeOtherTemplates(t *testing.T) {
	for _, glob := range []string{"forms/*.d.*", "forms/*.slack.*"} {
		found, err := filepath.Glob(filepath.Join(recorded, glob))
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, path := range found {
			body, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = Decode(body)
			require.Error(t, err, path)
			if json.Valid(body) {
				assert.ErrorIs(t, err, ErrForm, path)
			}
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	const good = `{"cluster":"c","group":"g","status":"OK","totallag":1}`
	_, err := Decode([]byte(good))
	require.NoError(t, err)
	partition := func(p string) string { return strings.Replace(good, "}", `,"partitions":[`+p+`]}`, 1) }

	for name, tc := range map[string]struct{ body, want string }{
		"empty":                 {``, "not JSON at byte 0: a value is missing"},
		"html":                  {`<html>`, "not JSON at byte 0: a value is missing"},
		"cut":                   {good[:20], "not JSON at byte 20: a quote is missing"},
		"more than one value":   {good + good, "not JSON at byte 54: something follows the value"},
		"trailing comma":        {`{"cluster":"c",}`, "not JSON at byte 15: a key is missing"},
		"no colon":              {`{"cluster" "c"}`, "not JSON at byte 11: a colon is missing"},
		"no comma":              {`{"cluster":"c" "group":"g"}`, "not JSON at byte 15: a comma or } is missing"},
		"leading zero":          {`{"totallag":01}`, "not JSON at byte 13: a comma or } is missing"},
		"no digit":              {`{"totallag":-}`, "not JSON at byte 13: a digit is missing"},
		"bad escape":            {`{"cluster":"\x"}`, "not JSON at byte 12: unknown escape"},
		"newline in a string":   {"{\"cluster\":\"\n\"}", "not JSON at byte 12: a control character stands in a string"},
		"NaN":                   {`{"totallag":NaN}`, "not JSON at byte 12: a value is missing"},
		"nul":                   {`{"totallag":nul}`, "not JSON at byte 12: unknown word"},
		"deep":                  {strings.Repeat("[", 100), "not JSON at byte 65: nested deeper than 64"},
		"a list":                {`[]`, "the body must be an object, got []"},
		"null":                  {`null`, "the body must be an object, got null"},
		"no keys":               {`{}`, ErrForm.Error()},
		"other keys":            {`{"text":"a group is lagging"}`, ErrForm.Error()},
		"event is text":         {`{"Event":"x"}`, `Event must be an object, got "x"`},
		"event without result":  {`{"Event":{"Cluster":"c"}}`, "Event.Result must be an object, but is missing"},
		"event with bare":       {`{"Event":` + good + `}`, "Event.Result must be an object, but is missing"},
		"result null":           {`{"Result":null}`, "Result must be an object, got null"},
		"result in event":       {`{"Event":{"Result":{"cluster":"c","group":"g","status":"OK"}}}`, "Event.Result.totallag must be " + wantCount + ", but is missing"},
		"result outside":        {`{"Result":{"cluster":"c","group":"g","status":"OK"}}`, "Result.totallag must be " + wantCount + ", but is missing"},
		"no cluster":            {`{"group":"g","status":"OK","totallag":1}`, "cluster must be " + wantName + ", but is missing"},
		"cluster null":          {`{"cluster":null,"group":"g","status":"OK","totallag":1}`, "cluster must be " + wantName + ", got null"},
		"group empty":           {strings.Replace(good, `"g"`, `""`, 1), `group must be ` + wantName + `, got ""`},
		"group number":          {strings.Replace(good, `"g"`, `7`, 1), `group must be ` + wantName + `, got 7`},
		"group too long":        {strings.Replace(good, `"g"`, `"`+strings.Repeat("x", 1025)+`"`, 1), `group must be ` + wantName + `, got "` + strings.Repeat("x", 63) + `...`},
		"status unknown":        {strings.Replace(good, `"OK"`, `"FINE"`, 1), `status must be ` + wantStatus + `, got "FINE"`},
		"status in lower case":  {strings.Replace(good, `"OK"`, `"ok"`, 1), `status must be ` + wantStatus + `, got "ok"`},
		"status number":         {strings.Replace(good, `"OK"`, `1`, 1), `status must be ` + wantStatus + `, got 1`},
		"lag negative":          {strings.Replace(good, `1}`, `-1}`, 1), "totallag must be " + wantCount + ", got -1"},
		"lag text":              {strings.Replace(good, `1}`, `"1"}`, 1), "totallag must be " + wantCount + `, got "1"`},
		"lag null":              {strings.Replace(good, `1}`, `null}`, 1), "totallag must be " + wantCount + `, got null`},
		"lag fraction":          {strings.Replace(good, `1}`, `1.0}`, 1), "totallag must be " + wantCount + `, got 1.0`},
		"lag exponent":          {strings.Replace(good, `1}`, `1E3}`, 1), "totallag must be " + wantCount + `, got 1E3`},
		"lag 2^63":              {strings.Replace(good, `1}`, `9223372036854775808}`, 1), "totallag must be " + wantCount + `, got 9223372036854775808`},
		"lag 2^64":              {strings.Replace(good, `1}`, `18446744073709551617}`, 1), "totallag must be " + wantCount + `, got 18446744073709551617`},
		"last of twins counts":  {strings.Replace(good, `1}`, `1,"totallag":"x"}`, 1), "totallag must be " + wantCount + `, got "x"`},
		"partitions text":       {strings.Replace(good, `}`, `,"partitions":"none"}`, 1), `partitions must be a list, got "none"`},
		"partition null":        {partition(`null`), "partitions[0] must be an object, got null"},
		"partition empty":       {partition(`{}`), "partitions[0].topic must be " + wantName + ", but is missing"},
		"topic empty":           {partition(`{"topic":"","partition":0,"current_lag":0}`), `partitions[0].topic must be ` + wantName + `, got ""`},
		"second topic null":     {partition(`{"topic":"t","partition":0,"current_lag":0},{"topic":null,"partition":0,"current_lag":0}`), `partitions[1].topic must be ` + wantName + `, got null`},
		"partition negative":    {partition(`{"topic":"t","partition":-1,"current_lag":0}`), "partitions[0].partition must be " + wantNumber + ", got -1"},
		"partition 2^31":        {partition(`{"topic":"t","partition":2147483648,"current_lag":0}`), "partitions[0].partition must be " + wantNumber + ", got 2147483648"},
		"current_lag text":      {partition(`{"topic":"t","partition":0,"current_lag":"0"}`), "partitions[0].current_lag must be " + wantCount + `, got "0"`},
		"current_lag missing":   {partition(`{"topic":"t","partition":0}`), "partitions[0].current_lag must be " + wantCount + `, but is missing`},
		"partition twice":       {partition(`{"topic":"t","partition":0,"current_lag":0},{"topic":"s","partition":0,"current_lag":0},{"topic":"t","partition":0,"current_lag":1}`), "partitions must be " + wantNoTwins + ", got t/0 twice"},
		"partitions in Event":   {`{"Event":{"Result":` + partition(`7`) + `}}`, "Event.Result.partitions[0] must be an object, got 7"},
		"control characters":    {strings.Replace(good, `"OK"`, `"\u0007"`, 1), `status must be ` + wantStatus + `, got "\u0007"`},
		"not utf-8 in an error": {strings.Replace(good, `"OK"`, "\"\xff\"", 1), `status must be ` + wantStatus + ", got \"\uFFFD\""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(tc.body))
			require.EqualError(t, err, tc.want)
			assert.Nil(t, got)
			_, err = reference([]byte(tc.body))
			assert.Error(t, err, "the reference must refuse it too")
		})
	}
}

// What the metrics do not need is ignored when it is odd.
func TestDecodeTolerates(t *testing.T) {
	const odd = `{"ID":7,"Start":"yesterday","Cluster":{},"Extras":[1,{"a":null}],"Result":{
		"cluster":"c","group":"g","status":"WARN","totallag":9223372036854775807,"complete":7,"partition_count":"many",
		"maxlag":{"topic":"t"},"new":true,
		"partitions":[{"topic":"t","partition":2147483647,"current_lag":9223372036854775807,"status":"ODD","owner":5,
			"client_id":null,"start":{"offset":1},"end":{"offset":3,"timestamp":4,"lag":null},"complete":-0.5},
			{"topic":"s","partition":1,"current_lag":0,"status":"STOP","start":null,"end":[]}]}}`
	got, err := Decode([]byte(odd))
	require.NoError(t, err)
	assert.Equal(t, &Notification{Group: GroupStatus{
		Cluster: "c", Group: "g", Status: StatusWarn, TotalLag: math.MaxInt64, Complete: Unknown, PartitionCount: Unknown,
		Partitions: []PartitionStatus{
			{Topic: "s", Partition: 1, Status: StatusStop, Start: noCommit, End: noCommit, Complete: Unknown},
			{
				Topic: "t", Partition: math.MaxInt32, CurrentLag: math.MaxInt64, Status: StatusUnknown,
				Start: noCommit, End: Commit{Offset: 3, Timestamp: 4, ObservedAt: Unknown, Lag: Unknown}, Complete: Unknown,
			},
		},
	}}, got)

	for name, tc := range map[string]struct {
		body string
		want func(*Notification)
	}{
		"names of the envelope stand in":  {`{"Cluster":"c","Group":"g","Result":{"status":"OK","totallag":0}}`, nil},
		"no more partitions than counted": {`{"cluster":"c","group":"g","status":"OK","totallag":0,"partition_count":0,"partitions":[]}`, func(n *Notification) { n.Group.PartitionCount = 0 }},
		"fewer counted than listed": {`{"cluster":"c","group":"g","status":"OK","totallag":0,"partition_count":0,"partitions":[{"topic":"t","partition":0,"current_lag":0}]}`, func(n *Notification) {
			n.Group.Partitions = []PartitionStatus{{Topic: "t", Status: StatusUnknown, Start: noCommit, End: noCommit, Complete: Unknown}}
		}},
		"partitions null":            {`{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":null}`, nil},
		"escaped key":                {`{"\u0063luster":"c","group":"g","status":"O\u004b","totallag":0}`, nil},
		"space everywhere":           {" { \"cluster\" :\t\"c\" ,\r\n\"group\" : \"g\" , \"status\" : \"OK\" , \"totallag\" : 0 } \n", nil},
		"the last of twins":          {`{"cluster":"x","cluster":"c","group":"g","status":"ERR","status":"OK","totallag":-1,"totallag":0}`, nil},
		"Result wins over bare keys": {`{"cluster":"x","group":"x","status":"ERR","totallag":9,"Result":{"cluster":"c","group":"g","status":"OK","totallag":0}}`, nil},
		"Event wins over Result":     {`{"Result":{},"Event":{"Result":{"cluster":"c","group":"g","status":"OK","totallag":0}}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := &Notification{Group: GroupStatus{Cluster: "c", Group: "g", Status: StatusOK, Complete: Unknown, PartitionCount: Unknown}}
			if tc.want != nil {
				tc.want(want)
			}
			got, err := Decode([]byte(tc.body))
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestDecodeKeepsNothingOfTheBody(t *testing.T) {
	body := read(t, "many-partitions.json")
	got, err := Decode(body)
	require.NoError(t, err)
	again, err := Decode(bytes.Clone(body))
	require.NoError(t, err)
	for i := range body {
		body[i] = 'x'
	}
	assert.Empty(t, cmp.Diff(again, got))
}

// FuzzDecode holds Decode to what encoding/json reads from the same bytes.
func FuzzDecode(f *testing.F) {
	for _, glob := range []string{"*.json", "forms/*"} {
		found, err := filepath.Glob(filepath.Join(recorded, glob))
		require.NoError(f, err)
		for _, path := range found {
			body, err := os.ReadFile(path)
			require.NoError(f, err)
			if len(body) < 4000 {
				f.Add(body)
			}
		}
	}
	f.Add([]byte(`{"cluster":"\ud83d\ude00\ud800","group":"\u0000\/","status":"OK","totallag":0,"complete":1e-3,"x":[-0.1e+9]}`))
	f.Add([]byte(`{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[0,0,0],"partitions":[]}`))
	f.Add([]byte(`{"Start":"2026-01-02T03:04:05+24:00","Result":{"cluster":"c","group":"g","status":"OK","totallag":0}}`))
	f.Add([]byte("{\"cluster\":\"\xff\xc3\",\"group\":\"\xed\xa0\x80\",\"status\":\"OK\",\"totallag\":0}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		requireBounded(t, len(body), func() { _, _ = Decode(body) })
		got, err := Decode(body)
		want, wantErr := reference(body)

		var syntax *SyntaxError
		if errors.As(err, &syntax) {
			require.True(t, !json.Valid(body) || strings.HasPrefix(syntax.Reason, "nested deeper"), "%v", err)
			return
		}
		if err != nil {
			require.True(t, wantErr != nil || listedTwice(body), "refused: %v", err)
			return
		}
		require.NoError(t, wantErr)
		require.Empty(t, cmp.Diff(want, got))
		_, err = json.Marshal(got)
		require.NoError(t, err)
	})
}

// listedTwice says whether a body has more than one list of partitions. Then one that does not count can be wrong,
// at which Decode stops and the reference does not.
func listedTwice(body []byte) bool {
	tokens, lists := json.NewDecoder(bytes.NewReader(body)), 0
	for {
		token, err := tokens.Token()
		if err != nil {
			return lists > 1
		}
		if token == "partitions" {
			lists++
		}
	}
}

// requireBounded demands that reading n bytes takes no more memory than is promised. Something else in the process can
// take some at the same time, so that the least of several runs counts.
func requireBounded(t testing.TB, n int, read func()) {
	t.Helper()
	limit := uint64(AllocatedPerByte*n + AllocatedAtLeast)
	least := uint64(math.MaxUint64)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read()
		runtime.ReadMemStats(&after)
		if least = min(least, after.TotalAlloc-before.TotalAlloc); least <= limit {
			return
		}
	}
	t.Fatalf("%d bytes took %d bytes of memory, more than %d", n, least, limit)
}

// The texts that make the most of each byte stay within what is promised.
func TestDecodeMemory(t *testing.T) {
	const most = 1<<16 + 1 // one more than a list has room for, so that it has just grown
	list := func(item string) string { return strings.Repeat(item+",", most-1) + item }
	result := func(partitions string) string {
		return `{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[` + partitions + `]}`
	}
	numbered := make([]string, most)
	names := make([]string, most)
	for i := range numbered {
		numbered[i] = fmt.Sprintf(`{"topic":"t","partition":%d,"current_lag":0}`, i)
		names[i] = strconv.Quote(strconv.Itoa(i))
	}
	_, err := Decode([]byte(result(strings.Join(numbered, ","))))
	require.NoError(t, err)
	for name, body := range map[string]string{
		"shortest partitions":        result(strings.Join(numbered, ",")),
		"not partitions":             result(list("0")),
		"the last one is wrong":      result(strings.Join(numbered, ",") + ",0"),
		"the same partition":         result(list(`{"topic":"t","partition":0,"current_lag":0}`)),
		"names to be written anew":   result(strings.Repeat(`{"topic":"`+strings.Repeat(`\n`, 1000)+`","partition":0,"current_lag":0},`, 1000) + "0"),
		"bytes that are not UTF-8":   result(strings.Repeat(`{"topic":"`+strings.Repeat("\xff", 300)+`","partition":0,"current_lag":0},`, 1000) + "0"),
		"a long string with escapes": `{"x":"` + strings.Repeat(`\n`, 1<<20) + `"}`,
		"a long time":                `{"Start":"` + strings.Repeat("1", 1<<20) + `"}`,
		"deep":                       strings.Repeat(`{"Event":`, 1<<16),
		"names":                      `{"consumers":[` + strings.Join(names, ",") + `]}`,
		"empty names":                `{"consumers":[` + list(`""`) + `]}`,
		"offsets":                    `{"offsets":[` + list("1") + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			requireBounded(t, len(body), func() { _, _ = Decode([]byte(body)) })
			requireBounded(t, len(body), func() { _, _ = decodeNames([]byte(body), Limits{}, "consumers") })
			requireBounded(t, len(body), func() { _, _ = decodeOffsets([]byte(body), Limits{}) })
			requireBounded(t, len(body)+11, func() { _, _ = DecodeLag([]byte(`{"status":`+body+`}`), Limits{}) })
		})
	}
	// Nothing is made of what comes behind the first that is wrong.
	body := []byte(result(list("0")))
	requireBounded(t, 0, func() { _, err = Decode(body) })
	require.EqualError(t, err, "partitions[0] must be an object, got 0")
}

func TestDecodeWithin(t *testing.T) {
	partition := func(i int) string { return fmt.Sprintf(`{"topic":"topic","partition":%d,"current_lag":0}`, i) }
	body := `{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[` + partition(1) + "," + partition(2)
	_, err := DecodeWithin([]byte(body+"]}"), Limits{MaxPartitions: 2})
	require.NoError(t, err)
	_, err = DecodeWithin([]byte(body+","+partition(3)), Limits{MaxPartitions: 2})
	require.ErrorIs(t, err, ErrTooMany, "what comes behind is not read")

	many := []byte(`{"cluster":"c","group":"g","status":"OK","totallag":0,"partitions":[` + partition(0))
	for i := range 999 {
		many = append(many, ","+partition(i+1)...)
	}
	many = append(many, "]}"...)
	size := 1000 * int(unsafe.Sizeof(PartitionStatus{}))
	budget := NewBudget(int64(4 * size))
	share := budget.Share()
	n, err := DecodeWithin(many, Limits{Share: &share})
	require.NoError(t, err)
	require.Len(t, n.Group.Partitions, 1000)
	assert.GreaterOrEqual(t, int(budget.Used()), size)
	share.Release()
	assert.Zero(t, budget.Used())

	// Neither the list while it grows nor the one that is kept is made without being paid for.
	for _, limit := range []int{0, size / 2, size + 1000} {
		share := NewBudget(int64(limit)).Share()
		_, err = DecodeWithin(many, Limits{Share: &share})
		require.ErrorIs(t, err, ErrBusy, "%d bytes", limit)
	}
}

// Large requests leave a quarter to small ones.
func TestBudget(t *testing.T) {
	budget := NewBudget(1 << 20)
	large, small := budget.Share(), budget.Share()
	assert.True(t, large.Take(3<<18))
	assert.False(t, large.Take(1))
	assert.True(t, small.Take(smallShare))
	assert.False(t, small.Take(1), "it is a large one now")
	for range 3 {
		small := budget.Share()
		assert.True(t, small.Take(smallShare))
	}
	tooMany := budget.Share()
	assert.False(t, tooMany.Take(1))
	assert.EqualValues(t, 1<<20, budget.Used())
	large.Release()
	assert.EqualValues(t, 1<<18, budget.Used())
	assert.True(t, tooMany.Take(1))
	tooMany.Release()
	tooMany.Release()
	assert.EqualValues(t, 1<<18, budget.Used())
}

// A large request that does not fit is not in the way of small ones, not even for a moment.
func TestBudgetUnderContention(t *testing.T) {
	budget := NewBudget(1 << 20)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				large := budget.Share()
				assert.False(t, large.Take(1<<20))
			}
		}
	})
	for range 100_000 {
		small := budget.Share()
		require.True(t, small.Take(1<<10))
		small.Release()
	}
	close(stop)
	running.Wait()
}

// Start is a moment that can be written again, in whichever zone it was sent.
func TestDecodeStart(t *testing.T) {
	for sent, want := range map[string]string{
		"2026-01-02T03:04:05.678+05:30":                         "2026-01-01T21:34:05.678Z",
		"2026-01-02T03:04:05+24:00":                             "2026-01-01T03:04:05Z",
		"2026-01-02T03:04:05-23:59":                             "2026-01-03T03:03:05Z",
		"0001-01-01T00:00:00Z":                                  "",
		"0000-01-01T00:00:00+24:00":                             "",
		"9999-12-31T23:59:59-24:00":                             "",
		"2026-01-02":                                            "",
		"2026-01-02T03:04:05." + strings.Repeat("0", 100) + "Z": "",
	} {
		n, err := Decode([]byte(`{"Start":"` + sent + `","Result":{"cluster":"c","group":"g","status":"OK","totallag":0}}`))
		require.NoError(t, err)
		if want == "" {
			assert.Zero(t, n.Start, sent)
			continue
		}
		written, err := json.Marshal(n.Start)
		require.NoError(t, err)
		assert.Equal(t, strconv.Quote(want), string(written), sent)
		assert.Equal(t, time.UTC, n.Start.Location())
	}
}
