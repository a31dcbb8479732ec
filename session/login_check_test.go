package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

func TestALoginResponseIsCheckedFieldByField(t *testing.T) {
	for _, c := range []struct {
		name   string
		step   int
		want   error
		tamper func(f *pdu.LoginResponseFields)
	}{
		{"another tag", 1, ErrUnknownTask, func(f *pdu.LoginResponseFields) { f.ITT++ }},
		{"another ISID", 1, ErrProtocol, func(f *pdu.LoginResponseFields) { f.ISID[5]++ }},
		{"another version", 1, ErrProtocol, func(f *pdu.LoginResponseFields) { f.VersionActive = 1 }},
		{"another stage", 1, ErrProtocol, func(f *pdu.LoginResponseFields) { f.CSG, f.Transit = pdu.StageOperational, false }},
		{"a transit too far", 1, ErrProtocol, func(f *pdu.LoginResponseFields) { f.NSG = pdu.StageFullFeature }},
		{"T and C at once", 1, ErrProtocol, func(f *pdu.LoginResponseFields) { f.Continue = true }},
		{"a StatSN out of line", 2, ErrStatSN, func(f *pdu.LoginResponseFields) { f.StatSN += 2 }},
		{"no TSIH", 2, ErrProtocol, func(f *pdu.LoginResponseFields) { f.TSIH = 0 }},
		{"the operational stage again", 2, ErrProtocol, func(f *pdu.LoginResponseFields) { f.CSG, f.NSG = pdu.StageSecurity, pdu.StageOperational }},
	} {
		t.Run(c.name, func(t *testing.T) {
			loginBed(t, func(t *testing.T, l *loginTarget) {
				l.tamper = func(step int, f *pdu.LoginResponseFields, text []byte) []byte {
					if step == c.step {
						c.tamper(f)
					}
					return text
				}
				if _, err := Login(t.Context(), l.dm, l.params()); !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
			})
		})
	}
}

func TestOtherPDUsDuringALoginAreNotTaken(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.dm.onSend = func(*message) { l.dm.deliver(pdu.SCSIResponseFields{ITT: loginTag}) }
		if _, err := Login(t.Context(), l.dm, l.params()); !errors.Is(err, ErrUnexpectedPDU) {
			t.Errorf("error %v", err)
		}
	})
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.dm.onSend = func(m *message) { l.onSend(m); l.dm.inbox = append(l.dm.inbox, l.dm.inbox...) }
		if _, err := Login(t.Context(), l.dm, l.params()); !errors.Is(err, ErrUnexpectedPDU) {
			t.Errorf("two answers to one request: %v", err)
		}
	})
}

func TestAPingRightBehindTheLoginIsNotLost(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.after = func() { l.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: 0x99, ExpCmdSN: 1, MaxCmdSN: 100}) }
		n, err := Login(t.Context(), l.dm, l.params())
		if err != nil {
			t.Fatal(err)
		}
		l.dm.takeSent()
		n.Poll()
		n.Flush()
		sent := l.dm.takeSent()
		if len(sent) != 1 || pdu.NOPOut(sent[0].bhs[:]).TTT() != 0x99 || n.maxCmdSN != 100 {
			t.Errorf("%d PDUs, MaxCmdSN %d", len(sent), n.maxCmdSN)
		}
	})
}

func TestALoginHasAnEnd(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.mute = true
		start := time.Now()
		_, err := Login(t.Context(), l.dm, l.params())
		if !errors.Is(err, ErrTimeout) || time.Since(start) > DefaultLoginTimeout+time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.mute = true
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errCable) })
		if _, err := Login(ctx, l.dm, l.params()); !errors.Is(err, errCable) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestATargetThatHangsUpIsExplained(t *testing.T) {
	for _, c := range []struct {
		name   string
		chap   bool
		step   int
		isAuth bool
		words  string
	}{
		{"at once", false, 0, false, "or want CHAP"},
		{"at the offer of CHAP", true, 0, false, "may not have this target"},
		{"at our choice of algorithms", true, 1, false, "cable"},
		{"at our response", true, 2, true, "hung up on our name and secret"},
		{"in the operational stage", false, 1, false, "cable"},
	} {
		loginBed(t, func(t *testing.T, l *loginTarget) {
			p := l.params()
			if c.chap {
				l.chapA, l.secret = chap.SHA256, ownSecret
				p.CHAP = credentials(ownSecret, "")
			}
			requests := 0
			l.dm.onSend = func(m *message) {
				if requests++; requests > c.step {
					l.dm.pollErr = errCable
					return
				}
				l.onSend(m)
			}
			_, err := Login(t.Context(), l.dm, p)
			if !errors.Is(err, errCable) || errors.Is(err, ErrAuth) != c.isAuth || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
}

func TestALongRequestGoesInParts(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		dm := l.dm
		p := l.params().withDefaults()
		li := &login{dm: dm, p: &p, neg: offered(&p)}
		text := pdu.AppendKey(nil, "InitiatorName", "x")
		for i := range 3 {
			text = pdu.AppendKey(text, fmt.Sprintf("X-%d", i), strings.Repeat("y", 7000))
		}
		if _, err := li.exchange(t.Context(), pdu.StageSecurity, true, text); err != nil {
			t.Fatal(err)
		}
		if len(dm.sent) != 3 || len(l.seen) != 1 || len(l.seen[0].text) != 4 {
			t.Fatalf("%d requests", len(dm.sent))
		}
		for i := range dm.sent {
			r := pdu.LoginRequest(dm.sent[i].bhs[:])
			if r.Continue() != (i < 2) || r.Transit() != (i == 2) {
				t.Errorf("request %d: C %v, T %v", i, r.Continue(), r.Transit())
			}
		}
	})
}

func TestParametersThatCannotBeSentAreRefused(t *testing.T) {
	for name, change := range map[string]func(p *Params){
		"no initiator name":           func(p *Params) { p.InitiatorName = "" },
		"no target name":              func(p *Params) { p.TargetName = "" },
		"a long name":                 func(p *Params) { p.TargetName = strings.Repeat("x", 224) },
		"a key in a name":             func(p *Params) { p.InitiatorName = "x\x00TargetName=y" },
		"a first burst of nothing":    func(p *Params) { p.FirstBurst = 1 },
		"a maximum beyond 24 bits":    func(p *Params) { p.MaxBurst = 1 << 24 },
		"a first burst above the max": func(p *Params) { p.FirstBurst, p.MaxBurst = 8192, 4096 },
	} {
		l := newLoginTarget(t)
		p := l.params()
		change(&p)
		if _, err := Login(t.Context(), l.dm, p); err == nil || len(l.dm.sent) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
