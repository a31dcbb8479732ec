package rdmacore

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// Unlimited is a limit that is none.
const Unlimited = math.MaxUint64

const capIPCLock = 14 // CAP_IPC_LOCK, linux/capability.h

// Memlock is what bounds the memory that this process may pin for devices.
type Memlock struct {
	Soft, Hard uint64 // RLIMIT_MEMLOCK in bytes, or Unlimited
	Pinned     uint64 // bytes pinned now
	Exempt     bool   // CAP_IPC_LOCK in the initial user namespace: the kernel does not look at the limit
}

// Bounded says whether pinning can fail because of the limit.
func (m Memlock) Bounded() bool { return m.Soft != Unlimited && !m.Exempt }

// ReadMemlock reads the limits of this process.
func ReadMemlock() Memlock {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return Memlock{Soft: Unlimited, Hard: Unlimited}
	}
	status := readStatus("/proc/self/status")
	caps, _ := strconv.ParseUint(status["CapEff"], 16, 64)
	pinned, _ := strconv.ParseUint(strings.TrimSuffix(status["VmPin"], " kB"), 10, 64)
	return Memlock{
		Soft: lim.Cur, Hard: lim.Max, Pinned: pinned << 10,
		Exempt: caps>>capIPCLock&1 == 1 && initialUserNamespace(),
	}
}

// readStatus reads the lines "Name:\tvalue" of a file in /proc.
func readStatus(path string) map[string]string {
	fields := make(map[string]string)
	f, err := os.Open(path)
	if err != nil {
		return fields
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// initialUserNamespace says whether all user ids are mapped to themselves: capabilities count in no other namespace.
func initialUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295"
}

// raiseMemlock lifts the limit as far as this process may; that is worth a try before memory is pinned.
func raiseMemlock() {
	m := ReadMemlock()
	if !m.Bounded() {
		return
	}
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: Unlimited, Max: Unlimited}, nil) != nil {
		_ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: m.Hard, Max: m.Hard}, nil)
	}
}

// explainMemory says whether a failure to pin memory is one of the limit. need is how many bytes are wanted
// altogether, 0 when only the driver knows.
func explainMemory(op string, err error, need int) error {
	return memoryError(op, err, need, ReadMemlock())
}

func memoryError(op string, err error, need int, m Memlock) error {
	out := &verbs.OpError{Op: op, Err: err}
	short := need == 0 || uint64(need)+m.Pinned > m.Soft
	if !errors.Is(err, syscall.ENOMEM) || !m.Bounded() || !short {
		return out
	}
	wanted := "the device's queues need more"
	if need > 0 {
		wanted = fmt.Sprintf("%d KiB are needed", (need+1023)>>10)
	}
	out.Err = fmt.Errorf("%w: it allows %d KiB (ulimit -l), %s", verbs.ErrMemlock, m.Soft>>10, wanted)
	out.Hint = "raise it: ulimit -l unlimited, LimitMEMLOCK=infinity in a unit, --ulimit memlock=-1 for a container"
	return out
}
