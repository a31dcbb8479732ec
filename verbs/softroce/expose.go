package softroce

import (
	"iserblk/verbs"
	"iserblk/verbs/softroce/rc"
)

var _ verbs.Exposer = (*conn)(nil)

// Expose opens exactly mem to the peer, in one direction, under a random key of its own, until Unexpose. mem must lie in
// the connection's arena. It allocates only when more is exposed than ever before.
func (c *conn) Expose(mem []byte, peerWrites bool) uint32 {
	right := rc.PeerReads
	if peerWrites {
		right = rc.PeerWrites
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mem.Register(mem, verbs.Addr(mem), right)
}

// Unexpose closes what Expose has opened: no packet reaches it by that key from its return on.
func (c *conn) Unexpose(rkey uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mem.Revoke(rkey)
}
