package rc

import (
	"time"

	"iserblk/verbs/softroce/wire"
)

// congestion is how many packets may be under way, learned from what gets lost, as TCP does (RFC 5681): RoCE networks
// are meant to be lossless, but the sockets and queues of software at either end are not.
type congestion struct {
	size      int // packets
	max       int
	threshold int // below it the window opens by each packet acknowledged, above by one a round trip
	acked     int
}

const (
	firstWindow = 32
	leastWindow = 4
	mostSilent  = 16 // packets, at most, without a request for an acknowledgement
)

func newCongestion(limit int) congestion {
	return congestion{size: min(limit, firstWindow), max: limit, threshold: limit}
}

func (c *congestion) grow(acked int) {
	if c.size < c.threshold {
		c.size = min(c.size+acked, c.max)
		return
	}
	if c.acked += acked; c.acked >= c.size {
		c.acked = 0
		c.size = min(c.size+1, c.max)
	}
}

// halve answers the loss of a packet, collapse that of all.
func (c *congestion) halve(underWay int) {
	c.threshold = min(max(underWay/2, leastWindow), c.max)
	c.size = c.threshold
}

func (c *congestion) collapse(underWay int) {
	c.halve(underWay)
	c.size = min(leastWindow, c.max)
}

// ackEvery is after how many packets to ask for an acknowledgement, so that the window does not run dry.
func (c *congestion) ackEvery() int { return max(1, min(c.size/4, mostSilent)) }

// roundTrip estimates how long answers take, and so when to stop waiting (RFC 6298).
type roundTrip struct {
	timeout, most      time.Duration
	smoothed, variance time.Duration
	of                 wire.PSN // the packet that is being timed
	at                 time.Duration
	timing             bool
}

const (
	firstTimeout = 50 * time.Millisecond
	leastTimeout = 4 * time.Millisecond // software at the other end may have to wait for its processor
)

func newRoundTrip(most time.Duration) roundTrip {
	return roundTrip{timeout: min(firstTimeout, most), most: most}
}

func (t *roundTrip) begin(now time.Duration, psn wire.PSN) {
	if !t.timing {
		t.timing, t.of, t.at = true, psn, now
	}
}

func (t *roundTrip) cancel() { t.timing = false }

// answered takes the time if the packet that is timed comes before oldest.
func (t *roundTrip) answered(now time.Duration, oldest wire.PSN) {
	if !t.timing || !t.of.Less(oldest) {
		return
	}
	t.timing = false
	sample := now - t.at
	if t.smoothed == 0 {
		t.smoothed, t.variance = sample, sample/2
	} else {
		t.variance += ((sample - t.smoothed).Abs() - t.variance) / 4
		t.smoothed += (sample - t.smoothed) / 8
	}
	t.timeout = min(max(t.smoothed+4*t.variance, leastTimeout), t.most)
}

// backOff doubles the time until an answer comes to something that was sent once.
func (t *roundTrip) backOff() { t.timeout = min(2*t.timeout, t.most) }
