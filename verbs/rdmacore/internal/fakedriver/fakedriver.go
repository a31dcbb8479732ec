//go:build cgo && linux

// Package fakedriver is a device driver as libibverbs would load it, without a device: the inline functions of
// infiniband/verbs.h end in it. Tests see with it what the data path really asks of a driver.
package fakedriver

// #include <stdlib.h>
// #include "fake.h"
import "C"

import (
	"unsafe"

	"iserblk/verbs"
)

// Room is how many work requests and completions a Driver can hold.
const Room = C.FAKE_ROOM

// WR is a work request as the driver got it.
type WR struct {
	ID     uint64
	SGEs   []verbs.SGE
	Opcode uint32 // enum ibv_wr_opcode: 2 is SEND
	Flags  uint32 // enum ibv_send_flags: 2 is SIGNALED, 8 is INLINE
}

// Driver has one queue pair and one completion queue. It is not safe for concurrent use.
type Driver struct{ c *C.struct_fake }

// New makes a driver; Close frees it.
func New() *Driver { return &Driver{c: C.fake_new()} }

// Close frees the driver and its queues.
func (d *Driver) Close() { C.fake_free(d.c) }

// QP is the struct ibv_qp.
func (d *Driver) QP() unsafe.Pointer { return C.fake_qp(d.c) }

// CQ is the struct ibv_cq.
func (d *Driver) CQ() unsafe.Pointer { return C.fake_cq(d.c) }

// RefuseAfter makes the driver refuse what is posted after n more work requests.
func (d *Driver) RefuseAfter(n int) { C.fake_refuse_after(d.c, C.int(n)) }

// Doorbells is how often a post has reached the driver.
func (d *Driver) Doorbells() int { return int(C.fake_doorbells(d.c)) }

// Requests is how many notifications of any completion were asked for.
func (d *Driver) Requests() int { return int(C.fake_requests(d.c)) }

// Posted is what the driver took, in order.
func (d *Driver) Posted() []WR {
	out := make([]WR, C.fake_posted(d.c))
	for i := range out {
		wr := C.fake_wr(d.c, C.int(i))
		out[i] = WR{ID: uint64(wr.id), Opcode: uint32(wr.opcode), Flags: uint32(wr.flags)}
		for s := range int(wr.num_sge) {
			sge := verbs.SGE{Addr: uint64(wr.addr[s]), Len: uint32(wr.len[s]), LKey: uint32(wr.lkey[s])}
			out[i].SGEs = append(out[i].SGEs, sge)
		}
	}
	return out
}

// Reset forgets what was posted and offers all completions again.
func (d *Driver) Reset() { C.fake_reset(d.c) }

// Complete has a completion ready for the next poll.
func (d *Driver) Complete(wc verbs.WC) {
	C.fake_complete(d.c, C.struct_fake_wc{
		id: C.uint64_t(wc.ID), status: C.uint32_t(wc.Status), op: C.uint32_t(wc.Op), len: C.uint32_t(wc.Len),
		flags: C.uint32_t(wc.Flags), inv_rkey: C.uint32_t(wc.InvRKey), vendor_err: C.uint32_t(wc.VendorErr),
	})
}
