package pdu

// Offsets in login PDUs (RFC 7143 11.12, 11.13).
const (
	offVersionMax    = 2
	offVersionMin    = 3
	offVersionActive = 3
	offISID          = 8
	offTSIH          = 14
	offCID           = 20
)

// Version is the only protocol version there is (RFC 7143 11.12.4).
const Version = 0x00

const (
	stageMask = 0x03
	csgShift  = 2
)

// Stage is a login stage, the value of CSG and NSG (RFC 7143 11.12.3).
type Stage uint8

// Login stages. The value 2 is reserved.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFullFeature Stage = 3
	stageReserved    Stage = 2
)

// String returns the name of the stage.
func (s Stage) String() string {
	switch s {
	case StageSecurity:
		return "security negotiation"
	case StageOperational:
		return "operational negotiation"
	case StageFullFeature:
		return "full feature phase"
	}
	return hexName("stage", uint8(s))
}

// LoginRequest is the view of a Login Request (RFC 7143 11.12).
type LoginRequest []byte

// LoginRequestFields are the parts of a Login Request.
type LoginRequestFields struct {
	Transit    bool // T: ready to go from CSG to NSG
	Continue   bool // C: the text goes on in the next request
	CSG        Stage
	NSG        Stage // sent only with Transit
	VersionMax uint8
	VersionMin uint8
	DataLen    int // text behind the header, in bytes
	ISID       ISID
	TSIH       TSIH
	ITT        ITT
	CID        CID
	CmdSN      CmdSN
	ExpStatSN  StatSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many. A login request is always immediate.
func (f LoginRequestFields) Encode(dst []byte) {
	p := begin(dst, OpLoginRequest, true, loginFlags(f.Transit, f.Continue, f.CSG, f.NSG), f.DataLen)
	p[offVersionMax], p[offVersionMin] = f.VersionMax, f.VersionMin
	copy(p[offISID:], f.ISID[:])
	put16(p, offTSIH, uint16(f.TSIH))
	put32(p, offITT, uint32(f.ITT))
	put16(p, offCID, uint16(f.CID))
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
}

func loginFlags(transit, more bool, csg, nsg Stage) byte {
	b := flag(transit, finalBit) | flag(more, continueBit) | byte(csg&stageMask)<<csgShift
	if transit {
		b |= byte(nsg & stageMask)
	}
	return b
}

// Validate reports an *Error unless p is a whole login request with legal
// flags and stages and the dataLen bytes it announces.
func (p LoginRequest) Validate(dataLen int) error {
	if err := check(p, OpLoginRequest, dataLen); err != nil {
		return err
	}
	return checkStages(p, OpLoginRequest)
}

// checkStages tests the flags that both login PDUs share (RFC 7143 11.12.1 to
// 11.12.3).
func checkStages(p []byte, op Opcode) error {
	transit, more := BHS(p).Final(), p[offFlags]&continueBit != 0
	csg, nsg := loginCSG(p), loginNSG(p)
	switch {
	case transit && more:
		return bad(op, "Flags", "T and C both set")
	case csg != StageSecurity && csg != StageOperational:
		return bad(op, "CSG", "%v is no login stage", csg)
	case transit && (nsg == stageReserved || nsg <= csg):
		return bad(op, "NSG", "no transit from %v to %v", csg, nsg)
	}
	return nil
}

func loginCSG(p []byte) Stage { return Stage(p[offFlags]>>csgShift) & stageMask }
func loginNSG(p []byte) Stage { return Stage(p[offFlags]) & stageMask }

// Transit reports the T bit.
func (p LoginRequest) Transit() bool { return BHS(p).Final() }

// Continue reports the C bit.
func (p LoginRequest) Continue() bool { return p[offFlags]&continueBit != 0 }

// CSG returns the current stage.
func (p LoginRequest) CSG() Stage { return loginCSG(p) }

// NSG returns the next stage, valid only with Transit.
func (p LoginRequest) NSG() Stage { return loginNSG(p) }

// VersionMax returns the highest version the initiator speaks.
func (p LoginRequest) VersionMax() uint8 { return p[offVersionMax] }

// VersionMin returns the lowest version the initiator speaks.
func (p LoginRequest) VersionMin() uint8 { return p[offVersionMin] }

// DataSegmentLength returns the length of the text in bytes.
func (p LoginRequest) DataSegmentLength() int { return getDataLen(p) }

// ISID returns the initiator's part of the session id.
func (p LoginRequest) ISID() ISID { return ISID(p[offISID : offISID+len(ISID{})]) }

// TSIH returns the session to join, or zero for a new one.
func (p LoginRequest) TSIH() TSIH { return TSIH(get16(p, offTSIH)) }

// ITT returns the tag, the same through one login.
func (p LoginRequest) ITT() ITT { return getITT(p) }

// CID returns the connection id.
func (p LoginRequest) CID() CID { return CID(get16(p, offCID)) }

// CmdSN returns the first CmdSN of the session.
func (p LoginRequest) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status, from the second request on.
func (p LoginRequest) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }
