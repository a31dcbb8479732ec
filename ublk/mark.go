package ublk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel keeps 64 bits for the server. Ours say whose device it is: a magic number, the PID namespace, the process.
const (
	markMagic  = 0x6973
	markNSBits = 26
	markPIDBit = 22 // Linux has no PIDs above 1<<22
)

// mark is this process's own.
func mark() uint64 {
	return markMagic<<(markNSBits+markPIDBit) | pidNamespace()<<markPIDBit | uint64(os.Getpid())&(1<<markPIDBit-1)
}

// pidNamespace is the lower bits of the inode number of this process's PID namespace, enough to tell namespaces apart.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino & (1<<markNSBits - 1)
}

// orphan says whether a mark is of a process of this PID namespace that is no more.
func orphan(m uint64) bool {
	if m>>markPIDBit != mark()>>markPIDBit {
		return false
	}
	pid := int(m & (1<<markPIDBit - 1))
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// Reap deletes what is left of the devices of processes of this program that died. Their block devices are gone by
// themselves; the character devices would stay for ever and count against limits. It says how many it deleted.
func (c *Control) Reap(ctx context.Context) (int, error) {
	nodes, err := filepath.Glob("/sys/class/ublk-char/ublkc*")
	if err != nil {
		return 0, &Error{Op: "list devices", Err: err}
	}
	n := 0
	for _, node := range nodes {
		id, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(node), "ublkc"), 10, 32)
		if err != nil {
			continue
		}
		ok, err := c.reapOne(ctx, uint32(id))
		if err != nil {
			return n, &Error{Op: "delete orphan", Dev: node, Err: err}
		}
		if ok {
			n++
		}
	}
	return n, nil
}

func (c *Control) reapOne(ctx context.Context, id uint32) (bool, error) {
	info, err := c.info(ctx, id)
	switch {
	case isGone(err):
		return false, nil
	case err != nil:
		return false, err
	case info.state != stateDead || !orphan(info.ublksrvFlags):
		return false, nil
	}
	d := &Device{control: c, id: id, mark: info.ublksrvFlags}
	if err := d.remove(ctx); err != nil && !isGone(err) {
		return false, err
	}
	return true, nil
}
