//go:build cgo && linux

package rdmacore

// #cgo noescape blk_post_send
// #cgo nocallback blk_post_send
// #cgo noescape blk_post_recv
// #cgo nocallback blk_post_recv
// #cgo noescape blk_poll
// #cgo nocallback blk_poll
// #cgo nocallback blk_arm
// #include "shim.h"
import "C"

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"iserblk/verbs"
)

// queues is the data path: one crossing into C a call, no allocation unless it fails.
type queues struct {
	c      *C.struct_blk_conn
	closed atomic.Bool
}

// PostSend posts the batch with one doorbell.
func (q *queues) PostSend(wrs []verbs.SendWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	if q.closed.Load() {
		return 0, verbs.ErrClosed
	}
	first := (*C.struct_blk_send_wr)(unsafe.Pointer(unsafe.SliceData(wrs)))
	return posted("post send", C.blk_post_send(q.c, first, C.uint32_t(len(wrs))))
}

// PostRecv posts the batch with one doorbell.
func (q *queues) PostRecv(wrs []verbs.RecvWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	if q.closed.Load() {
		return 0, verbs.ErrClosed
	}
	first := (*C.struct_blk_recv_wr)(unsafe.Pointer(unsafe.SliceData(wrs)))
	return posted("post receive", C.blk_post_recv(q.c, first, C.uint32_t(len(wrs))))
}

// posted takes the result of a post apart: the count, and above it the errno of the first that was refused.
func posted(op string, r C.int64_t) (int, error) {
	n, no := int(uint32(r)), syscall.Errno(r>>32)
	if no == 0 {
		return n, nil
	}
	return n, &verbs.OpError{Op: op, Err: no}
}

// Poll takes up to len(wcs) completions.
func (q *queues) Poll(wcs []verbs.WC) (int, error) {
	if len(wcs) == 0 {
		return 0, nil
	}
	if q.closed.Load() {
		return 0, verbs.ErrClosed
	}
	first := (*C.struct_blk_wc)(unsafe.Pointer(unsafe.SliceData(wcs)))
	n := C.blk_poll(q.c, first, C.uint32_t(len(wcs)))
	if n < 0 {
		return 0, &verbs.OpError{Op: "poll completions", Err: errno(n)}
	}
	return int(n), nil
}

// Arm takes the notification off Fd and asks for the next.
func (q *queues) Arm() error {
	if q.closed.Load() {
		return verbs.ErrClosed
	}
	if r := C.blk_arm(q.c); r < 0 {
		return &verbs.OpError{Op: "arm completions", Err: errno(r)}
	}
	return nil
}

// queuesAround is the data path over queues of another making.
func queuesAround(qp, cq unsafe.Pointer, sends, recvs int) *queues {
	return &queues{c: C.blk_conn_around((*C.struct_ibv_qp)(qp), (*C.struct_ibv_cq)(cq), C.uint32_t(sends), C.uint32_t(recvs))}
}

// free frees what queuesAround has made.
func (q *queues) free() { C.blk_conn_free(q.c) }
