package rdmacore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"iserblk/verbs"
)

const (
	cmNode  = "/dev/infiniband/rdma_cm"
	cmClass = "/sys/class/misc/rdma_cm"
)

// ended is the error of a step that the context has ended. A deadline also matches verbs.ErrTimeout.
func ended(op string, peer netip.AddrPort, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", verbs.ErrTimeout, err)
	}
	return &verbs.OpError{Op: op, Peer: peer.String(), Err: err}
}

// asTimeout makes every way of saying that nobody answered match verbs.ErrTimeout.
func asTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return verbs.ErrTimeout
	}
	if errors.Is(err, syscall.ETIMEDOUT) {
		return fmt.Errorf("%w: %w", verbs.ErrTimeout, err)
	}
	return err
}

// explainOpen says why there is no connection manager.
func explainOpen(err error) error {
	_, node := os.Stat(cmNode)
	_, class := os.Stat(cmClass)
	return openError(err, node == nil, class == nil)
}

// openError is explainOpen given what exists: the device node, and the kernel's part of it.
func openError(err error, node, class bool) error {
	out := &verbs.OpError{Op: "open " + cmNode, Err: err}
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		out.Hint = "run as root, or let this user read and write the nodes in /dev/infiniband"
		return out
	case class && !node:
		out.Hint = "the kernel has it, this container does not: pass /dev/infiniband in"
	default:
		out.Hint = "load it: modprobe rdma_ucm"
	}
	out.Err = fmt.Errorf("%w: %w", verbs.ErrNoProvider, err)
	return out
}

// explainAddr says why an address did not resolve to a device. err is an errno or what a wait has returned.
func explainAddr(a verbs.DialAttr, err error) error {
	if contextual(err) || errors.Is(err, verbs.ErrPortDown) {
		return err
	}
	route, routeErr := RouteTo(a.Src, a.Dst.Addr())
	devices, _ := Devices(context.Background())
	return besides(addrError(a, err, route, routeErr), route, devices)
}

// besides adds what may be the reason why there is no way to the peer: a network device that was shut took its routes
// along.
func besides(e *verbs.OpError, route Route, devices []verbs.DeviceInfo) error {
	for _, d := range devices {
		if !d.Active && !route.Device.Active {
			e.Hint = strings.TrimPrefix(e.Hint+"; besides, "+portName(d)+" is down", "; ")
		}
	}
	return e
}

// portDown is the error of a connection that would leave by a port that is down.
func portDown(peer netip.AddrPort, d verbs.DeviceInfo) error {
	e := &verbs.OpError{Op: "connect to", Peer: peer.String(), Err: fmt.Errorf("%s: %w", portName(d), verbs.ErrPortDown)}
	e.Hint = "check the cable"
	if d.NetDev != "" {
		e.Hint += ", or: ip link set " + d.NetDev + " up"
	}
	return e
}

// portName is "rxe0 port 1 on eth0".
func portName(d verbs.DeviceInfo) string {
	s := fmt.Sprintf("%s port %d", d.Name, d.Port)
	if d.NetDev != "" {
		s += " on " + d.NetDev
	}
	return s
}

// addrError is explainAddr given the way to the peer.
func addrError(a verbs.DialAttr, err error, route Route, routeErr error) *verbs.OpError {
	out := &verbs.OpError{Op: "resolve address of", Peer: a.Dst.String(), Err: cause(err)}
	switch {
	case errors.Is(err, syscall.ENODEV):
		out.Err = fmt.Errorf("%w: %w", verbs.ErrNoDevice, out.Err)
		out.Hint = deviceHint(route, routeErr)
	case errors.Is(err, syscall.EADDRNOTAVAIL) && a.Src.IsValid():
		out.Hint = fmt.Sprintf("the source %s is not an address of this host", a.Src)
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH):
		out.Hint = fmt.Sprintf("no route to it: ip route get %s", a.Dst.Addr())
	case errors.Is(err, verbs.ErrTimeout):
		out.Hint = fmt.Sprintf("nobody on the link answers for it: ip neighbour show %s", a.Dst.Addr())
		if routeErr == nil && route.NetDev != "" && route.Device.Name == "" {
			out.Hint += "; besides, " + deviceHint(route, nil)
		}
	}
	return out
}

// deviceHint is what to do when no RDMA device was found on the way.
func deviceHint(r Route, err error) string {
	switch {
	case err != nil || r.NetDev == "":
		return "list RDMA devices: rdma link show"
	case r.Device.Name != "":
		return fmt.Sprintf("%s is on %s but cannot be opened: modprobe ib_uverbs, check /dev/infiniband/uverbs* "+
			"and that ibverbs-providers is installed", r.Device.Name, r.NetDev)
	case r.Loopback:
		return fmt.Sprintf("the way to it is the loopback interface %s, which cannot have an RDMA device", r.NetDev)
	}
	return fmt.Sprintf("%s has no RDMA device: rdma link add %s type rxe netdev %s", r.NetDev, r.FreeName, r.NetDev)
}

// explainConnect adds to the error of a connect what a user can look at.
func explainConnect(err error) error {
	var op *verbs.OpError
	if contextual(err) || !errors.As(err, &op) || !errors.Is(err, verbs.ErrTimeout) {
		return err
	}
	op.Hint = "the host is there but its connection manager does not answer: " +
		"is RDMA set up on that address, does a firewall drop UDP port 4791?"
	return op
}

// cause is what an OpError wraps, or err itself.
func cause(err error) error {
	var op *verbs.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func contextual(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
