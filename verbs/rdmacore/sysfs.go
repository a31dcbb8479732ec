package rdmacore

import (
	"context"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	for name, port := range s.ports() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out = append(out, s.port(name, port, netip.Addr{}))
	}
	return out, nil
}

// ports are the ports of all devices, by name and number.
func (s sysfs) ports() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for _, name := range s.list("infiniband") {
			for _, port := range s.list("infiniband", name, "ports") {
				n, err := strconv.ParseUint(port, 10, 8)
				if err == nil && !yield(name, int(n)) {
					return
				}
			}
		}
	}
}

// downPort finds a port that has addr among its GIDs and is down, unless there is another with addr that is not. While
// every port is up that takes one look at each.
func (s sysfs) downPort(addr netip.Addr) (down verbs.DeviceInfo, ok bool) {
	down, ok = s.portOf(addr, false)
	if ok {
		_, up := s.portOf(addr, true)
		ok = !up
	}
	return down, ok
}

// portOf finds a port that has addr among its GIDs and is active or not.
func (s sysfs) portOf(addr netip.Addr, active bool) (verbs.DeviceInfo, bool) {
	for name, port := range s.ports() {
		if s.active(name, port) != active {
			continue
		}
		if p := s.port(name, port, addr); p.Addr == addr.WithZone("") {
			return p, true
		}
	}
	return verbs.DeviceInfo{}, false
}

// activePorts lists the ports that are ACTIVE, as "rxe0/1".
func (s sysfs) activePorts() []string {
	var out []string
	for name, port := range s.ports() {
		if s.active(name, port) {
			out = append(out, name+"/"+strconv.Itoa(port))
		}
	}
	return out
}

func (s sysfs) active(name string, port int) bool {
	return strings.HasPrefix(s.read("infiniband", name, "ports", strconv.Itoa(port), "state"), "4:")
}

// port describes a port by the GID of an address, or by its first routable GID when it has none of that address.
func (s sysfs) port(name string, port int, prefer netip.Addr) verbs.DeviceInfo {
	dir := []string{"infiniband", name, "ports", strconv.Itoa(port)}
	info := verbs.DeviceInfo{
		Name: name, Port: uint8(port),
		LinkLayer: s.read(under(dir, "link_layer")...),
		Active:    s.active(name, port),
	}
	info.Addr, info.NetDev = s.pickGID(dir, prefer)
	if info.NetDev == "" {
		info.NetDev = s.parent(name)
	}
	if info.LinkLayer == "Ethernet" {
		info.PathMTU = roceMTU(s.mtu(info.NetDev))
	}
	return info
}

// emptyGIDs in a row end the search: tables have up to 1024 entries, filled from the front, and reading one is a
// system call.
const emptyGIDs = 64

// pickGID returns the wanted address and its network device, else those of the first routable GID, else the network
// device of any GID.
func (s sysfs) pickGID(dir []string, want netip.Addr) (addr netip.Addr, netDev string) {
	want = want.Unmap().WithZone("")
	for i, empty := 0, 0; empty < emptyGIDs; i++ {
		gid, ok := s.gid(dir, i)
		if !ok {
			empty++
			continue
		}
		empty = 0
		switch routable := !gid.IsLinkLocalUnicast(); {
		case gid == want, routable && !want.IsValid():
			return gid, s.netDev(dir, i)
		case routable && !addr.IsValid():
			addr, netDev = gid, s.netDev(dir, i)
		case netDev == "":
			netDev = s.netDev(dir, i)
		}
	}
	return addr, netDev
}

// gid is one entry of a port's GID table, unless it is empty.
func (s sysfs) gid(dir []string, i int) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s.read(under(dir, "gids", strconv.Itoa(i))...))
	return addr.Unmap(), err == nil && !addr.IsUnspecified()
}

func (s sysfs) netDev(dir []string, i int) string {
	return s.read(under(dir, "gid_attrs", "ndevs", strconv.Itoa(i))...)
}

// under is a path below dir, in memory of its own.
func under(dir []string, words ...string) []string { return slices.Concat(dir, words) }

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

// list is the names in a directory, sorted; none when it is missing.
func (s sysfs) list(path ...string) []string {
	entries, err := os.ReadDir(s.join(path))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
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
