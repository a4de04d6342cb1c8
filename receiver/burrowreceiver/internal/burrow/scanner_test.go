package burrow

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each text of testdata/grammar.txt alone, in a list, as a value that is not used and in the place of one that is.
func TestGrammar(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "grammar.txt"))
	require.NoError(t, err)
	cases := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		require.Len(t, fields, 3, line)
		valid, quoted := fields[0] == "y", fields[2]
		body, err := strconv.Unquote(quoted)
		require.NoError(t, err, line)
		cases[fields[0]]++
		assert.Equal(t, valid, isJSON(body), "%s: %s", fields[1], quoted)
		assert.Equal(t, valid, json.Valid([]byte(body)), "encoding/json on %s", quoted)
		for _, around := range []string{
			"[@]", "[0,@]", "[@,0]", `{"a":@}`, `{"a":0,"b":@}`, `{"Event":@}`, `{"Result":@}`, `{"ID":@}`, `{"Start":@}`, `{"cluster":@}`,
			`{"totallag":@}`, `{"complete":@}`, `{"maxlag":@}`, `{"maxlag":{"end":@}}`, `{"maxlag":{"end":{"offset":@}}}`, `{"status":@}`,
		} {
			within := strings.ReplaceAll(around, "@", body)
			assert.Equal(t, json.Valid([]byte(within)), isJSON(within), "%q", within)
		}
	}
	assert.Greater(t, cases["y"], 100)
	assert.Greater(t, cases["n"], 200)
}

// isJSON says what Decode thinks of the syntax, whatever the fields are.
func isJSON(body string) bool {
	_, err := Decode([]byte(body))
	var syntax *SyntaxError
	return !errors.As(err, &syntax)
}

func TestDepth(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	assert.True(t, isJSON(nested(maxDepth)))
	assert.False(t, isJSON(nested(maxDepth+1)))
	assert.False(t, isJSON(strings.Repeat("[", 1<<20)))
	assert.False(t, isJSON(strings.Repeat(`{"":`, 1<<20)))
}
