package worker

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"iserblk/iser/isertarget"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

// twoPortals are a dialer of a target with two portals, and these, the first first.
func twoPortals(t *testing.T) (*dialer, *isertarget.Target, [2]*verbstest.Listener) {
	t.Helper()
	e, target := newTestEngine(t, "LIO-ORG", "")
	network := e.target.provider.(*verbstest.Net)
	return e.target, target, [2]*verbstest.Listener{network.At(testPortal), network.At(otherPortal)}
}

// enter logs in and says by which portal, and in what time.
func enter(t *testing.T, d *dialer) (netip.AddrPort, time.Duration) {
	t.Helper()
	begin := time.Now()
	c, n, err := d.login(t.Context(), pdu.ISID(d.spec.FreshISID()))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	if err := n.Abandon(); err != nil {
		t.Error(err)
	}
	return c.Info().Remote, took
}

func TestAPortalThatIsSilentHoldsTheNextUpForAMomentOnly(t *testing.T) {
	d, target, portals := twoPortals(t)
	portals[0].SetSilent(true)
	if portal, took := enter(t, d); portal != otherPortal || took < headStart || took > headStart+2*time.Second {
		t.Errorf("in by %v after %v", portal, took)
	}
	if portal, took := enter(t, d); portal != otherPortal || took > headStart {
		t.Errorf("the next time in by %v after %v: the last good one comes first", portal, took)
	}
	if n := len(target.Conns()); n > 1 { // the last may not be gone yet
		t.Errorf("%d connections left", n)
	}
}

func TestAPortalThatAnswersIsTheOnlyOneThatIsAsked(t *testing.T) {
	d, _, portals := twoPortals(t)
	portals[1].SetReject(8)
	if portal, _ := enter(t, d); portal != testPortal {
		t.Errorf("in by %v", portal)
	}
}

func TestAPortalThatLetsNobodyInIsFollowedByTheNext(t *testing.T) {
	d, target, _ := twoPortals(t)
	target.SetHooks(isertarget.Hooks{Login: func(l isertarget.Login) pdu.LoginStatus {
		if l.Portal == testPortal.String() {
			return pdu.LoginOutOfResources
		}
		return pdu.LoginSuccess
	}})
	if portal, _ := enter(t, d); portal != otherPortal {
		t.Errorf("in by %v", portal)
	}
}

func TestWhenNoPortalAnswersEachSaysWhy(t *testing.T) {
	d, _, portals := twoPortals(t)
	portals[0].SetReject(8)
	portals[1].SetReject(28)
	_, _, err := d.login(t.Context(), pdu.ISID(d.spec.FreshISID()))
	var all portalErrors
	if !errors.Is(err, verbs.ErrRejected) || !errors.As(err, &all) || len(all) != 2 {
		t.Errorf("%v", err)
	}
}
