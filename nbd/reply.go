package nbd

import (
	"encoding/binary"

	"iserblk/internal/block"
)

// Replies is the form of a connection's replies.
type Replies uint8

// The forms, each of which includes what the ones before it can say.
const (
	Simple     Replies = iota // what every client and the kernel know
	Structured                // chunks, with messages for errors
	Extended                  // 64 bits for every length
)

// headRoom is the most that a reply takes besides the data of a read and the descriptors of a block status: a refusal
// with its message.
const headRoom = extChunkLen + errorLen + maxRefusal

func appendSimple(b []byte, c code, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, magicSimple)
	b = binary.BigEndian.AppendUint32(b, uint32(c))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// appendChunk is the header of the last or only chunk of an answer to r, with n bytes to follow.
func appendChunk(b []byte, form Replies, t chunkType, r *request, n int) []byte {
	magic := uint32(magicChunk)
	if form == Extended {
		magic = magicExtChunk
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, chunkFlagDone)
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	if form == Extended {
		b = binary.BigEndian.AppendUint64(b, r.offset)
		return binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// appendSuccess answers r with nothing but that it was done. Among structured replies a simple one may say that.
func appendSuccess(b []byte, form Replies, r *request) []byte {
	if form == Extended || form == Structured && r.cmd == cmdRead {
		return appendChunk(b, form, chunkNone, r, 0)
	}
	return appendSimple(b, codeOK, r.cookie)
}

// appendData is what comes before the n bytes of a read that went well.
func appendData(b []byte, form Replies, r *request, n int) []byte {
	if form == Simple {
		return appendSimple(b, codeOK, r.cookie)
	}
	b = appendChunk(b, form, chunkOffsetData, r, offsetDataLen+n)
	return binary.BigEndian.AppendUint64(b, r.offset)
}

// appendRefusal answers r with an error.
func appendRefusal(b []byte, form Replies, r *request, why *refusal) []byte {
	if form == Simple {
		return appendSimple(b, why.code, r.cookie)
	}
	b = appendChunk(b, form, chunkError, r, errorLen+len(why.text))
	b = binary.BigEndian.AppendUint32(b, uint32(why.code))
	b = binary.BigEndian.AppendUint16(b, uint16(len(why.text)))
	return append(b, why.text...)
}

// appendStatus answers r with the status of extents, of which there is at least one.
func appendStatus(b []byte, form Replies, r *request, extents []block.Extent) []byte {
	if form != Extended {
		b = appendChunk(b, form, chunkBlockStatus, r, blockStatusLen+descriptorLen*len(extents))
		b = binary.BigEndian.AppendUint32(b, contextID)
		for i := range extents {
			b = binary.BigEndian.AppendUint32(b, uint32(extents[i].Length))
			b = binary.BigEndian.AppendUint32(b, uint32(status(&extents[i])))
		}
		return b
	}
	b = appendChunk(b, form, chunkBlockStatusExt, r, blockStatusExtLen+descriptorExtLen*len(extents))
	b = binary.BigEndian.AppendUint32(b, contextID)
	b = binary.BigEndian.AppendUint32(b, uint32(len(extents)))
	for i := range extents {
		b = binary.BigEndian.AppendUint64(b, extents[i].Length)
		b = binary.BigEndian.AppendUint64(b, status(&extents[i]))
	}
	return b
}

func status(e *block.Extent) uint64 {
	var s uint64
	if e.Hole {
		s |= stateHole
	}
	if e.Zero {
		s |= stateZero
	}
	return s
}
