//go:build cgo && linux

package rdmacore

// #include <rdma/rdma_cma.h>
// #include "shim.h"
import "C"

import (
	"fmt"
	"syscall"

	"iserblk/verbs"
)

// handleCM tells what a CM event means to an established connection (rdma_get_cm_event(3)).
func (c *conn) handleCM(ev *C.struct_blk_cm_event) {
	switch ev._type {
	case C.RDMA_CM_EVENT_DISCONNECTED, C.RDMA_CM_EVENT_CONNECT_ERROR, C.RDMA_CM_EVENT_REJECTED:
		// The peer has given its end up. Answering lets it free that end now, and flushes ours.
		c.hangUp()
		c.events.post(verbs.Event{Kind: verbs.EventDisconnected, Err: cmStatus(ev)})
	case C.RDMA_CM_EVENT_DEVICE_REMOVAL:
		c.device.gone.Store(true)
		c.events.post(verbs.Event{Kind: verbs.EventDeviceGone, Err: cmStatus(ev)})
	case C.RDMA_CM_EVENT_ADDR_CHANGE, C.RDMA_CM_EVENT_UNREACHABLE:
		// UNREACHABLE on a live connection: the neighbour's link address changed. Both are hints.
		c.events.post(verbs.Event{Kind: verbs.EventAddrChange, Err: cmStatus(ev)})
	}
}

// cmStatus is the cause in a CM event, nil where it gives none. A positive status is the reason of a reject.
func cmStatus(ev *C.struct_blk_cm_event) error {
	switch {
	case ev._type == C.RDMA_CM_EVENT_REJECTED && ev.status > 0:
		return &verbs.RejectError{Reason: int(ev.status)}
	case ev._type == C.RDMA_CM_EVENT_REJECTED:
		return fmt.Errorf("%w: %w", verbs.ErrRejected, syscall.Errno(-ev.status))
	case ev.status == 0:
		return nil
	}
	return syscall.Errno(max(ev.status, -ev.status))
}

func isRemoval(ev *C.struct_blk_cm_event) bool { return ev._type == C.RDMA_CM_EVENT_DEVICE_REMOVAL }

// cmEventName names an event that came at the wrong time.
func cmEventName(ev *C.struct_blk_cm_event) string {
	names := map[C.uint32_t]string{
		C.RDMA_CM_EVENT_ADDR_ERROR:     "address error",
		C.RDMA_CM_EVENT_ROUTE_ERROR:    "route error",
		C.RDMA_CM_EVENT_CONNECT_ERROR:  "connect error",
		C.RDMA_CM_EVENT_UNREACHABLE:    "peer unreachable",
		C.RDMA_CM_EVENT_DISCONNECTED:   "disconnected",
		C.RDMA_CM_EVENT_DEVICE_REMOVAL: "device removed",
	}
	if name, ok := names[ev._type]; ok {
		return name
	}
	return fmt.Sprintf("unexpected CM event %d", ev._type)
}
