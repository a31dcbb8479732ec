// Package session is an RFC 7143 initiator: it logs in, discovers targets, and runs one I_T nexus in its full-feature
// phase. It knows no RDMA: a Datamover carries its PDUs.
//
// Login and everything before a lane has the nexus block on the caller's goroutine (Do, Probe, Discover). From then on a
// Nexus is a state machine without locks that its lane drives: Submit, Poll, Flush, Tick.
package session
