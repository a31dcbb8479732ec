package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p TMFRequest) fields() TMFRequestFields {
	return TMFRequestFields{
		Immediate: p.Immediate(), Function: p.Function(), LUN: p.LUN(), ITT: p.ITT(),
		RefTaskTag: p.RefTaskTag(), CmdSN: p.CmdSN(), ExpStatSN: p.ExpStatSN(),
		RefCmdSN: p.RefCmdSN(), ExpDataSN: p.ExpDataSN(),
	}
}

var sampleTMFRequest = TMFRequestFields{
	Immediate: true, Function: TMAbortTask, LUN: scsi.LUN{0, 1}, ITT: 0x10, RefTaskTag: 0x0f,
	CmdSN: 0x20, ExpStatSN: 0x30, RefCmdSN: 0x1f,
}

func TestTMFRequestHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleTMFRequest, `
		42 81 00 00 00 00 00 00  00 01 00 00 00 00 00 00
		00 00 00 10 00 00 00 0f  00 00 00 20 00 00 00 30
		00 00 00 1f 00 00 00 00  00 00 00 00 00 00 00 00`)
}

func TestTMFRequestRoundTrips(t *testing.T) {
	normalize := func(f *TMFRequestFields) { f.Function &= functionMask }
	checkRoundTrip(t, normalize, func(b []byte) TMFRequestFields { return TMFRequest(b).fields() })
}

func TestTMFRequestValidateNamesTheBrokenField(t *testing.T) {
	checkFields(t, sampleTMFRequest, func(b []byte, n int) error { return TMFRequest(b).Validate(n) }, []fieldCase{
		{"a data segment", "DataSegmentLength", 4, func(b []byte) { b[7] = 4 }},
	})
}
