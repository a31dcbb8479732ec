package rdmacore

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"iserblk/verbs"
)

// Route is the way from this host to an address, as the kernel would go it.
type Route struct {
	Src      netip.Addr       // the local address
	NetDev   string           // the network device that has Src
	MTU      int              // of NetDev, in bytes
	Loopback bool             // NetDev is a loopback interface
	Device   verbs.DeviceInfo // the RDMA port with Src among its GIDs; Name is "" when there is none
	FreeName string           // a name for a new RDMA device
}

// RouteTo asks the kernel for the way to dst, leaving by src if that is valid. It sends nothing.
func RouteTo(src, dst netip.Addr) (Route, error) {
	local, err := localAddr(src, dst)
	if err != nil {
		return Route{}, &verbs.OpError{Op: "find route to", Peer: dst.String(), Err: err}
	}
	r := Route{Src: local}
	r.findInterface()
	r.findDevice(sysClass)
	return r, nil
}

// localAddr is what a datagram socket to dst would be bound to.
func localAddr(src, dst netip.Addr) (netip.Addr, error) {
	var from *net.UDPAddr
	if src.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	const anyPort = 9
	c, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, anyPort)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return netip.MustParseAddrPort(c.LocalAddr().String()).Addr().Unmap(), nil
}

// checkRoute fails when the port by which the kernel would go to a.Dst is down. It is for the time before there is a
// route whose port can be asked. What else is wrong rdma_cm tells better.
func checkRoute(a verbs.DialAttr) error {
	local, err := localAddr(a.Src, a.Dst.Addr())
	if err != nil {
		return nil
	}
	if port, down := sysClass.downPort(local); down {
		return portDown(a.Dst, port)
	}
	return nil
}

// findInterface finds the network device with the local address.
func (r *Route) findInterface() {
	all, _ := net.Interfaces()
	for _, i := range all {
		if !hasAddr(i, r.Src) {
			continue
		}
		r.NetDev, r.MTU, r.Loopback = i.Name, i.MTU, i.Flags&net.FlagLoopback != 0
		return
	}
}

func hasAddr(i net.Interface, want netip.Addr) bool {
	addrs, _ := i.Addrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == want.WithZone("")
	})
}

// findDevice finds the RDMA port that has the local address, else the one on the network device, and a free name.
func (r *Route) findDevice(s sysfs) {
	devices, _ := s.devices(context.Background())
	taken := make(map[string]bool)
	for _, d := range devices {
		taken[d.Name] = true
		d = s.port(d.Name, int(d.Port), r.Src)
		sameDev := r.NetDev != "" && d.NetDev == r.NetDev
		if d.Addr == r.Src.WithZone("") || sameDev && r.Device.Name == "" {
			r.Device = d
		}
	}
	for n := 0; r.FreeName == "" || taken[r.FreeName]; n++ {
		r.FreeName = fmt.Sprintf("rxe%d", n)
	}
}
