package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

// loginBed runs f with a target in a bubble of its own time.
func loginBed(t *testing.T, f func(t *testing.T, l *loginTarget)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newLoginTarget(t)) })
}

func TestALoginWithoutAuthentication(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		n, err := Login(t.Context(), l.dm, l.params())
		if err != nil {
			t.Fatal(err)
		}
		g := n.Negotiated()
		if !g.ImmediateData || g.FirstBurstLength != DefaultFirstBurst || g.TargetRecvDataSegmentLength != 8192 ||
			g.MaxBurstLength != DefaultMaxBurst || g.TSIH != 9 || g.TargetPortalGroupTag != 3 || g.TargetAlias != "box" || g.Algorithm != 0 {
			t.Errorf("negotiated %+v", g)
		}
		if len(l.seen) != 2 {
			t.Fatalf("%d requests", len(l.seen))
		}
		first, second := l.seen[0], l.seen[1]
		for key, want := range map[string]string{
			"InitiatorName": "iqn.2026-01.test:i", "TargetName": "iqn.2026-01.test:t", "SessionType": "Normal", "AuthMethod": "None",
		} {
			if got, _ := first.text.Get(key); got != want {
				t.Errorf("%s=%s, want %s", key, got, want)
			}
		}
		for key, want := range map[string]string{
			"HeaderDigest": "None", "DataDigest": "None", "RDMAExtensions": "Yes", "InitiatorRecvDataSegmentLength": "8192",
			"TargetRecvDataSegmentLength": "8192", "InitialR2T": "Yes", "ImmediateData": "Yes", "ErrorRecoveryLevel": "0", "MaxConnections": "1",
		} {
			if got, _ := second.text.Get(key); got != want {
				t.Errorf("%s=%s, want %s", key, got, want)
			}
		}
		if _, ok := second.text.Get("MaxRecvDataSegmentLength"); ok {
			t.Error("MaxRecvDataSegmentLength in a normal session")
		}
		if !first.req.Transit() || first.req.NSG() != pdu.StageOperational || first.req.TSIH() != 0 || first.req.ISID() != l.params().ISID ||
			!second.req.Transit() || second.req.NSG() != pdu.StageFullFeature || second.req.ExpStatSN() != 0 {
			t.Errorf("requests % x and % x", first.req, second.req)
		}
		// The session goes on where the login ended.
		j := newJob(NoData, 0)
		n.Submit(&j.Command)
		n.Flush()
		c := pdu.SCSICommand(l.dm.sent[2].bhs[:])
		if c.CmdSN() != first.req.CmdSN() || c.ExpStatSN() != l.statSN || n.maxCmdSN != first.req.CmdSN()+31 {
			t.Errorf("first command % x", c)
		}
	})
}

func credentials(own, target string) chap.Config {
	c := chap.Config{Own: chap.Credentials{Name: "me", Secret: chap.NewSecret([]byte(own))}}
	if target != "" {
		c.Target = chap.Credentials{Name: "box", Secret: chap.NewSecret([]byte(target))}
	}
	return c
}

const (
	ownSecret    = "initiator-secret"
	targetSecret = "secret-of-target"
)

func TestCHAPLogins(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(l *loginTarget, p *Params)
		want   error // nil: success
		words  string
	}{
		{"one-way", func(*loginTarget, *Params) {}, nil, ""},
		{"one-way, MD5", func(l *loginTarget, p *Params) { l.chapA, p.CHAP.Algorithms = chap.MD5, []chap.Algorithm{chap.MD5} }, nil, ""},
		{"mutual", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.own = chap.Credentials{Name: "box", Secret: chap.NewSecret([]byte(targetSecret))}
		}, nil, ""},
		{"the target wants none", func(l *loginTarget, _ *Params) { l.chapA = 0 }, nil, ""},
		{"wrong secret", func(_ *loginTarget, p *Params) { p.CHAP = credentials("another secret", "") }, ErrAuth, "authentication failure"},
		{"the target wants it and we have none", func(_ *loginTarget, p *Params) { p.CHAP = chap.Config{} }, ErrAuth, "CHAP"},
		{"mutual, and the target wants none", func(l *loginTarget, p *Params) {
			l.chapA, p.CHAP = 0, credentials(ownSecret, targetSecret)
		}, ErrUnproven, "mutual CHAP"},
		{"mutual, and the target calls it our error", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.tamper = func(_ int, f *pdu.LoginResponseFields, _ []byte) []byte {
				f.Status = pdu.LoginInitiatorError
				return nil
			}
		}, ErrUnproven, "02/00"},
		{"mutual, and the target refuses before it asks", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.tamper = func(step int, f *pdu.LoginResponseFields, text []byte) []byte {
				if step == 2 {
					f.Status = pdu.LoginAuthenticationFailure
					return nil
				}
				return text
			}
		}, ErrUnproven, "02/01"},
		{"mutual, and the target hangs up instead of asking", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.tamper = func(step int, _ *pdu.LoginResponseFields, text []byte) []byte {
				if step == 1 {
					l.dm.onSend = func(*message) { l.dm.pollErr = errCable }
				}
				return text
			}
		}, ErrUnproven, "hung up"},
		{"mutual, and our secret is wrong", func(_ *loginTarget, p *Params) {
			p.CHAP = credentials("another secret", targetSecret)
		}, ErrAuth, "authentication failure"},
		{"mutual, and the target has another secret", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.own = chap.Credentials{Name: "box", Secret: chap.NewSecret([]byte("not the right one"))}
		}, chap.ErrNotAuthentic, "authentication failed"},
		{"mutual, and the target has another name", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.own = chap.Credentials{Name: "fox", Secret: chap.NewSecret([]byte(targetSecret))}
		}, chap.ErrNotAuthentic, ""},
		{"mutual, and the target leaves it out", func(l *loginTarget, p *Params) {
			p.CHAP = credentials(ownSecret, targetSecret)
			l.tamper = func(step int, _ *pdu.LoginResponseFields, text []byte) []byte {
				if step == 3 {
					return nil
				}
				return text
			}
		}, ErrAuth, "missing"},
		{"the target skips the exchange", func(l *loginTarget, _ *Params) {
			l.tamper = func(step int, f *pdu.LoginResponseFields, text []byte) []byte { f.Transit = true; return text }
		}, ErrProtocol, "transit"},
		{"an algorithm that was not offered", func(l *loginTarget, p *Params) {
			l.chapA, p.CHAP.Algorithms = chap.MD5, []chap.Algorithm{chap.SHA256}
		}, chap.ErrAlgorithm, ""},
		{"secrets that are the same both ways", func(_ *loginTarget, p *Params) { p.CHAP = credentials(ownSecret, ownSecret) }, chap.ErrConfig, ""},
		{"mutual without credentials of our own", func(_ *loginTarget, p *Params) { p.CHAP.Own = chap.Credentials{}; p.CHAP.Target.Name = "x" }, ErrAuth, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			loginBed(t, func(t *testing.T, l *loginTarget) {
				p := l.params()
				p.CHAP = credentials(ownSecret, "")
				l.chapA, l.secret = chap.SHA256, ownSecret
				c.change(l, &p)
				n, err := Login(t.Context(), l.dm, p)
				if c.want == nil {
					if err != nil {
						t.Fatal(err)
					}
					if n.Negotiated().Algorithm != l.chapA {
						t.Errorf("algorithm %v", n.Negotiated().Algorithm)
					}
					return
				}
				if errors.Is(err, ErrUnproven) && !errors.Is(c.want, ErrUnproven) {
					t.Errorf("the target began with CHAP: %v", err)
				}
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
					t.Fatalf("error %v, want %v", err, c.want)
				}
				if s := fmt.Sprintf("%v %+v %#v %v", err, p, p, p); strings.Contains(s, "secret-") || strings.Contains(s, "-secret") {
					t.Errorf("a secret shows in %s", s)
				}
			})
		})
	}
}

func TestRefusedLoginsAreToldApart(t *testing.T) {
	for _, c := range []struct {
		status pdu.LoginStatus
		want   error
		words  string
	}{
		{pdu.LoginInitiatorError, nil, "02/00"},
		{pdu.LoginAuthenticationFailure, ErrAuth, "02/01"},
		{pdu.LoginAuthorizationFailure, ErrForbidden, "02/02"},
		{pdu.LoginNotFound, ErrTargetNotFound, "target not found"},
		{pdu.LoginTargetRemoved, ErrTargetRemoved, "02/04"},
		{pdu.LoginTargetError, ErrTargetUnavailable, "03/00"},
		{pdu.LoginServiceUnavailable, ErrTargetUnavailable, "03/01"},
		{pdu.LoginOutOfResources, ErrTargetUnavailable, "03/02"},
		{0x0999, nil, "09/99"},
	} {
		loginBed(t, func(t *testing.T, l *loginTarget) {
			l.tamper = func(_ int, f *pdu.LoginResponseFields, _ []byte) []byte {
				// A target that refuses need not fill in the rest.
				*f = pdu.LoginResponseFields{ITT: f.ITT, Status: c.status}
				return nil
			}
			_, err := Login(t.Context(), l.dm, l.params())
			var e *LoginError
			if !errors.As(err, &e) || e.Status() != c.status || !strings.Contains(err.Error(), c.words) {
				t.Fatalf("%04x: %v", uint16(c.status), err)
			}
			for _, s := range []error{ErrAuth, ErrForbidden, ErrTargetNotFound, ErrTargetRemoved, ErrTargetUnavailable, ErrRedirect, ErrOvertaken} {
				if errors.Is(err, s) != (s == c.want) {
					t.Errorf("%v matches %v", err, s)
				}
			}
		})
	}
}

func TestARefusalOfTheSecondStageMayBeForItsHaste(t *testing.T) {
	for at, want := range map[int]bool{1: false, 2: true, 3: false} { // security, operational, operational
		loginBed(t, func(t *testing.T, l *loginTarget) {
			l.tamper = func(step int, f *pdu.LoginResponseFields, text []byte) []byte {
				switch {
				case step == at:
					*f = pdu.LoginResponseFields{ITT: f.ITT, Status: pdu.LoginInitiatorError}
					return nil
				case f.CSG == pdu.StageOperational:
					f.Transit = false // there is more to say
				}
				return text
			}
			if _, err := Login(t.Context(), l.dm, l.params()); err == nil || errors.Is(err, ErrOvertaken) != want {
				t.Errorf("request %d refused: %v", at, err)
			}
		})
	}
}

func TestARedirectionNamesTheNewAddress(t *testing.T) {
	for _, status := range []pdu.LoginStatus{pdu.LoginMovedTemporarily, pdu.LoginMovedPermanently} {
		loginBed(t, func(t *testing.T, l *loginTarget) {
			l.tamper = func(_ int, f *pdu.LoginResponseFields, _ []byte) []byte {
				f.Status, f.Transit = status, false
				return pdu.AppendKey(nil, keyTargetAddress, "[fd00::1]:3261,4")
			}
			_, err := Login(t.Context(), l.dm, l.params())
			var e *RedirectError
			if !errors.As(err, &e) || e.Address != "[fd00::1]:3261" || e.Permanent != (status == pdu.LoginMovedPermanently) ||
				!errors.Is(err, ErrRedirect) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWhatATargetMayAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(l *loginTarget, p *Params)
		want   error
		check  func(g Negotiated) bool
	}{
		{
			"no immediate data", func(l *loginTarget, _ *Params) { l.answers[keyImmediateData] = "No" }, nil,
			func(g Negotiated) bool { return !g.ImmediateData && g.immediateLimit() == 0 },
		},
		{
			"nothing about immediate data", func(l *loginTarget, _ *Params) { l.answers[keyImmediateData] = "-" }, nil,
			func(g Negotiated) bool { return !g.ImmediateData },
		},
		{
			"immediate data that we did not want", func(l *loginTarget, p *Params) { p.NoImmediateData, l.answers[keyImmediateData] = true, "Yes" }, nil,
			func(g Negotiated) bool { return !g.ImmediateData },
		},
		{"immediate data that is neither", func(l *loginTarget, _ *Params) { l.answers[keyImmediateData] = "Maybe" }, ErrProtocol, nil},
		{"smaller bursts and segments", func(l *loginTarget, _ *Params) {
			l.answers[keyFirstBurst], l.answers[keyTargetRecv], l.answers[keyMaxBurst] = "4096", "512", "65536"
		}, nil, func(g Negotiated) bool {
			return g.FirstBurstLength == 4096 && g.TargetRecvDataSegmentLength == 512 && g.MaxBurstLength == 65536 && g.immediateLimit() == 512
		}},
		{
			"longer bursts than offered", func(l *loginTarget, _ *Params) { l.answers[keyFirstBurst] = "262144" }, nil,
			func(g Negotiated) bool { return g.FirstBurstLength == DefaultFirstBurst },
		},
		{"a burst of nothing", func(l *loginTarget, _ *Params) { l.answers[keyFirstBurst] = "0" }, ErrProtocol, nil},
		{"a burst that is no number", func(l *loginTarget, _ *Params) { l.answers[keyTargetRecv] = "many" }, ErrProtocol, nil},
		{"a burst beyond 24 bits", func(l *loginTarget, _ *Params) { l.answers[keyTargetRecv] = "0x1000000" }, ErrProtocol, nil},
		{"no RDMA", func(l *loginTarget, _ *Params) { l.answers[keyRDMAExtensions] = "No" }, ErrNegotiation, nil},
		{"RDMA rejected", func(l *loginTarget, _ *Params) { l.answers[keyRDMAExtensions] = "NotUnderstood" }, ErrNegotiation, nil},
		{"a digest", func(l *loginTarget, _ *Params) { l.answers[keyHeaderDigest] = "CRC32C" }, ErrNegotiation, nil},
		{"error recovery", func(l *loginTarget, _ *Params) { l.answers[keyRecoveryLevel] = "2" }, ErrNegotiation, nil},
		{"keys not understood", func(l *loginTarget, _ *Params) {
			for _, k := range []string{keyHeaderDigest, keyMaxR2T, keyTime2Wait, keyFirstBurst, keyMaxConnections, keyPDUInOrder, keyInitialR2T} {
				l.answers[k] = "NotUnderstood"
			}
		}, nil, func(g Negotiated) bool { return g.FirstBurstLength == DefaultFirstBurst }},
		{"keys rejected and irrelevant", func(l *loginTarget, _ *Params) {
			l.answers[keyDataDigest], l.answers[keyImmediateData], l.answers[keyTime2Retain] = "Irrelevant", "Reject", "Reject"
		}, nil, func(g Negotiated) bool { return !g.ImmediateData }},
		{
			"times", func(l *loginTarget, _ *Params) { l.answers[keyTime2Wait], l.answers[keyTime2Retain] = "7", "20" }, nil,
			func(g Negotiated) bool {
				return g.DefaultTime2Wait == 7*time.Second && g.DefaultTime2Retain == 20*time.Second
			},
		},
		{"times without end", func(l *loginTarget, _ *Params) { l.answers[keyTime2Wait] = "3601" }, ErrProtocol, nil},
		{"several rounds", func(l *loginTarget, _ *Params) { l.rounds = 3 }, nil, func(g Negotiated) bool { return g.TSIH == 9 }},
		{"rounds without end", func(l *loginTarget, _ *Params) { l.rounds = 1000 }, ErrProtocol, nil},
		{"its text in parts", func(l *loginTarget, _ *Params) { l.parts = 17 }, nil, func(g Negotiated) bool { return g.ImmediateData }},
		{"a portal group that is no number", func(l *loginTarget, _ *Params) { l.extra = "TargetPortalGroupTag=one" }, ErrProtocol, nil},
		{"text without an equals sign", func(l *loginTarget, _ *Params) {
			l.tamper = func(int, *pdu.LoginResponseFields, []byte) []byte { return []byte("nonsense\x00") }
		}, ErrProtocol, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			loginBed(t, func(t *testing.T, l *loginTarget) {
				p := l.params()
				c.change(l, &p)
				n, err := Login(t.Context(), l.dm, p)
				if c.want != nil {
					if !errors.Is(err, c.want) {
						t.Errorf("error %v, want %v", err, c.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if !c.check(n.Negotiated()) {
					t.Errorf("negotiated %+v", n.Negotiated())
				}
			})
		})
	}
}

func TestOffersOfTheTargetAreAnswered(t *testing.T) {
	loginBed(t, func(t *testing.T, l *loginTarget) {
		l.rounds = 1
		l.extra = "X-org.example.colour=red iSERHelloRequired=Yes MaxOutstandingUnexpectedPDUs=5 IFMarker=Yes OtherKey=NotUnderstood"
		if _, err := Login(t.Context(), l.dm, l.params()); err != nil {
			t.Fatal(err)
		}
		last := l.seen[len(l.seen)-1].text
		want := pdu.Text{{Key: "X-org.example.colour", Value: "NotUnderstood"}, {Key: "iSERHelloRequired", Value: "No"}, {Key: "IFMarker", Value: "No"}}
		if fmt.Sprint(last) != fmt.Sprint(want) {
			t.Errorf("answers %v, want %v", last, want)
		}
	})
}
