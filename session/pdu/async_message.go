package pdu

import "iserblk/session/scsi"

// Offsets in an Asynchronous Message (RFC 7143 11.9).
const (
	offAsyncEvent = 36
	offAsyncVCode = 37
	offParameter1 = 38
	offParameter2 = 40
	offParameter3 = 42
)

// AsyncEvent is the kind of an Asynchronous Message (RFC 7143 11.9.1).
type AsyncEvent uint8

// Asynchronous events.
const (
	AsyncSCSI               AsyncEvent = 0 // sense data follows
	AsyncLogoutRequest      AsyncEvent = 1 // log out within Parameter3 seconds
	AsyncConnectionDrop     AsyncEvent = 2 // the connection Parameter1 will go
	AsyncSessionDrop        AsyncEvent = 3 // every connection will go
	AsyncNegotiationRequest AsyncEvent = 4 // negotiate within Parameter3 seconds
	AsyncTaskTermination    AsyncEvent = 5 // tasks of the LUN were ended
	AsyncVendor             AsyncEvent = 255
)

// String returns the meaning of the event.
func (e AsyncEvent) String() string {
	switch e {
	case AsyncSCSI:
		return "scsi event"
	case AsyncLogoutRequest:
		return "logout requested"
	case AsyncConnectionDrop:
		return "connection will be dropped"
	case AsyncSessionDrop:
		return "session will be dropped"
	case AsyncNegotiationRequest:
		return "negotiation requested"
	case AsyncTaskTermination:
		return "tasks terminated"
	case AsyncVendor:
		return "vendor event"
	}
	return hexName("event", uint8(e))
}

// AsyncMessage is the view of an Asynchronous Message (RFC 7143 11.9).
type AsyncMessage []byte

// AsyncMessageFields are the parts of an Asynchronous Message.
type AsyncMessageFields struct {
	DataLen    int // sense and event data behind the header, in bytes
	LUN        scsi.LUN
	StatSN     StatSN
	ExpCmdSN   CmdSN
	MaxCmdSN   CmdSN
	Event      AsyncEvent
	VCode      uint8
	Parameter1 uint16
	Parameter2 uint16
	Parameter3 uint16
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f AsyncMessageFields) Encode(dst []byte) {
	p := begin(dst, OpAsyncMessage, false, reservedFlags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(ReservedITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
	p[offAsyncEvent], p[offAsyncVCode] = byte(f.Event), f.VCode
	put16(p, offParameter1, f.Parameter1)
	put16(p, offParameter2, f.Parameter2)
	put16(p, offParameter3, f.Parameter3)
}

// Validate reports an *Error unless p is a whole message that names no task
// and is followed by the dataLen bytes it announces.
func (p AsyncMessage) Validate(dataLen int) error {
	if err := check(p, OpAsyncMessage, dataLen); err != nil {
		return err
	}
	if t := getITT(p); t != ReservedITT {
		return bad(OpAsyncMessage, "InitiatorTaskTag", "0x%08x, want 0x%08x", uint32(t), uint32(ReservedITT))
	}
	return nil
}

// DataSegmentLength returns the length of the sense and event data in bytes.
func (p AsyncMessage) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the logical unit of a SCSI event or task termination.
func (p AsyncMessage) LUN() scsi.LUN { return getLUN(p) }

// StatSN returns the status sequence number.
func (p AsyncMessage) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p AsyncMessage) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p AsyncMessage) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }

// Event returns the kind of the message.
func (p AsyncMessage) Event() AsyncEvent { return AsyncEvent(p[offAsyncEvent]) }

// VCode returns the vendor's code.
func (p AsyncMessage) VCode() uint8 { return p[offAsyncVCode] }

// Parameter1 returns the first parameter, the CID of a connection drop.
func (p AsyncMessage) Parameter1() uint16 { return get16(p, offParameter1) }

// Parameter2 returns the second parameter, Time2Wait of a drop in seconds.
func (p AsyncMessage) Parameter2() uint16 { return get16(p, offParameter2) }

// Parameter3 returns the third parameter, in seconds: Time2Retain of a drop,
// or the time left to log out or negotiate.
func (p AsyncMessage) Parameter3() uint16 { return get16(p, offParameter3) }
