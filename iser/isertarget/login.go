package isertarget

import (
	"strconv"

	"iserblk/session/pdu"
)

// maxLoginText is the largest text of one request (RFC 7143 13.12: 8192 bytes before it is negotiated).
const maxLoginText = 8192

// login is the state of a connection in the login phase.
type login struct {
	begun     bool
	text      []byte // of requests with the C bit
	answer    []byte // what the initiator has not fetched yet
	initiator string
	discovery bool
	chap      chap
}

// loginPDU handles one PDU before the full-feature phase.
func (c *Conn) loginPDU(bhs pdu.BHS, data []byte) bool {
	p := pdu.LoginRequest(bhs)
	if err := p.Validate(len(data)); err != nil {
		c.t.violate("login: %v", err)
		return false
	}
	c.t.record(Record{Op: pdu.OpLoginRequest, Conn: c.id})
	c.login.text = append(c.login.text, data...)
	if p.Continue() {
		c.loginReply(p, nil, pdu.LoginSuccess, false)
		return true
	}
	if rest := c.login.answer; len(rest) > 0 {
		return c.sendAnswer(p, rest)
	}
	keys, err := pdu.ParseText(c.login.text)
	c.login.text = nil
	if err != nil {
		c.t.violate("login: %v", err)
		return c.refuse(p, pdu.LoginInvalidRequest)
	}
	return c.loginStep(p, keys)
}

// loginStep answers a whole login request.
func (c *Conn) loginStep(p pdu.LoginRequest, keys pdu.Text) bool {
	var answer []byte
	if !c.login.begun {
		if status := c.beginLogin(p, keys); status != pdu.LoginSuccess {
			return c.refuse(p, status)
		}
		if !c.login.discovery {
			answer = pdu.AppendKey(answer, "TargetPortalGroupTag", strconv.Itoa(int(c.portal.group)))
		}
	}
	answer, status := c.answerKeys(answer, p, keys)
	if status != pdu.LoginSuccess {
		return c.refuse(p, status)
	}
	return c.sendAnswer(p, answer)
}

// sendAnswer sends as much of an answer as fits one PDU.
func (c *Conn) sendAnswer(p pdu.LoginRequest, answer []byte) bool {
	if limit := c.t.opt.MaxLoginSegment; len(answer) > limit {
		c.login.answer = answer[limit:]
		c.loginReplyPart(p, answer[:limit])
		return true
	}
	c.login.answer = nil
	transit := p.Transit() && c.login.chap.satisfied(c.chap())
	if transit && p.NSG() == pdu.StageFullFeature {
		return c.finishLogin(p, answer)
	}
	c.loginReply(p, answer, pdu.LoginSuccess, transit)
	return true
}

// beginLogin looks at what only the first request of a login carries.
func (c *Conn) beginLogin(p pdu.LoginRequest, keys pdu.Text) pdu.LoginStatus {
	c.login.begun = true
	if p.TSIH() != 0 {
		return pdu.LoginSessionNotFound
	}
	c.login.initiator, _ = keys.Get("InitiatorName")
	if c.login.initiator == "" {
		return pdu.LoginMissingParameter
	}
	kind, _ := keys.Get("SessionType")
	c.login.discovery = kind == "Discovery"
	name, ok := keys.Get("TargetName")
	switch {
	case c.login.discovery:
		return pdu.LoginSuccess
	case !ok:
		return pdu.LoginMissingParameter
	case name != c.t.opt.Name:
		return pdu.LoginNotFound
	}
	return pdu.LoginSuccess
}

// chap is what this login has to prove.
func (c *Conn) chap() CHAP {
	if o := c.t.opt.CHAP; !c.login.discovery || o.Discovery {
		return o
	}
	return CHAP{}
}

// answerKeys negotiates, or takes a step of the authentication.
func (c *Conn) answerKeys(answer []byte, p pdu.LoginRequest, keys pdu.Text) ([]byte, pdu.LoginStatus) {
	if p.CSG() == pdu.StageSecurity {
		return c.login.chap.step(answer, c.chap(), keys)
	}
	if !c.login.chap.satisfied(c.chap()) {
		return nil, pdu.LoginAuthenticationFailure
	}
	return c.negotiate(answer, keys), pdu.LoginSuccess
}

// finishLogin enters the full-feature phase.
func (c *Conn) finishLogin(p pdu.LoginRequest, answer []byte) bool {
	l := Login{
		Initiator: c.login.initiator, ISID: p.ISID(), Portal: c.Portal().String(), Discovery: c.login.discovery,
	}
	if hook := c.t.currentHooks().Login; hook != nil {
		if status := hook(l); status != pdu.LoginSuccess {
			return c.refuse(p, status)
		}
	}
	c.t.open(c, sessionKey{l.Initiator, l.ISID, c.portal.group}, l.Discovery, p.CmdSN())
	c.loginReply(p, answer, pdu.LoginSuccess, true)
	return true
}

// refuse answers with a failure and ends the connection.
func (c *Conn) refuse(p pdu.LoginRequest, status pdu.LoginStatus) bool {
	c.loginReply(p, nil, status, false)
	return false
}

func (c *Conn) loginReply(p pdu.LoginRequest, text []byte, status pdu.LoginStatus, transit bool) {
	f := c.loginFields(p, len(text))
	f.Status, f.Transit = status, transit
	if transit {
		f.NSG = p.NSG()
	}
	if c.sess != nil {
		f.TSIH = c.sess.tsih
	}
	c.sendLogin(f, p, text)
}

// loginReplyPart sends text that goes on in the next response.
func (c *Conn) loginReplyPart(p pdu.LoginRequest, text []byte) {
	f := c.loginFields(p, len(text))
	f.Continue = true
	c.sendLogin(f, p, text)
}

func (c *Conn) loginFields(p pdu.LoginRequest, n int) pdu.LoginResponseFields {
	return pdu.LoginResponseFields{CSG: p.CSG(), DataLen: n, ISID: p.ISID(), TSIH: p.TSIH(), ITT: p.ITT()}
}

func (c *Conn) sendLogin(f pdu.LoginResponseFields, p pdu.LoginRequest, text []byte) {
	c.reply(true, text, func(dst []byte, n counters) {
		f.StatSN, f.ExpCmdSN, f.MaxCmdSN = n.stat, n.exp, n.max
		if c.sess == nil {
			f.ExpCmdSN, f.MaxCmdSN = p.CmdSN(), p.CmdSN()
		}
		f.Encode(dst)
	})
}
