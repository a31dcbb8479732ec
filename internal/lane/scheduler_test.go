package lane

import (
	"testing"
	"time"
)

// renewals is how often the lane gives its processor up in d, while its only Source is busy or not, and how often there was
// time for that.
func renewals(t *testing.T, opt Options, busy bool, d time.Duration) (n, most int) {
	t.Helper()
	l := startLane(t, opt)
	s := newSource(t)
	s.busy.Store(busy)
	on(t, l, func() { l.Add(s); l.tenure.since = clock() })
	start := time.Now()
	for end := start.Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.work(t)
	}
	s.busy.Store(false)
	on(t, l, func() { n = l.tenure.renewed; l.Remove(s) })
	return n, int(time.Since(start)/slice) + 1
}

func TestALaneThatIsBusyForLongGivesItsProcessorUpByItself(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		for name, opt := range map[string]Options{"spinning": spinning(opt, 10*time.Second), "napping": spinning(opt, -1)} {
			if n, most := renewals(t, opt, true, 40*slice); n < 2 || n > most {
				t.Errorf("%s: given up %d times in %d slices", name, n, most)
			}
		}
	})
}

func TestALaneThatWaitsForNobodyKeepsItsProcessor(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		if n, _ := renewals(t, opt, false, 10*slice); n != 0 {
			t.Errorf("given up %d times", n)
		}
	})
}
