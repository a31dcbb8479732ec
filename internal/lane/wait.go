package lane

import (
	"context"
	"slices"
	"time"
)

// A spin pays while it is not many times as long as the waking up that it saves. That takes 20 us on one machine and 300
// on another, so the limits are counted in wake-ups.
const (
	answerWakeUps  = 32
	requestWakeUps = answerWakeUps / 2
	leastSpin      = 100 * time.Microsecond
	mostSpin       = 10 * time.Millisecond // what a disk takes
)

// spinLimit is the longest wait for an answer to spin for where waking up takes wakeUp.
func spinLimit(wakeUp time.Duration) time.Duration {
	return min(max(answerWakeUps*wakeUp, leastSpin), mostSpin)
}

// waking measures how long the lane takes to wake up, the median of a few times. It is called right after the start, when
// there is nothing to do.
func (l *Lane) waking() time.Duration {
	const times, rest = 9, 300 * time.Microsecond
	took := make([]time.Duration, times)
	for i := range took {
		time.Sleep(rest) // for it to fall asleep
		called := time.Now()
		_ = l.Do(context.Background(), func() { took[i] = time.Since(called) })
	}
	slices.Sort(took)
	return took[times/2]
}

// spins are the two kinds of wait that a lane may spin for.
type spins struct {
	answers  spinner // something is with a target
	requests spinner // nothing is, but I/O is going on
}

// limit sets the longest spin for answers, 0 for none.
func (s *spins) limit(d time.Duration) {
	s.answers.limit = d
	s.requests.limit = d * requestWakeUps / answerWakeUps
}

// again says, at the end of a turn that handled n things, whether to look once more. busy: something is with a target.
func (s *spins) again(t instant, n int, busy bool) bool {
	if n > 0 {
		s.answers.found(t)
		s.requests.found(t)
	}
	if busy {
		return s.answers.again(t)
	}
	s.answers.idle()
	return s.requests.again(t)
}

// spinner decides whether to look for one kind of event instead of sleeping. It learns from how long there is nothing to
// do until one comes, asleep or not: while that is within the limit, a spin is likely to end with one.
type spinner struct {
	limit time.Duration // the longest spin, 0 for never
	usual time.Duration // how long that was of late, a moving average
	since instant       // when the wait began that is on, else 0
}

const spinMemory = 8 // waits that the average speaks for

// found ends a wait at t.
func (s *spinner) found(t instant) {
	if s.since == 0 {
		return
	}
	s.usual += (min(t.sub(s.since), spinMemory*s.limit) - s.usual) / spinMemory
	s.since = 0
}

// again says, while such an event is awaited, whether to look once more at t.
func (s *spinner) again(t instant) bool {
	if s.since == 0 {
		s.since = t
	}
	return s.usual <= s.limit && t.sub(s.since) < s.limit
}

// idle forgets the wait: nothing of the kind can come any more.
func (s *spinner) idle() { s.since = 0 }

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
