package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p TextResponse) fields() TextResponseFields {
	return TextResponseFields{
		Final: p.Final(), Continue: p.Continue(), DataLen: p.DataSegmentLength(),
		LUN: p.LUN(), ITT: p.ITT(), TTT: p.TTT(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
	}
}

var sampleTextResponse = TextResponseFields{
	Continue: true, DataLen: 0x2000, LUN: scsi.LUN{0, 9}, ITT: 1, TTT: 0x77,
	StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4,
}

func TestTextResponseHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleTextResponse, `
		24 40 00 00 00 00 20 00  00 09 00 00 00 00 00 00
		00 00 00 01 00 00 00 77  00 00 00 02 00 00 00 03
		00 00 00 04 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestTextResponseRoundTrips(t *testing.T) {
	normalize := func(f *TextResponseFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) TextResponseFields { return TextResponse(b).fields() })
}

func TestTextResponseValidateNamesTheBrokenField(t *testing.T) {
	valid := TextResponseFields{Final: true, ITT: 1, TTT: ReservedTTT}
	validate := func(b []byte, n int) error { return TextResponse(b).Validate(n) }
	checkFields(t, valid, validate, []fieldCase{
		{"reserved task tag", "InitiatorTaskTag", 0, reservedITT},
		{"final and continue at once", "Flags", 0, func(b []byte) { b[1] = 0xc0 }},
		{"not final, but no tag to go on with", "TargetTransferTag", 0, func(b []byte) { b[1] = 0 }},
	})
}
