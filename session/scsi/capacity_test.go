package scsi

import (
	"errors"
	"testing"
)

const capacity16 = `
	00 00 00 00 00 1f ff ff  00 00 02 00 05 03 c0 01
	00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`

func TestParseCapacity16ReadsEveryField(t *testing.T) {
	got, err := ParseCapacity16(unhex(t, capacity16))
	want := Capacity{
		Blocks: 0x200000, BlockSize: 512, PhysicalExponent: 3, LowestAligned: 1,
		Thin: true, ReadZeroes: true, ProtectionType: 3,
	}
	if err != nil || got != want {
		t.Errorf("capacity is %+v, %v, want %+v", got, err, want)
	}
	if got.Bytes() != 1<<30 || got.PhysicalBlockSize() != 4096 {
		t.Errorf("%d bytes in physical blocks of %d", got.Bytes(), got.PhysicalBlockSize())
	}
}

func TestParseCapacity10ReadsASmallUnit(t *testing.T) {
	got, err := ParseCapacity10(unhex(t, "00 00 00 ff 00 00 10 00"))
	if want := (Capacity{Blocks: 256, BlockSize: 4096}); err != nil || got != want {
		t.Errorf("capacity is %+v, %v, want %+v", got, err, want)
	}
}

func TestParseCapacity10SendsALargeUnitToTheLongForm(t *testing.T) {
	if _, err := ParseCapacity10(unhex(t, "ff ff ff ff 00 00 02 00")); !errors.Is(err, ErrUseReadCapacity16) {
		t.Errorf("error is %v", err)
	}
}

func TestCapacityParsersRefuseImpossibleGeometry(t *testing.T) {
	tests := []struct{ name, in string }{
		{"no block size", "0000000000000001 00000000 0000 0000"},
		{"block size no power of two", "0000000000000001 00000208 0000 0000"},
		{"tiny blocks", "0000000000000001 00000100 0000 0000"},
		{"huge blocks", "0000000000000001 80000000 0000 0000"},
		{"last lba wraps", "ffffffffffffffff 00000200 0000 0000"},
		{"more bytes than 2^63", "003fffffffffffff 00000200 0000 0000"},
		{"physical block beyond 32 bits", "0000000000000001 00100000 000f 0000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseCapacity16(unhex(t, test.in))
			checkLie(t, err)
		})
	}
	_, err := ParseCapacity10(unhex(t, "00000001 00000000"))
	checkLie(t, err)
}

func TestTheLargestUnitFitsAnInt64(t *testing.T) {
	got, err := ParseCapacity16(unhex(t, "003ffffffffffffe 00000200 0000 0000"))
	if err != nil || got.Bytes() != 1<<63-512 {
		t.Errorf("capacity is %d bytes, %v", got.Bytes(), err)
	}
}

func TestCapacityParsersRefuseDataCutShort(t *testing.T) {
	checkCutShort(t, unhex(t, capacity16), 16, func(b []byte) error { _, err := ParseCapacity16(b); return err })
	checkCutShort(t, unhex(t, "00 00 00 ff 00 00 10 00"), 8, func(b []byte) error { _, err := ParseCapacity10(b); return err })
}

func FuzzParseCapacity(f *testing.F) {
	f.Add(unhex(f, capacity16))
	f.Add(unhex(f, "00 00 00 ff 00 00 10 00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (Capacity, error){ParseCapacity10, ParseCapacity16} {
			c, err := parse(b)
			if err == nil && (c.Bytes() <= 0 || c.PhysicalBlockSize() < c.BlockSize) {
				t.Fatalf("accepted %+v", c)
			}
		}
	})
}
