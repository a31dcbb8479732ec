package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// haggler speaks the handshake from the other side.
type haggler struct {
	net.Conn
	t testing.TB
}

// optionReply is one reply to an option.
type optionReply struct {
	option option
	kind   replyType
	data   []byte
}

func (h *haggler) greeting(flags uint32) {
	h.t.Helper()
	b := make([]byte, greetingLen)
	if _, err := io.ReadFull(h, b); err != nil {
		h.t.Fatal(err)
	}
	if binary.BigEndian.Uint64(b) != magicServer || binary.BigEndian.Uint64(b[8:]) != magicOption || binary.BigEndian.Uint16(b[16:]) != 3 {
		h.t.Fatalf("greeting %x", b)
	}
	if _, err := h.Write(binary.BigEndian.AppendUint32(nil, flags)); err != nil {
		h.t.Fatal(err)
	}
}

func encodeOption(o option, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// ask sends an option and returns the replies to it, the last of which ends them.
func (h *haggler) ask(o option, data []byte) []optionReply {
	h.t.Helper()
	if _, err := h.Write(encodeOption(o, data)); err != nil {
		h.t.Fatal(err)
	}
	var all []optionReply
	for {
		r, err := h.reply()
		if err != nil {
			h.t.Fatal(err)
		}
		if r.option != o {
			h.t.Fatalf("reply to option %d, asked %d", r.option, o)
		}
		all = append(all, r)
		if r.kind == repAck || r.kind&repError != 0 {
			return all
		}
	}
}

func (h *haggler) reply() (r optionReply, err error) {
	b := make([]byte, optionReplyLen)
	if _, err := io.ReadFull(h, b); err != nil {
		return r, err
	}
	if binary.BigEndian.Uint64(b) != magicOptionReply {
		return r, fmt.Errorf("reply %x", b)
	}
	r = optionReply{option: option(binary.BigEndian.Uint32(b[8:])), kind: replyType(binary.BigEndian.Uint32(b[12:]))}
	r.data = make([]byte, binary.BigEndian.Uint32(b[16:]))
	_, err = io.ReadFull(h, r.data)
	return r, err
}

// last is what an option ends with.
func (h *haggler) last(o option, data []byte) replyType {
	h.t.Helper()
	all := h.ask(o, data)
	return all[len(all)-1].kind
}

func encodeInfo(name string, want ...infoType) []byte {
	b := binary.BigEndian.AppendUint16(appendString(nil, name), uint16(len(want)))
	for _, t := range want {
		b = binary.BigEndian.AppendUint16(b, uint16(t))
	}
	return b
}

func encodeContext(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(appendString(nil, name), uint32(len(queries)))
	for _, q := range queries {
		b = appendString(b, q)
	}
	return b
}

func (b *bed) haggle() *haggler {
	b.t.Helper()
	n, err := net.Dial("unix", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { n.Close() })
	_ = n.SetDeadline(time.Now().Add(20 * time.Second))
	return &haggler{n, b.t}
}

// negotiated is a connection whose options have been agreed on, or the reason why not.
func negotiated(t testing.TB, b *bed, form Replies) (net.Conn, error) {
	h := b.haggle()
	h.greeting(flagFixedNewstyle | flagNoZeroes)
	switch form {
	case Structured:
		h.ask(optStructuredReply, nil)
	case Extended:
		h.ask(optExtendedHeaders, nil)
	}
	all := h.ask(optGo, encodeInfo("disk", infoBlockSize))
	if end := all[len(all)-1]; end.kind != repAck {
		return h.Conn, fmt.Errorf("%#x: %s", end.kind, end.data)
	}
	return h.Conn, nil
}

// dial is a client that came in by the front door.
func (b *bed) dial(form Replies) *client {
	b.t.Helper()
	n, err := negotiated(b.t, b, form)
	if err != nil {
		b.t.Fatal(err)
	}
	return dialed(b.t, n, form)
}
