package wire

import (
	"encoding/binary"
	"errors"
)

// Errors of Parse.
var (
	ErrShort   = errors.New("packet is shorter than its headers")
	ErrLong    = errors.New("packet is longer than any path allows")
	ErrOpcode  = errors.New("unknown opcode")
	ErrPad     = errors.New("more padding than data")
	ErrVersion = errors.New("unknown transport header version")
)

// Header is the base transport header with the extension headers that the opcode calls for; fields of others are zero.
// Parse and Append are each other's inverse, byte for byte.
type Header struct {
	Opcode    Opcode
	Solicited bool
	MigReq    bool
	AckReq    bool
	Pad       uint8 // bytes after the data, 0 to 3
	Notify    uint8 // the byte with the congestion bits (FECN 0x80, BECN 0x40), not covered by the ICRC
	Reserved  uint8 // the seven bits beside AckReq
	PKey      uint16
	DestQP    uint32
	PSN       PSN

	VA       uint64 // RETH: address in the responder's memory
	RKey     uint32
	Length   uint32   // of the whole message, in bytes
	Syndrome Syndrome // AETH
	MSN      uint32
	InvRKey  uint32 // IETH: the key to invalidate
	Imm      uint32 // immediate data
	QKey     uint32 // DETH
	SrcQP    uint32
}

const (
	solicitedBit = 0x80
	migReqBit    = 0x40
	ackReqBit    = 0x80
	padShift     = 4
	versionMask  = 0x0f
)

// DestQP is the queue pair that a packet is for, to find its connection by. False where there is no whole BTH.
func DestQP(b []byte) (uint32, bool) {
	if len(b) < BTHLen {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[4:]) & PSNMask, true
}

// Parse takes a packet without its ICRC apart. The data is a part of b, without the padding. With ErrOpcode, and no
// other error, come the fields of the BTH.
func Parse(b []byte) (h Header, data []byte, err error) {
	if err := checkBTH(b); err != nil {
		return Header{}, nil, err
	}
	h.parseBTH(b)
	n := h.Opcode.HeaderLen()
	switch {
	case n == 0:
		return h, nil, ErrOpcode
	case len(b) < n:
		return Header{}, nil, ErrShort
	}
	h.parseExtensions(b[BTHLen:n])
	data = b[n:]
	if int(h.Pad) > len(data) {
		return Header{}, nil, ErrPad
	}
	return h, data[:len(data)-int(h.Pad)], nil
}

func checkBTH(b []byte) error {
	switch {
	case len(b) < BTHLen:
		return ErrShort
	case len(b) > MaxPacket-ICRCLen:
		return ErrLong
	case b[1]&versionMask != 0:
		return ErrVersion
	}
	return nil
}

func (h *Header) parseBTH(b []byte) {
	h.Opcode = Opcode(b[0])
	h.Solicited, h.MigReq = b[1]&solicitedBit != 0, b[1]&migReqBit != 0
	h.Pad = b[1] >> padShift & MaxPad
	h.PKey = binary.BigEndian.Uint16(b[2:])
	h.Notify = b[4]
	h.DestQP = binary.BigEndian.Uint32(b[4:]) & PSNMask
	h.AckReq, h.Reserved = b[8]&ackReqBit != 0, b[8]&^ackReqBit
	h.PSN = PSN(binary.BigEndian.Uint32(b[8:]) & PSNMask)
}

// parseExtensions reads b, which has exactly the length that the opcode calls for.
func (h *Header) parseExtensions(b []byte) {
	t := opcodes[h.Opcode]
	if t&hasDETH != 0 {
		h.QKey, h.SrcQP = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		b = b[dethLen:]
	}
	if t&hasRETH != 0 {
		h.VA, h.RKey, h.Length = binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
		b = b[rethLen:]
	}
	if t&hasAETH != 0 {
		v := binary.BigEndian.Uint32(b)
		h.Syndrome, h.MSN = Syndrome(v>>psnBits), v&PSNMask
	}
	if t&hasIETH != 0 {
		h.InvRKey = binary.BigEndian.Uint32(b)
	}
	if t&hasImm != 0 {
		h.Imm = binary.BigEndian.Uint32(b)
	}
}

// Append appends the headers. Data, padding and ICRC are the caller's to add.
func (h *Header) Append(b []byte) []byte {
	b = append(b, byte(h.Opcode), h.Pad&MaxPad<<padShift)
	if h.Solicited {
		b[len(b)-1] |= solicitedBit
	}
	if h.MigReq {
		b[len(b)-1] |= migReqBit
	}
	b = binary.BigEndian.AppendUint16(b, h.PKey)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Notify)<<psnBits|h.DestQP&PSNMask)
	psn := uint32(h.Reserved&^ackReqBit)<<psnBits | uint32(h.PSN)&PSNMask
	if h.AckReq {
		psn |= ackReqBit << psnBits
	}
	return h.appendExtensions(binary.BigEndian.AppendUint32(b, psn))
}

func (h *Header) appendExtensions(b []byte) []byte {
	t := opcodes[h.Opcode]
	if t&hasDETH != 0 {
		b = binary.BigEndian.AppendUint32(b, h.QKey)
		b = binary.BigEndian.AppendUint32(b, h.SrcQP)
	}
	if t&hasRETH != 0 {
		b = binary.BigEndian.AppendUint64(b, h.VA)
		b = binary.BigEndian.AppendUint32(b, h.RKey)
		b = binary.BigEndian.AppendUint32(b, h.Length)
	}
	if t&hasAETH != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(h.Syndrome)<<psnBits|h.MSN&PSNMask)
	}
	if t&hasIETH != 0 {
		b = binary.BigEndian.AppendUint32(b, h.InvRKey)
	}
	if t&hasImm != 0 {
		b = binary.BigEndian.AppendUint32(b, h.Imm)
	}
	return b
}

// PadLen is how much padding n bytes of data need.
func PadLen(n int) int { return -n & MaxPad }
