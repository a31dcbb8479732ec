// Package nbdkernel makes block devices (/dev/nbdN) of the kernel's NBD client, by generic netlink: the kernel gets one
// end of a socket pair for each hardware queue, and whoever speaks the protocol (package nbd) serves the other.
//
// What sets these devices apart is that they outlive their server. When its process dies the kernel keeps the device
// and the requests, and a new process takes it over (Adopt) by the cookie that the device was made with. Before it
// does, nothing that the dead one has sent may still be carried out: the caller sees to that.
package nbdkernel
