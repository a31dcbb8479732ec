package cm

import "time"

// IDs are what every message but REQ names its connection by.
type IDs struct {
	TID      uint64
	LocalID  uint32 // the sender's identifier
	RemoteID uint32 // the receiver's
}

func (m *MAD) ids() IDs { return IDs{TID: m.TID(), LocalID: m.LocalID(), RemoteID: m.RemoteID()} }

func (i IDs) encode(a Attr) (m MAD) {
	m.header(a, i.TID, i.LocalID, i.RemoteID)
	return m
}

// REP accepts a connection (IBTA volume 1, table 110).
type REP struct {
	IDs
	QPN uint32
	// RecvPSN is the first packet number that the sender of this message expects: see REQ.
	RecvPSN                            uint32
	ResponderResources, InitiatorDepth uint8
	AckDelay                           uint8 // how long the sender takes to acknowledge, as a code
	RNRRetry                           uint8 // for the receiver's sends towards the sender
	GUID                               uint64
	Private                            [REPPrivateLen]byte
}

// REPPrivateLen is how many bytes of private data a REP carries.
const REPPrivateLen = 196

const (
	repQPN       = body + 12
	repPSN       = body + 20
	repResources = body + 24
	repDepth     = body + 25
	repAckDelay  = body + 26 // 5 bits; failover accepted 2; end-to-end flow control 1
	repRNR       = body + 27 // 3 bits; SRQ 1
	repGUID      = body + 28
	repPrivate   = body + 36
)

// Encode writes the message.
func (r *REP) Encode() MAD {
	m := r.encode(AttrREP)
	m.put24(repQPN, r.QPN)
	m.put24(repPSN, r.RecvPSN)
	m[repResources], m[repDepth] = r.ResponderResources, r.InitiatorDepth
	m[repAckDelay], m[repRNR] = r.AckDelay<<3, r.RNRRetry<<5
	m.put64(repGUID, r.GUID)
	copy(m[repPrivate:], r.Private[:])
	return m
}

// ParseREP reads the message; its kind has been looked at.
func ParseREP(m *MAD) (r REP, err error) {
	r = REP{
		IDs: m.ids(), QPN: m.u24(repQPN), RecvPSN: m.u24(repPSN),
		ResponderResources: m[repResources], InitiatorDepth: m[repDepth],
		AckDelay: m[repAckDelay] >> 3, RNRRetry: m[repRNR] >> 5, GUID: m.u64(repGUID),
	}
	copy(r.Private[:], m[repPrivate:])
	if r.QPN <= 1 {
		return r, malformed("queue pair %d", r.QPN)
	}
	return r, nil
}

// Reasons to reject that are given or acted on here (IBTA volume 1, table 109).
const (
	ReasonNoResources            = 3
	ReasonTimeout                = 4
	ReasonUnsupported            = 5
	ReasonInvalidService         = 8
	ReasonInvalidTransport       = 9
	ReasonStale                  = 10
	ReasonInvalidGID             = 12
	ReasonInvalidMTU             = 26
	ReasonConsumer               = 28
	rejectedREQ            uint8 = 0
	rejectedREP            uint8 = 1
	rejectedOther          uint8 = 2
)

// REJ refuses a connection or gives it up (IBTA volume 1, table 108).
type REJ struct {
	IDs
	Rejected uint8 // which message: 0 REQ, 1 REP, 2 none
	Reason   uint16
	Info     []byte // additional information, at most 72 bytes; ParseREJ refers to the message
}

const (
	rejMessage = body + 8 // 2 bits
	rejInfoLen = body + 9 // 7 bits
	rejReason  = body + 10
	rejInfo    = body + 12
	maxRejInfo = 72
)

// Encode writes the message.
func (r *REJ) Encode() MAD {
	m := r.encode(AttrREJ)
	m[rejMessage] = r.Rejected << 6
	m.put16(rejReason, r.Reason)
	n := copy(m[rejInfo:rejInfo+maxRejInfo], r.Info)
	m[rejInfoLen] = uint8(n) << 1
	return m
}

// ParseREJ reads the message; its kind has been looked at.
func ParseREJ(m *MAD) (REJ, error) {
	n := int(m[rejInfoLen] >> 1)
	if n > maxRejInfo {
		return REJ{}, malformed("%d bytes of additional information", n)
	}
	return REJ{IDs: m.ids(), Rejected: m[rejMessage] >> 6, Reason: m.u16(rejReason), Info: m[rejInfo : rejInfo+n]}, nil
}

// MRA says that an answer takes longer (IBTA volume 1, table 107).
type MRA struct {
	IDs
	Received uint8 // which message the answer is to: 0 REQ, 1 REP
	Timeout  uint8 // how long it may still take, as a code
}

const (
	mraMessage = body + 8 // 2 bits
	mraTimeout = body + 9 // 5 bits
)

// Encode writes the message.
func (r *MRA) Encode() MAD {
	m := r.encode(AttrMRA)
	m[mraMessage], m[mraTimeout] = r.Received<<6, r.Timeout<<3
	return m
}

// ParseMRA reads the message; its kind has been looked at.
func ParseMRA(m *MAD) MRA {
	return MRA{IDs: m.ids(), Received: m[mraMessage] >> 6, Timeout: m[mraTimeout] >> 3}
}

// DREQ ends a connection (IBTA volume 1, table 112).
type DREQ struct {
	IDs
	QPN uint32 // of the receiver
}

const dreqQPN = body + 8

// Encode writes the message.
func (r *DREQ) Encode() MAD {
	m := r.encode(AttrDREQ)
	m.put24(dreqQPN, r.QPN)
	return m
}

// ParseDREQ reads the message; its kind has been looked at.
func ParseDREQ(m *MAD) DREQ { return DREQ{IDs: m.ids(), QPN: m.u24(dreqQPN)} }

// maxMRA bounds how long a peer can have us wait by an MRA.
const maxMRA = 30 * time.Second
