package lane

import (
	"runtime"
	"sync"
	"time"
)

// spinner decides whether to look for answers instead of sleeping. It learns from how long there is nothing to do while
// some are awaited, asleep or not: while that is within the limit, a spin is likely to end with one.
type spinner struct {
	limit time.Duration // the longest spin, 0 for never
	usual time.Duration // how long that was of late, a moving average
	since time.Time     // when the wait began that is on, else zero
}

const spinMemory = 8 // waits that the average speaks for

// found ends a wait at t.
func (s *spinner) found(t time.Time) {
	if s.since.IsZero() {
		return
	}
	s.usual += (min(t.Sub(s.since), spinMemory*s.limit) - s.usual) / spinMemory
	s.since = time.Time{}
}

// again says, while answers are awaited, whether to look once more at t.
func (s *spinner) again(t time.Time) bool {
	if s.since.IsZero() {
		s.since = t
	}
	return s.usual <= s.limit && t.Sub(s.since) < s.limit
}

// idle forgets the wait: nothing is with a target any more.
func (s *spinner) idle() { s.since = time.Time{} }

// defaultNap is far above what I/O takes, also on slow machines: the scheduler's monitor, which takes the processor away
// from whoever sleeps officially, costs more than the sleep. A garbage collection ends a nap by its signal.
const defaultNap = 10 * time.Millisecond

// napper decides whether the next sleep is a nap: after I/O, until one nap has ended in vain. Timers and messages alone
// do not count, so an idle lane costs no more than they do.
type napper struct {
	limit  time.Duration // the longest, 0 for never
	recent bool          // I/O was handled since the last nap
}

func (n *napper) found(io int) { n.recent = n.recent || io > 0 }

func (n *napper) worthwhile() bool { return n.limit > 0 && n.recent }

// reserved counts the running lanes that may take a processor of the Go scheduler for themselves.
var reserved struct {
	sync.Mutex
	lanes int
}

// reserveProcessor has the scheduler keep two processors beyond those that lanes hold while they spin or nap, so that
// control work never waits for them.
func reserveProcessor() {
	reserved.Lock()
	defer reserved.Unlock()
	reserved.lanes++
	if want := reserved.lanes + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

// returnProcessor ends that for one lane. The processors stay: unused ones cost nothing.
func returnProcessor() {
	reserved.Lock()
	defer reserved.Unlock()
	reserved.lanes--
}
