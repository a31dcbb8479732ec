package pdu

import "testing"

func (p TMFResponse) fields() TMFResponseFields {
	return TMFResponseFields{
		Response: p.Response(), ITT: p.ITT(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
	}
}

var sampleTMFResponse = TMFResponseFields{Response: TMNoTask, ITT: 0x10, StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3}

func TestTMFResponseHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleTMFResponse, `
		22 80 01 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 10 00 00 00 00  00 00 00 01 00 00 00 02
		00 00 00 03 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestTMFResponseRoundTrips(t *testing.T) {
	checkRoundTrip(t, nil, func(b []byte) TMFResponseFields { return TMFResponse(b).fields() })
}

func TestTMFResponseValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return TMFResponse(b).Validate(n) }
	checkFields(t, sampleTMFResponse, validate, []fieldCase{
		{"reserved task tag", "InitiatorTaskTag", 0, reservedITT},
		{"a data segment", "DataSegmentLength", 4, func(b []byte) { b[7] = 4 }},
	})
}
