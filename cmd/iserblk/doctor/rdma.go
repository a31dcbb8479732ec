package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// rdmaPort is one port of an RDMA device as sysfs tells it (Documentation/ABI/stable/sysfs-class-infiniband).
type rdmaPort struct {
	device, port string
	netDev       string
	active       bool
	roceV2       bool
}

func (p rdmaPort) String() string {
	if p.netDev == "" {
		return p.device
	}
	return p.device + " on " + p.netDev
}

func (v *visit) rdmaPorts() []rdmaPort {
	dirs, _ := filepath.Glob(v.path("sys/class/infiniband/*/ports/*"))
	var all []rdmaPort
	for _, dir := range dirs {
		rel, err := filepath.Rel(v.path("/"), dir)
		if err != nil {
			continue
		}
		port := rdmaPort{device: filepath.Base(filepath.Dir(filepath.Dir(dir))), port: filepath.Base(dir)}
		port.netDev = v.read(filepath.Join(rel, "gid_attrs/ndevs/0"))
		port.active = strings.Contains(v.read(filepath.Join(rel, "state")), "ACTIVE")
		types, _ := filepath.Glob(filepath.Join(dir, "gid_attrs/types/*"))
		port.roceV2 = slices.ContainsFunc(types, func(file string) bool {
			text, _ := os.ReadFile(file)
			return strings.Contains(string(text), "RoCE v2")
		})
		all = append(all, port)
	}
	return all
}

func (v *visit) uverbs() Result {
	if !v.loaded("ib_uverbs") && !v.exists("dev/infiniband") {
		return v.needModule("ib_uverbs", "use a kernel that is built with CONFIG_INFINIBAND_USER_ACCESS")
	}
	nodes, _ := filepath.Glob(v.path("dev/infiniband/uverbs*"))
	if len(nodes) > 0 {
		return v.node("dev/infiniband/"+filepath.Base(nodes[0]), "udevadm trigger")
	}
	if len(v.rdma) == 0 {
		return skip() // nodes come with devices
	}
	return fail("there are RDMA devices and no /dev/infiniband/uverbs*",
		"udevadm trigger; for a container add --device /dev/infiniband")
}

// libraryDirs are where distributions keep shared libraries.
var libraryDirs = []string{
	"lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "lib/*-linux-gnu*", "usr/lib/*-linux-gnu*",
}

func (v *visit) library(name string) bool {
	for _, dir := range libraryDirs {
		if found, _ := filepath.Glob(filepath.Join(v.path(dir), name)); len(found) > 0 {
			return true
		}
	}
	return false
}

func (v *visit) libraries() Result {
	const fix = "apt install rdma-core ibverbs-providers librdmacm1 (dnf install rdma-core libibverbs librdmacm)"
	var missing []string
	for _, name := range []string{"libibverbs.so.1", "librdmacm.so.1"} {
		if !v.library(name) {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		return fail("missing: "+strings.Join(missing, ", "), fix)
	case !v.library("libibverbs/*-rdmav*.so"):
		return fail("libibverbs has no provider for any device", fix)
	case v.Provider != nil:
		if err := v.Provider(v.ctx); err != nil {
			return fail(err.Error(), fix)
		}
	}
	return ok("rdma-core is there")
}

// softRoCE is how any network interface becomes an RDMA device.
func softRoCE(netDev string) string {
	if netDev == "" {
		netDev = "NETDEV"
	}
	return fmt.Sprintf("modprobe rdma_rxe && rdma link add rxe_%s type rxe netdev %s", netDev, netDev)
}

func (v *visit) rdmaDevices() Result {
	if len(v.rdma) == 0 {
		return fail("no RDMA device in this network namespace", softRoCE(v.netDev)+"; or move a device here: rdma dev set DEV netns NS")
	}
	var names []string
	for _, p := range v.rdma {
		names = append(names, p.String())
	}
	if !slices.ContainsFunc(v.rdma, func(p rdmaPort) bool { return p.active }) {
		return fail("no port is active: "+strings.Join(names, ", "), "ip link set dev NETDEV up; rdma link show")
	}
	return ok(strings.Join(names, ", "))
}

// routeDev is the interface that has the address that packets to the portal leave by.
func (v *visit) routeDev() string {
	if !v.portal.IsValid() {
		return ""
	}
	src, err := v.Source(v.portal.Addr())
	if err != nil {
		return ""
	}
	for _, i := range v.Interfaces {
		if slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == src.WithZone("") }) {
			return i.Name
		}
	}
	return ""
}

func (v *visit) route() Result {
	if !v.portal.IsValid() {
		return skip()
	}
	src, err := v.Source(v.portal.Addr())
	if err != nil {
		return fail(fmt.Sprintf("no route to %s: %v", v.portal.Addr(), err), fmt.Sprintf("ip route get %s", v.portal.Addr()))
	}
	return ok(fmt.Sprintf("%s by %s from %s", v.portal.Addr(), v.netDev, src))
}

// choose asks which provider would be used, before the checks that depend on it.
func (v *visit) choose() Result {
	if !v.portal.IsValid() || v.Choose == nil {
		return skip()
	}
	name, why, err := v.Choose(v.portal.Addr())
	if err != nil {
		return fail(err.Error(), "--provider auto")
	}
	v.soft = name == "softroce"
	return ok(name + ": " + why)
}

func (v *visit) provider() Result { return v.choice }

// rdmaRoute checks that the portal can be reached by RDMA: the device belongs to the interface of the route.
func (v *visit) rdmaRoute() Result {
	if v.netDev == "" || len(v.rdma) == 0 {
		return skip()
	}
	for _, p := range v.rdma {
		switch {
		case p.netDev != v.netDev:
		case !p.active:
			return fail(p.String()+" is down", "ip link set dev "+v.netDev+" up")
		case !p.roceV2:
			return warn(p.String()+" has no RoCE v2 address", "ip addr show dev "+v.netDev)
		default:
			return ok(p.String())
		}
	}
	return fail("no RDMA device on "+v.netDev+", which leads to "+v.portal.Addr().String(), softRoCE(v.netDev))
}

// jumbo is the smallest MTU of an interface that lets RoCE use its largest packets of 4096 bytes.
const jumbo = 4200

func (v *visit) mtu() Result {
	var small []string
	seen := 0
	for _, i := range v.Interfaces {
		if !v.carriesRDMA(i.Name) {
			continue
		}
		seen++
		if i.MTU < jumbo {
			small = append(small, i.Name)
		}
	}
	switch {
	case seen == 0:
		return skip()
	case len(small) == 0:
		return ok("large enough for RoCE packets of 4096 bytes")
	}
	return warn(fmt.Sprintf("%s: below %d, so that RoCE packets carry 1024 or 2048 bytes", strings.Join(small, ", "), jumbo),
		fmt.Sprintf("ip link set dev %s mtu %d, on both ends and every switch between", small[0], jumbo))
}

// carriesRDMA says whether the interface matters: it leads to the portal, or there is none and it has a device.
func (v *visit) carriesRDMA(name string) bool {
	if v.netDev != "" && v.netDev != name {
		return false
	}
	if v.soft {
		return v.netDev == name
	}
	return slices.ContainsFunc(v.rdma, func(p rdmaPort) bool { return p.netDev == name })
}

// addresses warns of two RDMA interfaces in one subnet: answers to ARP then lead packets to the wrong one.
func (v *visit) addresses() Result {
	bySubnet := map[netip.Prefix]string{}
	for _, i := range v.Interfaces {
		if !slices.ContainsFunc(v.rdma, func(p rdmaPort) bool { return p.netDev == i.Name }) {
			continue
		}
		for _, a := range i.Addrs {
			subnet := a.Masked()
			other, taken := bySubnet[subnet]
			bySubnet[subnet] = i.Name
			if taken && other != i.Name && a.Addr().Is4() && v.read("proc/sys/net/ipv4/conf/all/arp_ignore") == "0" {
				return warn(fmt.Sprintf("%s and %s are both in %s: packets may take the wrong one", other, i.Name, subnet),
					"give each path a subnet of its own, or sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
			}
		}
	}
	return skip()
}

func (v *visit) reach() Result {
	if !v.portal.IsValid() || v.Reach == nil || len(v.rdma) == 0 && !v.soft {
		return skip()
	}
	if err := v.Reach(v.ctx, v.portal); err != nil {
		return fail(err.Error(), fmt.Sprintf("check that the target serves iSER on %s, and the way to it: ping -M do -s 4100 %s",
			v.portal, v.portal.Addr()))
	}
	return ok(v.portal.String() + " answers")
}
