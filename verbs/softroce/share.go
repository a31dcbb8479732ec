package softroce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Processes that share an address tell their packets apart by a tag: the upper byte of their queue pair numbers and of
// their identifiers in the connection manager. Each is reachable under its tag, and under each port it listens on, by
// a datagram socket in the abstract namespace, which belongs to the network namespace as the UDP port does. What
// comes that way is believed only from this user and from root.

// mailbox is such a socket.
type mailbox struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	err  error // of the last handOn, which one goroutine calls
}

// handedLen is what stands before a packet that is handed on: the address and port it came from.
const handedLen = 18

var errNoTag = errors.New("255 processes use this address already")

// claimTag opens the mailbox of a free tag.
func claimTag(local netip.Addr) (tag uint8, m *mailbox, err error) {
	for _, i := range rand.Perm(255) {
		tag = uint8(i + 1)
		m, err = openMailbox(tagName(local, tag))
		if err == nil || !errors.Is(err, unix.EADDRINUSE) {
			return tag, m, err
		}
	}
	return 0, nil, errNoTag
}

func tagName(local netip.Addr, tag uint8) string {
	return fmt.Sprintf("@iserblk-softroce/%s/tag/%d", local, tag)
}

func portName(local netip.Addr, port uint16) string {
	return fmt.Sprintf("@iserblk-softroce/%s/port/%d", local, port)
}

func openMailbox(name string) (*mailbox, error) {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &mailbox{conn: c, raw: raw}, nil
}

// serve calls take with each packet that is handed on, until close.
func (m *mailbox) serve(take func(pkt []byte, from netip.AddrPort)) {
	buf := make([]byte, handedLen+maxPacket)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		if n > handedLen && trusted(oob[:oobn]) {
			from := netip.AddrPortFrom(netip.AddrFrom16([16]byte(buf[:16])).Unmap(), binary.BigEndian.Uint16(buf[16:]))
			take(buf[handedLen:n], from)
		}
	}
}

// trusted looks at who has sent a datagram.
func trusted(oob []byte) bool {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return false
	}
	cred, err := syscall.ParseUnixCredentials(&msgs[0])
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

// handOn passes a packet to the process behind a name, and says whether there is one. It does not wait for it.
func (m *mailbox) handOn(name string, pkt []byte, from netip.AddrPort) bool {
	b := make([]byte, handedLen, handedLen+len(pkt))
	src := from.Addr().As16()
	copy(b, src[:])
	binary.BigEndian.PutUint16(b[16:], from.Port())
	b = append(b, pkt...)
	err := m.raw.Control(func(fd uintptr) { m.err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: name}) })
	return err == nil && !errors.Is(m.err, unix.ECONNREFUSED)
}

func (m *mailbox) close() { _ = m.conn.Close() }
