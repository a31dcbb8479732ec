package isertarget

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// ReservationType is the type of a persistent reservation (SPC-4 table 59).
type ReservationType uint8

// Types of persistent reservations.
const (
	WriteExclusive            ReservationType = 1
	ExclusiveAccess           ReservationType = 3
	WriteExclusiveRegistrants ReservationType = 5
	ExclusiveRegistrants      ReservationType = 6
	WriteExclusiveAll         ReservationType = 7
	ExclusiveAll              ReservationType = 8
)

// writesOnly: reads of others go on.
func (r ReservationType) writesOnly() bool {
	return r == WriteExclusive || r == WriteExclusiveRegistrants || r == WriteExclusiveAll
}

// all: every registrant holds it.
func (r ReservationType) all() bool { return r == WriteExclusiveAll || r == ExclusiveAll }

// shared: every registrant may do what the holder may.
func (r ReservationType) shared() bool { return r >= WriteExclusiveRegistrants }

func (r ReservationType) valid() bool { return r == 1 || r == 3 || r >= 5 && r <= 8 }

// reservations are a unit's, by I_T nexus (SPC-4 5.13). Disk.mu guards them.
type reservations struct {
	generation uint32
	keys       map[sessionKey]uint64
	kind       ReservationType // 0: no reservation
	holder     sessionKey
}

// holds tells whether a nexus is a holder.
func (r *reservations) holds(n sessionKey) bool {
	if r.kind == 0 {
		return false
	}
	_, registered := r.keys[n]
	return n == r.holder || r.kind.all() && registered
}

// release ends the reservation.
func (r *reservations) release() { r.kind, r.holder = 0, sessionKey{} }

// forget ends a registration, and the reservation with it where nobody is left to hold it.
func (r *reservations) forget(n sessionKey) {
	held := r.holds(n)
	delete(r.keys, n)
	if held && (!r.kind.all() || len(r.keys) == 0) {
		r.release()
	}
}

// ReserveByOther has another host, of this name, reserve the unit: the sessions there are meet RESERVATION CONFLICT.
func (d *Disk) ReserveByOther(initiator string, kind ReservationType) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := sessionKey{initiator: initiator}
	if d.held.keys == nil {
		d.held.keys = make(map[sessionKey]uint64)
	}
	d.held.keys[n] = 1
	d.held.kind, d.held.holder = kind, n
}

// ClearReservations ends every registration and reservation, and tells nobody.
func (d *Disk) ClearReservations() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = reservations{generation: d.held.generation + 1}
}

// conflicts tells whether another nexus's reservation forbids the command. Only what moves a medium's data is ever
// forbidden here (SPC-4 table 59, SBC-3 table 12).
func (d *Disk) conflicts(k *task) bool {
	writes := false
	switch k.cmd.Op() {
	case opRead10, opRead12, opRead16:
	case opWrite10, opWrite12, opWrite16, opWriteSame10, opWriteSame16, opUnmap, opSyncCache10, opSyncCache16:
		writes = true
	default:
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, n := &d.held, k.sess.key
	if r.kind == 0 || !writes && r.kind.writesOnly() || r.holds(n) {
		return false
	}
	_, registered := r.keys[n]
	return !r.kind.shared() || !registered
}

// Service actions of PERSISTENT RESERVE IN (SPC-4 6.15).
const (
	prReadKeys = iota
	prReadReservation
	prReportCapabilities
	prReadFullStatus
)

// reserveIn answers PERSISTENT RESERVE IN.
func (d *Disk) reserveIn(c Command) result {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b []byte
	switch c.CDB[1] & 0x1f {
	case prReadKeys:
		b = d.held.listKeys()
	case prReadReservation:
		b = d.held.describe()
	case prReportCapabilities:
		b = []byte{0, 8, 0x04, 0x80, 0xea, 0x01, 0, 0} // ATP_C, TMV, and the six types
	case prReadFullStatus:
		b = d.held.fullStatus()
	default:
		return badCDB()
	}
	return good(limit(b, int(binary.BigEndian.Uint16(c.CDB[7:]))))
}

// withHeader puts generation and length in front of a list.
func (r *reservations) withHeader(list []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, r.generation)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	return append(b, list...)
}

// registrants are the registered nexuses in a fixed order.
func (r *reservations) registrants() []sessionKey {
	return slices.SortedFunc(maps.Keys(r.keys), func(a, b sessionKey) int {
		if n := strings.Compare(a.initiator, b.initiator); n != 0 {
			return n
		}
		return slices.Compare(a.isid[:], b.isid[:])
	})
}

func (r *reservations) listKeys() []byte {
	var list []byte
	for _, n := range r.registrants() {
		list = binary.BigEndian.AppendUint64(list, r.keys[n])
	}
	return r.withHeader(list)
}

func (r *reservations) describe() []byte {
	if r.kind == 0 {
		return r.withHeader(nil)
	}
	var key uint64
	if !r.kind.all() {
		key = r.keys[r.holder]
	}
	b := binary.BigEndian.AppendUint64(nil, key)
	return r.withHeader(append(b, 0, 0, 0, 0, 0, byte(r.kind), 0, 0))
}

// fullStatus has a descriptor with an iSCSI TransportID for each registrant (SPC-4 6.15.5, 7.6.4.6).
func (r *reservations) fullStatus() []byte {
	const iscsiWithISID, holder = 0x45, 0x01
	var list []byte
	for _, n := range r.registrants() {
		id := isidName(n)
		b := binary.BigEndian.AppendUint64(nil, r.keys[n])
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(n.group>>8), byte(n.group))
		if r.holds(n) {
			b[12], b[13] = holder, byte(r.kind)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(4+len(id)))
		b = append(b, iscsiWithISID, 0, byte(len(id)>>8), byte(len(id)))
		list = append(list, append(b, id...)...)
	}
	return r.withHeader(list)
}

// isidName is an initiator port's name, with its end and padding.
func isidName(n sessionKey) []byte {
	b := append([]byte(n.initiator), ",i,0x"...)
	b = append(append(b, pdu.AppendHex(nil, n.isid[:])[2:]...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Service actions of PERSISTENT RESERVE OUT (SPC-4 6.16).
const (
	prRegister = iota
	prReserve
	prRelease
	prClear
	prPreempt
	prPreemptAbort
	prRegisterIgnore
)

const (
	prListLen = 24
	ascParam  = 0x26
	ascParams = 0x2a // parameters changed
)

// reserveOut carries PERSISTENT RESERVE OUT out; false means that the connection is gone.
func (k *task) reserveOut(d *Disk) (result, bool) {
	if !k.pull(int(k.cmd.EDTL)) {
		return result{}, false
	}
	if len(k.data) < prListLen {
		return check(scsi.KeyIllegalRequest, 0x1a, 0), true
	}
	o := reserveOrder{
		nexus: k.sess.key, kind: ReservationType(k.cmd.CDB[2] & 0x0f),
		key: binary.BigEndian.Uint64(k.data), newKey: binary.BigEndian.Uint64(k.data[8:]),
	}
	d.mu.Lock()
	r := d.held.order(o, k.cmd.CDB[1]&0x1f)
	d.mu.Unlock()
	for _, n := range r.told {
		k.conn.t.attentionFor(n, d.Number, r.ascq)
	}
	if r.abort {
		k.conn.t.abort(func(other *task) bool {
			return other != k && slices.Contains(r.told, other.sess.key) && other.cmd.LUN == k.cmd.LUN
		})
	}
	r.result.wrote = len(k.data)
	return r.result, true
}

// attentionFor tells one nexus of a change of its reservations (2A/xx).
func (t *Target) attentionFor(n sessionKey, lun int, ascq uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[n]; s != nil {
		s.attention(lun, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: ascParams, ASCQ: ascq})
	}
}
