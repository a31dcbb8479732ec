package iser

import (
	"net/netip"

	"iserblk/verbs"
)

// Info describes a connection. It does not change.
type Info struct {
	Device    verbs.DeviceInfo
	Local     netip.AddrPort
	Remote    netip.AddrPort
	MaxInline int // bytes; below HeadersLen every command costs the device one more read
	// PeerFlags is the first byte of the target's private data (IBTA annex A12), 0 where it sent none. It is for
	// people to read: nothing is decided by it.
	PeerFlags byte
}

func newInfo(qp verbs.Conn) Info {
	i := Info{Device: qp.Device(), Local: qp.LocalAddr(), Remote: qp.RemoteAddr(), MaxInline: qp.MaxInline()}
	if p := qp.PeerPrivateData(); len(p) >= cmPrivateDataLen {
		i.PeerFlags = p[0]
	}
	return i
}

// Stats counts what a connection has done since Dial.
type Stats struct {
	Commands       uint64 // SCSI commands queued
	ImmediateBytes uint64 // immediate data that went with them
	Controls       uint64 // other PDUs queued
	Received       uint64 // PDUs passed on
	Doorbells      uint64 // posts of sends; Commands+Controls over it is the batching
}

// Info describes the connection. Any goroutine may call it.
func (c *Conn) Info() Info { return c.info }

// Stats counts what was done so far. It belongs to the driving goroutine.
func (c *Conn) Stats() Stats { return c.stats }

// Events tells of disconnects and link changes, see verbs.Conn.
func (c *Conn) Events() <-chan verbs.Event { return c.qp.Events() }

// Fd becomes readable after Arm when there is something to Poll.
func (c *Conn) Fd() int { return c.qp.Fd() }

// Arm asks for the next notification on Fd. Poll once more after it, before sleeping.
func (c *Conn) Arm() error {
	if err := c.qp.Arm(); err != nil {
		return c.fail("arm notification from", err)
	}
	return nil
}

// Sync makes regions that the arena has got since Dial usable for commands. It may block for long, and run beside
// the driving goroutine.
func (c *Conn) Sync() error {
	if err := c.qp.Sync(); err != nil {
		return c.fault("register memory for", err)
	}
	return nil
}

// MaxCommands is how many commands may be unanswered: the receive buffers less those kept for other PDUs.
func (c *Conn) MaxCommands() int { return c.maxCommands }
