package softroce_test

import (
	"bytes"
	"testing"
	"time"

	"iserblk/verbs"
)

// try has the peer reach for our memory while we drive the connection, and returns what it heard.
func (p *pair) try(reach func() error) error {
	p.t.Helper()
	errs := make(chan error, 1)
	go func() { errs <- reach() }()
	for late := time.After(10 * time.Second); ; {
		select {
		case err := <-errs:
			return err
		case <-late:
			p.t.Fatal("the peer heard nothing within 10 s")
		default:
			_, _ = p.conn.Poll(p.wcs[:])
		}
	}
}

func TestAnExposedBufferIsOpenForItselfInOneDirectionUntilItIsNot(t *testing.T) {
	for _, c := range []struct {
		name         string
		peerWrites   bool
		before, over int  // bytes that are reached for before and past it
		late         bool // after Unexpose
		write, works bool
	}{
		{name: "written, exactly", peerWrites: true, write: true, works: true},
		{name: "read, exactly", works: true},
		{name: "written, where it may be read", write: true},
		{name: "read, where it may be written", peerWrites: true},
		{name: "written, from a byte before", peerWrites: true, before: 1, write: true},
		{name: "written, to a byte past it", peerWrites: true, over: 1, write: true},
		{name: "read, from a byte before", before: 1},
		{name: "read, to a byte past it", over: 1},
		{name: "written, too late", peerWrites: true, late: true, write: true},
		{name: "read, too late", late: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, loopback)
			p.connect()
			mem := p.arena.Mem(p.remote)
			key := p.conn.(verbs.Exposer).Expose(mem[1000:6000], c.peerWrites)
			if c.late {
				p.conn.(verbs.Exposer).Unexpose(key)
			}
			data := bytes.Repeat([]byte{7}, 5000+c.before+c.over)
			va := verbs.Addr(mem[1000-c.before:])
			err := p.try(func() error {
				if c.write {
					return p.peer.RDMAWrite(key, va, data)
				}
				return p.peer.RDMARead(key, va, data)
			})
			if (err == nil) != c.works {
				t.Errorf("%v", err)
			}
			changed := bytes.Count(mem, []byte{7})
			if want := map[bool]int{true: 5000}[c.write && c.works]; changed != want {
				t.Errorf("%d bytes were written", changed)
			}
		})
	}
}
