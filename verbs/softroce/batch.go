package softroce

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/verbs/softroce/rc"
	"iserblk/verbs/softroce/wire"
)

// batchLen is how many packets go through the kernel at once.
const batchLen = 32

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// maxPacket is the room for one packet: a multiple of a cache line.
const maxPacket = (wire.MaxPacket + 63) &^ 63

// inBatch receives packets. Its memory is made once.
type inBatch struct {
	msgs  [batchLen]mmsghdr
	iovs  [batchLen]unix.Iovec
	names [batchLen]rawAddr
	drops [batchLen][dropsLen]byte
	mem   []byte
}

func newInBatch() *inBatch {
	b := &inBatch{mem: make([]byte, batchLen*maxPacket)}
	for i := range b.msgs {
		b.iovs[i].Base = &b.mem[i*maxPacket]
		b.iovs[i].SetLen(maxPacket)
		h := &b.msgs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.drops[i][0]
	}
	return b
}

// receive takes up to batchLen packets that wait in a socket, and never waits itself. An error that an ICMP message left
// in the socket is taken off and passed over. The kernel's call is made without the Go scheduler, because
// it is too short to be worth a hand-over.
func (b *inBatch) receive(fd int) int {
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		b.msgs[i].hdr.SetControllen(dropsLen)
	}
	for range 4 {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), batchLen,
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EAGAIN, unix.EBADF:
			return 0
		}
	}
	return 0
}

// packet is the i-th packet received and where it came from; nothing if it was longer than any can be.
func (b *inBatch) packet(i int) ([]byte, netip.AddrPort) {
	m := &b.msgs[i]
	if m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil, netip.AddrPort{}
	}
	at := i * maxPacket
	return b.mem[at : at+int(m.len) : at+int(m.len)], b.names[i].addrPort()
}

// iovPerOut: header, two pieces of data, trailer.
const iovPerOut = 4

// outBatch collects packets and sends them to one peer. Data stays where it is and must not change until flush.
type outBatch struct {
	fd      int
	name    rawAddr
	flow    *wire.Flow
	n       int
	packets [batchLen]rc.Packet
	msgs    [batchLen]mmsghdr
	iovs    [batchLen][iovPerOut]unix.Iovec
}

// newOutBatch sends by a socket that is bound to from.
func newOutBatch(fd int, from, to netip.AddrPort) *outBatch {
	b := &outBatch{fd: fd, flow: wire.NewFlow(from, to)}
	name, nameLen := makeRawAddr(to)
	b.name = name
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.name)), nameLen
		h.Iov = &b.iovs[i][0]
	}
	return b
}

func (b *outBatch) full() bool { return b.n == batchLen }

// add takes packets[n], which was just made.
func (b *outBatch) add() {
	p, v := &b.packets[b.n], &b.iovs[b.n]
	header, trailer := p.Header(), p.Trailer()
	b.flow.Seal(header, &p.Data, trailer)
	setIovec(&v[0], header)
	k := 1
	for _, data := range p.Data {
		if len(data) > 0 {
			setIovec(&v[k], data)
			k++
		}
	}
	setIovec(&v[k], trailer)
	b.msgs[b.n].hdr.SetIovlen(k + 1)
	b.n++
}

func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// flush sends what was added. What the kernel has no room for is lost, as it may be on any network: blocked says so, so
// that nothing more is made at once. Any other error concerns one packet, which is lost, too, and is returned.
func (b *outBatch) flush() (blocked bool, failed error) {
	sent := 0
	for sent < b.n {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.msgs[sent])),
			uintptr(b.n-sent), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			sent += int(n)
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			b.n = 0
			return true, failed
		default:
			failed = errno
			sent++
		}
	}
	b.n = 0
	return false, failed
}

// sendTo sends one packet. What cannot be sent is lost.
func sendTo(fd int, pkt []byte, to netip.AddrPort) {
	_ = unix.Sendto(fd, pkt, unix.MSG_DONTWAIT, sockaddr(to))
}
