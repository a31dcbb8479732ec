package iser

import (
	"encoding/binary"

	"iserblk/session/pdu"
)

// The iSER header of a control-type PDU as every implementation sends it (RFC 7145 9.2 with the 64-bit addresses of
// RFC 5046 annex and IBTA annex A12; struct iser_ctrl in the kernel's include/scsi/iser.h), big-endian:
//
//	u8 flags; u8 rsvd[3]; be32 write_stag; be64 write_va; be32 read_stag; be64 read_va;
const (
	headerLen = 28
	// HeadersLen is the iSER header and the basic header segment behind it, in bytes.
	HeadersLen = headerLen + pdu.BHSLen

	offFlags     = 0
	offWriteSTag = 4
	offWriteVA   = 8
	offReadSTag  = 16
	offReadVA    = 20
)

// Flags of the iSER header's first byte.
const (
	typeMask       = 0xf0
	typeControl    = 0x10
	typeHello      = 0x20
	typeHelloReply = 0x30
	flagWSV        = 0x08 // write STag valid: the target may read there
	flagRSV        = 0x04 // read STag valid: the target may write there
)

// Flags of the four bytes of private data in a CM request or reply (IBTA annex A12; struct iser_cm_hdr).
const (
	cmNoZBVA          = 0x80 // zero-based virtual addresses are not used
	cmNoSendWithInv   = 0x40 // the peer must not invalidate keys: plain memory regions cannot be
	cmPrivateDataLen  = 4
	cmPrivateDataFlag = cmNoZBVA | cmNoSendWithInv
)

// tags is what a command's header says about its buffer. A zero address means that there is none in that direction.
type tags struct {
	writeKey, readKey uint32
	writeVA, readVA   uint64
}

// put writes the iSER header to the first headerLen bytes of dst.
func (t tags) put(dst []byte) {
	_ = dst[headerLen-1]
	dst[offFlags], dst[1], dst[2], dst[3] = t.flags(), 0, 0, 0
	binary.BigEndian.PutUint32(dst[offWriteSTag:], t.writeKey)
	binary.BigEndian.PutUint64(dst[offWriteVA:], t.writeVA)
	binary.BigEndian.PutUint32(dst[offReadSTag:], t.readKey)
	binary.BigEndian.PutUint64(dst[offReadVA:], t.readVA)
}

func (t tags) flags() byte {
	flags := byte(typeControl)
	if t.writeVA != 0 {
		flags |= flagWSV
	}
	if t.readVA != 0 {
		flags |= flagRSV
	}
	return flags
}

// checkType tells a control header from what must not arrive.
func checkType(flags byte) error {
	switch flags & typeMask {
	case typeControl:
		return nil
	case typeHello, typeHelloReply:
		return ErrHello
	}
	return ErrHeader
}
