package pdu

import "testing"

func (p TextRequest) fields() TextRequestFields {
	return TextRequestFields{
		Immediate: p.Immediate(), Final: p.Final(), Continue: p.Continue(), DataLen: p.DataSegmentLength(),
		LUN: p.LUN(), ITT: p.ITT(), TTT: p.TTT(), CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(),
	}
}

var sampleTextRequest = TextRequestFields{
	Immediate: true, Final: true, DataLen: 16, ITT: 1, TTT: ReservedTTT, CmdSN: 2, ExpStatSN: 3,
}

func TestTextRequestHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleTextRequest, `
		44 80 00 00 00 00 00 10  00 00 00 00 00 00 00 00
		00 00 00 01 ff ff ff ff  00 00 00 02 00 00 00 03
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestTextRequestRoundTrips(t *testing.T) {
	normalize := func(f *TextRequestFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) TextRequestFields { return TextRequest(b).fields() })
}

func TestTextRequestValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return TextRequest(b).Validate(n) }
	checkFields(t, TextRequestFields{Final: true}, validate, []fieldCase{
		{"final and continue at once", "Flags", 0, func(b []byte) { b[1] = 0xc0 }},
	})
}
