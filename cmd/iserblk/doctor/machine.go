package doctor

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Real is the machine that this program runs on, with files below root. What needs RDMA is the caller's to fill in.
func Real(root string) Machine {
	m := Machine{Root: root, Memlock: NoLimit, Interfaces: interfaces(), Open: open, Source: source}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil {
		m.Memlock = l.Cur
	}
	return m
}

func open(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return unix.Close(fd)
}

// source connects a datagram socket, which sends nothing, and looks where it would leave.
func source(dst netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 4791)))
	if err != nil {
		var sys *os.SyscallError
		if errors.As(err, &sys) {
			return netip.Addr{}, sys.Err
		}
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func interfaces() []Interface {
	links, _ := net.Interfaces()
	var all []Interface
	for _, l := range links {
		i := Interface{Name: l.Name, MTU: l.MTU, Up: l.Flags&net.FlagUp != 0}
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				i.Addrs = append(i.Addrs, p)
			}
		}
		all = append(all, i)
	}
	return all
}
