package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

func TestDoWaitsForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		start := time.Now()
		r.dm.onPoll = func() {
			if time.Since(start) >= time.Second && len(r.dm.sent) == 1 {
				r.good(r.mustSend(pdu.OpSCSICommand).itt())
			}
		}
		c := &newJob(NoData, 0).Command
		if err := Do(t.Context(), r.n, c); err != nil || c.Status != scsi.StatusGood || time.Since(start) < time.Second {
			t.Error(err)
		}
	})
}

func TestDoGivesTheNexusUpRatherThanTheBufferAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		drainedAt := time.Time{}
		start := time.Now()
		r.dm.onPoll = func() {
			if time.Since(start) > 1500*time.Millisecond {
				r.dm.drained, drainedAt = true, time.Now()
			}
		}
		c := &newJob(In, 512).Command
		err := Do(ctx, r.n, c)
		if !errors.Is(err, ErrTimeout) || c.Err != ErrNexusLost || drainedAt.IsZero() || r.dm.closed {
			t.Errorf("%v, %v, drained %v, closed %v", err, c.Err, drainedAt, r.dm.closed)
		}
	})
}

func TestDoClosesAConnectionThatDoesNotDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		c := &newJob(In, 512).Command
		err := Do(ctx, r.n, c)
		if err == nil || c.Err != ErrNexusLost || !r.dm.closed || time.Since(start) > time.Second+DrainTimeout+time.Second {
			t.Errorf("%v, %v, closed %v after %v", err, c.Err, r.dm.closed, time.Since(start))
		}
	})
}

func TestResetLogicalUnitWaitsForTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		code := pdu.TMComplete
		r.dm.onSend = func(m *message) { r.tmResponse(m.itt(), code) }
		if err := ResetLogicalUnit(t.Context(), r.n, scsi.LUN{0, 1}); err != nil {
			t.Error(err)
		}
		code = pdu.TMFunctionRejected
		var refused *TMFError
		if err := ResetLogicalUnit(t.Context(), r.n, scsi.LUN{0, 1}); !errors.As(err, &refused) {
			t.Error(err)
		}
		r.dm.onSend = nil
		r.n.params.NOPInterval = -1
		if err := ResetLogicalUnit(t.Context(), r.n, scsi.LUN{0, 1}); !errors.Is(err, ErrNexusLost) || !r.dm.aborted {
			t.Error(err)
		}
	})
}

func TestLogoutEndsInGoodOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.dm.onSend = func(m *message) { r.logoutResponse(m.itt(), pdu.LogoutClosed) }
		if err := Logout(t.Context(), r.n); err != nil || len(r.lost) > 0 {
			t.Error(err, r.lost)
		}
		if err := Logout(t.Context(), r.n); !errors.Is(err, ErrNexusLost) {
			t.Error(err)
		}
	})
}

// discovered runs a discovery whose answer is cut into parts.
func discovered(t *testing.T, parts ...string) (found []Portal, l *loginTarget, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l = newLoginTarget(t)
		l.dm.max = 0
		tag := pdu.ReservedITT
		l.dm.onSend = func(m *message) {
			l.onSend(m)
			switch m.opcode() {
			case pdu.OpTextRequest:
				req := pdu.TextRequest(m.bhs[:])
				if tag == pdu.ReservedITT {
					tag = req.ITT()
					if string(m.data) != "SendTargets=All\x00" || req.TTT() != pdu.ReservedTTT {
						t.Errorf("request %q", m.data)
					}
				} else if req.ITT() != tag || req.TTT() != 0x42 || len(m.data) > 0 {
					t.Errorf("continued % x", req)
				}
				f := pdu.TextResponseFields{Final: len(parts) == 1, Continue: len(parts) > 1, ITT: req.ITT(), TTT: pdu.ReservedTTT, StatSN: l.statSN, DataLen: len(parts[0])}
				if len(parts) > 1 {
					f.TTT = 0x42
				}
				l.statSN++
				l.dm.deliver(f, []byte(parts[0])...)
				parts = parts[1:]
			case pdu.OpLogoutRequest:
				l.dm.deliver(pdu.LogoutResponseFields{ITT: m.itt(), StatSN: l.statSN})
			}
		}
		found, err = Discover(t.Context(), l.dm, l.params())
	})
	return found, l, err
}

func TestDiscoveryListsEveryPortal(t *testing.T) {
	text := "TargetName=iqn.a:1\x00TargetAddress=10.0.0.1:3260,1\x00TargetAddress=[fd00::1]:3261,2\x00" +
		"TargetName=iqn.b:2\x00TargetName=iqn.c:3\x00TargetAddress=box.example\x00X-unknown=1\x00TargetAddress=[fe80::2],7\x00"
	want := []Portal{
		{"iqn.a:1", "10.0.0.1:3260", 1},
		{"iqn.a:1", "[fd00::1]:3261", 2},
		{"iqn.b:2", "", -1},
		{"iqn.c:3", "box.example:3260", -1},
		{"iqn.c:3", "[fe80::2]:3260", 7},
	}
	for _, parts := range [][]string{{text}, {text[:7], text[7:100], text[100:]}} {
		got, l, err := discovered(t, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		first, second := l.seen[0].text, l.seen[1].text
		if v, _ := first.Get("SessionType"); v != "Discovery" {
			t.Errorf("session type %s", v)
		}
		if _, named := first.Get("TargetName"); named {
			t.Error("a discovery of one target")
		}
		if v, _ := second.Get("MaxRecvDataSegmentLength"); v != "8192" || len(second) != 3 {
			t.Errorf("operational keys %v", second)
		}
		if !l.dm.aborted {
			t.Error("the connection is still up")
		}
	}
}

func TestNoTargetsAreNoError(t *testing.T) {
	if got, _, err := discovered(t, ""); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestALyingDiscoveryIsAnError(t *testing.T) {
	for _, text := range []string{
		"TargetAddress=10.0.0.1:3260,1\x00", "TargetName=\x00", "TargetName=a\x00TargetAddress=\x00",
		"TargetName=a\x00TargetAddress=10.0.0.1:3260,99999\x00", "TargetName=a\x00TargetAddress=a b\x00", "TargetName",
	} {
		if got, _, err := discovered(t, text); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestADiscoveryWithoutEndIsAnError(t *testing.T) {
	part := "X-1=" + string(make([]byte, 0)) + "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\x00"
	for len(part) < 8000 {
		part += part
	}
	parts := make([]string, 64)
	for i := range parts {
		parts[i] = part
	}
	if got, _, err := discovered(t, parts...); !errors.Is(err, ErrNexusLost) {
		t.Errorf("%d portals, %v", len(got), err)
	}
}
