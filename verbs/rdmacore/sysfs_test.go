package rdmacore

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"iserblk/verbs"
)

// fakeSysfs writes files under a root of its own.
func fakeSysfs(t *testing.T, files map[string]string) sysfs {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sysfs(root)
}

const port1 = "infiniband/rxe0/ports/1/"

// rxe has a VLAN address, one of a free slot and one of either kind of the other.
var rxe = map[string]string{
	port1 + "state":              "4: ACTIVE",
	port1 + "link_layer":         "Ethernet",
	port1 + "gids/0":             "fe80:0000:0000:0000:0c2f:a1ff:fe3b:2e01",
	port1 + "gids/1":             "0000:0000:0000:0000:0000:ffff:0a00:0001",
	port1 + "gids/2":             "0000:0000:0000:0000:0000:0000:0000:0000",
	port1 + "gids/10":            "fd00:0000:0000:0000:0000:0000:0000:0001",
	port1 + "gid_attrs/ndevs/0":  "d0",
	port1 + "gid_attrs/ndevs/1":  "d0",
	port1 + "gid_attrs/ndevs/10": "d0.7",
	"net/d0/mtu":                 "4200",
	"net/d0.7/mtu":               "1500",
}

var asText = cmpopts.EquateComparable(netip.Addr{})

func TestAPortIsDescribedByItsFirstRoutableAddress(t *testing.T) {
	got, err := fakeSysfs(t, rxe).devices(context.Background())
	want := []verbs.DeviceInfo{{
		Name: "rxe0", Port: 1, NetDev: "d0", Addr: netip.MustParseAddr("10.0.0.1"),
		LinkLayer: "Ethernet", Active: true, PathMTU: 4096,
	}}
	if diff := cmp.Diff(want, got, asText); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestOnlyPortsThatAreActiveAreListedSo(t *testing.T) {
	s := fakeSysfs(t, map[string]string{
		port1 + "state": "4: ACTIVE", "infiniband/mlx5_0/ports/1/state": "1: DOWN", "infiniband/mlx5_0/ports/2/state": "4: ACTIVE",
	})
	if diff := cmp.Diff([]string{"mlx5_0/2", "rxe0/1"}, s.activePorts()); diff != "" {
		t.Error(diff)
	}
}

func TestAPortThatIsDownIsFoundByItsAddress(t *testing.T) {
	here, elsewhere := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	files := maps.Clone(rxe)
	if d, down := fakeSysfs(t, files).downPort(here); down {
		t.Errorf("%+v is up", d)
	}
	files[port1+"state"] = "1: DOWN"
	if d, down := fakeSysfs(t, files).downPort(here); !down || d.Name != "rxe0" || d.NetDev != "d0" {
		t.Errorf("%+v, %v", d, down)
	}
	if d, down := fakeSysfs(t, files).downPort(elsewhere); down {
		t.Errorf("%+v has not that address", d)
	}
	files["infiniband/siw0/ports/1/state"] = "4: ACTIVE"
	files["infiniband/siw0/ports/1/gids/0"] = files[port1+"gids/1"]
	if d, down := fakeSysfs(t, files).downPort(here); down {
		t.Errorf("%+v is not the only one", d)
	}
}

func TestAPortIsDescribedByTheAddressInUse(t *testing.T) {
	got := fakeSysfs(t, rxe).port("rxe0", 1, netip.MustParseAddr("fd00::1"))
	want := verbs.DeviceInfo{
		Name: "rxe0", Port: 1, NetDev: "d0.7", Addr: netip.MustParseAddr("fd00::1"),
		LinkLayer: "Ethernet", Active: true, PathMTU: 1024,
	}
	if diff := cmp.Diff(want, got, asText); diff != "" {
		t.Error(diff)
	}
}

func TestAPortWithoutAddressesHasTheDeviceItWasMadeOn(t *testing.T) {
	got := fakeSysfs(t, map[string]string{
		port1 + "state": "1: DOWN", port1 + "link_layer": "Ethernet", "infiniband/rxe0/parent": "eth0",
		"net/eth0/mtu": "1500",
	}).port("rxe0", 1, netip.Addr{})
	want := verbs.DeviceInfo{Name: "rxe0", Port: 1, NetDev: "eth0", LinkLayer: "Ethernet", PathMTU: 1024}
	if diff := cmp.Diff(want, got, asText); diff != "" {
		t.Error(diff)
	}
}

func TestAnAdapterWithOneNetworkDeviceHasThatOne(t *testing.T) {
	got := fakeSysfs(t, map[string]string{
		"infiniband/mlx5_0/ports/2/state":       "4: ACTIVE",
		"infiniband/mlx5_0/ports/2/link_layer":  "InfiniBand",
		"infiniband/mlx5_0/device/net/ib0/flag": "",
	}).port("mlx5_0", 2, netip.Addr{})
	want := verbs.DeviceInfo{Name: "mlx5_0", Port: 2, NetDev: "ib0", LinkLayer: "InfiniBand", Active: true}
	if diff := cmp.Diff(want, got, asText); diff != "" {
		t.Error(diff)
	}
}

func TestAMachineWithoutRDMAHasNoDevices(t *testing.T) {
	got, err := sysfs(t.TempDir()).devices(context.Background())
	if len(got) != 0 || err != nil {
		t.Error(got, err)
	}
}

func TestThePathMTULeavesRoomForHeaders(t *testing.T) {
	for netMTU, want := range map[int]int{0: 0, 351: 0, 352: 256, 1500: 1024, 4191: 2048, 4192: 4096, 9000: 4096} {
		if got := roceMTU(netMTU); got != want {
			t.Errorf("MTU %d gives %d, want %d", netMTU, got, want)
		}
	}
}

func TestARouteFindsThePortByAddressAndAFreeName(t *testing.T) {
	s := fakeSysfs(t, rxe)
	r := Route{Src: netip.MustParseAddr("10.0.0.1"), NetDev: "d0"}
	r.findDevice(s)
	if r.Device.Name != "rxe0" || r.FreeName != "rxe1" {
		t.Errorf("%+v", r)
	}
	r = Route{Src: netip.MustParseAddr("192.0.2.1"), NetDev: "eth9"}
	r.findDevice(s)
	if r.Device.Name != "" {
		t.Errorf("%+v", r)
	}
}
