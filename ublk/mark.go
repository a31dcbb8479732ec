package ublk

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel keeps 64 bits for the server. Ours say whose device it is. Of one that ends with this process: a magic number,
// the PID namespace, the process. Of one with an owner: another magic number, the owner, and what tells the device from
// the owner's others.
const (
	magicShift = 48
	markMagic  = 0x6973
	markNSBits = 26
	markPIDBit = 22 // Linux has no PIDs above 1<<22

	ownedMagic = 0x6972
	ownerShift = 20
)

// markFor is the mark of a new device. owner may be "".
func markFor(owner string) uint64 {
	if owner == "" {
		return mark()
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return ownerMark(owner)<<ownerShift | uint64(binary.NativeEndian.Uint32(b[:]))&(1<<ownerShift-1)
}

// ownerMark is the part of a mark that all devices of an owner share.
func ownerMark(owner string) uint64 {
	sum := sha256.Sum256([]byte(owner))
	return ownedMagic<<(magicShift-ownerShift) | binary.BigEndian.Uint64(sum[:])>>(64-magicShift+ownerShift)
}

func ownedBy(m uint64, owner string) bool { return m>>ownerShift == ownerMark(owner) }

// mark is this process's own.
func mark() uint64 {
	return markMagic<<magicShift | pidNamespace()<<markPIDBit | uint64(os.Getpid())&(1<<markPIDBit-1)
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
