package cm

import (
	"net/netip"
	"time"
)

// ID names a connection of a Manager: the communication identifier that goes over the wire as ours.
type ID uint32

// How often and how long a message is sent again until its answer comes. Kernels take several seconds between two
// requests; a lost one should not cost that, and a repeated one costs the peer nothing.
const (
	reqInterval  = 500 * time.Millisecond
	reqTries     = 16
	repInterval  = 400 * time.Millisecond
	repTries     = 10
	dreqInterval = 250 * time.Millisecond
	dreqTries    = 4
	// decideTime is how long the driver may take to accept or reject.
	decideTime = 10 * time.Second
	// responseCode is the timeout that our own requests announce: 0.54 s.
	responseCode = 17
	maxRetries   = 15
)

// Config is what a Manager needs to know. Zero limits mean the defaults.
type Config struct {
	Addr netip.Addr // the local address; requests have to be for it
	GUID uint64     // of our channel adapter: random, the same for all connections of a process
	// Rand gives random numbers that nobody can guess: identifiers and transactions.
	Rand func() uint64
	// Prefix is the upper byte of all our identifiers, if it is not 0: so that processes which share an address can tell
	// whom a message is for.
	Prefix uint8
	// MaxConns bounds the connections that are known at a time, MaxHalfOpen those of them that a peer has asked for and
	// not confirmed.
	MaxConns, MaxHalfOpen int
}

const (
	defaultMaxConns    = 4096
	defaultMaxHalfOpen = 64
	perSourceHalfOpen  = 16 // of them from one address
)

// Manager is the connection manager of one local address. It is not safe for concurrent use.
type Manager struct {
	cfg       Config
	conns     map[ID]*conn
	listening map[uint16]bool
	halfOpen  int
	requests  bucket // REQs that are looked at
	strangers bucket // answers to who has no connection
	out       []Outgoing
	events    []Event
}

// Outgoing is a message to be sent to QP 1 of a host.
type Outgoing struct {
	To  netip.Addr
	MAD MAD
}

// state is where a connection stands (IBTA volume 1, 12.9.5).
type state uint8

const (
	reqSent     state = iota + 1 // active: waiting for REP
	repReceived                  // active: the driver has to make its queue pair ready
	requested                    // passive: the driver has to accept or reject
	repSent                      // passive: waiting for RTU
	established
	dreqSent
)

// conn is one connection.
type conn struct {
	id       ID
	remoteID uint32
	peer     netip.Addr
	state    state
	passive  bool
	tid      uint64
	localQPN uint32
	guid     uint64 // the peer's, with its queue pair: the same pair in a new request makes this connection stale
	qpn      uint32

	last     MAD // what is sent again
	interval time.Duration
	tries    int // left
	deadline time.Time
}

// NewManager makes a Manager without connections.
func NewManager(c Config) *Manager {
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.MaxHalfOpen == 0 {
		c.MaxHalfOpen = defaultMaxHalfOpen
	}
	return &Manager{
		cfg: c, conns: make(map[ID]*conn), listening: make(map[uint16]bool),
		requests:  bucket{rate: 1000, burst: 250},
		strangers: bucket{rate: 100, burst: 50},
	}
}

// Listen takes requests for a port from now on.
func (m *Manager) Listen(port uint16) { m.listening[port] = true }

// Unlisten rejects them again.
func (m *Manager) Unlisten(port uint16) { delete(m.listening, port) }

// Len is how many connections are known, those included that are being taken down.
func (m *Manager) Len() int { return len(m.conns) }

// Outgoing takes the messages that are to be sent. The slice is valid until the next call of anything.
func (m *Manager) Outgoing() []Outgoing {
	out := m.out
	m.out = m.out[:0]
	return out
}

// Events takes what has happened since the last call. The slice is valid until the next call of anything.
func (m *Manager) Events() []Event {
	events := m.events
	m.events = m.events[:0]
	return events
}

// Deadline is when Tick wants to be called; false when never.
func (m *Manager) Deadline() (t time.Time, ok bool) {
	for _, c := range m.conns {
		if !c.deadline.IsZero() && (!ok || c.deadline.Before(t)) {
			t, ok = c.deadline, true
		}
	}
	return t, ok
}

// Tick does what is due: messages are sent again, connections given up.
func (m *Manager) Tick(now time.Time) {
	for _, c := range m.conns {
		if !c.deadline.IsZero() && !now.Before(c.deadline) {
			m.due(now, c)
		}
	}
}

func (m *Manager) due(now time.Time, c *conn) {
	if c.tries > 0 {
		c.tries--
		c.deadline = now.Add(c.interval)
		m.send(c, &c.last)
		return
	}
	if c.state == dreqSent {
		m.end(c, Event{Kind: Closed})
		return
	}
	m.end(c, Event{Kind: TimedOut})
}

// say sends a message about a connection and repeats it until it is answered.
func (m *Manager) say(now time.Time, c *conn, msg MAD, interval time.Duration, tries int) {
	c.last, c.interval, c.tries = msg, interval, tries-1
	c.deadline = now.Add(interval)
	m.send(c, &c.last)
}

func (m *Manager) send(c *conn, msg *MAD) { m.out = append(m.out, Outgoing{To: c.peer, MAD: *msg}) }

// reply answers somebody without a connection, if not too many of them have been answered lately.
func (m *Manager) reply(now time.Time, to netip.Addr, msg MAD) {
	if m.strangers.take(now) {
		m.out = append(m.out, Outgoing{To: to, MAD: msg})
	}
}

// enter makes a transition of the books.
func (m *Manager) enter(c *conn, s state) {
	m.halfOpen += c.halfOpenIn(s) - c.halfOpenIn(c.state)
	c.state = s
}

func (c *conn) halfOpenIn(s state) int {
	if c.passive && (s == requested || s == repSent) {
		return 1
	}
	return 0
}

// end forgets a connection and tells the driver.
func (m *Manager) end(c *conn, e Event) {
	m.forget(c)
	e.ID = c.id
	m.events = append(m.events, e)
}

func (m *Manager) forget(c *conn) {
	m.enter(c, 0)
	delete(m.conns, c.id)
}

// add gives a connection its identifier.
func (m *Manager) add(c *conn) {
	for {
		c.id = ID(m.cfg.Rand())
		if m.cfg.Prefix != 0 {
			c.id = c.id&0xffffff | ID(m.cfg.Prefix)<<24
		}
		if c.id != 0 && m.conns[c.id] == nil {
			m.conns[c.id] = c
			return
		}
	}
}

func (c *conn) ids() IDs { return IDs{TID: c.tid, LocalID: uint32(c.id), RemoteID: c.remoteID} }

// bucket limits a rate: tokens drip in, each event takes one.
type bucket struct {
	rate, burst float64
	used        float64 // tokens taken and not yet replaced
	at          time.Time
}

func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.used = max(0, b.used-d.Seconds()*b.rate)
		b.at = now
	}
	if b.used+1 > b.burst {
		return false
	}
	b.used++
	return true
}
