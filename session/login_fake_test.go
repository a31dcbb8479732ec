package session

import (
	"strconv"
	"strings"
	"testing"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

// loginTarget answers login requests on a fakeDM, by default as LIO does without authentication.
type loginTarget struct {
	t      *testing.T
	dm     *fakeDM
	statSN pdu.StatSN
	seen   []loginSeen
	in     []byte // of a request in parts

	chapA     chap.Algorithm // 0: no authentication
	secret    string         // the initiator's
	own       chap.Credentials
	id        byte
	challenge []byte

	answers map[string]string // to operational keys, over the defaults; "-" leaves one out
	extra   string            // more operational text, "key=value" separated by blanks
	rounds  int               // how often to stay in the operational stage
	parts   int               // bytes of text a response; 0: any number
	out     []byte            // the rest of an answer in parts
	final   pdu.LoginResponseFields
	tamper  func(step int, f *pdu.LoginResponseFields, text []byte) []byte
	mute    bool
	after   func() // called when the last response was delivered
}

type loginSeen struct {
	req  pdu.LoginRequest
	text pdu.Text
}

func newLoginTarget(t *testing.T) *loginTarget {
	l := &loginTarget{t: t, dm: newFake(t), statSN: 0xffffffff, answers: map[string]string{}}
	l.dm.onSend = l.onSend
	l.challenge = []byte("0123456789abcdef")
	l.id = 0x55
	return l
}

func (l *loginTarget) params() Params {
	return Params{
		InitiatorName: "iqn.2026-01.test:i", TargetName: "iqn.2026-01.test:t", ISID: pdu.NewISID(0x123456, 7),
	}
}

func (l *loginTarget) onSend(m *message) {
	if l.mute || m.opcode() != pdu.OpLoginRequest {
		return
	}
	req := pdu.LoginRequest(m.bhs[:])
	if err := req.Validate(len(m.data)); err != nil {
		l.t.Errorf("request: %v", err)
	}
	l.in = append(l.in, m.data...)
	f := pdu.LoginResponseFields{
		CSG: req.CSG(), NSG: req.NSG(), ISID: req.ISID(), ITT: req.ITT(), ExpCmdSN: req.CmdSN(), MaxCmdSN: req.CmdSN() + 31,
	}
	switch {
	case req.Continue():
		l.respond(f, nil)
		return
	case len(l.out) > 0:
		l.respondParts(f, l.out)
		return
	}
	text, err := pdu.ParseText(l.in)
	if err != nil {
		l.t.Errorf("request: %v", err)
	}
	l.in = nil
	l.seen = append(l.seen, loginSeen{append(pdu.LoginRequest(nil), req...), text})
	var out []byte
	if req.CSG() == pdu.StageSecurity {
		out, f.Transit = l.security(req, text)
	} else {
		out, f.Transit = l.operational(req, text)
	}
	if f.Transit && f.NSG == pdu.StageFullFeature {
		f.TSIH = 9
		if !l.dm.fullFeature {
			l.t.Error("full-feature phase without receive buffers")
		}
	}
	l.respondParts(f, out)
}

// respondParts cuts a long answer.
func (l *loginTarget) respondParts(f pdu.LoginResponseFields, out []byte) {
	if l.parts > 0 && len(out) > l.parts {
		f.Continue, f.Transit = true, false
		l.out = out[l.parts:]
		out = out[:l.parts]
	} else {
		l.out = nil
	}
	l.respond(f, out)
}

func (l *loginTarget) respond(f pdu.LoginResponseFields, text []byte) {
	f.StatSN = l.statSN
	l.statSN++
	if l.tamper != nil {
		text = l.tamper(len(l.seen), &f, text)
	}
	f.DataLen = len(text)
	l.dm.deliver(f, text...)
	if f.Transit && f.NSG == pdu.StageFullFeature && l.after != nil {
		l.after()
	}
}

func (l *loginTarget) security(req pdu.LoginRequest, in pdu.Text) ([]byte, bool) {
	var out []byte
	if _, first := in.Get("InitiatorName"); first {
		out = pdu.AppendKey(out, keyPortalGroupTag, "3")
		out = pdu.AppendKey(out, keyTargetAlias, "box")
		method := "None"
		if l.chapA != 0 {
			method = "CHAP"
		}
		return pdu.AppendKey(out, keyAuthMethod, method), req.Transit() && l.chapA == 0
	}
	if l.chapA == 0 {
		return nil, req.Transit()
	}
	return l.chap(in)
}

func (l *loginTarget) chap(in pdu.Text) ([]byte, bool) {
	if _, ok := in.Get("CHAP_A"); ok {
		out := pdu.AppendKey(nil, "CHAP_A", strconv.Itoa(int(l.chapA)))
		out = pdu.AppendKey(out, "CHAP_I", strconv.Itoa(int(l.id)))
		return pdu.AppendKey(out, "CHAP_C", string(pdu.AppendHex(nil, l.challenge))), false
	}
	r, _ := in.Get("CHAP_R")
	response, err := pdu.ParseBinary(r, 64)
	if err != nil || !chap.Verify(l.chapA, l.id, chap.NewSecret([]byte(l.secret)), l.challenge, response) {
		l.final.Status = pdu.LoginAuthenticationFailure
		l.tamper = func(_ int, f *pdu.LoginResponseFields, _ []byte) []byte {
			f.Status = pdu.LoginAuthenticationFailure
			return nil
		}
		return nil, false
	}
	theirs, mutual := in.Get("CHAP_C")
	if !mutual {
		return nil, true
	}
	c, _ := pdu.ParseBinary(theirs, 1024)
	i, _ := in.Get("CHAP_I")
	id, _ := strconv.Atoi(i)
	answer, _ := chap.Response(l.chapA, byte(id), l.own.Secret, c)
	out := pdu.AppendKey(nil, "CHAP_N", l.own.Name)
	return pdu.AppendKey(out, "CHAP_R", string(pdu.AppendHex(nil, answer))), true
}

func (l *loginTarget) operational(req pdu.LoginRequest, in pdu.Text) ([]byte, bool) {
	var out []byte
	for key, value := range in.All() {
		if a, ok := l.answers[key]; ok {
			value = a
		}
		if value != "-" && key != keyMaxRecv {
			out = pdu.AppendKey(out, key, value)
		}
	}
	for _, pair := range strings.Fields(l.extra) {
		key, value, _ := strings.Cut(pair, "=")
		out = pdu.AppendKey(out, key, value)
	}
	l.extra = ""
	if l.rounds > 0 {
		l.rounds--
		return out, false
	}
	return out, req.Transit()
}
