package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"iserblk/cmd/iserblk/state"
	"iserblk/nbd/nbdkernel"
	"iserblk/session"
	"iserblk/ublk"
	"iserblk/verbs"
)

func TestMessagesSurviveTheWire(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	sent := request{Version: 1, Op: opAttach, LUNs: []uint64{1, 2}, Device: strings.Repeat("x", 10000), Force: true}
	go func() { _ = newWire(a).send(sent) }()
	var got request
	if err := newWire(b).receive(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("(-sent +got):\n%s", diff)
	}
}

func TestAnEndlessMessageIsRefused(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		defer a.Close()
		junk := bytes.Repeat([]byte("x"), 1<<20)
		for range 6 {
			if _, err := a.Write(junk); err != nil {
				return
			}
		}
	}()
	var got request
	if err := newWire(b).receive(&got); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("got %v", err)
	}
	b.Close()
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"version":1,"op":"attach","luns":null}` + "\n"))
	f.Add([]byte("\n"))
	f.Add([]byte(`{"luns":[-1]}` + "\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		a, b := net.Pipe()
		defer b.Close()
		go func() {
			_, _ = a.Write(data)
			a.Close()
		}()
		w := newWire(b)
		for range 100 {
			var r request
			if w.receive(&r) != nil {
				return
			}
		}
	})
}

func TestTheServerRefusesWhatItDoesNotKnow(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	for _, req := range []request{{Version: 99, Op: opStatus}, {Version: 1, Op: "format-everything"}} {
		conn, err := files{l.dirs.Run, fakePrefix + "fine"}.dial()
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(conn)
		var r reply
		if err := errors.Join(w.send(req), w.receive(&r)); err != nil || !r.Done || r.Error == "" {
			t.Errorf("answer to %+v: %+v, %v", req, r, err)
		}
		conn.Close()
	}
	if err := l.detach("/dev/fake0", false); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{verbs.ErrRejected, 4},
		{&verbs.RejectError{Reason: 8}, 4},
		{&net.DNSError{}, 4},
		{ErrInput, 7},
		{state.ErrName, 7},
		{verbs.ErrTimeout, 8},
		{session.ErrTimeout, 8},
		{context.DeadlineExceeded, 8},
		{verbs.ErrNoProvider, 12},
		{verbs.ErrNoDevice, 12},
		{verbs.ErrMemlock, 12},
		{ublk.ErrUnsupported, 12},
		{fmt.Errorf("%w: %w", ErrUnsupported, ublk.ErrUnsupported), 12},
		{fs.ErrPermission, 13},
		{fmt.Errorf("no block device: %w", noDevice{fs.ErrPermission, fmt.Errorf("%w: %w", nbdkernel.ErrUnsupported, fs.ErrPermission)}), 13},
		{ErrAttached, 15},
		{ErrSilent, 18},
		{&session.LoginError{Class: 3, Detail: 0}, 19},
		{session.ErrNegotiation, 19},
		{ErrNotFound, 21},
		{&session.LoginError{Class: 2, Detail: 3}, 21},
		{&session.LoginError{Class: 2, Detail: 1}, 24},
		{&session.LoginError{Class: 2, Detail: 2}, 24},
		{ErrUnsupported, 27},
		{ErrBusy, 28},
		{ublk.ErrBusy, 28},
		{&RemoteError{Text: "x", Code: 28}, 28},
		{errors.Join(verbs.ErrTimeout, session.ErrAuth), 24},
	}
	for _, tt := range tests {
		if got := ExitCode(tt.err); got != tt.code {
			t.Errorf("ExitCode(%v) = %d, want %d", tt.err, got, tt.code)
		}
		if tt.err != nil && ExitCode(fmt.Errorf("portal 10.0.0.1:3260: %w", tt.err)) != tt.code {
			t.Errorf("wrapping %v changes its code", tt.err)
		}
	}
}

func TestARemoteErrorMatchesTheSentinelOfItsCode(t *testing.T) {
	err := fmt.Errorf("x: %w", &RemoteError{Text: "in use", Code: ExitBusy})
	if !errors.Is(err, ErrBusy) || errors.Is(err, ErrAttached) {
		t.Errorf("%v matches the wrong sentinels", err)
	}
}

func TestNoWayOfPrintingShowsASecret(t *testing.T) {
	s := Spec{Target: "t", CHAP: Credentials{User: "user", Secret: "open-sesame", TargetSecret: "who-goes-there"}}
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "spec", s, "chap", s.CHAP, "secret", s.CHAP.Secret, "timeouts", s.Timeouts)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, format+"\n", s)
		fmt.Fprintf(&out, format+"\n", &s)
		fmt.Fprintf(&out, format+"\n", s.CHAP.Secret)
	}
	text := out.String()
	for _, secret := range []string{"open-sesame", "who-goes-there", fmt.Sprintf("%x", "open-sesame")} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is shown:\n%s", text)
		}
	}
	wire, err := json.Marshal(s)
	if err != nil || !bytes.Contains(wire, []byte("open-sesame")) {
		t.Errorf("JSON, which goes to the worker, lacks the secret: %s, %v", wire, err)
	}
}

func TestASpecIsChecked(t *testing.T) {
	l := newLab(t)
	good := l.spec("fine")
	if err := good.check(); err != nil {
		t.Errorf("good spec: %v", err)
	}
	for name, spoil := range map[string]func(*Spec){
		"version": func(s *Spec) { s.Version = 2 },
		"portals": func(s *Spec) { s.Portals = nil },
		"target":  func(s *Spec) { s.Target = "../../etc/passwd" },
	} {
		bad := good
		if spoil(&bad); bad.check() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestISIDsOfASpecAreStableAndApart(t *testing.T) {
	l := newLab(t)
	s := l.spec("fine")
	if s.ISID("a", 0) != l.spec("fine").ISID("a", 0) {
		t.Error("the same path and lane give two ISIDs")
	}
	if s.ISID("a", 0) == s.ISID("a", 1) || s.ISID("a", 0) == s.ISID("b", 0) || s.ISID("a", 0) == s.FreshISID() {
		t.Error("two sessions have one ISID")
	}
}

func TestTimeoutsTravelAsNumbers(t *testing.T) {
	s := Spec{Timeouts: Timeouts{NoPath: -time.Second, Login: 3 * time.Second}}
	text, _ := json.Marshal(s)
	var got Spec
	if err := json.Unmarshal(text, &got); err != nil || got.Timeouts != s.Timeouts {
		t.Errorf("got %+v, %v", got.Timeouts, err)
	}
}
