package session

import (
	"context"
	"fmt"
	"time"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

const (
	// maxLoginSteps ends a login that goes round in circles.
	maxLoginSteps = 32
	// loginTag is the tag of all PDUs of a login. Nothing else is outstanding meanwhile.
	loginTag pdu.ITT = 1
	// firstCmdSN is where a session begins to number its commands.
	firstCmdSN pdu.CmdSN = 1
	// loginSettle gives tgt the time to notice that the last response of a stage was sent: what comes sooner
	// makes it close the connection.
	loginSettle = time.Millisecond
	// maxEarly is how many PDUs may follow the last login response before the nexus is there to take them.
	maxEarly = 8
)

// Login logs in over dm, which is connected and has no other user, and returns the nexus in its full-feature phase
// (RFC 7143 6.3). It blocks until then, until ctx ends or until Params.LoginTimeout is over. A login with the
// initiator name and ISID of an older session at the same portal group ends that one (session reinstatement).
//
// Its errors are *Error; inside are a *LoginError, a *RedirectError, ErrAuth, ErrOvertaken, ErrNegotiation, ErrProtocol,
// ErrTimeout, or what the datamover says. dm stays the caller's to close when it fails, and becomes the nexus's.
func Login(ctx context.Context, dm Datamover, p Params) (*Nexus, error) {
	p = p.withDefaults()
	l := &login{dm: dm, p: &p, neg: offered(&p)}
	n, err := l.run(ctx)
	if err != nil {
		return nil, &Error{Op: "log in to", Target: p.TargetName, Err: err}
	}
	return n, nil
}

// login is one login on its way. It is the Notifier of its datamover meanwhile.
type login struct {
	dm   Datamover
	p    *Params
	neg  Negotiated
	auth *chap.Initiator // nil without authentication

	expStatSN pdu.StatSN
	answered  bool // some response arrived: expStatSN means something
	last      pdu.LoginResponse

	challenged bool // the target has begun with CHAP

	bhs   [pdu.BHSLen]byte // of the response
	data  []byte
	got   bool // bhs and data hold a response that was not looked at
	extra []arrival
}

// arrival is a PDU that came right behind the last login response.
type arrival struct {
	bhs  [pdu.BHSLen]byte
	data []byte
}

// HandlePDU keeps what arrives.
func (l *login) HandlePDU(bhs pdu.BHS, data []byte) {
	switch {
	case !l.got:
		copy(l.bhs[:], bhs)
		l.data, l.got = append(l.data[:0], data...), true
	case len(l.extra) < maxEarly:
		a := arrival{data: append([]byte(nil), data...)}
		copy(a.bhs[:], bhs)
		l.extra = append(l.extra, a)
	}
}

func (l *login) run(ctx context.Context) (*Nexus, error) {
	if err := l.prepare(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.p.LoginTimeout, ErrTimeout)
	defer cancel()
	for _, stage := range []func(context.Context) error{l.security, l.operational} {
		if err := stage(ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, loginSettle); err != nil {
			return nil, err
		}
	}
	if l.neg.TSIH = l.last.TSIH(); l.neg.TSIH == 0 && !l.p.Discovery {
		return nil, fmt.Errorf("%w: login response without a TSIH", ErrProtocol)
	}
	return l.nexus(), nil
}

func (l *login) prepare() error {
	if err := l.p.check(); err != nil {
		return err
	}
	if !l.p.authenticates() {
		if l.p.mutual() {
			return fmt.Errorf("%w: mutual CHAP needs credentials of our own too", ErrAuth)
		}
		return nil
	}
	auth, err := chap.New(l.p.CHAP)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAuth, err)
	}
	l.auth = auth
	return nil
}

// nexus starts the full-feature phase with the counters that the login left.
func (l *login) nexus() *Nexus {
	n := newNexus(l.dm, *l.p, l.neg, firstCmdSN, firstCmdSN-1, l.expStatSN)
	n.window(pdu.BHS(l.last))
	n.inPoll = true
	for _, a := range l.extra {
		n.HandlePDU(a.bhs[:], a.data)
	}
	n.inPoll = false
	return n
}

// security is the first stage: who is who.
func (l *login) security(ctx context.Context) error {
	err := l.introduce(ctx)
	if l.unproven(err) {
		err = fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return err
}

func (l *login) introduce(ctx context.Context) error {
	text := l.firstKeys()
	for range maxLoginSteps {
		in, err := l.exchange(ctx, pdu.StageSecurity, l.mayTransit(), text)
		if err != nil {
			return err
		}
		if text, err = l.securityAnswer(in); err != nil {
			return err
		}
		if l.last.Transit() {
			return l.authenticated()
		}
	}
	return fmt.Errorf("%w: security negotiation does not end", ErrProtocol)
}

// mayTransit: nothing is left to say in the security stage.
func (l *login) mayTransit() bool { return l.auth == nil || l.auth.CanTransit() }

func (l *login) firstKeys() []byte {
	t := pdu.AppendKey(nil, keyInitiatorName, l.p.InitiatorName)
	if l.p.Discovery {
		t = pdu.AppendKey(t, keySessionType, "Discovery")
	} else {
		t = pdu.AppendKey(t, keySessionType, "Normal")
		t = pdu.AppendKey(t, keyTargetName, l.p.TargetName)
	}
	return pdu.AppendKey(t, keyAuthMethod, l.methods())
}

// methods: with credentials a target may still do without authentication, unless it has to prove itself.
func (l *login) methods() string {
	switch {
	case l.auth == nil:
		return pdu.ValueNone
	case l.auth.Mutual():
		return "CHAP"
	}
	return "CHAP," + pdu.ValueNone
}

// securityAnswer takes the target's keys and makes the text of the next request.
func (l *login) securityAnswer(in pdu.Text) ([]byte, error) {
	text, err := l.takeAll(in)
	if err != nil {
		return nil, err
	}
	method, said := in.Get(keyAuthMethod)
	switch {
	case l.auth == nil:
		if said && method != pdu.ValueNone && !refused(method) {
			return nil, fmt.Errorf("%w: the target wants %s", ErrAuth, printable(method))
		}
		return text, nil
	case said && method == pdu.ValueNone && !l.auth.Mutual() && !l.auth.CanTransit():
		l.auth = nil
		return text, nil
	case l.auth.Done():
		return text, nil
	}
	if _, asked := in.Get(chap.KeyChallenge); asked {
		l.challenged = true
	}
	if text, err = l.auth.Step(text, in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuth, err)
	}
	return text, nil
}

// authenticated is checked when the target leaves the security stage.
func (l *login) authenticated() error {
	if l.auth == nil {
		return nil
	}
	if !l.auth.Done() {
		return fmt.Errorf("%w: the target ended the exchange early", ErrAuth)
	}
	l.neg.Algorithm = l.auth.Algorithm()
	return nil
}

// operational is the second stage: how to talk.
func (l *login) operational(ctx context.Context) error {
	if err := l.dm.EnableFullFeature(); err != nil {
		return err
	}
	text := operationalKeys(l.p).Append(nil)
	for step := range maxLoginSteps {
		in, err := l.exchange(ctx, pdu.StageOperational, true, text)
		switch {
		case err != nil && step == 0:
			return early(err)
		case err != nil:
			return err
		}
		if text, err = l.takeAll(in); err != nil {
			return err
		}
		if l.last.Transit() {
			return nil
		}
	}
	return fmt.Errorf("%w: operational negotiation does not end", ErrProtocol)
}

// takeAll applies every key of a response and returns the answers to the target's own offers.
func (l *login) takeAll(in pdu.Text) ([]byte, error) {
	var text []byte
	for key, value := range in.All() {
		answer, err := l.neg.take(l.p, key, value)
		if err != nil {
			return nil, err
		}
		if answer != "" {
			text = pdu.AppendKey(text, key, answer)
		}
	}
	return text, nil
}

// exchange sends text in as many requests as it takes, the last with the T bit if transit is set, and collects the
// text of the answer.
func (l *login) exchange(ctx context.Context, csg pdu.Stage, transit bool, text []byte) (pdu.Text, error) {
	for len(text) > maxData {
		if err := l.step(ctx, csg, false, true, text[:maxData]); err != nil {
			return nil, err
		}
		if l.last.DataSegmentLength() != 0 || l.last.Transit() {
			return nil, fmt.Errorf("%w: answer to a part of a request", ErrProtocol)
		}
		text = text[maxData:]
	}
	if err := l.step(ctx, csg, transit, false, text); err != nil {
		return nil, err
	}
	answer := append([]byte(nil), l.data[:l.last.DataSegmentLength()]...)
	for l.last.Continue() {
		if err := l.step(ctx, csg, false, false, nil); err != nil {
			return nil, err
		}
		answer = append(answer, l.data[:l.last.DataSegmentLength()]...)
		if len(answer) > maxText {
			return nil, fmt.Errorf("%w: login text of more than %d bytes", ErrProtocol, maxText)
		}
	}
	in, err := pdu.ParseText(answer)
	if err != nil {
		return nil, protocolError(err)
	}
	return in, nil
}

// step is one request and its response.
func (l *login) step(ctx context.Context, csg pdu.Stage, transit, more bool, text []byte) error {
	nsg := csg + 1
	if csg == pdu.StageOperational {
		nsg = pdu.StageFullFeature
	}
	var bhs [pdu.BHSLen]byte
	pdu.LoginRequestFields{
		Transit: transit, Continue: more, CSG: csg, NSG: nsg,
		VersionMax: pdu.Version, VersionMin: pdu.Version, DataLen: len(text),
		ISID: l.p.ISID, ITT: loginTag, CmdSN: firstCmdSN, ExpStatSN: l.expStatSN,
	}.Encode(bhs[:])
	if err := l.roundTrip(ctx, &bhs, text); err != nil {
		return err
	}
	return l.check(csg, nsg, transit)
}

func (l *login) roundTrip(ctx context.Context, bhs *[pdu.BHSLen]byte, text []byte) error {
	if len(l.extra) > 0 {
		return fmt.Errorf("%w: more than one answer to a login request", ErrUnexpectedPDU)
	}
	l.got = false
	if err := l.dm.SendControl(bhs, text); err != nil {
		return err
	}
	if err := l.dm.Flush(); err != nil {
		return err
	}
	err := await(ctx, l.dm, l, func() bool { return l.got })
	if err != nil && ctx.Err() == nil {
		return l.hungUp(pdu.LoginRequest(bhs[:]).CSG(), err)
	}
	return err
}

// check tells a good response from a refusal and from nonsense.
func (l *login) check(csg, nsg pdu.Stage, transit bool) error {
	r := pdu.LoginResponse(l.bhs[:])
	if op := pdu.BHS(r).Opcode(); op != pdu.OpLoginResponse {
		return fmt.Errorf("%w: %v during login", ErrUnexpectedPDU, op)
	}
	if err := r.Validate(len(l.data)); err != nil {
		return protocolError(err)
	}
	if r.ITT() != loginTag {
		return fmt.Errorf("%w: tag %#x in a login response", ErrUnknownTask, uint32(r.ITT()))
	}
	if s := r.Status(); s.Class() != pdu.LoginClassSuccess {
		return l.refusal(s)
	}
	if l.answered && r.StatSN() != l.expStatSN {
		return fmt.Errorf("%w: %d, expected %d, in a login response", ErrStatSN, r.StatSN(), l.expStatSN)
	}
	switch {
	case r.ISID() != l.p.ISID:
		return fmt.Errorf("%w: login response for ISID %v", ErrProtocol, r.ISID())
	case r.CSG() != csg:
		return fmt.Errorf("%w: login response in %v", ErrProtocol, r.CSG())
	case r.Transit() && (!transit || r.NSG() != nsg):
		return fmt.Errorf("%w: unasked transit to %v", ErrProtocol, r.NSG())
	}
	l.answered, l.expStatSN, l.last = true, r.StatSN()+1, r
	return nil
}
