//go:build cgo && linux

package rdmacore

// #include "shim.h"
import "C"

import (
	"unsafe"

	"iserblk/verbs"
)

// The data path hands arrays of Go structs to C as they are. A difference makes an index below not 0, which does not
// compile.
var (
	same = [1]struct{}{}

	_ = same[unsafe.Sizeof(verbs.SGE{})-unsafe.Sizeof(C.struct_blk_sge{})]
	_ = same[unsafe.Offsetof(verbs.SGE{}.Addr)-unsafe.Offsetof(C.struct_blk_sge{}.addr)]
	_ = same[unsafe.Offsetof(verbs.SGE{}.Len)-unsafe.Offsetof(C.struct_blk_sge{}.len)]
	_ = same[unsafe.Offsetof(verbs.SGE{}.LKey)-unsafe.Offsetof(C.struct_blk_sge{}.lkey)]

	_ = same[unsafe.Sizeof(verbs.SendWR{})-unsafe.Sizeof(C.struct_blk_send_wr{})]
	_ = same[unsafe.Offsetof(verbs.SendWR{}.ID)-unsafe.Offsetof(C.struct_blk_send_wr{}.id)]
	_ = same[unsafe.Offsetof(verbs.SendWR{}.SGE)-unsafe.Offsetof(C.struct_blk_send_wr{}.sge)]
	_ = same[unsafe.Offsetof(verbs.SendWR{}.NumSGE)-unsafe.Offsetof(C.struct_blk_send_wr{}.num_sge)]
	_ = same[unsafe.Offsetof(verbs.SendWR{}.Inline)-unsafe.Offsetof(C.struct_blk_send_wr{}.inlined)]
	_ = same[unsafe.Offsetof(verbs.SendWR{}.Signaled)-unsafe.Offsetof(C.struct_blk_send_wr{}.signaled)]

	_ = same[unsafe.Sizeof(verbs.RecvWR{})-unsafe.Sizeof(C.struct_blk_recv_wr{})]
	_ = same[unsafe.Offsetof(verbs.RecvWR{}.ID)-unsafe.Offsetof(C.struct_blk_recv_wr{}.id)]
	_ = same[unsafe.Offsetof(verbs.RecvWR{}.SGE)-unsafe.Offsetof(C.struct_blk_recv_wr{}.sge)]

	_ = same[unsafe.Sizeof(verbs.WC{})-unsafe.Sizeof(C.struct_blk_wc{})]
	_ = same[unsafe.Offsetof(verbs.WC{}.ID)-unsafe.Offsetof(C.struct_blk_wc{}.id)]
	_ = same[unsafe.Offsetof(verbs.WC{}.Status)-unsafe.Offsetof(C.struct_blk_wc{}.status)]
	_ = same[unsafe.Offsetof(verbs.WC{}.Op)-unsafe.Offsetof(C.struct_blk_wc{}.op)]
	_ = same[unsafe.Offsetof(verbs.WC{}.Len)-unsafe.Offsetof(C.struct_blk_wc{}.len)]
	_ = same[unsafe.Offsetof(verbs.WC{}.Flags)-unsafe.Offsetof(C.struct_blk_wc{}.flags)]
	_ = same[unsafe.Offsetof(verbs.WC{}.InvRKey)-unsafe.Offsetof(C.struct_blk_wc{}.inv_rkey)]
	_ = same[unsafe.Offsetof(verbs.WC{}.VendorErr)-unsafe.Offsetof(C.struct_blk_wc{}.vendor_err)]
)
