package pdu

import "fmt"

// Error says that a PDU, a data segment or a text key from the wire breaks
// RFC 7143 in a way that must end the connection.
type Error struct {
	PDU    string // name of the PDU or part, such as "scsi response"
	Field  string // name of the field as the RFC spells it
	Reason string // what is wrong
}

// Error returns "pdu: <pdu>: <field>: <reason>".
func (e *Error) Error() string {
	return "pdu: " + e.PDU + ": " + e.Field + ": " + e.Reason
}

func bad(op Opcode, field, format string, args ...any) error {
	return &Error{PDU: op.String(), Field: field, Reason: fmt.Sprintf(format, args...)}
}

func short(what string, n int) error {
	return &Error{PDU: what, Field: "length", Reason: fmt.Sprintf("%d bytes, a header has %d", n, BHSLen)}
}

// check tests what holds for every PDU: the header is whole, it is the PDU the
// caller takes it for, it has no additional header segments (no PDU iSER
// carries for us has any), and the data segment is as long as the header says.
// dataLen counts the bytes that arrived behind the header.
func check(p []byte, op Opcode, dataLen int) error {
	if len(p) < BHSLen {
		return short(op.String(), len(p))
	}
	h := BHS(p)
	if h.Opcode() != op {
		return bad(op, "Opcode", "0x%02x, want 0x%02x", uint8(h.Opcode()), uint8(op))
	}
	if n := h.TotalAHSLength(); n != 0 {
		return bad(op, "TotalAHSLength", "%d words, want none", n)
	}
	if n := h.DataSegmentLength(); n > dataLen || n+MaxPad < dataLen {
		return bad(op, "DataSegmentLength", "%d bytes, but %d arrived", n, dataLen)
	}
	return nil
}

// checkReply is check for a PDU that answers a request and so must name it.
func checkReply(p []byte, op Opcode, dataLen int) error {
	if err := check(p, op, dataLen); err != nil {
		return err
	}
	if getITT(p) == ReservedITT {
		return bad(op, "InitiatorTaskTag", "reserved value in a reply")
	}
	return nil
}

// checkBare tests that a PDU which has no data segment brings none.
func checkBare(p []byte, op Opcode) error {
	if n := getDataLen(p); n != 0 {
		return bad(op, "DataSegmentLength", "%d bytes, want none", n)
	}
	return nil
}
