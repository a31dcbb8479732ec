package lane

import "time"

// turn is one round of the loop.
func (l *Lane) turn() {
	io := l.engine.reap()
	n := l.readMail()
	n += l.fire()
	io += l.pollAll()
	l.nap.found(io)
	n += io
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
	if l.engine.ready() || l.keepSpinning(n) || !l.armAll() || l.engine.ready() || !l.mail.sleep() {
		l.engine.submit()
		return
	}
	l.sleep()
	l.mail.wake()
}

func (l *Lane) sleep() {
	until := l.untilTimer()
	if !l.nap.worthwhile() {
		l.engine.wait(until)
		return
	}
	l.engine.nap(min(until, l.nap.limit))
	l.nap.recent = false // unless the next turn finds something
}

// keepSpinning says whether to look again instead of sleeping.
func (l *Lane) keepSpinning(n int) bool {
	if l.spin.limit == 0 || !l.busy() {
		l.spin.idle()
		return false
	}
	return l.spin.again(n > 0, time.Now())
}
