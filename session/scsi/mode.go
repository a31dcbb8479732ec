package scsi

import "encoding/binary"

// PageCaching is the caching mode page (SBC-3).
const PageCaching = 0x08

const (
	modePageMask     = 0x3f
	modeSubpageBit   = 0x40
	modeHeader6Len   = 4
	modeHeader10Len  = 8
	modeWriteProtect = 0x80
	modeDPOFUA       = 0x10
	pageHeaderLen    = 2
	subpageHeaderLen = 4
	cachingFlagsAt   = 2
	cachingWCE       = 0x04
	cachingRCD       = 0x01
)

// Mode is what the mode parameter header and the caching page say about a
// block device (SPC-4, SBC-3).
type Mode struct {
	WriteProtect bool // WP: the medium takes no writes
	DPOFUA       bool // READ and WRITE honour the FUA bit
	WriteCache   bool // WCE: writes may wait in a volatile cache
	NoReadCache  bool // RCD
}

// ParseMode6 reads MODE SENSE (6) data that should hold the caching page. If
// it does not, the error is ErrNoCachingPage and the header's bits are valid.
func ParseMode6(b []byte) (Mode, error) {
	const name = "mode sense (6) data"
	if len(b) < modeHeader6Len {
		return Mode{}, tooShort(name, len(b), modeHeader6Len)
	}
	total := int(b[0]) + 1
	return parseMode(name, b, total, modeHeader6Len, b[2], int(b[3]))
}

// ParseMode10 reads MODE SENSE (10) data that should hold the caching page. If
// it does not, the error is ErrNoCachingPage and the header's bits are valid.
func ParseMode10(b []byte) (Mode, error) {
	const name = "mode sense (10) data"
	if len(b) < modeHeader10Len {
		return Mode{}, tooShort(name, len(b), modeHeader10Len)
	}
	total := int(binary.BigEndian.Uint16(b)) + 2
	return parseMode(name, b, total, modeHeader10Len, b[3], int(binary.BigEndian.Uint16(b[6:])))
}

// parseMode reads the pages that lie between the block descriptors and the
// end the device claims or the transfer reached, whichever is first.
func parseMode(name string, b []byte, total, header int, params byte, descriptors int) (Mode, error) {
	if total < len(b) {
		b = b[:total]
	}
	if len(b) < header {
		return Mode{}, lie(name, "claims %d bytes, its header has %d", total, header)
	}
	m := Mode{WriteProtect: params&modeWriteProtect != 0, DPOFUA: params&modeDPOFUA != 0}
	if header+descriptors > len(b) {
		return Mode{}, lie(name, "block descriptors of %d bytes in %d", descriptors, len(b))
	}
	page := findPage(b[header+descriptors:], PageCaching)
	if page == nil {
		return m, ErrNoCachingPage
	}
	if len(page) <= cachingFlagsAt {
		return Mode{}, tooShort("caching mode page", len(page), cachingFlagsAt+1)
	}
	m.WriteCache = page[cachingFlagsAt]&cachingWCE != 0
	m.NoReadCache = page[cachingFlagsAt]&cachingRCD != 0
	return m, nil
}

// findPage returns the page with the given code, header included and cut where
// the data ends, or nil.
func findPage(b []byte, code byte) []byte {
	for len(b) >= pageHeaderLen {
		size := pageHeaderLen + int(b[1])
		isSubpage := b[0]&modeSubpageBit != 0
		if isSubpage {
			if len(b) < subpageHeaderLen {
				return nil
			}
			size = subpageHeaderLen + int(binary.BigEndian.Uint16(b[2:]))
		}
		size = min(size, len(b))
		if b[0]&modePageMask == code && !isSubpage {
			return b[:size]
		}
		b = b[size:]
	}
	return nil
}
