package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// protocolVersion is the version of the control protocol: JSON objects, one a line. A client sends one request at a
// time and reads replies until one says Done. Closing the connection cancels the request.
const protocolVersion = 1

// The operations of a request.
const (
	opAttach = "attach"
	opDetach = "detach"
	opStatus = "status"
)

// hello is the first line that a worker is sent, by the process that started it.
type hello struct {
	Spec  Spec     `json:"spec"`
	Run   string   `json:"run"`             // state.Dirs
	Keep  string   `json:"keep"`            // state.Dirs
	Notes []string `json:"notes,omitempty"` // what isolation it was started without
}

// request asks a worker for something.
type request struct {
	Version int           `json:"version"`
	Op      string        `json:"op"`
	LUNs    []uint64      `json:"luns"` // attach: null means all
	Options AttachOptions `json:"options"`
	Device  string        `json:"device,omitempty"` // detach: path or LUN; "" means all devices
	Force   bool          `json:"force,omitempty"`  // detach
}

// reply answers a request: any number with Progress, then one with Done.
type reply struct {
	Progress string   `json:"progress,omitempty"` // a line for the user
	Done     bool     `json:"done,omitempty"`
	Devices  []Device `json:"devices,omitempty"` // of attach
	Status   *Status  `json:"status,omitempty"`
	Leaving  bool     `json:"leaving,omitempty"` // the worker has no device left and exits
	Error    string   `json:"error,omitempty"`
	Code     int      `json:"code,omitempty"` // the exit code, of Error
}

// maxLine bounds what a peer can make us read for one message.
const maxLine = 4 << 20

// sendTimeout is how long a peer may take to make room for one message.
const sendTimeout = 5 * time.Second

// wire sends and receives messages. Sending is safe for concurrent use.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
	mu   sync.Mutex // held while sending
}

func newWire(conn net.Conn) *wire {
	return &wire{conn: conn, r: bufio.NewReaderSize(conn, 4096)}
}

func (w *wire) send(msg any) error {
	line, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err = w.conn.Write(append(line, '\n'))
	return err
}

func (w *wire) receive(msg any) error {
	line, err := w.line()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, msg); err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	return nil
}

// line reads up to a newline without trusting the peer to send one.
func (w *wire) line() ([]byte, error) {
	var line []byte
	for {
		part, err := w.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, errors.New("control message: too long")
		}
	}
}
