package burrowreceiver

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// BenchmarkPassword is what basic authentication costs for each request, by the cost that htpasswd -C takes.
func BenchmarkPassword(b *testing.B) {
	for _, cost := range []int{5, 8, 10, 12} {
		hash, err := bcrypt.GenerateFromPassword([]byte("right horse"), cost)
		require.NoError(b, err)
		b.Run("cost-"+strconv.Itoa(cost), func(b *testing.B) {
			for b.Loop() {
				require.Error(b, bcrypt.CompareHashAndPassword(hash, []byte("wrong")))
			}
		})
	}
}
