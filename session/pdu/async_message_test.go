package pdu

import (
	"testing"

	"iserblk/session/scsi"
)

func (p AsyncMessage) fields() AsyncMessageFields {
	return AsyncMessageFields{
		DataLen: p.DataSegmentLength(), LUN: p.LUN(),
		StatSN: p.StatSN(), ExpCmdSN: p.ExpCmdSN(), MaxCmdSN: p.MaxCmdSN(),
		Event: p.Event(), VCode: p.VCode(),
		Parameter1: p.Parameter1(), Parameter2: p.Parameter2(), Parameter3: p.Parameter3(),
	}
}

var sampleAsync = AsyncMessageFields{
	LUN: scsi.LUN{0, 1}, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4, Event: AsyncConnectionDrop, VCode: 5,
	Parameter1: 0x0607, Parameter2: 0x0809, Parameter3: 0x0a0b,
}

func TestAsyncMessageHasTheLayoutOfRFC7143(t *testing.T) {
	checkGolden(t, sampleAsync, `
		32 80 00 00 00 00 00 00  00 01 00 00 00 00 00 00
		ff ff ff ff 00 00 00 00  00 00 00 02 00 00 00 03
		00 00 00 04 02 05 06 07  08 09 0a 0b 00 00 00 00`)
}

func TestAsyncMessageRoundTrips(t *testing.T) {
	normalize := func(f *AsyncMessageFields) { maskDataLen(&f.DataLen) }
	checkRoundTrip(t, normalize, func(b []byte) AsyncMessageFields { return AsyncMessage(b).fields() })
}

func TestAsyncMessageValidateNamesTheBrokenField(t *testing.T) {
	validate := func(b []byte, n int) error { return AsyncMessage(b).Validate(n) }
	checkFields(t, sampleAsync, validate, []fieldCase{
		{"a task tag", "InitiatorTaskTag", 0, func(b []byte) { b[16] = 0 }},
	})
}
