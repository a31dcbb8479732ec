package nbd

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"iserblk/internal/block"
)

// Every message has the size that its definition says.
func TestMessagesHaveTheSizesOfTheProtocol(t *testing.T) {
	r := request{cookie: 1}
	extents := make([]block.Extent, 2)
	for name, x := range map[string]struct{ got, want int }{
		"request":           {len(encode(Simple, r, nil)), 28},
		"extended request":  {len(encode(Extended, r, nil)), 32},
		"simple reply":      {len(appendSimple(nil, 0, 1)), 16},
		"chunk":             {len(appendChunk(nil, Structured, chunkNone, &r, 0)), 20},
		"extended chunk":    {len(appendChunk(nil, Extended, chunkNone, &r, 0)), 32},
		"data":              {len(appendData(nil, Structured, &r, 9)), 28},
		"extended data":     {len(appendData(nil, Extended, &r, 9)), 40},
		"status":            {len(appendStatus(nil, Structured, &r, extents)), 20 + 4 + 2*8},
		"extended status":   {len(appendStatus(nil, Extended, &r, extents)), 32 + 8 + 2*16},
		"error":             {len(appendRefusal(nil, Structured, &r, &refusal{codeIO, "abc"})), 20 + 6 + 3},
		"option":            {len(encodeOption(optList, nil)), 16},
		"reply to option":   {len(appendOptionReply(nil, optList, repAck, nil)), 20},
		"request constant":  {requestLen, 28},
		"extended constant": {extRequestLen, 32},
		"chunk constant":    {chunkLen, 20},
		"ext chunk":         {extChunkLen, 32},
		"option constant":   {optionLen, 16},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d bytes, not %d", name, x.got, x.want)
		}
	}
}

func TestMessagesOfRefusalsFit(t *testing.T) {
	for _, r := range []*refusal{
		refuseCommand, refuseFlags, refuseReadOnly, refuseAlignment, refuseRange, refuseSpace, refuseLength, refuseLongRead, refusePayload,
		refuseReserved, refuseSlowZero, refuseContext, refuseNothing, refuseShutdown, failedPerm, failedMemory, failedInvalid, failedSpace, failedIO,
	} {
		if len(r.text) > maxRefusal || r.text == "" || r.code == 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestParseRequestReadsWhatWasSent(t *testing.T) {
	want := request{flags: 0x0102, cmd: 3, cookie: 0x1122334455667788, offset: 1 << 60, length: 0x89abcdef}
	if got, ok := parseRequest(encode(Simple, want, nil)); !ok || got != want {
		t.Error(cmp.Diff(got, want, cmp.AllowUnexported(request{})))
	}
	want.length = 1 << 50
	if got, ok := parseExtRequest(encode(Extended, want, nil)); !ok || got != want {
		t.Error(cmp.Diff(got, want, cmp.AllowUnexported(request{})))
	}
	if _, ok := parseRequest(encode(Extended, want, nil)); ok {
		t.Error("an extended request was taken for a compact one")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(encode(Simple, request{cmd: cmdWrite, length: 7}, nil))
	f.Add(encode(Extended, request{cmd: cmdRead, length: 1 << 40}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < extRequestLen {
			return
		}
		if r, ok := parseRequest(b); ok && string(encode(Simple, r, nil)) != string(b[:requestLen]) {
			t.Errorf("%x is %+v", b, r)
		}
		if r, ok := parseExtRequest(b); ok && string(encode(Extended, r, nil)) != string(b[:extRequestLen]) {
			t.Errorf("%x is %+v", b, r)
		}
	})
}

func TestPiecesEndOnGranules(t *testing.T) {
	for _, x := range []struct{ off, n, limit, granule, alignment, want uint64 }{
		{0, 100, 1000, 10, 0, 100},
		{0, 2000, 1000, 10, 0, 1000},
		{5, 2000, 1000, 10, 0, 995},
		{5, 2000, 1000, 10, 5, 1000},
		{8, 2000, 1000, 10, 5, 997},
		{5, 2000, 8, 4096, 0, 8}, // no granule fits: at least there is an end
		{7, 2000, 1000, 0, 0, 1000},
	} {
		if got := piece(x.off, x.n, x.limit, x.granule, x.alignment); got != x.want {
			t.Errorf("%+v: %d", x, got)
		}
	}
}
