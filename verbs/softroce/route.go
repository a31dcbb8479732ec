package softroce

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"iserblk/verbs/softroce/cm"
)

// headroom is what a packet has besides its payload at most: IPv6, UDP, BTH, RETH, padding and ICRC, with as much to
// spare as rxe takes for it.
const headroom = 80

// route is the way to a peer.
type route struct {
	local    netip.Addr
	mtu      int // of IP packets, in bytes
	device   string
	index    int
	loopback bool
}

// findRoute asks the kernel how packets to dst would go, leaving by src if that is valid. It sends nothing.
func findRoute(src, dst netip.Addr) (r route, err error) {
	local := netip.AddrPortFrom(src, 0)
	if !src.IsValid() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if dst.Is4() {
			local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	fd, err := openSocket(socketAttr{local: local})
	if err != nil {
		return r, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(dst, Port))); err != nil {
		return r, os.NewSyscallError("connect", err)
	}
	if r.local, err = boundTo(fd); err != nil {
		return r, err
	}
	level, name := unix.IPPROTO_IPV6, unix.IPV6_MTU
	if dst.Is4() {
		level, name = unix.IPPROTO_IP, unix.IP_MTU
	}
	if r.mtu, err = unix.GetsockoptInt(fd, level, name); err != nil {
		return r, os.NewSyscallError("getsockopt MTU", err)
	}
	r.findInterface()
	return r, nil
}

func boundTo(fd int) (netip.Addr, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr), nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return a, nil
	}
	return netip.Addr{}, unix.EAFNOSUPPORT
}

// findInterface finds the network device that has the local address. All of 127.0.0.0/8 is the loopback's.
func (r *route) findInterface() {
	all, _ := net.Interfaces()
	for _, i := range all {
		if hasAddr(i, r.local) {
			r.device, r.index, r.loopback = i.Name, i.Index, i.Flags&net.FlagLoopback != 0
			return
		}
	}
}

func hasAddr(i net.Interface, want netip.Addr) bool {
	if z := want.Zone(); z != "" {
		want = want.WithZone("")
		if z != i.Name && z != strconv.Itoa(i.Index) {
			return false
		}
	}
	addrs, _ := i.Addrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			return false
		}
		return p.Addr().Unmap() == want || i.Flags&net.FlagLoopback != 0 && p.Contains(want)
	})
}

// pathMTU is the most data that a packet on the way may carry: 256 to 4096 bytes.
func (r *route) pathMTU() int { return cm.MTU(cm.MTUCode(r.mtu - headroom)) }

// isLocal says whether an address is one of this host's.
func isLocal(a netip.Addr) bool {
	all, _ := net.Interfaces()
	return slices.ContainsFunc(all, func(i net.Interface) bool { return hasAddr(i, a) })
}
