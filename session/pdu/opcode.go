package pdu

import "fmt"

// Opcode names a PDU (RFC 7143 11.2.1.2). Bit 5 is set in what targets send.
type Opcode uint8

// Initiator opcodes.
const (
	OpNOPOut        Opcode = 0x00
	OpSCSICommand   Opcode = 0x01
	OpTMFRequest    Opcode = 0x02
	OpLoginRequest  Opcode = 0x03
	OpTextRequest   Opcode = 0x04
	OpDataOut       Opcode = 0x05
	OpLogoutRequest Opcode = 0x06
	OpSNACKRequest  Opcode = 0x10
)

// Target opcodes.
const (
	OpNOPIn          Opcode = 0x20
	OpSCSIResponse   Opcode = 0x21
	OpTMFResponse    Opcode = 0x22
	OpLoginResponse  Opcode = 0x23
	OpTextResponse   Opcode = 0x24
	OpDataIn         Opcode = 0x25
	OpLogoutResponse Opcode = 0x26
	OpR2T            Opcode = 0x31
	OpAsyncMessage   Opcode = 0x32
	OpReject         Opcode = 0x3f
)

var opcodeNames = [opcodeMask + 1]string{
	OpNOPOut:         "nop-out",
	OpSCSICommand:    "scsi command",
	OpTMFRequest:     "task management request",
	OpLoginRequest:   "login request",
	OpTextRequest:    "text request",
	OpDataOut:        "data-out",
	OpLogoutRequest:  "logout request",
	OpSNACKRequest:   "snack request",
	OpNOPIn:          "nop-in",
	OpSCSIResponse:   "scsi response",
	OpTMFResponse:    "task management response",
	OpLoginResponse:  "login response",
	OpTextResponse:   "text response",
	OpDataIn:         "data-in",
	OpLogoutResponse: "logout response",
	OpR2T:            "r2t",
	OpAsyncMessage:   "async message",
	OpReject:         "reject",
}

// String returns the name of the PDU in lower case, for messages.
func (o Opcode) String() string {
	if int(o) < len(opcodeNames) && opcodeNames[o] != "" {
		return opcodeNames[o]
	}
	return fmt.Sprintf("opcode 0x%02x", uint8(o))
}
