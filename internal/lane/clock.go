package lane

import (
	"math"
	"time"
)

// instant is a point in time in nanoseconds, never 0. A lane looks at the clock and compares every turn: this takes half
// as long to read as a time.Time, and a number to compare.
type instant int64

var epoch = time.Now()

func clock() instant { return instant(time.Since(epoch)) + 1 }

// add is d after t, or the end of time.
func (t instant) add(d time.Duration) instant {
	if d > time.Duration(math.MaxInt64-t) {
		return math.MaxInt64
	}
	return t + instant(d)
}

func (t instant) sub(u instant) time.Duration { return time.Duration(t - u) }
