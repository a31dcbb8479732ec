package pdu

import (
	"bytes"
	"testing"

	"iserblk/session/scsi"
)

// samples are one header of each kind.
var samples = []message{
	sampleCommand, sampleResponse, sampleTMFRequest, sampleTMFResponse,
	sampleLoginRequest, sampleLoginResponse, sampleTextRequest, sampleTextResponse,
	sampleLogoutRequest, sampleLogoutResponse, samplePing, samplePong, sampleAsync, sampleReject,
}

func TestParseTakesOnlyAWholeHeader(t *testing.T) {
	_, err := Parse(make([]byte, BHSLen-1))
	checkError(t, err, "length")
	h, err := Parse(make([]byte, BHSLen+10))
	if err != nil || len(h) != BHSLen || cap(h) != BHSLen {
		t.Errorf("header of %d bytes with room for %d, %v", len(h), cap(h), err)
	}
}

func TestBHSReadsTheFieldsAllPDUsShare(t *testing.T) {
	h := BHS(unhex(t, `
		41 80 00 00 05 01 02 03  01 02 03 04 05 06 07 08
		11 22 33 44 00 00 00 00  00 00 00 06 00 00 00 07
		00 00 00 08 00 00 00 00  00 00 00 00 00 00 00 00`))
	checks := []struct {
		name string
		ok   bool
	}{
		{"opcode", h.Opcode() == OpSCSICommand},
		{"immediate", h.Immediate()},
		{"final", h.Final()},
		{"ahs length", h.TotalAHSLength() == 5},
		{"data length", h.DataSegmentLength() == 0x010203},
		{"lun", h.LUN() == scsi.LUN{1, 2, 3, 4, 5, 6, 7, 8}},
		{"itt", h.ITT() == 0x11223344},
		{"cmdsn", h.CmdSN() == 6 && h.StatSN() == 6},
		{"expstatsn", h.ExpStatSN() == 7 && h.ExpCmdSN() == 7},
		{"maxcmdsn", h.MaxCmdSN() == 8},
	}
	for _, c := range checks {
		if !c.ok {
			t.Errorf("%s is misread", c.name)
		}
	}
}

func TestSetDataSegmentLengthLeavesTheAHSLengthAlone(t *testing.T) {
	h := BHS(make([]byte, BHSLen))
	h[4] = 7
	h.SetDataSegmentLength(MaxDataSegmentLength)
	if h.TotalAHSLength() != 7 || h.DataSegmentLength() != MaxDataSegmentLength {
		t.Errorf("lengths are %d and %d", h.TotalAHSLength(), h.DataSegmentLength())
	}
}

func TestEncodeTouchesOnlyTheHeader(t *testing.T) {
	for _, f := range samples {
		b := bytes.Repeat([]byte{0xee}, BHSLen+8)
		f.Encode(b)
		if !bytes.Equal(b[BHSLen:], bytes.Repeat([]byte{0xee}, 8)) {
			t.Errorf("%T wrote behind the header", f)
		}
	}
}

func TestEveryCodeHasAPrintableName(t *testing.T) {
	for v := range 256 {
		u := uint8(v)
		names := []string{
			Opcode(u).String(), TMFunction(u).String(), TMResponse(u).String(), Stage(u).String(),
			LogoutReason(u).String(), LogoutOutcome(u).String(), AsyncEvent(u).String(),
			RejectReason(u).String(), ResponseCode(u).String(),
		}
		for i, name := range names {
			if name == "" {
				t.Errorf("code %#02x of kind %d has no name", u, i)
			}
		}
	}
	if got := OpSCSIResponse.String(); got != "scsi response" {
		t.Errorf("opcode is called %q", got)
	}
	if got := TMFunctionRejected.String(); got != "function rejected" {
		t.Errorf("outcome is called %q", got)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	var b [BHSLen]byte
	checkNoAllocs(t, "encoding a scsi command", func() { sampleCommand.Encode(b[:]) })
	checkNoAllocs(t, "encoding a scsi response", func() { sampleResponse.Encode(b[:]) })
	checkNoAllocs(t, "encoding a task management request", func() { sampleTMFRequest.Encode(b[:]) })
	checkNoAllocs(t, "encoding a ping", func() { samplePing.Encode(b[:]) })
	checkNoAllocs(t, "encoding a login request", func() { sampleLoginRequest.Encode(b[:]) })
}

func TestReadingAResponseAllocatesNothing(t *testing.T) {
	f := sampleResponse
	f.DataLen = 20
	b := encode(f)
	data := append([]byte{0, 18}, make([]byte, 18)...)
	var sink SCSIResponseFields
	checkNoAllocs(t, "reading a scsi response", func() {
		p := SCSIResponse(b)
		if p.Validate(len(data)) != nil {
			panic("refused")
		}
		sink = p.fields()
		_, _ = p.Transferred(4096)
		_, _ = SenseData(data)
	})
	pong := encode(samplePong)
	checkNoAllocs(t, "reading a nop-in", func() { _ = NOPIn(pong).Validate(4) })
	_ = sink
}

// FuzzHeader feeds any header to the view its opcode calls for. What passes
// Validate must survive being read and written again.
func FuzzHeader(f *testing.F) {
	for _, s := range samples {
		f.Add(encode(s), uint16(BHS(encode(s)).DataSegmentLength()))
	}
	f.Fuzz(func(t *testing.T, b []byte, dataLen uint16) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		v, ok := viewOf(h)
		if !ok || v.validate(int(dataLen)) != nil {
			return
		}
		again, _ := viewOf(encode(v.fields()))
		if err := again.validate(int(dataLen)); err != nil {
			t.Fatalf("%v became invalid: %v", h.Opcode(), err)
		}
	})
}

type anyView struct {
	validate func(int) error
	fields   func() message
}

func viewOf(h BHS) (anyView, bool) {
	switch h.Opcode() {
	case OpNOPOut:
		return anyView{NOPOut(h).Validate, func() message { return NOPOut(h).fields() }}, true
	case OpSCSICommand:
		return anyView{SCSICommand(h).Validate, func() message { return SCSICommand(h).fields() }}, true
	case OpTMFRequest:
		return anyView{TMFRequest(h).Validate, func() message { return TMFRequest(h).fields() }}, true
	case OpLoginRequest:
		return anyView{LoginRequest(h).Validate, func() message { return LoginRequest(h).fields() }}, true
	case OpTextRequest:
		return anyView{TextRequest(h).Validate, func() message { return TextRequest(h).fields() }}, true
	case OpLogoutRequest:
		return anyView{LogoutRequest(h).Validate, func() message { return LogoutRequest(h).fields() }}, true
	}
	return targetViewOf(h)
}

func targetViewOf(h BHS) (anyView, bool) {
	switch h.Opcode() {
	case OpNOPIn:
		return anyView{NOPIn(h).Validate, func() message { return NOPIn(h).fields() }}, true
	case OpSCSIResponse:
		return anyView{SCSIResponse(h).Validate, func() message { return SCSIResponse(h).fields() }}, true
	case OpTMFResponse:
		return anyView{TMFResponse(h).Validate, func() message { return TMFResponse(h).fields() }}, true
	case OpLoginResponse:
		return anyView{LoginResponse(h).Validate, func() message { return LoginResponse(h).fields() }}, true
	case OpTextResponse:
		return anyView{TextResponse(h).Validate, func() message { return TextResponse(h).fields() }}, true
	case OpLogoutResponse:
		return anyView{LogoutResponse(h).Validate, func() message { return LogoutResponse(h).fields() }}, true
	case OpAsyncMessage:
		return anyView{AsyncMessage(h).Validate, func() message { return AsyncMessage(h).fields() }}, true
	case OpReject:
		return anyView{Reject(h).Validate, func() message { return Reject(h).fields() }}, true
	}
	return anyView{}, false
}
