// Package doctor looks for what keeps iserblk from working on a machine, and says what mends it. It changes nothing.
package doctor

import (
	"context"
	"net/netip"
)

// State is how a check came out.
type State string

// The states of a Result.
const (
	OK   State = "ok"
	Warn State = "warn" // it works, slower or less safely than it could
	Fail State = "fail" // it does not work
)

// Result is what one check found.
type Result struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // the command or the step that mends it
}

// Machine is what is looked at. Real fills it in.
type Machine struct {
	Root    string // where /proc, /sys, /dev and /lib are: "/" but in tests
	Kernel  string // release
	Memlock uint64 // the soft RLIMIT_MEMLOCK in bytes, NoLimit for none
	// Interfaces are the network interfaces of this network namespace.
	Interfaces []Interface
	// Open tries to open a file for reading and writing.
	Open func(path string) error
	// Source is the local address that packets to dst leave by.
	Source func(dst netip.Addr) (netip.Addr, error)
	// Provider asks whether the RDMA libraries can be used; nil when nobody can tell.
	Provider func(ctx context.Context) error
	// Reach connects to a portal by RDMA; nil when nobody can.
	Reach func(ctx context.Context, portal netip.AddrPort) error
}

// NoLimit is a Machine.Memlock without a limit.
const NoLimit = ^uint64(0)

// Interface is a network interface.
type Interface struct {
	Name  string
	MTU   int // bytes
	Up    bool
	Addrs []netip.Prefix
}

// check is one row of the table: a function that looks at one thing.
type check struct {
	name string
	look func(*visit) Result
}

// visit is one run of the checks.
type visit struct {
	Machine
	ctx    context.Context
	portal netip.AddrPort // the zero value when none is asked about
	caps   uint64         // effective capabilities
	netDev string         // the interface towards the portal, "" when unknown
	rdma   []rdmaPort
}

// checks are in the order in which things depend on each other.
var checks = []check{
	{"privileges", (*visit).privileges},
	{"block server", (*visit).blockServer},
	{"io_uring", (*visit).ioURing},
	{"ublk driver", (*visit).ublkDriver},
	{"ublk control device", (*visit).ublkControl},
	{"RDMA connection manager", (*visit).rdmaCM},
	{"RDMA verbs", (*visit).uverbs},
	{"RDMA libraries", (*visit).libraries},
	{"locked memory", (*visit).memlock},
	{"RDMA devices", (*visit).rdmaDevices},
	{"route", (*visit).route},
	{"RDMA device on the route", (*visit).rdmaRoute},
	{"MTU", (*visit).mtu},
	{"addresses", (*visit).addresses},
	{"portal", (*visit).reach},
}

// Examine runs every check. portal is the one that shall be reached; the zero value leaves out what needs one.
func Examine(ctx context.Context, m Machine, portal netip.AddrPort) []Result {
	v := &visit{Machine: m, ctx: ctx, portal: portal}
	v.caps = v.capabilities()
	v.rdma = v.rdmaPorts()
	v.netDev = v.routeDev()
	var all []Result
	for _, c := range checks {
		if r := c.look(v); r.State != "" {
			r.Check = c.name
			all = append(all, r)
		}
	}
	return all
}

// Healthy says whether nothing failed.
func Healthy(all []Result) bool {
	for _, r := range all {
		if r.State == Fail {
			return false
		}
	}
	return true
}

func ok(detail string) Result        { return Result{State: OK, Detail: detail} }
func warn(detail, fix string) Result { return Result{State: Warn, Detail: detail, Fix: fix} }
func fail(detail, fix string) Result { return Result{State: Fail, Detail: detail, Fix: fix} }
func skip() Result                   { return Result{} }
