package page

import (
	"html/template"
	"math"
	"strconv"
	"time"
)

// The script writes numbers and times in the same way: what it changes must not differ from what the server made.

// number has commas between thousands.
func number[T int64 | int](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// words is a length of time in its two largest units.
func words(seconds float64) string {
	s := int64(math.Floor(max(seconds, 0)))
	two := func(big int64, bigUnit string, small int64, smallUnit string) string {
		text := number(big) + " " + bigUnit
		if small > 0 {
			text += " " + number(small) + " " + smallUnit
		}
		return text
	}
	const minute, hour, day = 60, 3600, 86_400
	switch {
	case s < minute:
		return number(s) + " s"
	case s < hour:
		return two(s/minute, "min", s%minute, "s")
	case s < day:
		return two(s/hour, "h", s%hour/minute, "min")
	}
	return two(s/day, "d", s%day/hour, "h")
}

func counted(n int64, one, many string) string { return number(n) + " " + plural(int(n), one, many) }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// machineTime is for the attribute of a time element, and for the script.
func machineTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// The elements of times say in data-as how the script must go on writing them.

func agoElement(t any, now time.Time) template.HTML {
	at := moment(t)
	return timeElement(at, "ago", words(now.Sub(at).Seconds())+" ago")
}

func forElement(t any, now time.Time) template.HTML {
	at := moment(t)
	return timeElement(at, "for", words(now.Sub(at).Seconds()))
}

func clockElement(t any) template.HTML {
	at := moment(t)
	return timeElement(at, "clock", at.UTC().Format("Jan 2 15:04:05")+" UTC")
}

func moment(t any) time.Time {
	if pointer, ok := t.(*time.Time); ok {
		return *pointer
	}
	return t.(time.Time)
}

// timeElement has only letters, digits and signs of times in it.
func timeElement(t time.Time, as, text string) template.HTML {
	return template.HTML(`<time datetime="` + machineTime(t) + `" data-as="` + as + `">` + text + `</time>`) //nolint:gosec // nothing in it comes from outside
}
