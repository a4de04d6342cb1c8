// Package address prints addresses that people have written, also those that are none.
package address

import "strings"

// WithoutSecrets hides user, password and query of an address, which may be none that can be parsed: each can be, or hold, a secret.
func WithoutSecrets(address string) string {
	if i := strings.LastIndex(address, "@"); i >= 0 {
		address = "xxxxx" + address[i:]
	}
	if before, query, _ := strings.Cut(address, "?"); query != "" {
		address = before + "?xxxxx"
	}
	return address
}
