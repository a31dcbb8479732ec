package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"iserblk/verbs"
	"iserblk/verbs/softroce"
)

// noteLen is the length of rping's only message (struct rping_rdma_info): an address, its key and its size, in network
// order.
const noteLen = 16

type note struct {
	va   uint64
	key  uint32
	size uint32
}

func parseNote(b []byte) note {
	return note{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}
}

func (n note) put(b []byte) {
	binary.BigEndian.PutUint64(b, n.va)
	binary.BigEndian.PutUint32(b[8:], n.key)
	binary.BigEndian.PutUint32(b[12:], n.size)
}

// serve answers one client until it leaves.
func serve(ctx context.Context, at netip.AddrPort) error {
	l, err := softroce.New().Listen(ctx, verbs.ListenAttr{Addr: at, RecvDepth: 16, RecvSize: noteLen})
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	p, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	rounds := 0
	for ; ; rounds++ {
		if err := round(ctx, p); err != nil {
			if ctx.Err() != nil || rounds == 0 {
				return fmt.Errorf("after %d rounds: %w", rounds, err)
			}
			break
		}
	}
	fmt.Println(rounds, "rounds")
	return nil
}

func round(ctx context.Context, p verbs.Peer) error {
	source, err := hear(ctx, p)
	if err != nil {
		return err
	}
	data := make([]byte, source.size)
	if err := p.RDMARead(source.key, source.va, data); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := p.Send(make([]byte, noteLen)); err != nil {
		return err
	}
	sink, err := hear(ctx, p)
	if err != nil {
		return err
	}
	if err := p.RDMAWrite(sink.key, sink.va, data[:min(len(data), int(sink.size))]); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return p.Send(make([]byte, noteLen))
}

// maxSize is more than rping allows.
const maxSize = 1 << 24

func hear(ctx context.Context, p verbs.Peer) (note, error) {
	var b [noteLen]byte
	n, err := p.Recv(ctx, b[:])
	switch {
	case err != nil:
		return note{}, err
	case n != noteLen || parseNote(b[:]).size > maxSize:
		return note{}, fmt.Errorf("a note of %d bytes about %d", n, parseNote(b[:]).size)
	}
	return parseNote(b[:]), nil
}
