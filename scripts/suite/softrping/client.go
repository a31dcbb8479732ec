package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce"
)

// pinger is the active end of rping.
type pinger struct {
	arena         *verbs.Arena
	notes, buffer verbs.RegionID
	size          int
	conn          verbs.Conn
}

// ping has a server read and write back data, and compares it.
func ping(ctx context.Context, to netip.AddrPort, rounds, size int) error {
	arena, err := verbs.NewArena(64 << 20)
	if err != nil {
		return err
	}
	defer arena.Close()
	p := &pinger{arena: arena, size: size}
	if p.notes, err = arena.Carve(4*noteLen, verbs.AccessLocal); err != nil {
		return err
	}
	if p.buffer, err = arena.Carve(2*size, verbs.AccessRemote); err != nil {
		return err
	}
	if err := p.dial(ctx, to); err != nil {
		return err
	}
	for i := range rounds {
		if err = p.round(ctx, i); err != nil {
			err = fmt.Errorf("round %d: %w", i, err)
			break
		}
	}
	if err == nil {
		fmt.Println(rounds, "rounds")
	}
	return errors.Join(err, p.conn.Close())
}

// dial connects, and waits for a server that does not listen yet.
func (p *pinger) dial(ctx context.Context, to netip.AddrPort) error {
	provider := softroce.New()
	for {
		conn, err := provider.Dial(ctx, verbs.DialAttr{
			Dst: to, RetryCount: 6, RNRRetry: 7, AckTimeout: 67 * time.Millisecond, SendDepth: 8, RecvDepth: 8, Arena: p.arena,
			Recvs: []verbs.RecvWR{{ID: 2, SGE: p.note(2)}, {ID: 3, SGE: p.note(3)}},
		})
		if err == nil {
			p.conn = conn
			return nil
		}
		if !errors.Is(err, verbs.ErrRejected) || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *pinger) note(i int) verbs.SGE {
	sge := verbs.SGE{Addr: verbs.Addr(p.arena.Mem(p.notes)[i*noteLen:]), Len: noteLen}
	if p.conn != nil {
		sge.LKey = p.conn.Keys(p.notes).LKey
	}
	return sge
}

func (p *pinger) round(ctx context.Context, i int) error {
	mem := p.arena.Mem(p.buffer)
	source, sink := mem[:p.size], mem[p.size:2*p.size]
	for k := range source {
		source[k] = byte('A' + (i+k)%58) // rping stops at the first zero
	}
	source[p.size-1] = 0
	keys := p.conn.Keys(p.buffer)
	if err := p.tell(ctx, note{verbs.Addr(source), keys.ReadKey, uint32(p.size)}); err != nil {
		return err
	}
	if err := p.tell(ctx, note{verbs.Addr(sink), keys.WriteKey, uint32(p.size)}); err != nil {
		return err
	}
	if !bytes.Equal(source, sink) {
		return errors.New("the server wrote other data than it read")
	}
	return nil
}

// tell sends a note and waits for the answer.
func (p *pinger) tell(ctx context.Context, n note) error {
	n.put(p.arena.Mem(p.notes))
	wr := []verbs.SendWR{{ID: 0, SGE: [2]verbs.SGE{p.note(0)}, NumSGE: 1, Signaled: 1}}
	if _, err := p.conn.PostSend(wr); err != nil {
		return err
	}
	for done := 0; done < 2; {
		wc, err := p.wait(ctx)
		if err != nil {
			return err
		}
		if done++; wc.ID != 0 {
			if _, err := p.conn.PostRecv([]verbs.RecvWR{{ID: wc.ID, SGE: p.note(int(wc.ID))}}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pinger) wait(ctx context.Context) (verbs.WC, error) {
	var wc [1]verbs.WC
	for {
		if err := p.conn.Arm(); err != nil {
			return wc[0], err
		}
		n, err := p.conn.Poll(wc[:])
		switch {
		case err != nil:
			return wc[0], err
		case n == 1 && wc[0].Status != verbs.StatusSuccess:
			return wc[0], wc[0].Status
		case n == 1:
			return wc[0], nil
		case ctx.Err() != nil:
			return wc[0], ctx.Err()
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.conn.Fd()), Events: unix.POLLIN}}, 100)
	}
}
