// Package cm is the InfiniBand connection manager for RoCEv2 (IBTA volume 1, chapter 12, and annex A11 for connections
// named by IP addresses), as far as reliable connections need it: REQ, REP, RTU, REJ, MRA, DREQ and DREP, from either
// end.
//
// It does no I/O and has no clock. Manager takes messages and the time, and gives messages to send, events and the time
// at which it wants to be called again. Whoever drives it frames the messages as sends to QP 1 of the other
// host and makes the queue pairs.
//
// Nothing here proves who a message is from: the transport has no authentication. A message about a connection must
// come from the peer's address and carry both random identifiers and the random transaction number, so that
// nobody who does not see the traffic can end or take over a connection. Requests and answers to strangers are
// limited in rate, and what strangers can make us remember is bounded.
package cm
