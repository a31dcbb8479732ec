package lane

import (
	"runtime"
	"sync"
	"time"
)

// spinner bounds the time of looking without sleeping, and learns: a spin that ends in vain halves the next, one
// that finds something doubles it.
type spinner struct {
	limit time.Duration // the most, 0 for never
	now   time.Duration // the present bound
	until time.Time     // end of the spin that is on, else zero
	naps  int           // sleeps since the bound fell to zero
}

const (
	shortSpin  = time.Microsecond // a bound below this is none
	tryEvery   = 64               // sleeps after which a spinner that gave up tries again
	tryShare   = 8                // with this part of the limit
	spinFactor = 2
)

// idle ends a spin without a lesson.
func (s *spinner) idle() { s.until = time.Time{} }

// again starts or continues a spin; found says that the turn handled something.
func (s *spinner) again(found bool, t time.Time) bool {
	switch {
	case found && !s.until.IsZero():
		s.now = min(s.now*spinFactor, s.limit)
		s.until = t.Add(s.now)
	case s.until.IsZero():
		return s.begin(t)
	case t.After(s.until):
		s.giveUp()
		return false
	}
	return true
}

func (s *spinner) begin(t time.Time) bool {
	if s.now == 0 {
		if s.naps++; s.naps < tryEvery {
			return false
		}
		s.naps, s.now = 0, max(s.limit/tryShare, shortSpin)
	}
	s.until = t.Add(s.now)
	return true
}

func (s *spinner) giveUp() {
	s.until = time.Time{}
	if s.now /= spinFactor; s.now < shortSpin {
		s.now = 0
	}
}

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
