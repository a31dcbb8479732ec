package scsi

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// MaxSmallLUN is the largest number that fits single-level flat space
// addressing (SAM-5), and so the largest LUNFromInt accepts.
const MaxSmallLUN = 1<<14 - 1

// LUN is a logical unit number as it stands on the wire (SAM-5).
//
// The eight bytes a target lists in REPORT LUNS are the ones to address it
// with. Rebuilding them from the small number is a guess: LIO numbers units
// above 255 in the peripheral format, others use the flat one.
type LUN [8]byte

// Addressing methods, the top two bits of the first byte (SAM-5).
const (
	lunPeripheral = 0x00
	lunFlat       = 0x40
	lunMethodMask = 0xc0
)

// LUNFromInt returns the single-level form of n: peripheral addressing on bus
// 0 below 256, flat space addressing from there to MaxSmallLUN.
func LUNFromInt(n int) (LUN, error) {
	var l LUN
	switch {
	case n < 0 || n > MaxSmallLUN:
		return l, fmt.Errorf("scsi: lun %d is outside 0..%d", n, MaxSmallLUN)
	case n < 256:
		l[1] = byte(n)
	default:
		l[0], l[1] = lunFlat|byte(n>>8), byte(n)
	}
	return l, nil
}

// Int returns the small number of a single-level LUN in peripheral or flat
// addressing. The bus number of a peripheral LUN counts as bits 8 to 13,
// which is how LIO and the Linux initiator number units above 255.
// It returns false for every other form.
func (l LUN) Int() (int, bool) {
	method := l[0] & lunMethodMask
	if method != lunPeripheral && method != lunFlat {
		return 0, false
	}
	if l[2]|l[3]|l[4]|l[5]|l[6]|l[7] != 0 {
		return 0, false
	}
	return int(l[0]&^lunMethodMask)<<8 | int(l[1]), true
}

// Uint64 returns the eight wire bytes as a big-endian number.
func (l LUN) Uint64() uint64 { return binary.BigEndian.Uint64(l[:]) }

// LUNFromUint64 is the inverse of LUN.Uint64.
func LUNFromUint64(v uint64) LUN {
	var l LUN
	binary.BigEndian.PutUint64(l[:], v)
	return l
}

// String returns the small number where there is one, else the wire bytes as
// 16 hex digits after "0x".
func (l LUN) String() string {
	if n, ok := l.Int(); ok {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("0x%016x", l.Uint64())
}
