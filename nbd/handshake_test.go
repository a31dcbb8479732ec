package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"
)

// listening is a bed with a front door, on the engine that every machine has: a handshake knows no lanes.
func listening(t testing.TB) *bed {
	return newBed(t, bedOptions{lane: engines()["epoll"], listen: true})
}

func TestTheHandshakeTellsWhatTheExportIs(t *testing.T) {
	h := listening(t).haggle()
	h.greeting(flagFixedNewstyle | flagNoZeroes)
	all := h.ask(optInfo, encodeInfo("", infoName, infoDescription, infoBlockSize, 77))
	got := map[infoType][]byte{}
	for _, r := range all[:len(all)-1] {
		if r.kind != repInfo {
			t.Fatalf("reply %#x", r.kind)
		}
		got[infoType(binary.BigEndian.Uint16(r.data))] = r.data[2:]
	}
	flags := uint16(FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendWriteZeroes | FlagCanMultiConn | FlagSendCache | FlagSendFastZero)
	want := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, testSize), flags)
	if !bytes.Equal(got[infoExport], want) || string(got[infoName]) != "disk" || string(got[infoDescription]) != "a test" {
		t.Errorf("told %x", got)
	}
	if want := []byte{0, 0, 2, 0, 0, 0, 16, 0, 0, 1, 0, 0}; !bytes.Equal(got[infoBlockSize], want) {
		t.Errorf("block sizes %x", got[infoBlockSize])
	}
	list := h.ask(optList, nil)
	if len(list) != 2 || string(list[0].data) != "\x00\x00\x00\x04diska test" {
		t.Errorf("list %+v", list)
	}
	h.ask(optStructuredReply, nil)
	for _, r := range h.ask(optInfo, encodeInfo("disk")) {
		if r.kind == repInfo && r.data[1] == byte(infoExport) && binary.BigEndian.Uint16(r.data[10:]) != flags|FlagSendDF {
			t.Errorf("with structured replies the flags are %x", r.data[10:])
		}
	}
}

func TestTheOldWayToAnExport(t *testing.T) {
	b := listening(t)
	for flags, zeroes := range map[uint32]int{0: exportReplyZero, flagNoZeroes | flagFixedNewstyle: 0} {
		h := b.haggle()
		h.greeting(flags)
		if _, err := h.Write(encodeOption(optExportName, []byte("disk"))); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, exportReplyLen+zeroes)
		if _, err := io.ReadFull(h, answer); err != nil || binary.BigEndian.Uint64(answer) != testSize {
			t.Fatalf("answer %x, %v", answer, err)
		}
		dialed(t, h.Conn, Simple).must(request{cmd: cmdRead, length: 512}, nil)
	}
}

func TestMetadataContexts(t *testing.T) {
	h := listening(t).haggle()
	h.greeting(flagFixedNewstyle)
	if got := h.last(optSetMetaContext, encodeContext("disk", contextName)); got != repErrInvalid {
		t.Errorf("without structured replies: %#x", got)
	}
	h.ask(optStructuredReply, nil)
	for _, x := range []struct {
		o       option
		queries []string
		found   bool
	}{
		{optListMetaContext, nil, true},
		{optListMetaContext, []string{"base:"}, true},
		{optListMetaContext, []string{"base:allocation", "x:y"}, true},
		{optListMetaContext, []string{"qemu:", "base:other"}, false},
		{optSetMetaContext, nil, false},
		{optSetMetaContext, []string{"base:"}, false},
		{optSetMetaContext, []string{"qemu:dirty-bitmap:x", contextName}, true},
	} {
		all := h.ask(x.o, encodeContext("", x.queries...))
		if found := len(all) == 2 && string(all[0].data[4:]) == contextName; found != x.found || all[len(all)-1].kind != repAck {
			t.Errorf("option %d with %q: %+v", x.o, x.queries, all)
		}
	}
	h.ask(optGo, encodeInfo("disk"))
	c := dialed(t, h.Conn, Structured)
	if got := c.must(request{cmd: cmdBlockStatus, length: 4096}, nil); len(got.extents) != 1 {
		t.Errorf("extents %v", got.extents)
	}
}

func TestASelectionThatFailsSelectsNothing(t *testing.T) {
	h := listening(t).haggle()
	h.greeting(flagFixedNewstyle)
	h.ask(optExtendedHeaders, nil)
	h.ask(optSetMetaContext, encodeContext("disk", contextName))
	if got := h.last(optSetMetaContext, encodeContext("other", contextName)); got != repErrUnknown {
		t.Errorf("for another export: %#x", got)
	}
	h.ask(optGo, encodeInfo("disk"))
	if got := dialed(t, h.Conn, Extended).do(request{cmd: cmdBlockStatus, length: 512}, nil); got.err != codeInval {
		t.Errorf("error %d", got.err)
	}
}

func TestEveryBadOptionGetsItsErrorAndTheHandshakeGoesOn(t *testing.T) {
	b := listening(t)
	for name, x := range map[string]struct {
		before []option
		o      option
		data   []byte
		want   replyType
	}{
		"unknown option":               {o: 99, data: []byte("x"), want: repErrUnsup},
		"withdrawn option":             {o: 4, want: repErrUnsup},
		"list with data":               {o: optList, data: []byte("x"), want: repErrInvalid},
		"structured with data":         {o: optStructuredReply, data: []byte("x"), want: repErrInvalid},
		"extended with data":           {o: optExtendedHeaders, data: []byte("x"), want: repErrInvalid},
		"extended twice":               {before: []option{optExtendedHeaders}, o: optExtendedHeaders, want: repErrInvalid},
		"back from extended":           {before: []option{optExtendedHeaders}, o: optStructuredReply, want: repErrExtHdrReqd},
		"TLS where there is none":      {o: optStartTLS, want: repErrPolicy},
		"TLS with data":                {o: optStartTLS, data: []byte("x"), want: repErrInvalid},
		"info of nothing":              {o: optInfo, want: repErrInvalid},
		"info cut short":               {o: optInfo, data: encodeInfo("disk", 1, 2)[:9], want: repErrInvalid},
		"info with something after it": {o: optInfo, data: append(encodeInfo("disk"), 0), want: repErrInvalid},
		"info of another":              {o: optInfo, data: encodeInfo("tape"), want: repErrUnknown},
		"go to another":                {o: optGo, data: encodeInfo("tape"), want: repErrUnknown},
		"a name of any length":         {o: optGo, data: []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, want: repErrInvalid},
		"too long a name":              {o: optGo, data: encodeInfo(strings.Repeat("x", maxStringSize+1)), want: repErrInvalid},
		"too much data":                {o: optInfo, data: make([]byte, mostOptionData+1), want: repErrTooBig},
		"much too much data":           {o: 1234, data: make([]byte, mostIgnored), want: repErrTooBig},
		"queries cut short":            {before: []option{optStructuredReply}, o: optListMetaContext, data: encodeContext("", "base:")[:10], want: repErrInvalid},
		"queries without number":       {before: []option{optStructuredReply}, o: optListMetaContext, data: []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, want: repErrInvalid},
		"more after the queries":       {before: []option{optStructuredReply}, o: optSetMetaContext, data: append(encodeContext("", "base:"), 1), want: repErrInvalid},
	} {
		h := b.haggle()
		h.greeting(flagFixedNewstyle | flagNoZeroes)
		for _, o := range x.before {
			h.ask(o, nil)
		}
		if got := h.last(x.o, x.data); got != x.want {
			t.Errorf("%s: %#x, not %#x", name, got, x.want)
		}
		if got := h.last(optInfo, encodeInfo("disk")); got != repAck {
			t.Errorf("%s: afterwards %#x", name, got)
		}
		h.Close()
	}
}

func TestWhoCannotBeTalkedToIsHungUpOn(t *testing.T) {
	b := listening(t)
	fixed := []byte{0, 0, 0, flagFixedNewstyle | flagNoZeroes}
	many := bytes.Repeat(encodeOption(optStructuredReply, nil), mostOptions+1)
	for name, stream := range map[string][]byte{
		"unknown flags":            {0, 1, 0, 0},
		"no option":                append(bytes.Clone(fixed), make([]byte, 16)...),
		"an option before its age": append(make([]byte, 4), encodeOption(optList, nil)...),
		"another export":           append(bytes.Clone(fixed), encodeOption(optExportName, []byte("tape"))...),
		"a name without end":       append(bytes.Clone(fixed), encodeOption(optExportName, make([]byte, mostOptionData+1))...),
		"an option without end":    append(bytes.Clone(fixed), append(encodeOption(optInfo, nil)[:12], 0xff, 0, 0, 0)...),
		"options without end":      append(bytes.Clone(fixed), many...),
		"the old way and new ones": append(bytes.Clone(fixed), append(encodeOption(optExtendedHeaders, nil), encodeOption(optExportName, nil)...)...),
		"goodbye":                  append(bytes.Clone(fixed), encodeOption(optAbort, []byte("because"))...),
	} {
		h := b.haggle()
		go func() { _, _ = h.Write(stream) }()
		if _, err := io.Copy(io.Discard, h); err != nil && !broken(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := b.export.Stats().Conns; n != 0 {
		t.Errorf("%d tickets are lost", n)
	}
}

func TestAHandshakeHasItsTime(t *testing.T) {
	b := newBed(t, bedOptions{lane: engines()["epoll"]})
	b.path = t.TempDir() + "/s"
	_, err := b.export.Listen(t.Context(), ListenConfig{Network: "unix", Address: b.path, HandshakeTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	h := b.haggle()
	h.greeting(flagFixedNewstyle)
	if _, err := io.Copy(io.Discard, h); err != nil && !broken(err) {
		t.Errorf("%v", err)
	}
}

func TestCloseEndsHandshakes(t *testing.T) {
	b := listening(t)
	h := b.haggle()
	h.greeting(flagFixedNewstyle)
	start := time.Now()
	if err := b.export.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > DefaultHandshakeTimeout/2 {
		t.Errorf("it took %v", took)
	}
	if _, err := io.Copy(io.Discard, h); err != nil && !broken(err) {
		t.Error(err)
	}
}

// FuzzHandshake lets a client say anything.
func FuzzHandshake(f *testing.F) {
	fixed := []byte{0, 0, 0, 3}
	f.Add(append(bytes.Clone(fixed), encodeOption(optGo, encodeInfo("disk", infoBlockSize))...))
	f.Add(append(bytes.Clone(fixed), append(encodeOption(optStructuredReply, nil), encodeOption(optSetMetaContext, encodeContext("", contextName))...)...))
	f.Add(append(bytes.Clone(fixed), append(encodeOption(optExtendedHeaders, nil), encodeOption(optList, nil)...)...))
	f.Add(append(bytes.Clone(fixed), encodeOption(optExportName, nil)...))
	f.Add(append(bytes.Clone(fixed), encodeOption(optAbort, nil)...))
	f.Add(append(bytes.Clone(fixed), encodeOption(optStartTLS, nil)...))
	b := listening(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 4*mostOptionData {
			return
		}
		h := b.with(t).haggle()
		defer h.Close()
		go func() {
			_, _ = h.Write(stream)
			_ = h.Conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, h); err != nil && !broken(err) {
			t.Fatal(err)
		}
		eventually(t, "the ticket is back", func() bool { return b.export.Stats().Conns == 0 })
	})
}

// FuzzRequests sends anything after the handshake, in each form.
func FuzzRequests(f *testing.F) {
	for form := range Extended + 1 {
		var stream []byte
		for _, r := range []request{
			{cmd: cmdWrite, flags: payloadFlag(form), length: 512},
			{cmd: cmdRead, length: 512},
			{cmd: cmdFlush},
			{cmd: cmdTrim, length: 4096},
			{cmd: cmdWriteZeroes, length: 4096},
			{cmd: cmdBlockStatus, length: 4096},
			{cmd: cmdCache, length: 4096},
			{cmd: cmdDisc},
		} {
			var data []byte
			if r.cmd == cmdWrite {
				data = make([]byte, 512)
			}
			stream = append(stream, encode(form, r, data)...)
			f.Add(uint8(form), stream)
		}
	}
	b := newBed(f, bedOptions{lane: engines()["epoll"], unit: func(u *unit) { u.late = true }})
	f.Fuzz(func(t *testing.T, form uint8, stream []byte) {
		c, served := b.with(t).connectBoth(ConnOptions{Replies: Replies(form % 3), BlockStatus: true})
		defer c.net.Close()
		go func() {
			_, _ = c.net.Write(stream)
			_ = c.net.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c.net); err != nil && !broken(err) {
			t.Fatal(err)
		}
		select {
		case <-served.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the connection does not end")
		}
	})
}

// FuzzOptions gives the parsers anything.
func FuzzOptions(f *testing.F) {
	f.Add(encodeInfo("disk", infoName))
	f.Add(encodeContext("disk", "base:", "x:y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseInfoRequest(b); err == nil && !bytes.Equal(encodeInfo(r.name, r.want...), b) {
			t.Errorf("%x is %+v", b, r)
		}
		if r, err := parseContextRequest(b); err == nil && !bytes.Equal(encodeContext(r.name, r.queries...), b) {
			t.Errorf("%x is %+v", b, r)
		}
	})
}
