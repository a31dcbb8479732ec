package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// healthyFiles are those of a machine on which all is well.
func healthyFiles() map[string]string {
	const ib = "sys/class/infiniband/rxe0/ports/1/"
	return map[string]string{
		"proc/self/status":                                      "Name:\tx\nCapEff:\t000001ffffffffff\n",
		"proc/sys/kernel/io_uring_disabled":                     "0\n",
		"proc/sys/net/ipv4/conf/all/arp_ignore":                 "0\n",
		"sys/module/ublk_drv/refcnt":                            "0",
		"sys/module/rdma_ucm/refcnt":                            "0",
		"sys/module/ib_uverbs/refcnt":                           "0",
		"dev/ublk-control":                                      "",
		"dev/infiniband/rdma_cm":                                "",
		"dev/infiniband/uverbs0":                                "",
		"usr/lib/x86_64-linux-gnu/libibverbs.so.1":              "",
		"usr/lib/x86_64-linux-gnu/librdmacm.so.1":               "",
		"usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so": "",

		ib + "state":             "4: ACTIVE\n",
		ib + "gid_attrs/ndevs/0": "eth0\n",
		ib + "gid_attrs/types/0": "IB/RoCE v1\n",
		ib + "gid_attrs/types/1": "RoCE v2\n",

		"lib/modules/6.12.1/modules.dep": "kernel/drivers/block/ublk_drv.ko.xz:\nkernel/drivers/infiniband/core/rdma_ucm.ko.xz:\nkernel/x/ib_uverbs.ko.xz:\n",
	}
}

func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var portal = netip.MustParseAddrPort("10.0.0.1:3260")

func machine(root string) Machine {
	return Machine{
		Root: root, Kernel: "6.12.1", Memlock: NoLimit,
		Interfaces: []Interface{
			{Name: "lo", MTU: 65536, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{Name: "eth0", MTU: 9000, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}},
		},
		Open: func(path string) error {
			_, err := os.Stat(path)
			return err
		},
		Source:   func(netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("10.0.0.2"), nil },
		Provider: func(context.Context) error { return nil },
		Reach:    func(context.Context, netip.AddrPort) error { return nil },
	}
}

func TestAHealthyMachineHasNothingToMend(t *testing.T) {
	all := Examine(context.Background(), machine(plant(t, healthyFiles())), portal)
	if !Healthy(all) || len(all) < 13 {
		t.Errorf("%d checks, healthy: %v", len(all), Healthy(all))
	}
	for _, r := range all {
		if r.State != OK || r.Fix != "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestEachTroubleIsNamedWithItsFix(t *testing.T) {
	type world struct {
		files map[string]string
		m     *Machine
	}
	drop := func(prefixes ...string) func(world) {
		return func(w world) {
			for name := range w.files {
				for _, p := range prefixes {
					if strings.HasPrefix(name, p) {
						delete(w.files, name)
					}
				}
			}
		}
	}
	set := func(name, content string) func(world) { return func(w world) { w.files[name] = content } }
	tests := []struct {
		name  string
		spoil func(world)
		check string
		state State
		fix   string
	}{
		{"module not loaded", drop("sys/module/ublk_drv", "dev/ublk"), "ublk driver", Fail, "modprobe ublk_drv"},
		{
			"kernel without ublk",
			func(w world) {
				drop("sys/module/ublk_drv", "dev/ublk")(w)
				w.files["lib/modules/6.12.1/modules.dep"] = ""
			},
			"ublk driver", Fail, "CONFIG_BLK_DEV_UBLK",
		},
		{"container without modules", drop("sys/module/rdma_ucm", "dev/infiniband/rdma_cm", "lib/modules"), "RDMA connection manager", Fail, "on the host: modprobe rdma_ucm"},
		{
			"cloud kernel",
			func(w world) {
				drop("sys/module/rdma_ucm", "dev/infiniband/rdma_cm", "lib/modules")(w)
				w.m.Kernel = "6.12.1-cloud-amd64"
			},
			"RDMA connection manager", Fail, "general flavour",
		},
		{"no node", drop("dev/infiniband/rdma_cm"), "RDMA connection manager", Fail, "mknod"},
		{
			"kernel without ublk but with nbd",
			func(w world) {
				drop("sys/module/ublk_drv", "dev/ublk")(w)
				w.files["lib/modules/6.12.1/modules.dep"] = "kernel/drivers/block/nbd.ko:\n"
			},
			"ublk driver", Warn, "CONFIG_BLK_DEV_UBLK",
		},
		{
			"kernel with neither",
			func(w world) {
				drop("sys/module/ublk_drv", "dev/ublk")(w)
				w.files["lib/modules/6.12.1/modules.dep"] = "kernel/a/b.ko:\n"
			},
			"nbd driver", Warn, "--frontend export",
		},
		{
			"io_uring off where there is nbd",
			func(w world) {
				set("proc/sys/kernel/io_uring_disabled", "2\n")(w)
				w.files["sys/module/nbd/refcnt"] = "0"
			},
			"io_uring", Warn, "io_uring_disabled=0",
		},
		{"no ublk node", drop("dev/ublk-control"), "ublk control device", Fail, "mknod"},
		{
			"node not permitted",
			func(w world) {
				w.m.Open = func(p string) error { return &fs.PathError{Op: "open", Path: p, Err: fs.ErrPermission} }
			},
			"ublk control device", Fail, "run as root",
		},
		{"no uverbs node", drop("dev/infiniband/uverbs"), "RDMA verbs", Fail, "udevadm trigger"},
		{"no libraries", drop("usr/lib"), "RDMA libraries", Fail, "apt install rdma-core"},
		{"no provider library", drop("usr/lib/x86_64-linux-gnu/libibverbs/"), "RDMA libraries", Fail, "ibverbs-providers"},
		{
			"libraries that do not work",
			func(w world) { w.m.Provider = func(context.Context) error { return errors.New("dlopen fails") } },
			"RDMA libraries", Fail, "rdma-core",
		},
		{"no RDMA device", drop("sys/class/infiniband"), "RDMA devices", Fail, "rdma link add rxe_eth0 type rxe netdev eth0"},
		{"port down", set("sys/class/infiniband/rxe0/ports/1/state", "1: DOWN"), "RDMA device on the route", Fail, "ip link set dev eth0 up"},
		{"device on another interface", set("sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0", "eth7"), "RDMA device on the route", Fail, "netdev eth0"},
		{"RoCE v1 only", set("sys/class/infiniband/rxe0/ports/1/gid_attrs/types/1", "IB/RoCE v1"), "RDMA device on the route", Warn, "ip addr"},
		{"small MTU", func(w world) { w.m.Interfaces[1].MTU = 1500 }, "MTU", Warn, "ip link set dev eth0 mtu 4200"},
		{
			"no route",
			func(w world) {
				w.m.Source = func(netip.Addr) (netip.Addr, error) { return netip.Addr{}, errors.New("network is unreachable") }
			},
			"route", Fail, "ip route get 10.0.0.1",
		},
		{
			"locked memory",
			func(w world) {
				w.files["proc/self/status"] = "CapEff:\t0000000000200000\n"
				w.m.Memlock = 8 << 20
			},
			"locked memory", Fail, "ulimit -l unlimited",
		},
		{"no privileges", set("proc/self/status", "CapEff:\t0000000000000000\n"), "privileges", Fail, "--cap-add SYS_ADMIN"},
		{"no CAP_SYS_RESOURCE", set("proc/self/status", "CapEff:\t0000000000200000\n"), "block server", Warn, "SYS_RESOURCE"},
		{"io_uring off", set("proc/sys/kernel/io_uring_disabled", "2\n"), "io_uring", Fail, "sysctl kernel.io_uring_disabled=0"},
		{
			"two ports in one subnet",
			func(w world) {
				w.m.Interfaces = append(w.m.Interfaces, Interface{
					Name: "eth1", MTU: 9000, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.3/24")},
				})
				w.files["sys/class/infiniband/rxe1/ports/1/gid_attrs/ndevs/0"] = "eth1"
			},
			"addresses", Warn, "arp_ignore=1",
		},
		{
			"portal that does not answer",
			func(w world) {
				w.m.Reach = func(context.Context, netip.AddrPort) error { return errors.New("timed out") }
			},
			"portal", Fail, "iSER on 10.0.0.1:3260",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, m := healthyFiles(), machine("")
			tt.spoil(world{files, &m})
			m.Root = plant(t, files)
			all := Examine(context.Background(), m, portal)
			for _, r := range all {
				if r.Check == tt.check {
					if r.State != tt.state || !strings.Contains(r.Fix, tt.fix) {
						t.Errorf("got %+v, want %s with a fix like %q", r, tt.state, tt.fix)
					}
					return
				}
			}
			t.Errorf("check %q says nothing: %+v", tt.check, all)
		})
	}
}

func TestWithoutAPortalNothingIsSaidOfOne(t *testing.T) {
	for _, r := range Examine(context.Background(), machine(plant(t, healthyFiles())), netip.AddrPort{}) {
		if r.Check == "portal" || r.Check == "route" {
			t.Errorf("%+v", r)
		}
	}
}

func TestTheRealMachineCanBeExamined(t *testing.T) {
	m := Real("/")
	if m.Kernel == "" || len(m.Interfaces) == 0 {
		t.Errorf("%+v", m)
	}
	if src, err := m.Source(netip.MustParseAddr("127.0.0.1")); err != nil || !src.IsLoopback() {
		t.Errorf("source %v, %v", src, err)
	}
	if err := m.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if len(Examine(context.Background(), m, netip.AddrPort{})) == 0 {
		t.Error("no check says anything")
	}
}
