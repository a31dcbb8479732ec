package rc

import "iserblk/verbs/softroce/wire"

// Packet is one packet to send, in the pieces that a gathering send takes: Header, both of Data, Trailer. The trailer
// ends with room for the ICRC (wire.Flow.Seal).
type Packet struct {
	// Data lies where the work request or the peer's window has it: it is not copied, and it is valid until the next
	// call of any method of the queue pair or its Memory but Next.
	Data [2][]byte

	header     [wire.MaxHeader]byte
	trailer    [wire.MaxPad + wire.ICRCLen]byte
	headerLen  uint8
	trailerLen uint8
}

// Header is the transport headers.
func (p *Packet) Header() []byte { return p.header[:p.headerLen] }

// Trailer is the padding, of zeroes, and room for the ICRC.
func (p *Packet) Trailer() []byte { return p.trailer[:p.trailerLen] }

// Len is the length of the datagram.
func (p *Packet) Len() int {
	return int(p.headerLen) + len(p.Data[0]) + len(p.Data[1]) + int(p.trailerLen)
}

// Append appends the packet in one piece, without the ICRC.
func (p *Packet) Append(b []byte) []byte {
	b = append(append(append(b, p.Header()...), p.Data[0]...), p.Data[1]...)
	return append(b, p.trailer[:p.trailerLen-wire.ICRCLen]...)
}

// set fills the packet. The data must be in place.
func (p *Packet) set(h *wire.Header) {
	pad := wire.PadLen(len(p.Data[0]) + len(p.Data[1]))
	h.Pad, h.PKey = uint8(pad), wire.DefaultPKey
	h.MigReq = true // HCAs want to see the state in which no path migration goes on
	p.headerLen = uint8(len(h.Append(p.header[:0])))
	p.trailer = [len(p.trailer)]byte{}
	p.trailerLen = uint8(pad + wire.ICRCLen)
}
