package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p NOPOut) fields() NOPOutFields {
	return NOPOutFields{
		Immediate: p.Immediate(), DataLen: p.DataSegmentLength(), LUN: p.LUN(),
		ITT: p.ITT(), TTT: p.TTT(), CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(),
	}
}

var samplePing = NOPOutFields{Immediate: true, ITT: 0x21, TTT: ReservedTTT, CmdSN: 2, ExpStatSN: 3}

func TestNOPOutHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, samplePing, `
		40 80 00 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 21 ff ff ff ff  00 00 00 02 00 00 00 03
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
	answer := NOPOutFields{Immediate: true, LUN: scsi.LUN{0, 5}, ITT: ReservedITT, TTT: 0x99, DataLen: 4}
	checkGolden(t, answer, `
		40 80 00 00 00 00 00 04  00 05 00 00 00 00 00 00
		ff ff ff ff 00 00 00 99  00 00 00 00 00 00 00 00
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestNOPOutRoundTrips(t *testing.T) {
	normalize := func(f *NOPOutFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) NOPOutFields { return NOPOut(b).fields() })
}

func TestNOPOutValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return NOPOut(b).Validate(n) }
	checkFields(t, samplePing, validate, []fieldCase{
		{"no answer wanted, but not immediate", "InitiatorTaskTag", 0, func(b []byte) {
			b[0] = 0
			reservedITT(b)
		}},
	})
}
