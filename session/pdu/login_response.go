package pdu

// Offsets in a Login Response (RFC 7143 11.13).
const (
	offStatusClass  = 36
	offStatusDetail = 37
)

// LoginResponse is the view of a Login Response (RFC 7143 11.13).
type LoginResponse []byte

// LoginResponseFields are the parts of a Login Response.
type LoginResponseFields struct {
	Transit       bool
	Continue      bool
	CSG           Stage
	NSG           Stage // sent only with Transit
	VersionMax    uint8
	VersionActive uint8
	DataLen       int // text behind the header, in bytes
	ISID          ISID
	TSIH          TSIH
	ITT           ITT
	StatSN        StatSN
	ExpCmdSN      CmdSN
	MaxCmdSN      CmdSN
	Status        LoginStatus
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f LoginResponseFields) Encode(dst []byte) {
	p := begin(dst, OpLoginResponse, false, loginFlags(f.Transit, f.Continue, f.CSG, f.NSG), f.DataLen)
	p[offVersionMax], p[offVersionActive] = f.VersionMax, f.VersionActive
	copy(p[offISID:], f.ISID[:])
	put16(p, offTSIH, uint16(f.TSIH))
	put32(p, offITT, uint32(f.ITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
	put16(p, offStatusClass, uint16(f.Status))
}

// Validate reports an *Error unless p is a whole login response followed by
// the dataLen bytes it announces. The flags, the stages and the version are
// checked only if the status is a success, because a target that refuses a
// login need not fill them in.
func (p LoginResponse) Validate(dataLen int) error {
	if err := checkReply(p, OpLoginResponse, dataLen); err != nil {
		return err
	}
	if p.Status().Class() != LoginClassSuccess {
		return nil
	}
	if v := p.VersionActive(); v != Version {
		return bad(OpLoginResponse, "Version-active", "0x%02x, want 0x%02x", v, Version)
	}
	return checkStages(p, OpLoginResponse)
}

// Transit reports the T bit: the target goes on to NSG.
func (p LoginResponse) Transit() bool { return BHS(p).Final() }

// Continue reports the C bit: the text goes on in the next response.
func (p LoginResponse) Continue() bool { return p[offFlags]&continueBit != 0 }

// CSG returns the current stage.
func (p LoginResponse) CSG() Stage { return loginCSG(p) }

// NSG returns the next stage, valid only with Transit.
func (p LoginResponse) NSG() Stage { return loginNSG(p) }

// VersionMax returns the highest version the target speaks.
func (p LoginResponse) VersionMax() uint8 { return p[offVersionMax] }

// VersionActive returns the version in use.
func (p LoginResponse) VersionActive() uint8 { return p[offVersionActive] }

// DataSegmentLength returns the length of the text in bytes.
func (p LoginResponse) DataSegmentLength() int { return getDataLen(p) }

// ISID returns the initiator's part of the session id, echoed.
func (p LoginResponse) ISID() ISID { return ISID(p[offISID : offISID+len(ISID{})]) }

// TSIH returns the session handle, set by the last response of a login.
func (p LoginResponse) TSIH() TSIH { return TSIH(get16(p, offTSIH)) }

// ITT returns the tag of the login.
func (p LoginResponse) ITT() ITT { return getITT(p) }

// StatSN returns the status sequence number, valid with a success.
func (p LoginResponse) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects, valid with a success.
func (p LoginResponse) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now, valid with a success.
func (p LoginResponse) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }

// Status returns the status class and detail.
func (p LoginResponse) Status() LoginStatus { return LoginStatus(get16(p, offStatusClass)) }
