package wire

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawHeader(t *rapid.T) Header {
	var ops []Opcode
	for o := range opcodes {
		if Opcode(o).Known() {
			ops = append(ops, Opcode(o))
		}
	}
	h := Header{
		Opcode:    rapid.SampledFrom(ops).Draw(t, "opcode"),
		Solicited: rapid.Bool().Draw(t, "solicited"), MigReq: rapid.Bool().Draw(t, "migreq"), AckReq: rapid.Bool().Draw(t, "ackreq"),
		Notify: rapid.Byte().Draw(t, "notify"), Reserved: rapid.Byte().Draw(t, "reserved") & 0x7f,
		PKey: rapid.Uint16().Draw(t, "pkey"), DestQP: rapid.Uint32Max(PSNMask).Draw(t, "qp"),
		PSN: PSN(rapid.Uint32Max(PSNMask).Draw(t, "psn")),
	}
	traits := opcodes[h.Opcode]
	if traits&hasRETH != 0 {
		h.VA, h.RKey, h.Length = rapid.Uint64().Draw(t, "va"), rapid.Uint32().Draw(t, "rkey"), rapid.Uint32().Draw(t, "len")
	}
	if traits&hasAETH != 0 {
		h.Syndrome, h.MSN = Syndrome(rapid.Byte().Draw(t, "syndrome")), rapid.Uint32Max(PSNMask).Draw(t, "msn")
	}
	if traits&hasIETH != 0 {
		h.InvRKey = rapid.Uint32().Draw(t, "inv")
	}
	if traits&hasImm != 0 {
		h.Imm = rapid.Uint32().Draw(t, "imm")
	}
	if traits&hasDETH != 0 {
		h.QKey, h.SrcQP = rapid.Uint32().Draw(t, "qkey"), rapid.Uint32().Draw(t, "srcqp")
	}
	return h
}

func TestWhatIsAppendedIsParsedAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		data := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "data")
		h.Pad = uint8(PadLen(len(data)))
		b := h.Append(nil)
		if len(b) != h.Opcode.HeaderLen() || len(b) > MaxHeader {
			t.Fatalf("header of %d bytes, %d expected", len(b), h.Opcode.HeaderLen())
		}
		b = append(append(b, data...), make([]byte, h.Pad)...)
		got, gotData, err := Parse(b)
		if err != nil || got != h || !bytes.Equal(gotData, data) {
			t.Fatalf("%v %v\n%s", err, gotData, cmp.Diff(h, got))
		}
	})
}

func TestHeadersHaveTheLengthsOfTheStandard(t *testing.T) {
	want := map[Opcode]int{
		SendFirst: 12, SendOnly: 12, SendLastInvalidate: 16, SendOnlyImmediate: 16, WriteFirst: 28, WriteMiddle: 12, WriteOnly: 28,
		WriteOnlyImmediate: 32, ReadRequest: 28, ReadResponseFirst: 16, ReadResponseMiddle: 12, ReadResponseOnly: 16, Ack: 16,
		UDSendOnly: 20, CongestionNotification: 12, 0x13: 0, 0x64 + 1: 0, 0xff: 0,
	}
	for o, n := range want {
		if o.HeaderLen() != n {
			t.Errorf("opcode %#x: %d bytes, not %d", o, o.HeaderLen(), n)
		}
	}
}

func TestOpcodesKnowTheirKind(t *testing.T) {
	for o := range Opcode(0x20) {
		if !o.Known() {
			continue
		}
		kinds := 0
		for _, is := range []bool{o.IsSend(), o.IsWrite(), o == ReadRequest, o.IsResponse()} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || !o.IsRC() {
			t.Errorf("opcode %#x is of %d kinds", o, kinds)
		}
		if o.IsReadResponse() && o != ReadResponseMiddle && !o.HasAETH() {
			t.Errorf("opcode %#x acknowledges nothing", o)
		}
	}
	if UDSendOnly.IsRC() || CongestionNotification.IsRC() || Opcode(0x12).Known() || !Opcode(0x12).IsResponse() {
		t.Error("datagrams or atomics are taken for what they are not")
	}
}

func TestBrokenPacketsAreRefused(t *testing.T) {
	whole := (&Header{Opcode: ReadRequest}).Append(nil)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                 {nil, ErrShort},
		"half a BTH":              {whole[:11], ErrShort},
		"half an RETH":            {whole[:27], ErrShort},
		"unknown opcode":          {append([]byte{0x13}, whole[1:]...), ErrOpcode},
		"unknown version":         {append([]byte{0x0c, 0x01}, whole[2:]...), ErrVersion},
		"padding without data":    {append([]byte{0x0c, 0x30}, whole[2:]...), ErrPad},
		"more than a path allows": {make([]byte, MaxPacket), ErrLong},
	} {
		if _, _, err := Parse(c.b); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := DestQP(whole[:11]); ok {
		t.Error("half a BTH has a destination")
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := PSN(rapid.Uint32Max(PSNMask).Draw(t, "psn"))
		n := rapid.IntRange(-1<<23, 1<<23-1).Draw(t, "n")
		if q := p.Add(n); q > PSNMask || q.Sub(p) != n || q.Less(p) != (n < 0) {
			t.Fatalf("%#x + %d = %#x, difference %d", p, n, q, q.Sub(p))
		}
	})
}

func TestSyndromesAreToldApart(t *testing.T) {
	for s := range 256 {
		s := Syndrome(s)
		if kinds := [...]bool{s.IsAck(), s.IsRNR(), s.IsNak()}; s&0x80 != 0 && kinds != [3]bool{} {
			t.Errorf("syndrome %#x has the reserved bit and is %v", s, kinds)
		}
	}
	if !AckNoCredits.IsAck() || !RNRNak(12).IsRNR() || !NakSequence.IsNak() || !NakRemoteOperation.IsNak() {
		t.Error("a syndrome is not what it is")
	}
	if d := RNRNak(12).RNRDelay(); d != 640*time.Microsecond {
		t.Errorf("timer code 12 is %v", d)
	}
	if d := RNRNak(0).RNRDelay(); d != 655360*time.Microsecond {
		t.Errorf("timer code 0 is %v", d)
	}
	for d, want := range map[time.Duration]uint8{time.Microsecond: 1, 640 * time.Microsecond: 12, 641 * time.Microsecond: 13, time.Second: 0} {
		if RNRCode(d) != want {
			t.Errorf("%v has timer code %d", d, RNRCode(d))
		}
	}
}

func FuzzParse(f *testing.F) {
	for o := range opcodes {
		f.Add(append((&Header{Opcode: Opcode(o), Pad: 1}).Append(nil), 1, 2, 3, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, data, err := Parse(b)
		if err != nil {
			if h != (Header{}) && err != ErrOpcode || data != nil {
				t.Fatal("an error comes with a packet")
			}
			return
		}
		again := append(h.Append(nil), data...)
		if !bytes.Equal(again, b[:len(b)-int(h.Pad)]) {
			t.Fatalf("% x\nbecame\n% x", b, again)
		}
		if qp, ok := DestQP(b); !ok || qp != h.DestQP {
			t.Fatal("destination differs")
		}
	})
}
