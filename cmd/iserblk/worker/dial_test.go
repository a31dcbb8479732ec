package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

var testPortal = netip.MustParseAddrPort("10.0.0.1:3260")

// newTestDialer dials a target in memory with one disk. change may be nil.
func newTestDialer(t *testing.T, o isertarget.Options, change func(*Spec)) (*dialer, *isertarget.Target) {
	t.Helper()
	network, target := verbstest.New(), isertarget.New(o)
	target.AddDisk(0, isertarget.DiskOptions{})
	if _, err := target.Listen(t.Context(), network, testPortal, 1); err != nil {
		t.Fatal(err)
	}
	arena, err := verbs.NewArena(shortArena)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close(); _ = arena.Close() })
	spec := Spec{
		Target: target.Name(), InitiatorName: "iqn.2026-11.local.test:i", Portals: []netip.AddrPort{testPortal},
	}
	if change != nil {
		change(&spec)
	}
	return newDialer(spec, network, arena, slog.New(slog.DiscardHandler)), target
}

// swallow loses the next n messages of a kind.
func swallow(op pdu.Opcode, n int32) isertarget.Hooks {
	var left atomic.Int32
	left.Store(n)
	return isertarget.Hooks{Message: func(m isertarget.Message) [][]byte {
		if m.Opcode() == op && left.Add(-1) >= 0 {
			return nil
		}
		return [][]byte{m.Bytes}
	}}
}

func visitNothing(context.Context, *session.Nexus, session.Buffer) error { return nil }

func TestALoginThatIsNotAnsweredIsRepeatedOnce(t *testing.T) {
	for lost, want := range map[int32]error{1: nil, 2: session.ErrTimeout} {
		d, target := newTestDialer(t, isertarget.Options{}, func(s *Spec) { s.Timeouts.Login = 200 * time.Millisecond })
		target.SetHooks(swallow(pdu.OpLoginResponse, lost))
		if err := d.visit(t.Context(), visitNothing); !errors.Is(err, want) {
			t.Errorf("%d answers lost: %v", lost, err)
		}
	}
}

// overtaken makes a target refuse the next n requests of a login's second stage, as tgt does when they come too early.
func overtaken(n int32) isertarget.Hooks {
	var left atomic.Int32
	left.Store(n)
	return isertarget.Hooks{Message: func(m isertarget.Message) [][]byte {
		r := pdu.LoginResponse(m.BHS())
		if m.Opcode() == pdu.OpLoginResponse && r.CSG() == pdu.StageOperational && left.Add(-1) >= 0 {
			pdu.LoginResponseFields{
				ITT: r.ITT(), Status: pdu.LoginInitiatorError, DataLen: m.BHS().DataSegmentLength(),
			}.Encode(r)
		}
		return [][]byte{m.Bytes}
	}}
}

func TestALoginThatOvertookTheTargetIsRepeated(t *testing.T) {
	for times, want := range map[int32]error{1: nil, moreLogins: nil, 1 + moreLogins: session.ErrOvertaken} {
		d, target := newTestDialer(t, isertarget.Options{}, nil)
		target.SetHooks(overtaken(times))
		if err := d.visit(t.Context(), visitNothing); !errors.Is(err, want) {
			t.Errorf("%d times, log in: %v", times, err)
		}
		target.SetHooks(overtaken(times))
		if _, err := d.targets(t.Context(), testPortal, d.params(pdu.ISID(d.spec.FreshISID()))); !errors.Is(err, want) {
			t.Errorf("%d times, discover: %v", times, err)
		}
	}
}

// switchable is a provider with one port.
type switchable struct {
	verbs.Provider
	up atomic.Bool
}

func (s *switchable) ActivePorts() []string {
	if s.up.Load() {
		return []string{"rxe0/1"}
	}
	return nil
}

func TestADialIsWorthATryWhenAPortHasComeUpSinceTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(switchable)
		l := &linkState{d: newDialer(Spec{}, p, nil, nil)}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		time.AfterFunc(time.Second, func() { p.up.Store(true) })
		begin := time.Now()
		l.await(ctx)
		if took := time.Since(begin); took < time.Second || took > time.Second+portPoll+portSettle {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAPortThatWasUpAtTheLastDialIsNoReasonForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(switchable)
		p.up.Store(true)
		l := &linkState{d: newDialer(Spec{}, p, nil, nil), ports: p.ActivePorts()}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		l.await(ctx)
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAPortThatWentDownAndUpSinceTheLastDialIsAReasonForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(switchable)
		p.up.Store(true)
		l := &linkState{d: newDialer(Spec{}, p, nil, nil), ports: p.ActivePorts()}
		p.up.Store(false) // while it dialled
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		time.AfterFunc(time.Second, func() { p.up.Store(true) })
		begin := time.Now()
		l.await(ctx)
		if took := time.Since(begin); took > time.Second+portPoll+portSettle {
			t.Errorf("it took %v", took)
		}
	})
}

var mutual = Credentials{User: "joe", Secret: "secret of joe's", TargetUser: "box", TargetSecret: "secret of the box's"}

func TestATargetThatWillNotProveItselfIsOneClearErrorHoweverItSaysSo(t *testing.T) {
	for name, hangsUp := range map[string]bool{"by a status": false, "by hanging up": true} {
		d, target := newTestDialer(t, isertarget.Options{}, func(s *Spec) { s.CHAP = mutual })
		var once atomic.Bool
		target.SetHooks(isertarget.Hooks{Message: func(m isertarget.Message) [][]byte {
			if !hangsUp || !once.CompareAndSwap(false, true) {
				return [][]byte{m.Bytes}
			}
			for _, p := range d.provider.(*verbstest.Net).At(testPortal).Peers() {
				p.Kill(verbs.StatusFlushed)
			}
			return nil
		}})
		begin := time.Now()
		err := d.visit(t.Context(), visitNothing)
		if !errors.Is(err, session.ErrUnproven) || ExitCode(err) != ExitAuth || hangsUp != strings.Contains(err.Error(), "it hung up") {
			t.Errorf("%s: %v, exit code %d", name, err, ExitCode(err))
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}
