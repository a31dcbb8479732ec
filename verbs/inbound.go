package verbs

// InboundLimiter is a Conn whose packets wait where there is only so much room, and are lost where there is none. Its
// method belongs to the goroutine that drives the connection.
type InboundLimiter interface {
	// InboundLimit is how many bytes the peer may be asked to write at a time, by all requests together, so that they find
	// room; 0 is no limit. It may change at any time. One request for more than that is in order as long as it is alone.
	InboundLimit() int
}
