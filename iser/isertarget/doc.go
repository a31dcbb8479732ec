// Package isertarget is an iSER target with faults to order, for tests and demonstrations: what httptest is to
// net/http. It is a test bed and no storage server: it keeps its units in memory unless it is given a Medium, copies
// all data, and does whatever harm it is told to.
//
// A Target has disks (AddDisk) and is served at portals (Listen) of any provider that can be the passive end:
// verbs/verbstest in memory, verbs/softroce, verbs/rdmacore. It speaks enough of RFC 7143, RFC 7145, SPC-4 and SBC-3 for
// an initiator, the kernel's included, to log in, find its units and use them, with the habits of the targets in the
// field as Options.
//
// Faults are planned in these ways, and happen when and as often as the plan says, by the clock of a testing/synctest
// bubble where there is one:
//
//   - Hooks decide about each command, task management function, login and message: refuse, park, delay or ignore it,
//     answer it late, and mutate, drop, repeat or invent messages.
//   - Disks have bad blocks and lying ones, lose their cache, change their size, or become another disk (Remap).
//   - Portals go down and up, freeze and thaw; port groups change their access state; other hosts reserve units.
//
// What a target was asked for stays in a Log, and everything that an initiator must not do in Violations.
package isertarget
