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
	l.sleep()
	l.mail.wake()
}

func (l *Lane) sleep() {
	until := l.untilTimer()
	if !l.nap.worthwhile() {
		must(l.ring.Wait(until))
		return
	}
	must(l.ring.Nap(min(until, l.nap.limit)))
	l.nap.learn(l.ring.Ready())
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
