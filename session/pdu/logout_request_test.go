package pdu

import "testing"

func (p LogoutRequest) fields() LogoutRequestFields {
	return LogoutRequestFields{
		Immediate: p.Immediate(), Reason: p.Reason(), ITT: p.ITT(), CID: p.CID(),
		CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(),
	}
}

var sampleLogoutRequest = LogoutRequestFields{
	Immediate: true, Reason: LogoutCloseConnection, ITT: 1, CID: 0x0203, CmdSN: 4, ExpStatSN: 5,
}

func TestLogoutRequestHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleLogoutRequest, `
		46 81 00 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 01 02 03 00 00  00 00 00 04 00 00 00 05
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestLogoutRequestRoundTrips(t *testing.T) {
	normalize := func(f *LogoutRequestFields) { f.Reason &= reasonMask }
	checkRoundTrip(t, normalize, func(b []byte) LogoutRequestFields { return LogoutRequest(b).fields() })
}

func TestLogoutRequestValidateNamesTheBrokenField(t *testing.T) {
	checkFields(t, sampleLogoutRequest, func(b []byte, n int) error { return LogoutRequest(b).Validate(n) }, []fieldCase{
		{"a data segment", "DataSegmentLength", 4, func(b []byte) { b[7] = 4 }},
	})
}
