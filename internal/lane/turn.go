package lane

import "time"

// turn is one round of the loop.
func (l *Lane) turn() {
	n := l.reap()
	n += l.readMail()
	n += l.fire()
	n += l.pollAll()
	if l.stopping {
		return
	}
	l.enter(n)
}

func (l *Lane) readMail() int {
	if !l.mail.full.Load() {
		return 0
	}
	mail := l.mail.take()
	for i, f := range mail {
		mail[i] = nil
		f()
	}
	return len(mail)
}

// enter ends a turn that handled n things: it submits what was queued and sleeps in the same system call if there is
// nothing left to look at, or goes straight on.
func (l *Lane) enter(n int) {
	if l.ring.Ready() || l.keepSpinning(n) || !l.armAll() || l.ring.Ready() {
		l.submit()
		return
	}
	if !l.mail.sleep() {
		l.submit()
		return
	}
	must(l.ring.Wait(l.untilTimer()))
	l.mail.wake()
}

// submit enters the ring only if that changes anything: while spinning it mostly does not.
func (l *Lane) submit() {
	if l.ring.Pending() > 0 || l.ring.NeedsEnter() {
		must(l.ring.Submit())
	}
}

// keepSpinning says whether to look again instead of sleeping.
func (l *Lane) keepSpinning(n int) bool {
	if l.spin.limit == 0 || !l.busy() {
		l.spin.idle()
		return false
	}
	return l.spin.again(n > 0, time.Now())
}

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
