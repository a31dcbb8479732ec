package pdu

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// Values of boolean keys (RFC 7143 6.1).
const (
	ValueYes = "Yes"
	ValueNo  = "No"
)

// Bool returns ValueYes or ValueNo.
func Bool(v bool) string {
	if v {
		return ValueYes
	}
	return ValueNo
}

// ParseBool reads a boolean-value.
func ParseBool(v string) (bool, error) {
	switch v {
	case ValueYes:
		return true, nil
	case ValueNo:
		return false, nil
	}
	return false, badText("%s is not Yes or No", quote(v))
}

// ParseNumber reads a numerical-value: decimal, or hexadecimal after 0x
// (RFC 7143 6.1). It takes no sign, blank or digit separator.
func ParseNumber(v string) (uint64, error) {
	digits, base := v, 10
	if hasPrefixFold(v, "0x") {
		digits, base = v[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, badText("%s is not a number of up to 64 bits", quote(v))
	}
	return n, nil
}

// AppendHex appends b as a hex-constant: 0x and two digits a byte.
func AppendHex(dst, b []byte) []byte {
	return hex.AppendEncode(append(dst, "0x"...), b)
}

// AppendBase64 appends b as a base64-constant: 0b and its base64 form.
func AppendBase64(dst, b []byte) []byte {
	return base64.StdEncoding.AppendEncode(append(dst, "0b"...), b)
}

// ParseBinary reads a large-binary-value, hexadecimal after 0x or base64 after
// 0b (RFC 7143 6.1), of at most limit bytes. An odd count of hex digits stands
// for a leading zero. The text never shows in the error, as it may be an
// answer made from a secret.
func ParseBinary(v string, limit int) ([]byte, error) {
	b, err := decodeBinary(v)
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, badText("binary value is empty")
	case len(b) > limit:
		return nil, badText("binary value has %d bytes, at most %d are allowed", len(b), limit)
	}
	return b, nil
}

func decodeBinary(v string) ([]byte, error) {
	if len(v) > MaxValueLen {
		return nil, badText("binary value has %d characters, at most %d are allowed", len(v), MaxValueLen)
	}
	switch {
	case hasPrefixFold(v, "0x"):
		digits := v[2:]
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, badText("binary value is not hexadecimal")
		}
		return b, nil
	case hasPrefixFold(v, "0b"):
		return decodeBase64(v[2:])
	}
	return nil, badText("binary value starts with neither 0x nor 0b")
}

// decodeBase64 takes padded and unpadded text but no line breaks, which the
// standard decoder would skip.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "\r\n") {
		return nil, badText("binary value is not base64")
	}
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, badText("binary value is not base64")
	}
	return b, nil
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// quote makes a value from the wire safe and short enough for a message.
func quote(v string) string {
	const limit = 64
	if len(v) > limit {
		return strconv.Quote(v[:limit]) + "..."
	}
	return strconv.Quote(v)
}
