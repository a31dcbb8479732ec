// Package worker is the process that serves one target: it is started by attach, holds the target's sessions and
// devices, answers on a control socket and leaves when its last device has gone.
//
// What is served is an Engine's business; this package is everything around it: the spec that comes over a
// socketpair, the lock that keeps two workers off one target, the state file, the control protocol, signals, and the
// hardening that a block server needs. A Client talks to a worker, whichever process started it.
package worker
