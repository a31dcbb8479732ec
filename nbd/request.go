package nbd

import "encoding/binary"

// request is a request's header.
type request struct {
	flags  uint16
	cmd    command
	cookie uint64
	offset uint64
	length uint64
}

// parseRequest reads a compact header of requestLen bytes; false when it is none.
func parseRequest(b []byte) (request, bool) {
	_ = b[requestLen-1]
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    command(binary.BigEndian.Uint16(b[6:])),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: uint64(binary.BigEndian.Uint32(b[24:])),
	}, binary.BigEndian.Uint32(b) == magicRequest
}

// parseExtRequest reads an extended header of extRequestLen bytes; false when it is none.
func parseExtRequest(b []byte) (request, bool) {
	_ = b[extRequestLen-1]
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    command(binary.BigEndian.Uint16(b[6:])),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint64(b[24:]),
	}, binary.BigEndian.Uint32(b) == magicExtRequest
}
