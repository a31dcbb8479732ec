package isertarget

import (
	"context"
	"fmt"
	"sync"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// Target is one iSCSI target node. All methods may be called from any goroutine.
type Target struct {
	opt    Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu          sync.Mutex
	disks       map[int]*Disk
	portals     []*Portal
	portalCount int
	conns       map[int]*Conn
	connCount   int
	sessions    map[sessionKey]*session
	replaced    []*session // whose commands may still run
	tsih        pdu.TSIH
	hooks       Hooks
	log         []Record
	commands    int
	violations  []string
	parked      []*task
	access      map[uint16]scsi.AccessState
	pongs       int
}

// New makes a target without disks and portals. Close ends it.
func New(o Options) *Target {
	ctx, cancel := context.WithCancel(context.Background())
	return &Target{
		opt: o.withDefaults(), ctx: ctx, cancel: cancel,
		disks: make(map[int]*Disk), conns: make(map[int]*Conn), sessions: make(map[sessionKey]*session),
		access: make(map[uint16]scsi.AccessState),
	}
}

// Name is the target's iSCSI name.
func (t *Target) Name() string { return t.opt.Name }

// AddDisk adds a logical unit, or puts another in its place.
func (t *Target) AddDisk(n int, o DiskOptions) *Disk {
	d := newDisk(n, o)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disks[n] = d
	return d
}

// RemoveDisk takes a logical unit away.
func (t *Target) RemoveDisk(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.disks, n)
}

func (t *Target) disk(l scsi.LUN) *Disk {
	n, ok := l.Int()
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.disks[n]
}

// SetHooks replaces all hooks.
func (t *Target) SetHooks(h Hooks) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hooks = h
}

func (t *Target) currentHooks() Hooks {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hooks
}

// SetAccess sets the asymmetric access state of a target port group (Options.ALUA). It tells nobody; see Attention.
func (t *Target) SetAccess(group uint16, s scsi.AccessState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.access[group] = s
}

func (t *Target) accessOf(group uint16) scsi.AccessState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.access[group]
}

// Close ends every connection and portal and waits for all goroutines. Parked commands are dropped.
func (t *Target) Close() {
	t.cancel()
	t.mu.Lock()
	portals := t.portals
	t.mu.Unlock()
	for _, p := range portals {
		p.Down()
	}
	for _, c := range t.Conns() {
		c.Close()
	}
	for _, p := range t.takeParked(func(*task) bool { return true }) {
		p.finish()
	}
	t.wg.Wait()
}

// violate notes something that an initiator must not do.
func (t *Target) violate(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violations = append(t.violations, fmt.Sprintf(format, args...))
}

// Violations is everything that initiators did against the protocol, in words.
func (t *Target) Violations() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.violations...)
}

// Resize changes a unit's capacity and tells every session (2A/09).
func (t *Target) Resize(lun int, blocks uint64) {
	t.mu.Lock()
	d := t.disks[lun]
	t.mu.Unlock()
	if d == nil {
		return
	}
	d.Resize(blocks)
	t.Attention(lun, ascParams, 0x09)
}

// Remap puts another unit in the place of one, as an administrator does by mistake, and tells every session (3F/0E).
func (t *Target) Remap(lun int, o DiskOptions) *Disk {
	d := t.AddDisk(lun, o)
	t.Attention(lun, 0x3f, 0x0e)
	return d
}

// ChangeAccess is SetAccess, and tells every session (2A/06).
func (t *Target) ChangeAccess(group uint16, s scsi.AccessState) {
	t.SetAccess(group, s)
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.disks {
		for _, other := range t.sessions {
			other.attention(n, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: ascParams, ASCQ: 0x06})
		}
	}
}

// Attention queues a unit attention for a unit on every session.
func (t *Target) Attention(lun int, asc, ascq uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		s.attention(lun, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: asc, ASCQ: ascq})
	}
}
