// Package verbstest is RDMA in memory, for tests of what stands on package verbs: a provider whose connections end in
// a Peer that the test holds.
//
// It is stricter than a device where that finds bugs. Keys are random for each region and connection and are checked
// with range and direction at every access. Bytes of a send that is not inline are fetched when the peer receives
// it, not when it is posted, and only then does the send complete, so that a buffer reused too early shows. Posting
// more than the depths that were asked for is refused. Nothing happens by itself or by time: what the Peer does is
// what happens.
//
// All methods may be called from any goroutine. Waiting is done on sync.Cond, so it works inside a synctest bubble.
package verbstest
