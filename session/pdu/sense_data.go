package pdu

import "encoding/binary"

const senseLengthLen = 2

// SenseData returns the sense bytes inside the data segment of a SCSI Response
// (RFC 7143 11.4.7.1), or nil if it carries none. data is the segment, with or
// without its padding; the result aliases it. Response data behind the sense
// is left out.
func SenseData(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) < senseLengthLen {
		return nil, bad(OpSCSIResponse, "SenseLength", "segment of %d bytes has no room for it", len(data))
	}
	n, rest := int(binary.BigEndian.Uint16(data)), data[senseLengthLen:]
	if n > len(rest) {
		return nil, bad(OpSCSIResponse, "SenseLength", "%d bytes, but %d arrived", n, len(rest))
	}
	if n == 0 {
		return nil, nil
	}
	return rest[:n:n], nil
}

// AppendSenseData appends the data segment that carries sense: its length and
// its bytes, without padding.
func AppendSenseData(dst, sense []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sense)))
	return append(dst, sense...)
}
