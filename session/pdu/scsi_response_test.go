package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p SCSIResponse) fields() SCSIResponseFields {
	return SCSIResponseFields{
		BidiOverflow: p.BidiOverflow(), BidiUnderflow: p.BidiUnderflow(),
		Overflow: p.Overflow(), Underflow: p.Underflow(),
		Response: p.Response(), Status: p.Status(), DataLen: p.DataSegmentLength(),
		ITT: p.ITT(), StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
		ExpDataSN: p.ExpDataSN(), BidiResidual: p.BidiResidual(), Residual: p.Residual(),
	}
}

var sampleResponse = SCSIResponseFields{
	Underflow: true, Response: ResponseCompleted, Status: scsi.StatusCheckCondition, DataLen: 0x14,
	ITT: 0x11223344, StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 0x42, ExpDataSN: 3, Residual: 0x200,
}

func TestSCSIResponseHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleResponse, `
		21 82 00 02 00 00 00 14  00 00 00 00 00 00 00 00
		11 22 33 44 00 00 00 00  00 00 00 01 00 00 00 02
		00 00 00 42 00 00 00 03  00 00 00 00 00 00 02 00`)
	checkGolden(t, SCSIResponseFields{Overflow: true, BidiOverflow: true, Response: ResponseTargetFailure, BidiResidual: 1}, `
		21 94 01 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 00 00 00 00 00  00 00 00 01 00 00 00 00`)
}

func TestSCSIResponseRoundTrips(t *testing.T) {
	normalize := func(f *SCSIResponseFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) SCSIResponseFields { return SCSIResponse(b).fields() })
}

func TestSCSIResponseValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return SCSIResponse(b).Validate(n) }
	checkFields(t, SCSIResponseFields{ITT: 1}, validate, []fieldCase{
		{"reserved task tag", "InitiatorTaskTag", 0, reservedITT},
		{"overflow and underflow at once", "Flags", 0, func(b []byte) { b[1] |= 0x06 }},
		{"bidirectional overflow and underflow at once", "Flags", 0, func(b []byte) { b[1] |= 0x18 }},
	})
}

func TestSCSIResponseTransferredBelievesNoResidualAboveTheRequest(t *testing.T) {
	tests := []struct {
		name   string
		fields SCSIResponseFields
		want   uint32
		fails  bool
	}{
		{"no residual", SCSIResponseFields{}, 4096, false},
		{"residual without a flag is not one", SCSIResponseFields{Residual: 99}, 4096, false},
		{"underflow", SCSIResponseFields{Underflow: true, Residual: 96}, 4000, false},
		{"underflow of everything", SCSIResponseFields{Underflow: true, Residual: 4096}, 0, false},
		{"overflow", SCSIResponseFields{Overflow: true, Residual: 512}, 4096, false},
		{"underflow of more than was asked", SCSIResponseFields{Underflow: true, Residual: 4097}, 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := SCSIResponse(encode(test.fields)).Transferred(4096)
			if test.fails {
				checkError(t, err, "ResidualCount")
				return
			}
			if err != nil || got != test.want {
				t.Errorf("transferred %d, %v, want %d", got, err, test.want)
			}
		})
	}
}
