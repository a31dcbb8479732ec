package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A block: checksum of the rest (4 bytes), run (8), number (8), sequence (8), filler that depends on them.
const headerLen = 28

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp fills b with write seq of block number.
func stamp(b []byte, run, number, seq uint64) {
	binary.LittleEndian.PutUint64(b[4:], run)
	binary.LittleEndian.PutUint64(b[12:], number)
	binary.LittleEndian.PutUint64(b[20:], seq)
	x := run ^ number<<40 ^ seq<<8
	for i := headerLen; i < len(b); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// sequence takes from b which write of block number it holds.
func sequence(b []byte, run, number uint64) (uint64, error) {
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return 0, fmt.Errorf("block %d is torn or foreign: starts % x", number, b[:headerLen])
	}
	if got := binary.LittleEndian.Uint64(b[4:]); got != run {
		return 0, fmt.Errorf("block %d is of another run: its writes were lost", number)
	}
	if got := binary.LittleEndian.Uint64(b[12:]); got != number {
		return 0, fmt.Errorf("block %d holds block %d", number, got)
	}
	return binary.LittleEndian.Uint64(b[20:]), nil
}
