// Package address prints addresses that people have written, also those that are none.
package address

import "strings"

// WithoutSecrets hides user, password and query of an address, which may be none that can be parsed: each can be, or hold, a secret.
func WithoutSecrets(address string) string {
	before, query, found := strings.Cut(address, "?")
	if strings.Contains(query, "@") {
		return "xxxxx" // of a password with a ? in it, or of a query with an @ in it
	}
	if at := strings.LastIndex(before, "@"); at >= 0 {
		before = "xxxxx" + before[at:]
	}
	switch {
	case query != "":
		return before + "?xxxxx"
	case found:
		return before + "?"
	}
	return before
}
