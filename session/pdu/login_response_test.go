package pdu

import "testing"

func (p LoginResponse) fields() LoginResponseFields {
	f := LoginResponseFields{
		Transit: p.Transit(), Continue: p.Continue(), CSG: p.CSG(),
		VersionMax: p.VersionMax(), VersionActive: p.VersionActive(), DataLen: p.DataSegmentLength(),
		ISID: p.ISID(), TSIH: p.TSIH(), ITT: p.ITT(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(), Status: p.Status(),
	}
	if f.Transit {
		f.NSG = p.NSG()
	}
	return f
}

var sampleLoginResponse = LoginResponseFields{
	Transit: true, CSG: StageSecurity, NSG: StageOperational, DataLen: 0x40,
	ISID: NewISID(0x112233, 0x0405), TSIH: 0x0607, ITT: 0x08090a0b,
	StatSN: 0x0e0f1011, ExpCmdSN: 0x12131415, MaxCmdSN: 0x16171819, Status: LoginAuthenticationFailure,
}

func TestLoginResponseHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleLoginResponse, `
		23 81 00 00 00 00 00 40  80 11 22 33 04 05 06 07
		08 09 0a 0b 00 00 00 00  0e 0f 10 11 12 13 14 15
		16 17 18 19 02 01 00 00  00 00 00 00 00 00 00 00`)
}

func TestLoginResponseRoundTrips(t *testing.T) {
	normalize := func(f *LoginResponseFields) {
		maskDataLen(&f.DataLen)
		normalizeStages(f.Transit, &f.CSG, &f.NSG)
	}
	checkRoundTrip(t, normalize, func(b []byte) LoginResponseFields { return LoginResponse(b).fields() })
}

func TestLoginResponseValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return LoginResponse(b).Validate(n) }
	checkFields(t, LoginResponseFields{ITT: 1}, validate, append([]fieldCase{
		{"reserved task tag", "InitiatorTaskTag", 0, reservedITT},
		{"unknown version", "Version-active", 0, func(b []byte) { b[3] = 1 }},
	}, stageCases...))
}

func TestLoginResponseThatRefusesNeedNotFillInTheFlags(t *testing.T) {
	b := encode(LoginResponseFields{ITT: 1, Status: LoginServiceUnavailable, VersionActive: 9})
	b[1] = 0xff
	if err := LoginResponse(b).Validate(0); err != nil {
		t.Error(err)
	}
}

func TestLoginStatusIsNamedByClassAndDetail(t *testing.T) {
	tests := []struct {
		status    LoginStatus
		class     LoginClass
		retryable bool
		text      string
	}{
		{LoginSuccess, LoginClassSuccess, false, "success"},
		{LoginMovedTemporarily, LoginClassRedirection, false, "target moved temporarily"},
		{LoginMovedPermanently, LoginClassRedirection, false, "target moved permanently"},
		{LoginAuthenticationFailure, LoginClassInitiatorError, false, "authentication failure"},
		{LoginNotFound, LoginClassInitiatorError, false, "target not found"},
		{LoginInvalidRequest, LoginClassInitiatorError, false, "invalid during login"},
		{LoginTargetError, LoginClassTargetError, true, "target error"},
		{LoginOutOfResources, LoginClassTargetError, true, "target out of resources"},
		{0x0277, LoginClassInitiatorError, false, "login status class 0x02 detail 0x77"},
		{0x9901, 0x99, false, "login status class 0x99 detail 0x01"},
	}
	for _, test := range tests {
		s := test.status
		if s.Class() != test.class || s.Retryable() != test.retryable || s.String() != test.text {
			t.Errorf("%#04x is class %d, retryable %v, %q; want %d, %v, %q", uint16(s),
				s.Class(), s.Retryable(), s, test.class, test.retryable, test.text)
		}
	}
}
