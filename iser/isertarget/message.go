package isertarget

import (
	"encoding/binary"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

const (
	headerLen   = 28
	messageLen  = headerLen + pdu.BHSLen
	typeControl = 0x10
	flagWSV     = 0x08
	flagRSV     = 0x04
)

// header is a request's iSER header (RFC 7145 9.2, in the form with 64-bit addresses).
type header struct {
	flags             byte
	writeTag, readTag uint32
	writeVA, readVA   uint64
}

func parseHeader(b []byte) header {
	return header{
		flags:    b[0],
		writeTag: binary.BigEndian.Uint32(b[4:]), writeVA: binary.BigEndian.Uint64(b[8:]),
		readTag: binary.BigEndian.Uint32(b[16:]), readVA: binary.BigEndian.Uint64(b[20:]),
	}
}

// NewMessage puts an iSER header in front of a PDU, and its data behind it.
func NewMessage(bhs, data []byte) []byte {
	msg := make([]byte, messageLen, messageLen+len(data)+pdu.MaxPad)
	msg[0] = typeControl
	copy(msg[headerLen:], bhs)
	return append(msg, data...)
}

// sense is sense data as the target's habits want it.
func (o Options) sense(s scsi.Sense) []byte {
	b := scsi.AppendFixedSense(nil, s)
	if o.DescriptorSense {
		b = scsi.AppendDescriptorSense(nil, s)
	}
	for len(b) < o.SenseLength {
		b = append(b, 0)
	}
	return b
}

func pad(msg []byte) []byte {
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}
