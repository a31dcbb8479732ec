package pdu

import "testing"

func (p Reject) fields() RejectFields {
	return RejectFields{
		Reason: p.Reason(), DataLen: p.DataSegmentLength(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(), DataSN: p.DataSN(),
	}
}

var sampleReject = RejectFields{Reason: RejectInvalidField, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4, DataSN: 5}

func TestRejectHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleReject, `
		3f 80 09 00 00 00 00 00  00 00 00 00 00 00 00 00
		ff ff ff ff 00 00 00 00  00 00 00 02 00 00 00 03
		00 00 00 04 00 00 00 05  00 00 00 00 00 00 00 00`)
}

func TestRejectRoundTrips(t *testing.T) {
	normalize := func(f *RejectFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) RejectFields { return Reject(b).fields() })
}

func TestRejectValidateNamesTheBrokenField(t *testing.T) {
	checkFields(t, sampleReject, func(b []byte, n int) error { return Reject(b).Validate(n) }, nil)
}

func TestRejectShowsTheHeaderItRejected(t *testing.T) {
	p := Reject(encode(sampleReject))
	h, err := p.Rejected(encode(sampleCommand))
	if err != nil || h.Opcode() != OpSCSICommand || h.ITT() != sampleCommand.ITT {
		t.Errorf("rejected header is %x, %v", []byte(h), err)
	}
	_, err = p.Rejected(make([]byte, BHSLen-1))
	checkError(t, err, "DataSegment")
}
