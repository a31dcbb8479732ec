// Package softroce is RDMA in pure Go: RoCEv2 (IBTA annex A17) over ordinary UDP sockets, which needs no RDMA device, no
// rdma-core and no privilege, and works with kernel rxe and RoCE adapters at the other end.
//
// The protocol itself is in verbs/softroce/wire (packets), verbs/softroce/rc (reliable connections) and
// verbs/softroce/cm (connecting); none of them does I/O. Here are the sockets, the clock and the memory.
//
// # Sockets
//
// RoCEv2 sends everything to UDP port 4791 of a host. For each local address in use there is one lobby: a
// socket on that port, which gets the messages of the connection manager and the first packets of a connection. A
// connection learns from its first packet which source port its peer sends from, and has from then on a receiving
// socket of its own, connected to that port, which the kernel prefers over the lobby. It sends from a third socket
// that is not connected and never fragments, because only such a socket has the kernel number all its IPv4 packets 0, and
// the packets' checksum covers that number.
//
// Several processes may share an address: each has a lobby, the kernel chooses one of them for a packet, and a packet
// that came to the wrong one is handed on to the process that its queue pair number names (share.go).
//
// # Threads
//
// Whoever drives a connection does its work: Poll receives, runs the protocol and sends, PostSend sends. No goroutine
// stands between them and the sockets. A connection has a mutex, which nobody contends for once the connection
// has its own socket.
package softroce
