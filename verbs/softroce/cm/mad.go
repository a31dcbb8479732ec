package cm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MADLen is the size of every CM message in bytes: a management datagram (IBTA volume 1, 13.4.3).
const MADLen = 256

// MAD is one message as it is sent to QP 1.
type MAD [MADLen]byte

// Attr says which message a MAD is (IBTA volume 1, table 126).
type Attr uint16

// The messages of the connection manager's class that reliable connections use.
const (
	AttrREQ  Attr = 0x10
	AttrMRA  Attr = 0x11
	AttrREJ  Attr = 0x12
	AttrREP  Attr = 0x13
	AttrRTU  Attr = 0x14
	AttrDREQ Attr = 0x15
	AttrDREP Attr = 0x16
)

// The MAD header (IBTA volume 1, 13.4.2). The body follows it.
const (
	offBaseVersion  = 0
	offClass        = 1
	offClassVersion = 2
	offMethod       = 3
	offTID          = 8
	offAttr         = 16
	body            = 24

	baseVersion  = 1
	classCM      = 7
	classVersion = 2
	methodSend   = 3
)

// All messages begin their body with the sender's identifier of the connection, all but REQ go on with the receiver's.
const (
	offLocalID  = body
	offRemoteID = body + 4
)

// ErrMalformed matches the error of every message that cannot be parsed.
var ErrMalformed = errors.New("malformed CM message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Attr is the kind of message. It says nothing about whether the header is right: see Check.
func (m *MAD) Attr() Attr { return Attr(m.u16(offAttr)) }

// TID is the transaction: answers carry that of their request.
func (m *MAD) TID() uint64 { return binary.BigEndian.Uint64(m[offTID:]) }

// LocalID is the sender's identifier of the connection.
func (m *MAD) LocalID() uint32 { return m.u32(offLocalID) }

// RemoteID is the receiver's identifier of the connection. A REQ has none.
func (m *MAD) RemoteID() uint32 { return m.u32(offRemoteID) }

// Check refuses what is no message of the connection manager, of the one version that there is.
func (m *MAD) Check() error {
	switch {
	case m[offBaseVersion] != baseVersion:
		return malformed("base version %d", m[offBaseVersion])
	case m[offClass] != classCM || m[offClassVersion] != classVersion:
		return malformed("class %d version %d", m[offClass], m[offClassVersion])
	case m[offMethod] != methodSend:
		return malformed("method %d", m[offMethod])
	}
	return nil
}

// ParseMAD copies a datagram's payload and checks its header.
func ParseMAD(b []byte) (m MAD, err error) {
	if len(b) != MADLen {
		return m, malformed("%d bytes", len(b))
	}
	copy(m[:], b)
	return m, m.Check()
}

// header starts a message.
func (m *MAD) header(a Attr, tid uint64, local, remote uint32) {
	m[offBaseVersion], m[offClass], m[offClassVersion], m[offMethod] = baseVersion, classCM, classVersion, methodSend
	binary.BigEndian.PutUint64(m[offTID:], tid)
	m.put16(offAttr, uint16(a))
	m.put32(offLocalID, local)
	if a != AttrREQ {
		m.put32(offRemoteID, remote)
	}
}

func (m *MAD) u16(off int) uint16 { return binary.BigEndian.Uint16(m[off:]) }
func (m *MAD) u32(off int) uint32 { return binary.BigEndian.Uint32(m[off:]) }
func (m *MAD) u64(off int) uint64 { return binary.BigEndian.Uint64(m[off:]) }

// u24 is the number in the upper three bytes of a word; the fourth byte is another field.
func (m *MAD) u24(off int) uint32 { return m.u32(off) >> 8 }

func (m *MAD) put16(off int, v uint16) { binary.BigEndian.PutUint16(m[off:], v) }
func (m *MAD) put32(off int, v uint32) { binary.BigEndian.PutUint32(m[off:], v) }
func (m *MAD) put64(off int, v uint64) { binary.BigEndian.PutUint64(m[off:], v) }

// put24 writes a number to the upper three bytes of a word, and leaves the fourth.
func (m *MAD) put24(off int, v uint32) {
	m[off], m[off+1], m[off+2] = byte(v>>16), byte(v>>8), byte(v)
}

// String names the message.
func (a Attr) String() string {
	switch a {
	case AttrREQ:
		return "REQ"
	case AttrMRA:
		return "MRA"
	case AttrREJ:
		return "REJ"
	case AttrREP:
		return "REP"
	case AttrRTU:
		return "RTU"
	case AttrDREQ:
		return "DREQ"
	case AttrDREP:
		return "DREP"
	}
	return fmt.Sprintf("attribute 0x%x", uint16(a))
}
