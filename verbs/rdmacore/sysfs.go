package rdmacore

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"iserblk/verbs"
)

// sysfs is where /sys/class is.
type sysfs string

const sysClass sysfs = "/sys/class"

// Devices lists the ports of all RDMA devices of this network namespace. It needs no library. PathMTU is what the
// network device's MTU allows, 0 on InfiniBand.
func Devices(ctx context.Context) ([]verbs.DeviceInfo, error) { return sysClass.devices(ctx) }

func (s sysfs) devices(ctx context.Context) ([]verbs.DeviceInfo, error) {
	var out []verbs.DeviceInfo
	for _, name := range s.list("infiniband") {
		for _, port := range s.list("infiniband", name, "ports") {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if n, err := strconv.ParseUint(port, 10, 8); err == nil {
				out = append(out, s.port(name, int(n), netip.Addr{}))
			}
		}
	}
	return out, nil
}

// port describes a port by the GID of an address, or by its first routable GID when it has none of that address.
func (s sysfs) port(name string, port int, prefer netip.Addr) verbs.DeviceInfo {
	dir := []string{"infiniband", name, "ports", strconv.Itoa(port)}
	info := verbs.DeviceInfo{
		Name: name, Port: uint8(port),
		LinkLayer: s.read(append(dir, "link_layer")...),
		Active:    strings.HasPrefix(s.read(append(dir, "state")...), "4:"),
	}
	info.Addr, info.NetDev = pickGID(s.gids(dir), prefer)
	if info.NetDev == "" {
		info.NetDev = s.parent(name)
	}
	if info.LinkLayer == "Ethernet" {
		info.PathMTU = roceMTU(s.mtu(info.NetDev))
	}
	return info
}

// gid is an entry of a port's GID table.
type gid struct {
	addr   netip.Addr
	netDev string
}

func (s sysfs) gids(dir []string) []gid {
	var out []gid
	path := func(words ...string) []string { return append(append([]string(nil), dir...), words...) }
	for _, index := range s.list(path("gids")...) {
		addr, err := netip.ParseAddr(s.read(path("gids", index)...))
		if err != nil || addr.IsUnspecified() {
			continue
		}
		out = append(out, gid{addr: addr.Unmap(), netDev: s.read(path("gid_attrs", "ndevs", index)...)})
	}
	return out
}

// pickGID returns the wanted address and its network device, else those of the first routable GID, else the network
// device of any GID.
func pickGID(gids []gid, want netip.Addr) (addr netip.Addr, netDev string) {
	want = want.Unmap().WithZone("")
	for _, g := range gids {
		switch {
		case g.addr == want:
			return g.addr, g.netDev
		case !addr.IsValid() && !g.addr.IsLinkLocalUnicast():
			addr, netDev = g.addr, g.netDev
		case netDev == "":
			netDev = g.netDev
		}
	}
	return addr, netDev
}

// parent is the network device that a software device was made on, or the only one of an adapter.
func (s sysfs) parent(name string) string {
	if dev := s.read("infiniband", name, "parent"); dev != "" {
		return dev
	}
	if devs := s.list("infiniband", name, "device", "net"); len(devs) == 1 {
		return devs[0]
	}
	return ""
}

func (s sysfs) mtu(netDev string) int {
	if netDev == "" {
		return 0
	}
	n, _ := strconv.Atoi(s.read("net", netDev, "mtu"))
	return n
}

// roceMTU is the path MTU that RoCE gets out of a network device's MTU: the next lower power of two after 96 bytes of
// headers (iboe_get_mtu in rdma/ib_addr.h), 0 if there is none.
func roceMTU(netMTU int) int {
	const headers, least, most = 96, 256, 4096
	for mtu := most; mtu >= least; mtu /= 2 {
		if mtu+headers <= netMTU {
			return mtu
		}
	}
	return 0
}

// list is the names in a directory, in the order of their numbers where they are numbers; none when it is missing.
func (s sysfs) list(path ...string) []string {
	entries, err := os.ReadDir(s.join(path))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sortNumeric(names)
	return names
}

// read is a file's text without the newline, "" when there is none. An empty GID entry refuses to be read.
func (s sysfs) read(path ...string) string {
	b, err := os.ReadFile(s.join(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (s sysfs) join(path []string) string {
	return filepath.Join(append([]string{string(s)}, path...)...)
}
