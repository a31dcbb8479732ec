package uring

import (
	"structs"
	"unsafe"
)

// The kernel's side of io_uring: include/uapi/linux/io_uring.h. Only what this program uses.

// Opcodes (enum io_uring_op).
const (
	opPollAdd    = 6
	opPollRemove = 7
	opTimeout    = 11
	opRead       = 22
	opURingCmd   = 46
)

// IORING_SETUP_*.
const (
	setupCQSize       = 1 << 3
	setupRDisabled    = 1 << 6
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
)

// IORING_FEAT_*.
const (
	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
)

const enterGetEvents = 1 << 0 // IORING_ENTER_GETEVENTS

// IORING_SQ_* in the submission ring's flags.
const (
	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2
)

// IORING_OFF_* are the mmap offsets of a ring's two parts.
const (
	offRings = 0
	offSQEs  = 0x10000000
)

const (
	registerEnableRings = 12     // IORING_REGISTER_ENABLE_RINGS
	pollAddMulti        = 1 << 0 // IORING_POLL_ADD_MULTI, in SQE.Len
)

// CQEMore says that the request behind a CQE stays and will raise more (IORING_CQE_F_MORE).
const CQEMore = 1 << 1

// sqRingOffsets is struct io_sqring_offsets.
type sqRingOffsets struct {
	_           structs.HostLayout
	head        uint32
	tail        uint32
	ringMask    uint32
	ringEntries uint32
	flags       uint32
	dropped     uint32
	array       uint32
	_           uint32
	_           uint64
}

// cqRingOffsets is struct io_cqring_offsets.
type cqRingOffsets struct {
	_           structs.HostLayout
	head        uint32
	tail        uint32
	ringMask    uint32
	ringEntries uint32
	overflow    uint32
	cqes        uint32
	flags       uint32
	_           uint32
	_           uint64
}

// params is struct io_uring_params.
type params struct {
	_            structs.HostLayout
	sqEntries    uint32
	cqEntries    uint32
	flags        uint32
	sqThreadCPU  uint32
	sqThreadIdle uint32
	features     uint32
	wqFD         uint32
	_            [3]uint32
	sqOff        sqRingOffsets
	cqOff        cqRingOffsets
}

// SQE is struct io_uring_sqe, a request to the kernel. The fields are the unions' members that this program uses.
type SQE struct {
	_        structs.HostLayout
	Opcode   uint8
	Flags    uint8
	IOPrio   uint16
	FD       int32
	CmdOp    uint32 // of URING_CMD; the low half of the file offset elsewhere, always 0 here
	_        uint32
	Addr     uint64
	Len      uint32
	OpFlags  uint32 // rw_flags, poll32_events, uring_cmd_flags
	UserData uint64 // comes back in CQE.UserData
	BufIndex uint16
	_        uint16
	_        uint32
	cmd      [16]byte // the start of a URING_CMD's own data, 80 bytes on a ring with SQE128
}

// Cmd is where the command data of a URING_CMD starts: 16 bytes, or 80 on a ring with SQE128.
func (s *SQE) Cmd() unsafe.Pointer { return unsafe.Pointer(&s.cmd) }

// CQE is struct io_uring_cqe, a completion.
type CQE struct {
	_        structs.HostLayout
	UserData uint64
	Res      int32 // result, or a negative errno
	Flags    uint32
}

// Timespec is struct __kernel_timespec.
type Timespec struct {
	_    structs.HostLayout
	Sec  int64
	Nsec int64
}
