package nbd

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The way of a request allocates nothing, whatever form its replies have.
func TestRequestsAllocateNothing(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		o.lane.Nap = -1 // the measurement leaves the scheduler one processor, which a nap would keep
		b := newBed(t, o)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.export.ServeConn(pair[0], ConnOptions{Replies: form, BlockStatus: true}); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[1])
		own, err := unix.Dup(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, own, form)
		var stream []byte
		for _, r := range []request{
			{cmd: cmdWrite, length: 8192},
			{cmd: cmdRead, length: 8192},
			{cmd: cmdFlush},
			{cmd: cmdTrim, length: testSize},
			{cmd: cmdWriteZeroes, flags: cmdFlagFUA, length: 4096},
			{cmd: cmdBlockStatus, length: 4096},
			{cmd: cmdRead, offset: 1, length: 1},
			{cmd: 99},
			{cmd: cmdRead, length: 512},
		} {
			var data []byte
			if r.cmd == cmdWrite {
				data = make([]byte, r.length)
			}
			_, b := c.request(r, data)
			stream = append(stream, b...)
		}
		if _, err := c.net.Write(stream); err != nil {
			t.Fatal(err)
		}
		for range c.cookie {
			c.receive()
		}
		replies := c.got
		_ = unix.SetNonblock(pair[1], false)
		buf := make([]byte, replies)
		got := testing.AllocsPerRun(100, func() {
			if _, err := unix.Write(pair[1], stream); err != nil {
				panic(err)
			}
			for n := 0; n < replies; {
				m, err := unix.Read(pair[1], buf[n:])
				if err != nil || m == 0 {
					panic("the server hung up")
				}
				n += m
			}
		})
		if got != 0 {
			t.Errorf("%v allocations for nine requests", got)
		}
	})
}
