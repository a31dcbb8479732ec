package worker

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs/verbstest"
)

var otherPortal = netip.MustParseAddrPort("10.0.1.1:3260")

// newTestEngine is an engine without lanes and devices, at a target with two portals, each a group of its own.
func newTestEngine(t *testing.T, vendor, keep string) (*engine, *isertarget.Target) {
	t.Helper()
	d, target := newTestDialer(t, isertarget.Options{Vendor: vendor, EarlyReinstatement: vendor != "LIO-ORG"}, func(s *Spec) {
		s.KeepDir, s.Queues, s.Portals = keep, 2, []netip.AddrPort{testPortal, otherPortal}
	})
	if _, err := target.Listen(t.Context(), d.provider.(*verbstest.Net), otherPortal, 2); err != nil {
		t.Fatal(err)
	}
	return &engine{spec: d.spec, target: d, log: d.log}, target
}

// die leaves what a worker with that many queues leaves when it is killed: sessions in both groups.
func die(t *testing.T, e *engine, queues int) {
	t.Helper()
	e.spec.Queues = queues
	if err := e.ledger().write(e.spec.ledgerFile()); err != nil {
		t.Fatal(err)
	}
	for _, s := range e.ledger().Sessions {
		_, n, err := e.target.as(e.spec.InitiatorName, s.Portal).login(t.Context(), pdu.ISID(s.ISID))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Abandon() })
	}
}

// resets fences LUN 0 as an attach does, and counts the LOGICAL UNIT RESETs.
func resets(t *testing.T, e *engine, target *isertarget.Target) (n int) {
	t.Helper()
	target.ResetLog()
	err := e.target.visit(t.Context(), func(ctx context.Context, n *session.Nexus, scratch session.Buffer) error {
		lu, err := session.Probe(ctx, n, scsi.LUN{}, scratch)
		if err != nil {
			return err
		}
		return e.fence(ctx, n, []session.LogicalUnit{lu})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range target.Log() {
		if r.Op == pdu.OpTMFRequest && r.Task.Function == pdu.TMLogicalUnitReset {
			n++
		}
	}
	return n
}

func TestEverySessionOfADeadWorkerIsEndedAlsoThoseThatNobodyNeedsAnyMore(t *testing.T) {
	keep := t.TempDir()
	e, target := newTestEngine(t, "LIO-ORG", keep)
	die(t, e, 3)
	if n := target.Sessions(); n != 6 {
		t.Fatalf("%d sessions, want 3 by each portal", n)
	}
	e.spec.Queues = 1
	if err := e.endPast(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := target.Sessions(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	if n := resets(t, e, target); n != 0 {
		t.Errorf("%d resets where the logins are the fence", n)
	}
	if l, err := readLedger(e.spec.ledgerFile()); err != nil || len(l.Sessions) != 2 {
		t.Errorf("%+v, %v: want the one ISID by two portals", l, err)
	}
}

func TestWhatCannotBeEndedIsFencedByAResetAndRemembered(t *testing.T) {
	e, target := newTestEngine(t, "LIO-ORG", t.TempDir())
	die(t, e, 2)
	for _, p := range target.Portals() {
		if p.Addr() == otherPortal {
			p.Down()
		}
	}
	if err := e.endPast(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := resets(t, e, target); n != 1 {
		t.Errorf("%d resets", n)
	}
	e.settle(true)
	if l, _ := readLedger(e.spec.ledgerFile()); len(l.Sessions) != 2 || l.Sessions[0].Portal != otherPortal {
		t.Errorf("after a clean end %+v is remembered", l)
	}
}

func TestAUnitIsResetOnceAfterAnUncleanEndAndNeverAfterACleanOne(t *testing.T) {
	e, target := newTestEngine(t, "IET", t.TempDir())
	begin := func() {
		t.Helper()
		if err := e.endPast(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	if n := resets(t, e, target); n != 0 {
		t.Errorf("%d resets at the first attach of all", n)
	}
	e.settle(true)
	if _, err := os.Stat(e.spec.ledgerFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a clean end: %v", err)
	}
	begin()
	if n := resets(t, e, target); n != 0 {
		t.Errorf("%d resets after a clean end", n)
	}
	e.settle(false)
	begin()
	if first, second := resets(t, e, target), resets(t, e, target); first != 1 || second != 0 {
		t.Errorf("%d and %d resets after an unclean end", first, second)
	}
	e.suspect(0)
	e.settle(true)
	begin()
	if n := resets(t, e, target); n != 1 {
		t.Errorf("%d resets after a worker that had detached by force", n)
	}
	e.suspect(0)
	if n := resets(t, e, target); n != 1 {
		t.Errorf("%d resets after a detach by force", n)
	}
}

func TestALedgerThatMakesNoSenseCountsAsAnUncleanEnd(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":7}`, `{"version":1,"sessions":[{"isid":"80","portal":"x"}]}`} {
		e, target := newTestEngine(t, "LIO-ORG", t.TempDir())
		if err := os.WriteFile(e.spec.ledgerFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.endPast(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := resets(t, e, target); n != 1 {
			t.Errorf("%q: %d resets", text, n)
		}
	}
}

func TestAUnitWhoseWorkerCertainlyDiedIsFencedWhateverTheLedgerSays(t *testing.T) {
	for _, noted := range []bool{true, false} {
		e, target := newTestEngine(t, "LIO-ORG", t.TempDir())
		if noted {
			die(t, e, 2)
		}
		if err := e.endPast(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.bereft(0)
		want := 1
		if noted {
			want = 0 // the logins were the fence
		}
		if n := resets(t, e, target); n != want {
			t.Errorf("noted %v: %d resets", noted, n)
		}
	}
}

func TestTheEndOfAnAttachEndsTheLookAtThePast(t *testing.T) {
	e, target := newTestEngine(t, "LIO-ORG", t.TempDir())
	die(t, e, 2)
	target.SetHooks(swallow(pdu.OpLoginResponse, 1<<30))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := e.endPast(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	e.settle(true)
	if l, err := readLedger(e.spec.ledgerFile()); err != nil || len(l.Sessions) != 4 {
		t.Errorf("%+v, %v", l, err)
	}
}
