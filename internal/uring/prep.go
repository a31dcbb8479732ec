package uring

import (
	"math/bits"
	"runtime"
	"unsafe"
)

// bigEndian machines want the halves of poll32_events swapped.
const bigEndian = runtime.GOARCH == "s390x" || runtime.GOARCH == "ppc64"

// PrepPollAddMultishot watches fd for events (POLLIN...): a CQE each time it becomes ready, with CQEMore as long as
// the watch lasts. The kernel holds the file open until the watch ends.
func (s *SQE) PrepPollAddMultishot(fd int, events uint32, userData uint64) {
	s.PrepPollAdd(fd, events, userData)
	s.Len = pollAddMulti
}

// PrepPollAdd waits for fd to become ready for events, once.
func (s *SQE) PrepPollAdd(fd int, events uint32, userData uint64) {
	if bigEndian {
		events = bits.RotateLeft32(events, 16)
	}
	s.Opcode, s.FD, s.OpFlags, s.UserData = opPollAdd, int32(fd), events, userData
}

// PrepPollRemove ends the watch that was made with user data target. The watch's own last CQE has Res -ECANCELED.
func (s *SQE) PrepPollRemove(target, userData uint64) {
	s.Opcode, s.FD, s.Addr, s.UserData = opPollRemove, -1, target, userData
}

// PrepTimeout raises one CQE, with Res -ETIME, when ts has passed since the kernel took the request. ts is read then; it
// must not be on a stack.
func (s *SQE) PrepTimeout(ts *Timespec, userData uint64) {
	s.Opcode, s.FD, s.Addr, s.Len, s.UserData = opTimeout, -1, uint64(uintptr(unsafe.Pointer(ts))), 1, userData
}

// PrepRead reads n bytes from fd to p, which must stay where it is (not on a stack) and alive until the CQE.
func (s *SQE) PrepRead(fd int, p unsafe.Pointer, n uint32, userData uint64) {
	s.Opcode, s.FD, s.Addr, s.Len, s.UserData = opRead, int32(fd), uint64(uintptr(p)), n, userData
}

// PrepURingCmd sends the driver behind fd the command op; its data goes to Cmd afterwards.
func (s *SQE) PrepURingCmd(fd int, op uint32, userData uint64) {
	s.Opcode, s.FD, s.CmdOp, s.UserData = opURingCmd, int32(fd), op, userData
}
