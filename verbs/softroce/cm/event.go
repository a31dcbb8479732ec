package cm

// EventKind is what has happened to a connection.
type EventKind uint8

// The events. After Rejected, TimedOut, Unreachable, Disconnected and Closed the Manager knows the connection no more.
const (
	Requested    EventKind = iota + 1 // a peer wants to connect: Accept or Reject it
	Replied                           // our request was accepted: make the queue pair ready, then Confirm
	Established                       // the peer has confirmed
	Rejected                          // the peer has refused or given up; Reason says why
	TimedOut                          // the peer does not answer
	Unreachable                       // the peer's host says that nobody takes our request
	Disconnected                      // the peer has ended the connection
	Closed                            // the peer has seen our end of the connection, or does not answer
)

// Event is something that happened to a connection.
type Event struct {
	Kind   EventKind
	ID     ID
	Reason uint16   // of Rejected
	REQ    REQ      // of Requested
	IP     IPHeader // of Requested: what the REQ's private data says
	REP    REP      // of Replied
}
