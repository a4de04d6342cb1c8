package burrow

import (
	"errors"
	"sync/atomic"
)

// ErrBusy means that everything under way together holds as much memory as it may.
var ErrBusy = errors.New("requests under way hold too many bytes")

// Budget bounds the memory that all requests under way hold together: bodies, and what is made of them. The zero
// value has nothing to give.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// smallShare is what a request can hold when large ones have taken what they may. They leave a quarter of the budget
// to the small ones, as a notification nearly always is.
const smallShare = 64 << 10

// NewBudget gives out up to limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used is what is held at this moment.
func (b *Budget) Used() int64 { return b.used.Load() }

// Share is what one request holds. It is used by one goroutine at a time.
type Share struct {
	budget *Budget
	held   int64
}

// Share begins with nothing.
func (b *Budget) Share() Share { return Share{budget: b} }

// Take says whether n bytes more may be held. It must be asked before the memory is taken. A refusal changes nothing.
func (s *Share) Take(n int) bool {
	limit := s.budget.limit
	if s.held+int64(n) > smallShare {
		limit -= limit / 4
	}
	// Nothing is added that does not fit, not even for a moment: a small request would be refused for it.
	for {
		used := s.budget.used.Load()
		if used+int64(n) > limit {
			return false
		}
		if s.budget.used.CompareAndSwap(used, used+int64(n)) {
			s.held += int64(n)
			return true
		}
	}
}

// Return gives n bytes back.
func (s *Share) Return(n int) {
	s.held -= int64(n)
	s.budget.used.Add(-int64(n))
}

// Release gives everything back.
func (s *Share) Release() { s.Return(int(s.held)) }
