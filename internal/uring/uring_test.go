package uring

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestKernelStructsHaveTheKernelsLayout(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof(io_sqring_offsets)", unsafe.Sizeof(sqRingOffsets{}), 40},
		{"io_sqring_offsets.flags", unsafe.Offsetof(sqRingOffsets{}.flags), 16},
		{"io_sqring_offsets.array", unsafe.Offsetof(sqRingOffsets{}.array), 24},
		{"sizeof(io_cqring_offsets)", unsafe.Sizeof(cqRingOffsets{}), 40},
		{"io_cqring_offsets.overflow", unsafe.Offsetof(cqRingOffsets{}.overflow), 16},
		{"io_cqring_offsets.cqes", unsafe.Offsetof(cqRingOffsets{}.cqes), 20},
		{"io_cqring_offsets.flags", unsafe.Offsetof(cqRingOffsets{}.flags), 24},
		{"sizeof(io_uring_params)", unsafe.Sizeof(params{}), 120},
		{"io_uring_params.flags", unsafe.Offsetof(params{}.flags), 8},
		{"io_uring_params.features", unsafe.Offsetof(params{}.features), 20},
		{"io_uring_params.sq_off", unsafe.Offsetof(params{}.sqOff), 40},
		{"io_uring_params.cq_off", unsafe.Offsetof(params{}.cqOff), 80},
		{"sizeof(io_uring_sqe)", unsafe.Sizeof(SQE{}), 64},
		{"io_uring_sqe.flags", unsafe.Offsetof(SQE{}.Flags), 1},
		{"io_uring_sqe.ioprio", unsafe.Offsetof(SQE{}.IOPrio), 2},
		{"io_uring_sqe.fd", unsafe.Offsetof(SQE{}.FD), 4},
		{"io_uring_sqe.cmd_op", unsafe.Offsetof(SQE{}.CmdOp), 8},
		{"io_uring_sqe.addr", unsafe.Offsetof(SQE{}.Addr), 16},
		{"io_uring_sqe.len", unsafe.Offsetof(SQE{}.Len), 24},
		{"io_uring_sqe.rw_flags", unsafe.Offsetof(SQE{}.OpFlags), 28},
		{"io_uring_sqe.user_data", unsafe.Offsetof(SQE{}.UserData), 32},
		{"io_uring_sqe.buf_index", unsafe.Offsetof(SQE{}.BufIndex), 40},
		{"io_uring_sqe.cmd", unsafe.Offsetof(SQE{}.cmd), 48},
		{"sizeof(io_uring_cqe)", unsafe.Sizeof(CQE{}), 16},
		{"io_uring_cqe.res", unsafe.Offsetof(CQE{}.Res), 8},
		{"io_uring_cqe.flags", unsafe.Offsetof(CQE{}.Flags), 12},
		{"sizeof(__kernel_timespec)", unsafe.Sizeof(Timespec{}), 16},
		{"__kernel_timespec.tv_nsec", unsafe.Offsetof(Timespec{}.Nsec), 8},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, want %d", c.name, c.got, c.want)
		}
	}
}

// openRing makes a ring on this test's own thread, or skips where io_uring is not allowed.
func openRing(t *testing.T, opt Options) *Ring {
	t.Helper()
	r, err := New(opt)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := r.Enable(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return r
}

// wait returns the next completion. A signal may end a Wait early.
func wait(t *testing.T, r *Ring) CQE {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if c, ok := r.NextCQE(); ok {
			return c
		}
		if err := r.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no completion")
	return CQE{}
}

func eventfd(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func signal(t *testing.T, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 1}); err != nil {
		t.Fatal(err)
	}
}

func TestReadBringsTheBytes(t *testing.T) {
	for _, wide := range []bool{false, true} {
		r := openRing(t, Options{Entries: 4, SQE128: wide})
		fd := eventfd(t)
		signal(t, fd)
		buf := make([]byte, 8)
		r.NextSQE().PrepRead(fd, unsafe.Pointer(&buf[0]), 8, 42)
		if c := wait(t, r); c.UserData != 42 || c.Res != 8 || buf[0] != 1 {
			t.Errorf("SQE128 %v: completion %+v, bytes %v", wide, c, buf)
		}
	}
}

func TestMultishotPollFiresUntilItIsRemoved(t *testing.T) {
	r := openRing(t, Options{Entries: 4})
	fd := eventfd(t)
	r.NextSQE().PrepPollAddMultishot(fd, unix.POLLIN, 7)
	for range 3 {
		signal(t, fd)
		if c := wait(t, r); c.UserData != 7 || c.Res&unix.POLLIN == 0 || c.Flags&CQEMore == 0 {
			t.Fatalf("completion %+v", c)
		}
	}
	r.NextSQE().PrepPollRemove(7, 8)
	got := map[uint64]int32{}
	for range 2 {
		c := wait(t, r)
		got[c.UserData] = c.Res
	}
	if got[7] != -int32(unix.ECANCELED) || got[8] != 0 {
		t.Errorf("after removal: %v", got)
	}
}

func TestAFullSubmissionQueueTakesMoreAfterSubmit(t *testing.T) {
	r := openRing(t, Options{Entries: 4, CQEntries: 64})
	fd := eventfd(t)
	for i := range uint64(16) {
		sqe := r.NextSQE()
		if sqe == nil {
			if r.Pending() != 4 {
				t.Fatalf("full with %d pending", r.Pending())
			}
			if err := r.Submit(); err != nil {
				t.Fatal(err)
			}
			if sqe = r.NextSQE(); sqe == nil {
				t.Fatal("still full")
			}
		}
		sqe.PrepPollAddMultishot(fd, unix.POLLIN, i)
	}
	signal(t, fd)
	seen := map[uint64]bool{}
	for len(seen) < 16 {
		seen[wait(t, r).UserData] = true
	}
}

func TestCompletionsBeyondTheQueueAreNotLost(t *testing.T) {
	r := openRing(t, Options{Entries: 4, CQEntries: 4})
	fd := eventfd(t)
	for i := range uint64(40) {
		sqe := r.NextSQE()
		if sqe == nil {
			if err := r.Submit(); err != nil {
				t.Fatal(err)
			}
			sqe = r.NextSQE()
		}
		sqe.PrepURingCmd(fd, 0, i) // an eventfd takes no commands
	}
	seen := map[uint64]bool{}
	for len(seen) < 40 {
		c := wait(t, r)
		if c.Res != -int32(unix.EOPNOTSUPP) {
			t.Fatalf("completion %+v", c)
		}
		seen[c.UserData] = true
	}
}

func TestATimeoutEndsAWaitWhenItIsOver(t *testing.T) {
	r := openRing(t, Options{Entries: 4})
	start, ts := time.Now(), &Timespec{Nsec: int64(20 * time.Millisecond)}
	r.NextSQE().PrepTimeout(ts, 7)
	if c := wait(t, r); c.UserData != 7 || c.Res != -int32(unix.ETIME) || c.Flags&CQEMore != 0 {
		t.Errorf("completion %+v", c)
	}
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("over after %v", d)
	}
}

func TestTimeoutsOutlastWaits(t *testing.T) {
	r := openRing(t, Options{Entries: 4})
	fd, ts := eventfd(t), &Timespec{Nsec: int64(50 * time.Millisecond)}
	r.NextSQE().PrepTimeout(ts, 7)
	r.NextSQE().PrepPollAdd(fd, unix.POLLIN, 8)
	signal(t, fd)
	if c := wait(t, r); c.UserData != 8 {
		t.Fatalf("completion %+v came first", c)
	}
	if c := wait(t, r); c.UserData != 7 || c.Res != -int32(unix.ETIME) {
		t.Errorf("completion %+v", c)
	}
}

func TestURingCmdGoesToTheDriverOfItsFile(t *testing.T) {
	r := openRing(t, Options{Entries: 4, SQE128: true})
	f, err := os.Open("/dev/null") // takes commands since Linux 6.2 and does nothing about them
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.NextSQE().PrepURingCmd(int(f.Fd()), 1, 9)
	if c := wait(t, r); c.UserData != 9 || (c.Res != 0 && c.Res != -int32(unix.EOPNOTSUPP)) {
		t.Errorf("completion %+v", c)
	}
}

func TestSetupErrorsNameTheSwitch(t *testing.T) {
	for errno, word := range map[syscall.Errno]string{
		unix.EPERM:  "io_uring",
		unix.ENOSYS: "no io_uring",
		unix.EINVAL: "5.19",
	} {
		err := setupError(errno)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), word) {
			t.Errorf("%v: %q does not name %q", errno, err, word)
		}
	}
}

func TestTheRingDoesNotAllocate(t *testing.T) {
	r := openRing(t, Options{Entries: 4})
	fd := eventfd(t)
	n := testing.AllocsPerRun(100, func() {
		r.NextSQE().PrepURingCmd(fd, 0, 1)
		_ = r.Wait()
		for _, ok := r.NextCQE(); ok; _, ok = r.NextCQE() {
		}
		_ = r.NeedsEnter()
		_ = r.Submit()
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
