package pdu

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
)

// Limits of text keys (RFC 7143 6.1). MaxTextPairs is our own, so that a
// target cannot make us keep an unbounded list.
const (
	MaxKeyLen    = 63   // bytes
	MaxValueLen  = 8192 // bytes
	MaxTextPairs = 16384
)

// Values that stand for the fate of an offer (RFC 7143 6.2).
const (
	ValueNone          = "None"
	ValueReject        = "Reject"
	ValueIrrelevant    = "Irrelevant"
	ValueNotUnderstood = "NotUnderstood"
)

// Pair is one key=value of a text or login data segment.
type Pair struct {
	Key   string
	Value string
}

// Text is a parsed text data segment: its pairs in wire order. A key may come
// more than once, as TargetName does in the answer to SendTargets.
type Text []Pair

// AppendKey appends "key=value" and its terminating NUL to dst. Text from a
// user must pass CheckPair first, because a NUL in it would start another key.
func AppendKey(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}

// ParseText reads the pairs of a whole data segment, without padding. Where a
// peer spread text over several PDUs with the C bit, b is their concatenation,
// since a pair may be cut anywhere. The result does not alias b.
func ParseText(b []byte) (Text, error) {
	var t Text
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			return nil, badText("last pair lacks its terminating nul")
		}
		entry := b[:end]
		b = b[end+1:]
		if len(entry) == 0 {
			continue // more than one NUL may part two pairs
		}
		if len(t) == MaxTextPairs {
			return nil, badText("more than %d pairs", MaxTextPairs)
		}
		p, err := parsePair(entry)
		if err != nil {
			return nil, err
		}
		t = append(t, p)
	}
	return t, nil
}

func parsePair(entry []byte) (Pair, error) {
	key, value, found := bytes.Cut(entry, []byte{'='})
	if !found {
		return Pair{}, badText("pair without '=' after %d bytes", len(entry))
	}
	if err := checkKey(string(key[:min(len(key), MaxKeyLen+1)])); err != nil {
		return Pair{}, err
	}
	if len(value) > MaxValueLen {
		return Pair{}, badText("value of %s has %d bytes, at most %d are allowed", key, len(value), MaxValueLen)
	}
	return Pair{Key: string(key), Value: string(value)}, nil
}

// CheckPair reports an *Error unless key and value may go on the wire.
func CheckPair(key, value string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValueLen {
		return badText("value of %s has %d bytes, at most %d are allowed", key, len(value), MaxValueLen)
	}
	if strings.IndexByte(value, 0) >= 0 {
		return badText("value of %s holds a nul", key)
	}
	return nil
}

func checkKey(key string) error {
	if key == "" || len(key) > MaxKeyLen {
		return badText("key of %d bytes or more, want 1 to %d", len(key), MaxKeyLen)
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c > '~' || c == '=' {
			return badText("key %q holds the byte 0x%02x", key, c)
		}
	}
	return nil
}

func badText(format string, args ...any) error {
	return &Error{PDU: "text", Field: "key=value", Reason: fmt.Sprintf(format, args...)}
}

// Get returns the value of the first pair named key.
func (t Text) Get(key string) (string, bool) {
	for _, p := range t {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// All yields every pair in wire order.
func (t Text) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, p := range t {
			if !yield(p.Key, p.Value) {
				return
			}
		}
	}
}

// Append appends the encoded pairs to dst.
func (t Text) Append(dst []byte) []byte {
	for _, p := range t {
		dst = AppendKey(dst, p.Key, p.Value)
	}
	return dst
}
