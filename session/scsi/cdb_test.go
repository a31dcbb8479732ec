package scsi

import (
	"bytes"
	"testing"
)

func TestBuildersWriteTheStandardLayouts(t *testing.T) {
	const (
		lba10 = 0x01020304
		lba16 = 0x0102030405060708
	)
	tests := []struct {
		name  string
		build func(*[CDBLen]byte) int
		want  string
	}{
		{"TEST UNIT READY", TestUnitReady, "00 00 00 00 00 00"},
		{"REQUEST SENSE", func(c *[CDBLen]byte) int { return RequestSense(c, true, 252) }, "03 01 00 00 fc 00"},
		{"INQUIRY", func(c *[CDBLen]byte) int { return Inquiry(c, 0x0124) }, "12 00 00 01 24 00"},
		{"INQUIRY VPD", func(c *[CDBLen]byte) int { return InquiryVPD(c, 0x83, 0x0400) }, "12 01 83 04 00 00"},
		{
			"REPORT LUNS",
			func(c *[CDBLen]byte) int { return ReportLUNs(c, 0x00010203) },
			"a0 00 00 00 00 00 00 01 02 03 00 00",
		},
		{"READ CAPACITY (10)", ReadCapacity10, "25 00 00 00 00 00 00 00 00 00"},
		{
			"READ CAPACITY (16)",
			func(c *[CDBLen]byte) int { return ReadCapacity16(c, 32) },
			"9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00",
		},
		{"MODE SENSE (6)", func(c *[CDBLen]byte) int { return ModeSense6(c, PageCaching, 64) }, "1a 08 08 00 40 00"},
		{
			"MODE SENSE (10)",
			func(c *[CDBLen]byte) int { return ModeSense10(c, PageCaching, 0x0102) },
			"5a 08 08 00 00 00 00 01 02 00",
		},
		{
			"READ (10)",
			func(c *[CDBLen]byte) int { return Read10(c, lba10, 0x0506, false) },
			"28 00 01 02 03 04 00 05 06 00",
		},
		{
			"READ (16) with FUA",
			func(c *[CDBLen]byte) int { return Read16(c, lba16, 0x090a0b0c, true) },
			"88 08 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		},
		{
			"WRITE (10) with FUA",
			func(c *[CDBLen]byte) int { return Write10(c, lba10, 0x0506, true) },
			"2a 08 01 02 03 04 00 05 06 00",
		},
		{
			"WRITE (16)",
			func(c *[CDBLen]byte) int { return Write16(c, lba16, 0x090a0b0c, false) },
			"8a 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		},
		{
			"SYNCHRONIZE CACHE (10)",
			func(c *[CDBLen]byte) int { return SynchronizeCache10(c, lba10, 0x0506) },
			"35 00 01 02 03 04 00 05 06 00",
		},
		{
			"SYNCHRONIZE CACHE (16)",
			func(c *[CDBLen]byte) int { return SynchronizeCache16(c, lba16, 0x090a0b0c) },
			"91 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		},
		{
			"UNMAP",
			func(c *[CDBLen]byte) int { return Unmap(c, 0x0118) },
			"42 00 00 00 00 00 00 01 18 00",
		},
		{
			"WRITE SAME (10)",
			func(c *[CDBLen]byte) int { return WriteSame10(c, lba10, 0x0506, true) },
			"41 08 01 02 03 04 00 05 06 00",
		},
		{
			"WRITE SAME (16) unmapping without data",
			func(c *[CDBLen]byte) int { return WriteSame16(c, lba16, 0x090a0b0c, true, true) },
			"93 09 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		},
		{
			"GET LBA STATUS",
			func(c *[CDBLen]byte) int { return GetLBAStatus(c, lba16, 0x090a0b0c) },
			"9e 12 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		},
		{
			"REPORT TARGET PORT GROUPS",
			func(c *[CDBLen]byte) int { return ReportTargetPortGroups(c, 0x00010203) },
			"a3 0a 00 00 00 00 00 01 02 03 00 00",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var cdb [CDBLen]byte
			for i := range cdb {
				cdb[i] = 0xa5
			}
			n := test.build(&cdb)
			if want := unhex(t, test.want); !bytes.Equal(cdb[:n], want) {
				t.Errorf("cdb is % x, want % x", cdb[:n], want)
			}
			if rest := cdb[n:]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Errorf("leftovers behind the cdb: % x", rest)
			}
			checkNoAllocs(t, "building", func() { test.build(&cdb) })
		})
	}
}

func TestUnmapListHoldsEveryExtent(t *testing.T) {
	got := AppendUnmapList(nil, Extent{LBA: 0x0102030405060708, Blocks: 0x090a0b0c}, Extent{LBA: 16, Blocks: 8})
	want := unhex(t, `
		00 26 00 20 00 00 00 00
		01 02 03 04 05 06 07 08  09 0a 0b 0c 00 00 00 00
		00 00 00 00 00 00 00 10  00 00 00 08 00 00 00 00`)
	if !bytes.Equal(got, want) {
		t.Errorf("list is % x, want % x", got, want)
	}
}

func TestTheLargestUnmapListFitsItsLengthFields(t *testing.T) {
	got := AppendUnmapList(nil, make([]Extent, MaxUnmapExtents)...)
	if len(got) > 0xffff || int(got[0])<<8|int(got[1]) != len(got)-2 || int(got[2])<<8|int(got[3]) != len(got)-8 {
		t.Errorf("list of %d bytes starts with % x", len(got), got[:4])
	}
}

func TestUnmapListAllocatesNothingWithRoomAhead(t *testing.T) {
	b := make([]byte, 0, 64)
	e := []Extent{{LBA: 1, Blocks: 2}}
	checkNoAllocs(t, "the list", func() { _ = AppendUnmapList(b, e...) })
}
