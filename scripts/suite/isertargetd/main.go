// Command isertargetd serves iser/isertarget at RDMA portals, so that other initiators can judge it and be judged by it:
//
//	isertargetd --provider rdmacore --listen 10.0.0.1:3260 --size 256
//
// It prints "ready" once it takes connections and serves until SIGINT or SIGTERM. It is a test bed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"iserblk/cmd/iserblk/worker"
	"iserblk/iser/isertarget"
)

type settings struct {
	provider, listen, name, chap, file string
	luns, megabytes, blockSize         int
	unit                               isertarget.DiskOptions
	target                             isertarget.Options
}

func main() {
	var s settings
	flag.StringVar(&s.provider, "provider", "rdmacore", "the RDMA `provider` to listen with")
	flag.StringVar(&s.listen, "listen", "127.0.0.1:3260", "`portals`, with commas between them; each is a group of its own")
	flag.StringVar(&s.name, "name", isertarget.DefaultName, "the target's iSCSI `name`")
	flag.StringVar(&s.chap, "chap", "", "ask for CHAP as `user:secret`")
	flag.StringVar(&s.file, "file", "", "keep LUN 0 in a `file`, not in memory")
	flag.IntVar(&s.luns, "luns", 1, "how `many` logical units")
	flag.IntVar(&s.megabytes, "size", 64, "`MiB` a logical unit")
	flag.IntVar(&s.blockSize, "block-size", 512, "`bytes`")
	flag.IntVar(&s.target.Workers, "workers", 16, "commands of a connection at a `time`")
	flag.BoolVar(&s.unit.WriteCache, "write-cache", false, "have a volatile write cache")
	flag.BoolVar(&s.target.NoImmediateData, "no-immediate-data", false, "as tgt and SCST")
	flag.BoolVar(&s.target.ALUA, "alua", false, "report target port groups")
	flag.IntVar(&s.target.SenseLength, "sense", 0, "`bytes` of sense data")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "isertargetd:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	acceptor, err := worker.NewAcceptor(s.provider)
	if err != nil {
		return err
	}
	s.target.Name, s.target.NoLog = s.name, true
	if user, secret, ok := strings.Cut(s.chap, ":"); ok {
		s.target.CHAP = isertarget.CHAP{User: user, Secret: secret}
	}
	t := isertarget.New(s.target)
	defer t.Close()
	if err := s.addDisks(t); err != nil {
		return err
	}
	for i, p := range strings.Split(s.listen, ",") {
		addr, err := netip.ParseAddrPort(p)
		if err != nil {
			return err
		}
		if _, err := t.Listen(ctx, acceptor, addr, uint16(i+1)); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	<-ctx.Done()
	for _, v := range t.Violations() {
		fmt.Println("violation:", v)
	}
	return nil
}

func (s settings) addDisks(t *isertarget.Target) error {
	size := int64(s.megabytes) << 20
	s.unit.BlockSize, s.unit.Blocks = uint32(s.blockSize), uint64(size)/uint64(s.blockSize)
	for n := range s.luns {
		o := s.unit
		o.Serial = fmt.Sprintf("isertargetd%04d", n)
		if n == 0 && s.file != "" {
			f, err := os.OpenFile(s.file, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			if err := f.Truncate(size); err != nil {
				return errors.Join(err, f.Close())
			}
			o.Medium = f
		}
		t.AddDisk(n, o)
	}
	return nil
}
