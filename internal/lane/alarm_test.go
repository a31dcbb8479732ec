package lane

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm is an alarm on a lane that does not run, and how many timeouts it asked for.
func newAlarm(t *testing.T) (a *alarm, l *Lane, asked func() uint32) {
	t.Helper()
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return &alarm{data: napsData}, l, l.ring.Pending
}

func TestAnAlarmStaysSetOverManySleeps(t *testing.T) {
	a, l, asked := newAlarm(t)
	now := clock()
	for i := range 10 {
		a.within(l, now.add(time.Duration(i)*time.Millisecond), 10*time.Millisecond)
	}
	if n := asked(); n != 1 || a.when != now.add(10*time.Millisecond) {
		t.Errorf("%d timeouts for ten sleeps, the alarm rings after %v", n, a.when.sub(now))
	}
	if a.within(l, now, forever); asked() != 1 {
		t.Error("a sleep without end set an alarm")
	}
}

func TestAnAlarmIsSetAnewForAnEarlierTime(t *testing.T) {
	a, l, asked := newAlarm(t)
	now := clock()
	a.within(l, now, time.Hour)
	a.within(l, now, time.Minute)
	if n := asked(); n != 2 || a.when != now.add(time.Minute) {
		t.Errorf("%d timeouts, the alarm rings after %v", n, a.when.sub(now))
	}
}

func TestWhatRingsInVainLeavesTheAlarmSet(t *testing.T) {
	a, l, asked := newAlarm(t)
	now := clock()
	a.within(l, now, time.Hour)
	a.rang(-int32(unix.ETIME)) // an earlier setting
	if a.within(l, now, time.Hour); asked() != 1 {
		t.Error("it was set twice")
	}
	a.when = now
	a.rang(-int32(unix.ETIME))
	if a.within(l, now, time.Hour); asked() != 2 {
		t.Error("it was not set again after it had rung")
	}
}

func TestAnAlarmThatTheKernelDidNotTakeIsSetAgain(t *testing.T) {
	a, l, asked := newAlarm(t)
	now := clock()
	a.within(l, now, time.Hour)
	a.rang(-int32(unix.ENOMEM))
	if a.within(l, now, time.Hour); asked() != 2 {
		t.Error("nothing would end the sleep")
	}
}

func TestATimerForTheEndOfTimeIsNotDue(t *testing.T) {
	_, l, _ := newAlarm(t)
	l.AfterFunc(forever, func() { t.Error("it fired") })
	now := clock()
	if l.fire(now); l.untilTimer(now) < 24*time.Hour {
		t.Errorf("it is due in %v", l.untilTimer(now))
	}
}

func TestATimeThatHasPassedRingsAtOnce(t *testing.T) {
	a, l, _ := newAlarm(t)
	if a.within(l, clock(), -time.Second); a.ts.Sec != 0 || a.ts.Nsec != 0 {
		t.Errorf("timeout %+v", a.ts)
	}
}
