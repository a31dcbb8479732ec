package pdu

import (
	"testing"
	"time"
)

func (p LogoutResponse) fields() LogoutResponseFields {
	return LogoutResponseFields{
		Response: p.Response(), ITT: p.ITT(), StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
		Time2Wait: uint16(p.Time2Wait() / time.Second), Time2Retain: uint16(p.Time2Retain() / time.Second),
	}
}

var sampleLogoutResponse = LogoutResponseFields{
	Response: LogoutCIDNotFound, ITT: 1, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4, Time2Wait: 0x0506, Time2Retain: 0x0708,
}

func TestLogoutResponseHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleLogoutResponse, `
		26 80 01 00 00 00 00 00  00 00 00 00 00 00 00 00
		00 00 00 01 00 00 00 00  00 00 00 02 00 00 00 03
		00 00 00 04 00 00 00 00  05 06 07 08 00 00 00 00`)
}

func TestLogoutResponseRoundTrips(t *testing.T) {
	checkRoundTrip(t, nil, func(b []byte) LogoutResponseFields { return LogoutResponse(b).fields() })
}

func TestLogoutResponseValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return LogoutResponse(b).Validate(n) }
	checkFields(t, sampleLogoutResponse, validate, []fieldCase{
		{"reserved task tag", "InitiatorTaskTag", 0, reservedITT},
		{"a data segment", "DataSegmentLength", 4, func(b []byte) { b[7] = 4 }},
	})
}
