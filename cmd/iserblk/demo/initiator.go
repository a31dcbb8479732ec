package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initiator runs the commands of the initiator as a person would, in processes of their own.
type initiator struct {
	exe string
	dir string // of all that it keeps
}

// command prepares one, in directories of its own.
func (i *initiator) command(args ...string) *exec.Cmd {
	c := exec.Command(i.exe, args...)
	c.Env = append(os.Environ(), "ISERBLK_RUN_DIR="+i.dir+"/run", "ISERBLK_STATE_DIR="+i.dir+"/state")
	// A Ctrl-C is for the demo alone, which then ends things in order. If the demo is killed, they end, too.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return c
}

// ask runs a command to its end and returns what it prints.
func (i *initiator) ask(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	c := i.command(args...)
	c.Stdout, c.Stderr = &out, &errs
	p, err := start(c)
	if err != nil {
		return "", err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.stop()
		return "", ctx.Err()
	}
	if p.err != nil {
		return "", fmt.Errorf("iserblk %s: %w: %s", args[0], p.err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// process is a child that was started on a thread of its own: the kernel signals it when that thread ends, not when the
// process does.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid once ended
}

func start(c *exec.Cmd) (*process, error) {
	p := &process{cmd: c, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			p.err = c.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

const (
	politely = 2 * time.Second // before a process is asked again
	forcibly = 5 * time.Second // before it is killed
)

// stop asks a process to end, asks again, which a server takes as an order, and kills it.
func (p *process) stop() {
	for _, wait := range []time.Duration{politely, forcibly} {
		_ = p.cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-p.ended:
			return
		case <-time.After(wait):
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// device is an attached LUN and the process that serves it.
type device struct {
	*process
	uri  string
	said *tail
}

// attach starts a server and waits until it has printed the device.
func (i *initiator) attach(ctx context.Context, args ...string) (*device, error) {
	c := i.command(args...)
	d := &device{said: &tail{}}
	c.Stderr = d.said
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout = in
	d.process, err = start(c)
	in.Close()
	if err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n')
		line <- strings.TrimSpace(s)
	}()
	select {
	case d.uri = <-line:
	case <-ctx.Done():
		d.stop()
		return nil, ctx.Err()
	}
	if d.uri == "" {
		d.stop()
		return nil, fmt.Errorf("iserblk attach: %w: %s", errors.Join(d.err), d.said)
	}
	return d, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*tail)(nil)

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if n := len(t.b); n > most {
		t.b = append(t.b[:0], t.b[n-most:]...)
	}
	return len(b), nil
}

// String is what was kept, without the white space around it.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
