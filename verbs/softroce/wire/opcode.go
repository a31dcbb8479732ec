package wire

// Opcode says what a packet is (IBTA 9.2.1): three bits of transport, five of operation.
type Opcode uint8

// The opcodes of reliable connections that this package can say, that of the connection manager's datagrams, and the
// congestion notification packet of RoCEv2.
const (
	SendFirst              Opcode = 0x00
	SendMiddle             Opcode = 0x01
	SendLast               Opcode = 0x02
	SendLastImmediate      Opcode = 0x03
	SendOnly               Opcode = 0x04
	SendOnlyImmediate      Opcode = 0x05
	WriteFirst             Opcode = 0x06
	WriteMiddle            Opcode = 0x07
	WriteLast              Opcode = 0x08
	WriteLastImmediate     Opcode = 0x09
	WriteOnly              Opcode = 0x0a
	WriteOnlyImmediate     Opcode = 0x0b
	ReadRequest            Opcode = 0x0c
	ReadResponseFirst      Opcode = 0x0d
	ReadResponseMiddle     Opcode = 0x0e
	ReadResponseLast       Opcode = 0x0f
	ReadResponseOnly       Opcode = 0x10
	Ack                    Opcode = 0x11
	SendLastInvalidate     Opcode = 0x16
	SendOnlyInvalidate     Opcode = 0x17
	UDSendOnly             Opcode = 0x64
	CongestionNotification Opcode = 0x81

	atomicAck Opcode = 0x12
	lastRC    Opcode = 0x1f
)

// traits is what there is to know about an opcode.
type traits uint8

const (
	known traits = 1 << iota
	starts
	ends
	hasRETH
	hasAETH
	hasIETH
	hasImm
	hasDETH
)

var opcodes = [256]traits{
	SendFirst:              known | starts,
	SendMiddle:             known,
	SendLast:               known | ends,
	SendLastImmediate:      known | ends | hasImm,
	SendOnly:               known | starts | ends,
	SendOnlyImmediate:      known | starts | ends | hasImm,
	WriteFirst:             known | starts | hasRETH,
	WriteMiddle:            known,
	WriteLast:              known | ends,
	WriteLastImmediate:     known | ends | hasImm,
	WriteOnly:              known | starts | ends | hasRETH,
	WriteOnlyImmediate:     known | starts | ends | hasRETH | hasImm,
	ReadRequest:            known | starts | ends | hasRETH,
	ReadResponseFirst:      known | starts | hasAETH,
	ReadResponseMiddle:     known,
	ReadResponseLast:       known | ends | hasAETH,
	ReadResponseOnly:       known | starts | ends | hasAETH,
	Ack:                    known | starts | ends | hasAETH,
	SendLastInvalidate:     known | ends | hasIETH,
	SendOnlyInvalidate:     known | starts | ends | hasIETH,
	UDSendOnly:             known | starts | ends | hasDETH,
	CongestionNotification: known | starts | ends,
}

var headerLens = func() (lens [256]uint8) {
	sizes := map[traits]uint8{hasRETH: rethLen, hasAETH: aethLen, hasIETH: iethLen, hasImm: immLen, hasDETH: dethLen}
	for op, t := range opcodes {
		if t&known == 0 {
			continue
		}
		lens[op] = BTHLen
		for trait, size := range sizes {
			if t&trait != 0 {
				lens[op] += size
			}
		}
	}
	return lens
}()

// Known tells whether this package can parse and append packets of this opcode.
func (o Opcode) Known() bool { return opcodes[o]&known != 0 }

// HeaderLen is the length of the BTH and the extension headers together, 0 of an opcode that is not known.
func (o Opcode) HeaderLen() int { return int(headerLens[o]) }

// Starts and Ends tell whether the packet is the first and the last of its message.
func (o Opcode) Starts() bool { return opcodes[o]&starts != 0 }

// Ends tells whether the packet is the last of its message.
func (o Opcode) Ends() bool { return opcodes[o]&ends != 0 }

// HasRETH tells whether the packet names remote memory.
func (o Opcode) HasRETH() bool { return opcodes[o]&hasRETH != 0 }

// HasAETH tells whether the packet carries an acknowledgement.
func (o Opcode) HasAETH() bool { return opcodes[o]&hasAETH != 0 }

// HasImmediate tells whether the packet carries immediate data.
func (o Opcode) HasImmediate() bool { return opcodes[o]&hasImm != 0 }

// Invalidates tells whether the packet asks to invalidate a key.
func (o Opcode) Invalidates() bool { return opcodes[o]&hasIETH != 0 }

// IsRC tells whether the opcode belongs to reliable connections, known here or not.
func (o Opcode) IsRC() bool { return o <= lastRC }

// IsSend tells a packet of a SEND, IsWrite one of an RDMA WRITE.
func (o Opcode) IsSend() bool {
	return o <= SendOnlyImmediate || o == SendLastInvalidate || o == SendOnlyInvalidate
}

// IsWrite tells a packet of an RDMA WRITE.
func (o Opcode) IsWrite() bool { return o >= WriteFirst && o <= WriteOnlyImmediate }

// IsReadResponse tells a packet with data that was read.
func (o Opcode) IsReadResponse() bool { return o >= ReadResponseFirst && o <= ReadResponseOnly }

// IsResponse tells what a responder says from what a requester says.
func (o Opcode) IsResponse() bool { return o.IsReadResponse() || o == Ack || o == atomicAck }
