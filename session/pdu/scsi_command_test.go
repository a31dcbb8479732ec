package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p SCSICommand) fields() SCSICommandFields {
	return SCSICommandFields{
		Immediate: p.Immediate(), Final: p.Final(), Read: p.Read(), Write: p.Write(), Attr: p.Attr(),
		DataLen: p.DataSegmentLength(), LUN: p.LUN(), ITT: p.ITT(), EDTL: p.EDTL(),
		CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(), CDB: *p.CDB(),
	}
}

var sampleCommand = SCSICommandFields{
	Final: true, Write: true, Attr: AttrSimple, DataLen: 0x1000,
	LUN: scsi.LUN{0, 3}, ITT: 0x11223344, EDTL: 0x2000, CmdSN: 0x55667788, ExpStatSN: 0x99aabbcc,
	CDB: [CDBLen]byte{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16},
}

func TestSCSICommandHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleCommand, `
		01 a1 00 00 00 00 10 00  00 03 00 00 00 00 00 00
		11 22 33 44 00 00 20 00  55 66 77 88 99 aa bb cc
		8a 00 00 00 00 00 00 00  00 08 00 00 00 10 00 00`)
}

func TestSCSICommandRoundTrips(t *testing.T) {
	normalize := func(f *SCSICommandFields) {
		maskDataLen(&f.DataLen)
		f.Attr &= attrMask
	}
	checkRoundTrip(t, normalize, func(b []byte) SCSICommandFields { return SCSICommand(b).fields() })
}

func TestSCSICommandValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return SCSICommand(b).Validate(n) }
	checkFields(t, SCSICommandFields{Final: true}, validate, nil)
}

func TestSCSICommandViewWritesThroughToTheHeader(t *testing.T) {
	b := encode(sampleCommand)
	SCSICommand(b).CDB()[1] = 0x08
	BHS(b).SetITT(7)
	BHS(b).SetCmdSN(8)
	BHS(b).SetExpStatSN(9)
	BHS(b).SetDataSegmentLength(0x010203)
	want := sampleCommand
	want.CDB[1], want.ITT, want.CmdSN, want.ExpStatSN, want.DataLen = 0x08, 7, 8, 9, 0x010203
	if got := SCSICommand(b).fields(); got != want {
		t.Errorf("fields are %+v, want %+v", got, want)
	}
}
