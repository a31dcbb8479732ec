package lane

import "syscall"

// turn is one round of the loop. It looks at the clock once.
func (l *Lane) turn() {
	now := clock()
	io := l.engine.reap()
	n := l.readMail()
	n += l.fire(now)
	io += l.pollAll()
	l.nap.found(io)
	n += io
	if l.stopping {
		return
	}
	l.enter(now, n)
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

// enter ends a turn that began at now and handled n things: it submits what was queued and sleeps in the same system
// call if there is nothing left to look at, or goes straight on.
func (l *Lane) enter(now instant, n int) {
	switch {
	case l.engine.ready():
		l.engine.submit()
	case l.tenure.over(now) && l.busy():
		l.engine.submit()
		l.tenure.renew()
	case l.keepSpinning(now, n):
		l.engine.submit()
		if n == 0 {
			yield()
		}
	case !l.resting() && !l.armAll() || l.engine.ready() || !l.mail.sleep():
		l.engine.submit()
	default:
		l.sleep(now)
		l.mail.wake()
	}
}

// resting says that the Sources need not be armed before this sleep: it is a nap right after I/O, and nothing is left
// with the targets. Arming costs system calls that the next request would have to wait for. What a target sends of its
// own accord is found when the nap ends.
func (l *Lane) resting() bool { return l.nap.worthwhile() && !l.busy() }

// yield lets whoever waits for this CPU go first: it may be what the lane waits for.
func yield() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

func (l *Lane) sleep(now instant) {
	until := l.untilTimer(now)
	if !l.nap.worthwhile() {
		l.engine.wait(now, until)
		l.tenure.since = clock()
		return
	}
	l.engine.nap(now, min(until, l.nap.limit))
	l.nap.recent = false // unless the next turn finds something
}

// keepSpinning says, after a turn that handled n things, whether to look again instead of sleeping.
func (l *Lane) keepSpinning(now instant, n int) bool {
	return l.spins.answers.limit > 0 && l.spins.again(now, n, l.busy())
}
