package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Client talks to one worker. It has one request at a time.
type Client struct{ w *wire }

// errGone: the worker left before it answered.
var errGone = errors.New("the worker left")

// Close ends the connection. The worker goes on.
func (c *Client) Close() { c.w.conn.Close() }

// Attach makes devices. progress, which may be nil, is told what the worker does meanwhile. When ctx ends first, the
// worker takes back what it has done.
func (c *Client) Attach(ctx context.Context, luns []uint64, o AttachOptions, progress func(string)) ([]Device, error) {
	r, err := c.do(ctx, request{Op: opAttach, LUNs: luns, Options: o}, progress)
	return r.Devices, err
}

// Detach removes a device, named by its path or LUN, or all of them for "". leaving says that this was the last one,
// so that the worker is on its way out.
func (c *Client) Detach(ctx context.Context, device string, force bool) (leaving bool, err error) {
	r, err := c.do(ctx, request{Op: opDetach, Device: device, Force: force}, nil)
	return r.Leaving, err
}

// Status asks how the worker is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, err := c.do(ctx, request{Op: opStatus}, nil)
	if err == nil && r.Status == nil {
		err = errors.New("control message: no status in the answer")
	}
	if err != nil {
		return Status{}, err
	}
	return *r.Status, nil
}

func (c *Client) do(ctx context.Context, req request, progress func(string)) (reply, error) {
	defer context.AfterFunc(ctx, func() { _ = c.w.conn.SetDeadline(time.Unix(1, 0)) })()
	req.Version = protocolVersion
	r, err := c.exchange(req, progress)
	switch {
	case err == nil && r.Error != "":
		return r, &RemoteError{Text: r.Error, Code: r.Code, Stays: !r.Leaving}
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return r, fmt.Errorf("%w: it does not read its socket", ErrSilent)
	}
	return r, fmt.Errorf("%w: %w", errGone, err)
}

func (c *Client) exchange(req request, progress func(string)) (reply, error) {
	if err := c.w.send(req); err != nil {
		return reply{}, err
	}
	for {
		var r reply
		if err := c.w.receive(&r); err != nil || r.Done {
			return r, err
		}
		if progress != nil && r.Progress != "" {
			progress(r.Progress)
		}
	}
}

func (f files) client() (*Client, error) {
	conn, err := f.dial()
	if err != nil {
		return nil, err
	}
	return &Client{w: newWire(conn)}, nil
}

// peerPID is the process at the other end.
func (c *Client) peerPID() int {
	conn, ok := c.w.conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	cred, err := peerCred(conn)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}
