// Package nbd serves a logical unit over the NBD protocol: an Export answers clients on a unix socket or on TCP with TLS,
// and the kernel's own client at the other end of a socketpair.
//
// The handshake is control work: ordinary Go on goroutines. What follows it runs on a lane: a state machine for each
// connection reads requests from the socket, the payload of a write straight into the memory that the logical unit
// sends from, and writes replies straight from the memory that it reads to. There is no copy of our own, except for TLS,
// where encryption makes one, and for the few hundred bytes of a first write that arrive along with the requests before it.
//
// The protocol is that of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, with the extension for
// extended headers; "proto" in comments is that document.
package nbd
