// Package wire is RoCEv2 as bytes: the base transport header and its extensions, the opcodes of reliable connections,
// and the invariant CRC (IBTA volume 1, chapter 9, and annex A17). It knows no connections, no sockets and no clocks.
//
// A packet is the payload of a UDP datagram to port 4791:
//
//	BTH 12 | extension headers | data | 0 to 3 bytes of padding | ICRC 4
package wire

// Port is the UDP port that every RoCEv2 packet goes to.
const Port = 4791

// Sizes in bytes.
const (
	BTHLen   = 12
	rethLen  = 16
	aethLen  = 4
	iethLen  = 4
	immLen   = 4
	dethLen  = 8
	ICRCLen  = 4
	MaxPad   = 3
	MaxBytes = 4096 // data in one packet, at most

	// MaxHeader is the longest header of a packet that this package can say: a WRITE ONLY with immediate data.
	MaxHeader = BTHLen + rethLen + immLen
	// MaxPacket is the longest payload of a datagram.
	MaxPacket = MaxHeader + MaxBytes + ICRCLen
)

// DefaultPKey is the one partition that RoCE has (IBTA A17.7).
const DefaultPKey = 0xffff

// GSI is the queue pair number of the connection manager, and GSIQKey its queue key (IBTA 13.5).
const (
	GSI     = 1
	GSIQKey = 0x80010000
)
