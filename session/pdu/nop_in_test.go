package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p NOPIn) fields() NOPInFields {
	return NOPInFields{
		DataLen: p.DataSegmentLength(), LUN: p.LUN(), ITT: p.ITT(), TTT: p.TTT(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
	}
}

var samplePong = NOPInFields{
	DataLen: 4, LUN: scsi.LUN{0, 5}, ITT: 0x21, TTT: ReservedTTT, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4,
}

func TestNOPInHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, samplePong, `
		20 80 00 00 00 00 00 04  00 05 00 00 00 00 00 00
		00 00 00 21 ff ff ff ff  00 00 00 02 00 00 00 03
		00 00 00 04 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestNOPInRoundTrips(t *testing.T) {
	normalize := func(f *NOPInFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) NOPInFields { return NOPIn(b).fields() })
}

func TestNOPInValidateNamesTheBrokenField(t *testing.T) {
	valid := NOPInFields{ITT: ReservedITT, TTT: 7}
	validate := func(b []byte, n int) error { return NOPIn(b).Validate(n) }
	checkFields(t, valid, validate, []fieldCase{
		{"answer and ping at once", "TargetTransferTag", 0, func(b []byte) { b[16] = 0 }},
	})
}

func TestNOPInWantsAnAnswerOnlyWithATransferTag(t *testing.T) {
	tests := []struct {
		name   string
		fields NOPInFields
		want   bool
	}{
		{"ping of the target", NOPInFields{ITT: ReservedITT, TTT: 7}, true},
		{"answer to our ping", NOPInFields{ITT: 7, TTT: ReservedTTT}, false},
		{"news about the window", NOPInFields{ITT: ReservedITT, TTT: ReservedTTT}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := NOPIn(encode(test.fields)).WantsAnswer(); got != test.want {
				t.Errorf("wants answer: %v, want %v", got, test.want)
			}
		})
	}
}
