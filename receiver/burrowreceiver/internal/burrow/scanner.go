package burrow

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth bounds nesting; Burrow's deepest value is at 6.
	maxDepth = 64
	// maxUnescaped bounds what is kept of a string with escapes. It is longer than every string that is used.
	maxUnescaped = maxNameBytes + utf8.UTFMax
)

// SyntaxError means that the body is not JSON.
type SyntaxError struct {
	// Offset is the position of the first byte that cannot be right.
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string {
	return "not JSON at byte " + strconv.Itoa(e.Offset) + ": " + e.Reason
}

// scanner walks through a text by the grammar of JSON (RFC 8259). With the first error it moves to the end of the
// text, so that everything that reads it ends.
type scanner struct {
	data      []byte
	pos       int
	depth     int
	err       error
	unescaped []byte
}

func (s *scanner) reset(data []byte) { s.data, s.pos, s.depth, s.err = data, 0, 0, nil }

// value runs read on an object, skips any other value, and returns what was passed.
func (s *scanner) value(read func()) []byte {
	start := s.skipSpace()
	if s.peek() == '{' {
		read()
	} else {
		s.skip()
	}
	return s.data[start:s.pos]
}

func (s *scanner) fail(reason string) { s.stop(&SyntaxError{Offset: s.pos, Reason: reason}) }

// stop ends the reading. The first error counts.
func (s *scanner) stop(err error) {
	if s.err == nil {
		s.err = err
	}
	s.pos = len(s.data)
}

// skipSpace moves to the next byte that counts and returns its position.
func (s *scanner) skipSpace() int {
	s.peek()
	return s.pos
}

// peek returns the next byte that counts, 0 at the end. Burrow writes hardly any space.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) && s.data[s.pos] > ' ' {
		return s.data[s.pos]
	}
	return s.peekBehindSpace()
}

func (s *scanner) peekBehindSpace() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch s.data[s.pos] {
		case ' ', '\n', '\r', '\t':
		default:
			return s.data[s.pos]
		}
	}
	return 0
}

// enter consumes the opening bracket that peek has shown.
func (s *scanner) enter() {
	s.pos++
	s.depth++
	if s.depth > maxDepth {
		s.fail("nested deeper than " + strconv.Itoa(maxDepth))
	}
}

func (s *scanner) leave() {
	s.pos++
	s.depth--
}

// firstKey returns the first key of an object, nil if there is none or the body is broken.
func (s *scanner) firstKey() []byte {
	if s.peek() == '}' {
		s.leave()
		return nil
	}
	return s.key()
}

func (s *scanner) nextKey() []byte {
	switch s.peek() {
	case ',':
		s.pos++
		return s.key()
	case '}':
		s.leave()
	default:
		s.fail("a comma or } is missing")
	}
	return nil
}

func (s *scanner) key() []byte {
	if s.peek() != '"' {
		s.fail("a key is missing")
		return nil
	}
	key := s.str()
	if s.peek() != ':' {
		s.fail("a colon is missing")
		return nil
	}
	s.pos++
	return key
}

func (s *scanner) firstItem() bool {
	if s.peek() == ']' {
		s.leave()
		return false
	}
	return s.err == nil
}

func (s *scanner) nextItem() bool {
	switch s.peek() {
	case ',':
		s.pos++
		return true
	case ']':
		s.leave()
	default:
		s.fail("a comma or ] is missing")
	}
	return false
}

// end demands that nothing follows.
func (s *scanner) end() {
	if s.skipSpace() < len(s.data) {
		s.fail("something follows the value")
	}
}

// skip reads any value.
func (s *scanner) skip() {
	switch c := s.peek(); c {
	case '{':
		s.enter()
		for key := s.firstKey(); key != nil; key = s.nextKey() {
			s.skip()
		}
	case '[':
		s.enter()
		for more := s.firstItem(); more; more = s.nextItem() {
			s.skip()
		}
	case '"':
		s.str()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		s.number()
	default:
		s.fail("a value is missing")
	}
}

func (s *scanner) literal(word string) {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		s.fail("unknown word")
		return
	}
	s.pos += len(word)
}

func (s *scanner) number() {
	if s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return
		}
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		s.digits()
	}
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	if s.pos == start {
		s.fail("a digit is missing")
		return false
	}
	return true
}

// str reads a string whose opening quote peek has shown. Without escapes it is a part of the body,
// otherwise its beginning stands in s.unescaped: all of it up to maxUnescaped bytes, and more than that of a longer
// one. Bytes that are not UTF-8 become U+FFFD, as encoding/json has it.
func (s *scanner) str() []byte {
	start := s.pos + 1
	for i, c := range s.data[start:] {
		if plain[c] {
			continue
		}
		if c == '"' {
			s.pos = start + i + 1
			return s.data[start : start+i]
		}
		return s.strSlow(start, start+i)
	}
	s.pos = len(s.data)
	s.fail("a quote is missing")
	return nil
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (table [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

func (s *scanner) strSlow(start, i int) []byte {
	s.unescaped = append(s.unescaped[:0], s.data[start:min(i, start+maxUnescaped+1)]...)
	for i < len(s.data) {
		c := s.data[i]
		r, size := rune(c), 1
		switch {
		case c == '"':
			s.pos = i + 1
			return s.unescaped
		case c < ' ':
			s.pos = i
			s.fail("a control character stands in a string")
			return nil
		case c >= utf8.RuneSelf:
			r, size = utf8.DecodeRune(s.data[i:])
		case c == '\\':
			if r, size = unescape(s.data[i:]); size == 0 {
				s.pos = i
				s.fail("unknown escape")
				return nil
			}
		}
		if len(s.unescaped) <= maxUnescaped {
			s.unescaped = utf8.AppendRune(s.unescaped, r)
		}
		i += size
	}
	s.pos = len(s.data)
	s.fail("a quote is missing")
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
