package scsi

import (
	"encoding/binary"
	"fmt"
)

// SenseKey is the broad cause of an error (SPC-4).
type SenseKey uint8

// Sense keys.
const (
	KeyNoSense        SenseKey = 0x0
	KeyRecoveredError SenseKey = 0x1
	KeyNotReady       SenseKey = 0x2
	KeyMediumError    SenseKey = 0x3
	KeyHardwareError  SenseKey = 0x4
	KeyIllegalRequest SenseKey = 0x5
	KeyUnitAttention  SenseKey = 0x6
	KeyDataProtect    SenseKey = 0x7
	KeyBlankCheck     SenseKey = 0x8
	KeyVendor         SenseKey = 0x9
	KeyCopyAborted    SenseKey = 0xa
	KeyAbortedCommand SenseKey = 0xb
	KeyVolumeOverflow SenseKey = 0xd
	KeyMiscompare     SenseKey = 0xe
	KeyCompleted      SenseKey = 0xf
)

var keyNames = [...]string{
	"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR",
	"ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC",
	"COPY ABORTED", "ABORTED COMMAND", "reserved key", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED",
}

// String returns the name SPC-4 gives the key.
func (k SenseKey) String() string { return keyNames[k&0x0f] }

// Sense is what a device says about a failed command (SPC-4).
type Sense struct {
	// Deferred means that the error belongs to an earlier command whose good
	// status was already sent, and that this command was not performed.
	Deferred bool
	Key      SenseKey
	ASC      uint8 // additional sense code
	ASCQ     uint8 // additional sense code qualifier
	// Info is the INFORMATION field, for block commands the first bad LBA.
	Info      uint64
	InfoValid bool
}

// Response codes of sense data (SPC-4).
const (
	senseFixed           = 0x70
	senseFixedDeferred   = 0x71
	senseDesc            = 0x72
	senseDescDeferred    = 0x73
	responseCodeMask     = 0x7f
	senseHeaderLen       = 8
	senseKeyMask         = 0x0f
	senseValidBit        = 0x80
	senseDescInfo        = 0x00
	senseDescInfoLen     = 12
	fixedASC, fixedASCQ  = 12, 13
	fixedInfo            = 3
	descHeaderLen        = 2
	senseAdditionalLenAt = 7
)

const senseName = "sense data"

// ParseSense reads sense data in the fixed or the descriptor format. Targets
// cut sense short without adjusting its inner length, so what lies past the
// end counts as absent; fewer than 8 bytes or an unknown format is an *Error.
// It does not allocate unless it fails.
func ParseSense(b []byte) (Sense, error) {
	if len(b) < senseHeaderLen {
		return Sense{}, tooShort(senseName, len(b), senseHeaderLen)
	}
	code := b[0] & responseCodeMask
	if end := senseHeaderLen + int(b[senseAdditionalLenAt]); end < len(b) {
		b = b[:end]
	}
	switch code {
	case senseFixed, senseFixedDeferred:
		return parseFixedSense(b, code == senseFixedDeferred), nil
	case senseDesc, senseDescDeferred:
		return parseDescSense(b, code == senseDescDeferred), nil
	}
	return Sense{}, lie(senseName, "response code 0x%02x", code)
}

func parseFixedSense(b []byte, deferred bool) Sense {
	s := Sense{
		Deferred:  deferred,
		Key:       SenseKey(b[2] & senseKeyMask),
		InfoValid: b[0]&senseValidBit != 0,
	}
	if s.InfoValid {
		s.Info = uint64(binary.BigEndian.Uint32(b[fixedInfo:]))
	}
	if len(b) > fixedASC {
		s.ASC = b[fixedASC]
	}
	if len(b) > fixedASCQ {
		s.ASCQ = b[fixedASCQ]
	}
	return s
}

func parseDescSense(b []byte, deferred bool) Sense {
	s := Sense{Deferred: deferred, Key: SenseKey(b[1] & senseKeyMask), ASC: b[2], ASCQ: b[3]}
	for d := b[senseHeaderLen:]; len(d) >= descHeaderLen; {
		n := descHeaderLen + int(d[1])
		if n > len(d) {
			break
		}
		if d[0] == senseDescInfo && n >= senseDescInfoLen {
			s.InfoValid = d[2]&senseValidBit != 0
			s.Info = binary.BigEndian.Uint64(d[4:])
			break
		}
		d = d[n:]
	}
	if !s.InfoValid {
		s.Info = 0
	}
	return s
}

// AppendFixedSense appends s as 18 bytes in the fixed format, which a target
// in a test sends. Info is cut to 32 bits.
func AppendFixedSense(dst []byte, s Sense) []byte {
	const length = 18
	var b [length]byte
	b[0] = senseFixed
	if s.Deferred {
		b[0] = senseFixedDeferred
	}
	if s.InfoValid {
		b[0] |= senseValidBit
		binary.BigEndian.PutUint32(b[fixedInfo:], uint32(s.Info))
	}
	b[2] = byte(s.Key) & senseKeyMask
	b[senseAdditionalLenAt] = length - senseHeaderLen
	b[fixedASC], b[fixedASCQ] = s.ASC, s.ASCQ
	return append(dst, b[:]...)
}

// AppendDescriptorSense appends s in the descriptor format, with an
// information descriptor if Info is valid.
func AppendDescriptorSense(dst []byte, s Sense) []byte {
	code, extra := byte(senseDesc), byte(0)
	if s.Deferred {
		code = senseDescDeferred
	}
	if s.InfoValid {
		extra = senseDescInfoLen
	}
	dst = append(dst, code, byte(s.Key)&senseKeyMask, s.ASC, s.ASCQ, 0, 0, 0, extra)
	if s.InfoValid {
		dst = append(dst, senseDescInfo, senseDescInfoLen-descHeaderLen, senseValidBit, 0)
		dst = binary.BigEndian.AppendUint64(dst, s.Info)
	}
	return dst
}

// String returns key, ASC/ASCQ in hex with their meaning where it is known,
// and the bad LBA if there is one.
func (s Sense) String() string {
	text := fmt.Sprintf("%v %02x/%02x", s.Key, s.ASC, s.ASCQ)
	if name := ascName(s.ASC, s.ASCQ); name != "" {
		text += " (" + name + ")"
	}
	if s.InfoValid {
		text += fmt.Sprintf(" at lba %d", s.Info)
	}
	if s.Deferred {
		text = "deferred " + text
	}
	return text
}
