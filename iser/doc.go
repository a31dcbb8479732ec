// Package iser is the datamover of RFC 7145: it carries iSCSI PDUs as SEND messages on a verbs.Conn and opens a
// command's buffer to the target, which moves the data itself by RDMA. It satisfies session.Datamover, the
// primitives of RFC 5047 as one lane uses them.
//
// Control PDUs only: no Hello exchange, no zero-based addresses, no remote invalidation, no Data-Out (the request's
// private data says so, and every completion is checked for it). R2T and Data-In never appear on an iSER wire.
//
// A Conn has no locks: everything but Close, Events and Info belongs to the goroutine that drives it. Nothing on
// the way of a command allocates.
package iser
