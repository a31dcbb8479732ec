// Package rc is one reliable connection of RoCEv2 (IBTA volume 1, chapter 9, transport service RC) as a state machine:
// it takes packets and the time, and gives packets and completions. It has no sockets, no clock, no goroutines and no
// locks; nothing is allocated per packet, and what a peer sends never makes it use more memory.
//
// As a requester it issues SEND, RDMA WRITE and RDMA READ and sees to their delivery: go-back-N with acknowledgements
// that are shared, a window that shrinks when packets are lost, retries within a budget of time. As a responder it
// takes SENDs into posted buffers and lets the peer reach exactly the memory whose keys it was given (Memory).
//
// What a request asks wrongly is answered with a NAK and changes nothing here: neither memory, nor what packet is
// expected next, nor the connection's life. A peer that meant it gives up by itself; one who forged it achieves nothing.
package rc
