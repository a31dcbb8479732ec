package multipath_test

import (
	"errors"
	"testing"

	"iserblk/session/multipath"
)

// A nexus may die between its last answer and the handover, when nobody listens for its loss.
func TestANexusThatDiedBeforeTheHandoverIsNotPutInCharge(t *testing.T) {
	b := newBed(t, setting{})
	b.unit.Fail() // so that nothing is asked of the new nexus before the handover
	links := 0
	meet := func(l *multipath.Link) {
		if links++; links == 1 {
			l.Nexus.ConnectionLost(errors.New("died unnoticed"))
		}
	}
	b.meet.Store(&meet)
	b.cut()
	b.eventually("a living session", func() bool {
		return b.path.Status().State == multipath.StateUp && b.target.Sessions() == 1 && b.path.Status().Losses == 1
	})
	if links != 2 {
		t.Fatalf("%d links", links)
	}
}
