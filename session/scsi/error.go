package scsi

import (
	"errors"
	"fmt"
)

// ErrUseReadCapacity16 reports that READ CAPACITY (10) cannot express the
// size of the unit, so READ CAPACITY (16) is to be asked (SBC-3).
var ErrUseReadCapacity16 = errors.New("unit too large for read capacity (10)")

// ErrNoCachingPage reports mode data without a caching mode page, so the
// write cache of the unit is unknown.
var ErrNoCachingPage = errors.New("no caching mode page")

// Error says that a device sent parameter data which contradicts itself or
// the standard.
type Error struct {
	Data   string // what was parsed, such as "vpd page 0x83"
	Reason string // what is wrong with it
}

// Error returns "scsi: <data>: <reason>".
func (e *Error) Error() string { return "scsi: " + e.Data + ": " + e.Reason }

func lie(data, format string, args ...any) error {
	return &Error{Data: data, Reason: fmt.Sprintf(format, args...)}
}

func tooShort(data string, have, want int) error {
	return lie(data, "%d bytes, need %d", have, want)
}
