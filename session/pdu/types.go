package pdu

import "fmt"

// ITT is an Initiator Task Tag, the initiator's name for a task
// (RFC 7143 11.2.1.8).
type ITT uint32

// ReservedITT marks a PDU that belongs to no task.
const ReservedITT ITT = allOnes

// TTT is a Target Transfer Tag, the target's name for something it waits for.
type TTT uint32

// ReservedTTT marks a PDU that carries no target transfer tag.
const ReservedTTT TTT = allOnes

// CmdSN numbers the commands of a session (RFC 7143 4.2.2.1). It wraps, so it
// is compared by serial number arithmetic (RFC 1982) and never with < or -.
type CmdSN uint32

// Less reports whether n comes before o. Two numbers exactly 2^31 apart have
// no order; Less is then false both ways.
func (n CmdSN) Less(o CmdSN) bool { return serialLess(uint32(n), uint32(o)) }

// Add returns the number d steps after n.
func (n CmdSN) Add(d uint32) CmdSN { return n + CmdSN(d) }

// Diff returns how many steps n is after o, negative if it is before.
func (n CmdSN) Diff(o CmdSN) int32 { return int32(n - o) }

// StatSN numbers the status PDUs of a connection (RFC 7143 4.2.2.2). It wraps
// as CmdSN does.
type StatSN uint32

// Less reports whether n comes before o. Two numbers exactly 2^31 apart have
// no order; Less is then false both ways.
func (n StatSN) Less(o StatSN) bool { return serialLess(uint32(n), uint32(o)) }

// Add returns the number d steps after n.
func (n StatSN) Add(d uint32) StatSN { return n + StatSN(d) }

// Diff returns how many steps n is after o, negative if it is before.
func (n StatSN) Diff(o StatSN) int32 { return int32(n - o) }

func serialLess(a, b uint32) bool {
	const half = 1 << 31
	return a != b && b-a < half
}

// TSIH is a Target Session Identifying Handle. Zero asks for a new session
// (RFC 7143 11.12.6).
type TSIH uint16

// CID is a connection id within a session (RFC 7143 11.12.7).
type CID uint16

// ISID is the initiator's part of a session id (RFC 7143 11.12.5). Together
// with the initiator name and the target portal group it names one I_T nexus.
type ISID [6]byte

// isidRandom is the naming authority type "random" (10b) in the top bits.
const isidRandom = 0x80

// NewISID returns an ISID of the "random" type from the low 24 bits of random
// and a qualifier.
func NewISID(random uint32, qualifier uint16) ISID {
	return ISID{
		isidRandom, byte(random >> 16), byte(random >> 8), byte(random),
		byte(qualifier >> 8), byte(qualifier),
	}
}

// String returns the twelve hex digits of the ISID, lower case.
func (i ISID) String() string { return fmt.Sprintf("%x", i[:]) }
