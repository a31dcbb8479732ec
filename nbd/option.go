package nbd

import (
	"encoding/binary"
	"errors"
	"strings"
)

// errOption: an option's data is not what it has to be.
var errOption = errors.New("malformed option")

// take cuts n bytes off b.
func take(b []byte, n uint32) (head, rest []byte, err error) {
	if uint64(n) > uint64(len(b)) {
		return nil, nil, errOption
	}
	return b[:n], b[n:], nil
}

// takeString cuts a string off b that its length in 32 bits precedes.
func takeString(b []byte) (s string, rest []byte, err error) {
	size, b, err := take(b, 4)
	if err != nil {
		return "", nil, err
	}
	n := binary.BigEndian.Uint32(size)
	if n > maxStringSize {
		return "", nil, errOption
	}
	text, rest, err := take(b, n)
	return string(text), rest, err
}

// infoRequest is the data of optInfo and optGo.
//
//	u32 name length; name; u16 count; u16 information type each
type infoRequest struct {
	name string
	want []infoType
}

func parseInfoRequest(b []byte) (r infoRequest, err error) {
	if r.name, b, err = takeString(b); err != nil {
		return r, err
	}
	count, b, err := take(b, 2)
	if err != nil || len(b) != 2*int(binary.BigEndian.Uint16(count)) {
		return r, errOption
	}
	for ; len(b) > 0; b = b[2:] {
		r.want = append(r.want, infoType(binary.BigEndian.Uint16(b)))
	}
	return r, nil
}

// contextRequest is the data of optListMetaContext and optSetMetaContext.
//
//	u32 name length; name; u32 count; (u32 query length; query) each
type contextRequest struct {
	name    string
	queries []string
}

func parseContextRequest(b []byte) (r contextRequest, err error) {
	if r.name, b, err = takeString(b); err != nil {
		return r, err
	}
	count, b, err := take(b, 4)
	if err != nil {
		return r, err
	}
	for range binary.BigEndian.Uint32(count) { // each takes four bytes of b or ends it
		var q string
		if q, b, err = takeString(b); err != nil {
			return r, err
		}
		r.queries = append(r.queries, q)
	}
	if len(b) > 0 {
		return r, errOption
	}
	return r, nil
}

// selects tells whether the queries name base:allocation. To list, "base:" stands for all of its kind, and no query
// at all for everything.
func (r *contextRequest) selects(list bool) bool {
	if list && len(r.queries) == 0 {
		return true
	}
	namespace, _, _ := strings.Cut(contextName, ":")
	for _, q := range r.queries {
		if q == contextName || list && q == namespace+":" {
			return true
		}
	}
	return false
}

// appendOptionReply is a whole reply to an option.
func appendOptionReply(b []byte, o option, t replyType, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(t))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
