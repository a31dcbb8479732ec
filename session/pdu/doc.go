// Package pdu holds the iSCSI protocol data units of RFC 7143 as views over
// byte slices, with the text keys and data segments they carry.
//
// A view such as LoginResponse is the basic header segment (BHS) itself: the
// getters read the wire bytes at fixed offsets and copy nothing. A slice must
// hold at least BHSLen bytes before it is used as a view; Parse and the
// Validate methods check that, the getters do not. Each PDU also has a Fields
// struct whose Encode writes a complete header, reserved bytes included,
// without allocating.
//
// Validate is for headers that came from the wire. It finds what a peer must
// never send and what would mislead the code above; reserved bits that change
// nothing are ignored, as RFC 7143 section 11 asks of a receiver.
//
// The package does no I/O and keeps no state.
package pdu
