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
	// Choose says which provider of RDMA would be used to reach an address, and why; nil when nobody can tell.
	Choose func(dst netip.Addr) (provider, why string, err error)
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
	// device: only connections by an RDMA device need it.
	device bool
}

// visit is one run of the checks.
type visit struct {
	Machine
	ctx    context.Context
	portal netip.AddrPort // the zero value when none is asked about
	caps   uint64         // effective capabilities
	netDev string         // the interface towards the portal, "" when unknown
	rdma   []rdmaPort
	soft   bool   // the portal is reached without an RDMA device
	choice Result // which provider is used
}

// checks are in the order in which things depend on each other.
var checks = []check{
	{"privileges", (*visit).privileges, false},
	{"block server", (*visit).blockServer, false},
	{"io_uring", (*visit).ioURing, false},
	{"ublk driver", (*visit).ublkDriver, false},
	{"ublk control device", (*visit).ublkControl, false},
	{"nbd driver", (*visit).nbdDriver, false},
	{"RDMA connection manager", (*visit).rdmaCM, true},
	{"RDMA verbs", (*visit).uverbs, true},
	{"RDMA libraries", (*visit).libraries, true},
	{"locked memory", (*visit).memlock, true},
	{"RDMA devices", (*visit).rdmaDevices, true},
	{"route", (*visit).route, false},
	{"RDMA provider", (*visit).provider, false},
	{"RDMA device on the route", (*visit).rdmaRoute, true},
	{"MTU", (*visit).mtu, false},
	{"addresses", (*visit).addresses, false},
	{"portal", (*visit).reach, false},
}

// Examine runs every check. portal is the one that shall be reached; the zero value leaves out what needs one.
func Examine(ctx context.Context, m Machine, portal netip.AddrPort) []Result {
	v := &visit{Machine: m, ctx: ctx, portal: portal}
	v.caps = v.capabilities()
	v.rdma = v.rdmaPorts()
	v.netDev = v.routeDev()
	v.choice = v.choose()
	var all []Result
	for _, c := range checks {
		if r := c.look(v); r.State != "" {
			r.Check = c.name
			if r.State == Fail && c.device && v.soft {
				r.State = Warn // softroce does without
			}
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
