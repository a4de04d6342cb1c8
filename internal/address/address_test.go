package address

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWithoutSecrets(t *testing.T) {
	for address, want := range map[string]string{
		"":                              "",
		"host:4318":                     "host:4318",
		"http://host/path#part":         "http://host/path#part",
		"u:SECRET@host:4318":            "xxxxx@host:4318",
		"https://u:SEC%zzRET@host":      "xxxxx@host",
		"u:SEC/RET@host":                "xxxxx@host",
		"u:SE@CRET@host":                "xxxxx@host",
		"host:4318?key=SECRET":          "host:4318?xxxxx",
		"host:4318?":                    "host:4318?",
		"u:SECRET@host?key=SECRET":      "xxxxx@host?xxxxx",
		"u:SE?CRET@host?key=SECRET":     "xxxxx",
		"http://host?mail=SECRET@else/": "xxxxx",
		"http://host?key=SEC@RET?more":  "xxxxx",
	} {
		assert.Equal(t, want, WithoutSecrets(address), address)
	}
}
