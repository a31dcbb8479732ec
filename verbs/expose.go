package verbs

// Exposer is a Conn that can open one buffer for one transfer, in place of the keys of a whole region (Conn.Keys). Its
// methods belong to the goroutine that drives the connection.
type Exposer interface {
	// Expose opens mem, a part of the arena, to the peer: for writing if peerWrites, else for reading. The key is a random
	// one, opens these bytes in this direction alone, and does so until Unexpose. It is never 0.
	Expose(mem []byte, peerWrites bool) (rkey uint32)
	// Unexpose closes what Expose has opened: from its return on the peer cannot get there by that key.
	Unexpose(rkey uint32)
}
