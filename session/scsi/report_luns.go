package scsi

import "encoding/binary"

const (
	lunListHeaderLen = 8
	lunLen           = 8
	maxLUNListLen    = lunLen << 20 // a bound of our own on what we would ask for
)

// ParseReportLUNs reads REPORT LUNS data (SPC-4): the LUNs in device
// order. need is the length of the whole list in bytes; if it exceeds len(b),
// only the units that arrived are returned and the command is to be repeated
// with that much room.
func ParseReportLUNs(b []byte) (luns []LUN, need int, err error) {
	const name = "report luns data"
	if len(b) < lunListHeaderLen {
		return nil, 0, tooShort(name, len(b), lunListHeaderLen)
	}
	n := binary.BigEndian.Uint32(b)
	if n%lunLen != 0 {
		return nil, 0, lie(name, "list of %d bytes holds no whole number of luns", n)
	}
	if n > maxLUNListLen {
		return nil, 0, lie(name, "list of %d bytes, at most %d are taken", n, maxLUNListLen)
	}
	need = lunListHeaderLen + int(n)
	list := b[lunListHeaderLen:min(need, len(b))]
	luns = make([]LUN, 0, len(list)/lunLen)
	for ; len(list) >= lunLen; list = list[lunLen:] {
		luns = append(luns, LUN(list))
	}
	return luns, need, nil
}
