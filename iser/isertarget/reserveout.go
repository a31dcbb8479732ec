package isertarget

import "iserblk/session/scsi"

// reserveOrder is a PERSISTENT RESERVE OUT.
type reserveOrder struct {
	nexus       sessionKey
	kind        ReservationType
	key, newKey uint64 // RESERVATION KEY, SERVICE ACTION RESERVATION KEY
}

// reserveOutcome is what became of one.
type reserveOutcome struct {
	result result
	told   []sessionKey // who gets a unit attention
	ascq   uint8        // which: 2A/ascq
	abort  bool         // and loses its commands
}

// Unit attentions of reservations, 2A/xx (SPC-4 5.13.11).
const (
	ascqPreempted     = 0x03
	ascqReleased      = 0x04
	ascqRegPreempted  = 0x05
	reservationFailed = scsi.StatusReservationConflict
)

func refused() reserveOutcome { return reserveOutcome{result: result{status: reservationFailed}} }

// order carries a service action out. Disk.mu is held.
func (r *reservations) order(o reserveOrder, action byte) reserveOutcome {
	if r.keys == nil {
		r.keys = make(map[sessionKey]uint64)
	}
	mine, registered := r.keys[o.nexus]
	switch action {
	case prRegister, prRegisterIgnore:
		if action == prRegister && mine != o.key {
			return refused() // 0 when not registered
		}
		return r.register(o)
	case prReserve, prRelease, prClear, prPreempt, prPreemptAbort:
	default:
		return reserveOutcome{result: badCDB()}
	}
	if !registered || mine != o.key {
		return refused()
	}
	switch action {
	case prReserve:
		return r.reserve(o)
	case prRelease:
		return r.releaseBy(o)
	case prClear:
		return r.clear(o)
	}
	return r.preempt(o, action == prPreemptAbort)
}

// register sets or, with a key of 0, ends a registration.
func (r *reservations) register(o reserveOrder) reserveOutcome {
	r.generation++
	if o.newKey == 0 {
		was := r.kind
		r.forget(o.nexus)
		if was.shared() && r.kind == 0 {
			return reserveOutcome{told: r.others(o.nexus), ascq: ascqReleased}
		}
		return reserveOutcome{}
	}
	r.keys[o.nexus] = o.newKey
	return reserveOutcome{}
}

// others are the registrants but one.
func (r *reservations) others(but sessionKey) []sessionKey {
	var list []sessionKey
	for _, n := range r.registrants() {
		if n != but {
			list = append(list, n)
		}
	}
	return list
}

func (r *reservations) reserve(o reserveOrder) reserveOutcome {
	switch {
	case !o.kind.valid():
		return reserveOutcome{result: badCDB()}
	case r.kind == 0:
		r.kind, r.holder = o.kind, o.nexus
	case !r.holds(o.nexus) || r.kind != o.kind:
		return refused()
	}
	return reserveOutcome{}
}

func (r *reservations) releaseBy(o reserveOrder) reserveOutcome {
	switch {
	case !r.holds(o.nexus):
		return reserveOutcome{}
	case r.kind != o.kind:
		return reserveOutcome{result: check(scsi.KeyIllegalRequest, ascParam, 0x04)}
	}
	shared := r.kind.shared()
	r.release()
	if !shared {
		return reserveOutcome{}
	}
	return reserveOutcome{told: r.others(o.nexus), ascq: ascqReleased}
}

func (r *reservations) clear(o reserveOrder) reserveOutcome {
	told := r.others(o.nexus)
	*r = reservations{generation: r.generation + 1}
	return reserveOutcome{told: told, ascq: ascqPreempted}
}

// preempt takes the registrations of a key away, and the reservation if its holder goes (SPC-4 5.13.11.4).
func (r *reservations) preempt(o reserveOrder, abort bool) reserveOutcome {
	takesAll := r.kind.all() && o.newKey == 0
	takes := takesAll || r.kind != 0 && !r.kind.all() && r.keys[r.holder] == o.newKey
	var gone []sessionKey
	for _, n := range r.registrants() {
		if n != o.nexus && (takesAll || r.keys[n] == o.newKey) {
			gone = append(gone, n)
		}
	}
	switch {
	case takes && !o.kind.valid():
		return reserveOutcome{result: badCDB()}
	case !takes && len(gone) == 0:
		return refused()
	}
	r.generation++
	for _, n := range gone {
		r.forget(n)
	}
	if takes {
		r.kind, r.holder = o.kind, o.nexus
	}
	return reserveOutcome{told: gone, ascq: ascqRegPreempted, abort: abort}
}
