// Package isertarget is an iSER target with faults to order, for tests and demonstrations: what httptest is to
// net/http. It is a test bed and no storage server: it keeps its units in memory, takes one mutex for everything, and
// does whatever harm it is told to.
//
// A Target has disks (AddDisk) and is served through portals (Serve). It speaks enough of RFC 7143, RFC 7145, SPC-4
// and SBC-3 for an initiator to log in, find its units and use them, with the habits of the targets in the field as
// Options. Hooks change what it does: refuse, park, delay or ignore a command, and mutate, drop, repeat or invent
// messages. What it was asked for stays in a Log, and everything that an initiator must not do in Violations.
package isertarget
