package rdmacore

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"iserblk/verbs"
)

// Finding is one thing that a connection needs, and whether this machine has it.
type Finding struct {
	Check  string // "rdma-core", "connection manager", "pinned memory", "RDMA devices", "route"
	OK     bool
	Detail string // what was found, or what is wrong
	Fix    string // a command or advice, "" when nothing is to be done
}

// Probe looks at everything that Dial needs before a target is asked: library, device nodes, limits, devices, and the
// way to every one of dsts, leaving by src if that is valid. It changes nothing and sends nothing.
func Probe(ctx context.Context, src netip.Addr, dsts ...netip.Addr) []Finding {
	out := []Finding{probeLibrary(), probeManager(), probeMemlock(ReadMemlock()), probeDevices(ctx)}
	for _, dst := range dsts {
		route, err := RouteTo(src, dst)
		out = append(out, probeRoute(dst, route, err))
	}
	return out
}

func probeLibrary() Finding {
	f := Finding{Check: "rdma-core", Detail: "libibverbs and librdmacm are installed"}
	return f.verdict(Library())
}

func probeManager() Finding {
	f := Finding{Check: "connection manager", Detail: cmNode + " can be opened"}
	node, err := os.OpenFile(cmNode, os.O_RDWR, 0)
	if err != nil {
		return f.verdict(explainOpen(cause(err)))
	}
	node.Close()
	return f.verdict(nil)
}

func probeMemlock(m Memlock) Finding {
	f := Finding{Check: "pinned memory", OK: true, Detail: "not limited"}
	switch {
	case !m.Bounded():
	case m.Hard == Unlimited:
		f.Detail = fmt.Sprintf("limited to %d KiB, will be raised", m.Soft>>10)
	default:
		f.OK = false
		f.Detail = fmt.Sprintf("limited to %d KiB (ulimit -l), %d KiB at most", m.Soft>>10, m.Hard>>10)
		f.Fix = "ulimit -l unlimited, LimitMEMLOCK=infinity in a unit, --ulimit memlock=-1 for a container"
	}
	return f
}

func probeDevices(ctx context.Context) Finding {
	f := Finding{Check: "RDMA devices"}
	devices, err := Devices(ctx)
	if err != nil {
		return f.verdict(err)
	}
	for _, d := range devices {
		f.OK = f.OK || d.Active
		if f.Detail != "" {
			f.Detail += ", "
		}
		f.Detail += describePort(d)
	}
	if len(devices) == 0 {
		f.Detail = "none in this network namespace"
	}
	if !f.OK {
		f.Fix = "bring a port up, or make a software device: modprobe rdma_rxe; rdma link add rxe0 type rxe netdev DEV"
	}
	return f
}

func describePort(d verbs.DeviceInfo) string {
	s := fmt.Sprintf("%s/%d", d.Name, d.Port)
	if d.NetDev != "" {
		s += " on " + d.NetDev
	}
	if d.Addr.IsValid() {
		s += " " + d.Addr.String()
	}
	if d.Active {
		return s + " active"
	}
	return s + " down"
}

func probeRoute(dst netip.Addr, r Route, err error) Finding {
	f := Finding{Check: "route"}
	switch {
	case err != nil:
		f.Detail = err.Error()
		f.Fix = fmt.Sprintf("ip route get %s", dst)
	case r.Device.Name == "":
		f.Detail = fmt.Sprintf("%s is reached from %s on %s, which has no RDMA device", dst, r.Src, r.NetDev)
		f.Fix = deviceHint(r, nil)
	case !r.Device.Active:
		f.Detail = fmt.Sprintf("%s is reached over %s on %s, which is down", dst, r.Device.Name, r.NetDev)
		f.Fix = fmt.Sprintf("ip link set %s up", r.NetDev)
	default:
		f.OK = true
		f.Detail = fmt.Sprintf("%s is reached from %s over %s on %s, MTU %d gives path MTU %d",
			dst, r.Src, r.Device.Name, r.NetDev, r.MTU, r.Device.PathMTU)
		if r.Device.PathMTU > 0 && r.Device.PathMTU < 4096 {
			f.Fix = fmt.Sprintf("optional: an MTU of 4200 or more at both ends is faster: ip link set %s mtu 9000", r.NetDev)
		}
	}
	return f
}

// verdict makes a finding out of an error: its text without the hint, and the hint.
func (f Finding) verdict(err error) Finding {
	f.OK = err == nil
	if err == nil {
		return f
	}
	f.Detail = err.Error()
	if op, ok := err.(*verbs.OpError); ok {
		f.Fix = op.Hint
		bare := *op
		bare.Hint = ""
		f.Detail = bare.Error()
	}
	return f
}
