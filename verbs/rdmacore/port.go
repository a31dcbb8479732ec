//go:build cgo && linux

package rdmacore

// #include "shim.h"
import "C"

import (
	"net"
	"time"

	"iserblk/verbs"
)

const (
	// portPoll is how often a port that is down is looked at.
	portPoll = 100 * time.Millisecond
	// portSettle is how long a port has to be up before it is used: the kernel reports it before the routes through
	// its network device are back.
	portSettle = 50 * time.Millisecond
)

// portActive tells whether the port of the route is ACTIVE and its network device open. A device that does not say
// counts as active: it may be gone, and then nothing that is sent through it does any harm.
func (c *conn) portActive() bool { return C.blk_port_inactive(c.c) == 0 && !shut(c.info.NetDev) }

// shut: the network device is administratively down. rxe of Linux 6.x hears of that a moment later.
func shut(netDev string) bool {
	if netDev == "" {
		return false
	}
	i, err := net.InterfaceByName(netDev)
	return err == nil && i.Flags&net.FlagUp == 0
}

// checkPort fails unless a connection request can leave now.
func (c *conn) checkPort() error {
	if c.portActive() {
		return nil
	}
	return portDown(c.peer, c.info)
}

// noticePort ends the wait for the answer to a connection request when the port goes down: it would be long, and the
// request would be sent again by a port that must not send anything.
func (c *conn) noticePort(kind verbs.EventKind) {
	if kind == verbs.EventPortDown && c.connecting.Load() {
		c.portLost.Store(true)
		c.cm.interrupt()
	}
}

// closeWithPort destroys the identifier of a connection that was closed while its port was down, as soon as that is up
// again or the device was removed. Nothing but the identifier is left of the connection; if the process ends first, the
// kernel destroys it.
func (c *conn) closeWithPort() {
	for !c.removed() && !c.portSettled() {
		time.Sleep(portPoll)
	}
	_ = c.closeCM() // there is nobody left to tell
}

func (c *conn) portSettled() bool {
	if !c.portActive() {
		return false
	}
	time.Sleep(portSettle)
	return c.portActive()
}

// removed takes the events that nobody else takes any more, and looks among them for the end of the device.
func (c *conn) removed() bool {
	var ev C.struct_blk_cm_event
	for C.blk_cm_next(c.c, &ev) == 0 {
		c.noDevice = c.noDevice || isRemoval(&ev)
	}
	return c.noDevice
}
