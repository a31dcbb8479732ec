package wire

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

var (
	srcV4 = netip.MustParseAddrPort("10.0.0.1:49152")
	dstV4 = netip.MustParseAddrPort("10.0.0.2:4791")
	srcV6 = netip.MustParseAddrPort("[fd00::1]:49152")
	dstV6 = netip.MustParseAddrPort("[fd00::2]:4791")
)

func drawPacket(t *rapid.T) []byte {
	data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
	h := drawHeader(t)
	h.Pad = uint8(PadLen(len(data)))
	return append(append(h.Append(nil), data...), make([]byte, h.Pad)...)
}

// slowICRC follows annex A17.9.2 to the letter, with an ID and flags of the IPv4 header.
func slowICRC(src, dst netip.AddrPort, id uint16, flags byte, packet []byte) []byte {
	n := len(packet) + ICRCLen
	b := bytes.Repeat([]byte{0xff}, 8)
	if src.Addr().Is4() {
		b = append(b, 0x45, 0xff)
		b = binary.BigEndian.AppendUint16(b, uint16(28+n))
		b = binary.BigEndian.AppendUint16(b, id)
		b = append(b, flags, 0, 0xff, 17, 0xff, 0xff)
	} else {
		b = append(b, 0x6f, 0xff, 0xff, 0xff)
		b = binary.BigEndian.AppendUint16(b, uint16(8+n))
		b = append(b, 17, 0xff)
	}
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+n))
	b = append(b, 0xff, 0xff)
	bth := len(b)
	b = append(b, packet...)
	b[bth+4] = 0xff
	return binary.LittleEndian.AppendUint32(bytes.Clone(packet), crc32.ChecksumIEEE(b))
}

func TestAnInvariantCRCIsThatOfTheStandard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packet := drawPacket(t)
		src, dst := srcV4, dstV4
		if rapid.Bool().Draw(t, "IPv6") {
			src, dst = srcV6, dstV6
		}
		want := slowICRC(src, dst, 0, dontFragment, packet)
		f := NewFlow(src, dst)
		if got := f.SealWhole(bytes.Clone(packet)); !bytes.Equal(got, want) {
			t.Fatalf("% x, not % x", got[len(packet):], want[len(packet):])
		}
		if !f.Check(src.Port(), want) {
			t.Fatal("the right CRC is refused")
		}
		h := Opcode(packet[0]).HeaderLen()
		cut := rapid.IntRange(h, len(packet)).Draw(t, "cut")
		pad := min(int(packet[1]>>4&3), len(packet)-cut)
		trailer := append(bytes.Clone(packet[len(packet)-pad:]), 1, 2, 3, 4)
		f.Seal(packet[:h], &[2][]byte{packet[h:cut], packet[cut : len(packet)-pad]}, trailer)
		if !bytes.Equal(trailer[pad:], want[len(packet):]) {
			t.Fatal("the CRC of the pieces is another")
		}
	})
}

func TestAnyIDOfAnIPv4HeaderIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packet := drawPacket(t)
		flags := rapid.SampledFrom([]byte{0, dontFragment}).Draw(t, "flags")
		d := slowICRC(srcV4, dstV4, rapid.Uint16().Draw(t, "id"), flags, packet)
		if !NewFlow(srcV4, dstV4).Check(srcV4.Port(), d) {
			t.Fatal("refused")
		}
	})
}

func TestADamagedPacketIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packet := drawPacket(t)
		d := slowICRC(srcV6, dstV6, 0, 0, packet)
		bit := rapid.IntRange(0, len(d)*8-1).Filter(func(i int) bool { return i/8 != 4 }).Draw(t, "bit")
		d[bit/8] ^= 1 << (bit % 8)
		if NewFlow(srcV6, dstV6).Check(srcV6.Port(), d) {
			t.Fatal("accepted")
		}
	})
}

func TestAPacketOfAnotherAddressIsRefused(t *testing.T) {
	for _, p := range [][2]netip.AddrPort{{srcV4, dstV4}, {srcV6, dstV6}} {
		d := slowICRC(p[0], p[1], 0, dontFragment, (&Header{Opcode: SendOnly}).Append(nil))
		stranger := netip.AddrPortFrom(p[0].Addr().Next().Next(), p[0].Port())
		if NewFlow(stranger, p[1]).Check(p[0].Port(), d) || NewFlow(p[0], p[1]).Check(p[0].Port()+1, d) {
			t.Error("accepted")
		}
	}
}

func TestFewWrongCRCsPassForAHiddenID(t *testing.T) {
	packet := (&Header{Opcode: SendOnly}).Append(nil)
	f := NewFlow(srcV4, dstV4)
	accepted := 0
	d := f.SealWhole(packet)
	const tries = 1 << 20
	for i := range uint32(tries) {
		binary.LittleEndian.PutUint32(d[len(d)-4:], i*2654435761)
		if f.Check(srcV4.Port(), d) {
			accepted++
		}
	}
	if accepted > 3*tries>>15 {
		t.Errorf("%d of %d", accepted, tries)
	}
}

func TestCheckingAndSealingAllocateNothing(t *testing.T) {
	h := Header{Opcode: SendFirst}
	packet := append(h.Append(nil), make([]byte, 4096)...)
	d := slowICRC(srcV4, dstV4, 4711, dontFragment, packet)
	f := NewFlow(srcV4, dstV4)
	header, data := make([]byte, 0, MaxHeader), &[2][]byte{packet[12:]}
	trailer := make([]byte, 4)
	if n := testing.AllocsPerRun(100, func() {
		if !f.Check(srcV4.Port(), d) {
			t.Fatal("refused")
		}
		got, _, err := Parse(d[:len(d)-4])
		if err != nil {
			t.Fatal(err)
		}
		f.Seal(got.Append(header[:0]), data, trailer)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(uint16(1), slowICRC(srcV4, dstV4, 7, 0, (&Header{Opcode: SendOnly}).Append(nil)))
	f.Add(uint16(1), make([]byte, MaxPacket+1))
	v4, v6 := NewFlow(srcV4, dstV4), NewFlow(srcV6, dstV6)
	f.Fuzz(func(_ *testing.T, port uint16, b []byte) {
		v4.Check(port, b)
		v6.Check(port, b)
	})
}

func BenchmarkCheck(b *testing.B) {
	for _, id := range []uint16{0, 4711} {
		b.Run(map[bool]string{true: "hidden ID", false: "exact"}[id != 0], func(b *testing.B) {
			d := slowICRC(srcV4, dstV4, id, dontFragment, append((&Header{Opcode: SendFirst}).Append(nil), make([]byte, 4096)...))
			f := NewFlow(srcV4, dstV4)
			b.SetBytes(int64(len(d)))
			for b.Loop() {
				f.Check(srcV4.Port(), d)
			}
		})
	}
}
