// Package chap is the initiator's side of CHAP, the challenge handshake of RFC
// 1994 as iSCSI uses it (RFC 7143 12.1.3), one-way or mutual.
//
// It turns the text keys of one login step into those of the next and does no
// I/O. Secrets never appear in an error or in anything fmt, log/slog or
// encoding/json prints.
package chap
