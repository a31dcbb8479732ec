// Package rdmacore is the verbs provider over rdma-core: HCAs, kernel rxe and siw.
//
// rdma-core is not linked but opened at run time (dlopen), so that a binary with this package starts everywhere and
// New can say what is missing. All C is in shim.c; without cgo, New returns verbs.ErrNoProvider and the rest, which
// reads sysfs and asks the kernel for routes and limits, works the same.
//
// A connection has an event channel, a completion queue and a queue pair of its own. Connections on one device
// that use one arena share a protection domain and its memory keys.
package rdmacore
