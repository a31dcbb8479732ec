package pdu

import "testing"

func (p LoginRequest) fields() LoginRequestFields {
	f := LoginRequestFields{
		Transit: p.Transit(), Continue: p.Continue(), CSG: p.CSG(),
		VersionMax: p.VersionMax(), VersionMin: p.VersionMin(), DataLen: p.DataSegmentLength(),
		ISID: p.ISID(), TSIH: p.TSIH(), ITT: p.ITT(), CID: p.CID(), CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(),
	}
	if f.Transit {
		f.NSG = p.NSG()
	}
	return f
}

var sampleLoginRequest = LoginRequestFields{
	Transit: true, CSG: StageOperational, NSG: StageFullFeature, DataLen: 0x123,
	ISID: NewISID(0x112233, 0x0405), TSIH: 0x0607, ITT: 0x08090a0b, CID: 0x0c0d,
	CmdSN: 0x0e0f1011, ExpStatSN: 0x12131415,
}

func TestLoginRequestHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleLoginRequest, `
		43 87 00 00 00 00 01 23  80 11 22 33 04 05 06 07
		08 09 0a 0b 0c 0d 00 00  0e 0f 10 11 12 13 14 15
		00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestLoginRequestIsAlwaysImmediate(t *testing.T) {
	if !BHS(encode(LoginRequestFields{})).Immediate() {
		t.Error("the I bit is clear")
	}
}

func TestLoginRequestSendsNSGOnlyWithTransit(t *testing.T) {
	b := encode(LoginRequestFields{CSG: StageOperational, NSG: StageFullFeature})
	if got := b[1]; got != 0x04 {
		t.Errorf("flags are %#02x, want 0x04", got)
	}
}

func TestLoginRequestRoundTrips(t *testing.T) {
	normalize := func(f *LoginRequestFields) {
		maskDataLen(&f.DataLen)
		normalizeStages(f.Transit, &f.CSG, &f.NSG)
	}
	checkRoundTrip(t, normalize, func(b []byte) LoginRequestFields { return LoginRequest(b).fields() })
}

func normalizeStages(transit bool, csg, nsg *Stage) {
	*csg, *nsg = *csg&stageMask, *nsg&stageMask
	if !transit {
		*nsg = 0
	}
}

func TestLoginRequestValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return LoginRequest(b).Validate(n) }
	checkFields(t, LoginRequestFields{}, validate, stageCases)
}

// stageCases are what neither login PDU may carry.
var stageCases = []fieldCase{
	{"transit and continue at once", "Flags", 0, func(b []byte) { b[1] = 0xc1 }},
	{"reserved current stage", "CSG", 0, func(b []byte) { b[1] = 0x08 }},
	{"full feature phase as current stage", "CSG", 0, func(b []byte) { b[1] = 0x0c }},
	{"transit to the reserved stage", "NSG", 0, func(b []byte) { b[1] = 0x82 }},
	{"transit to the same stage", "NSG", 0, func(b []byte) { b[1] = 0x85 }},
	{"transit backwards", "NSG", 0, func(b []byte) { b[1] = 0x84 }},
}
