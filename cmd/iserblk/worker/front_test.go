package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/ublk"
	"iserblk/verbs/softroce"
)

// fakeFrontend is known by its name alone.
type fakeFrontend struct{ frontend }

func (f fakeFrontend) close() {}

func fakeFronts(ublkErr, nbdErr error) (*frontends, *[]string) {
	asked := new([]string)
	opener := func(name string, err error) func(context.Context, AttachOptions) (frontend, error) {
		return func(context.Context, AttachOptions) (frontend, error) {
			*asked = append(*asked, name)
			return fakeFrontend{}, err
		}
	}
	return &frontends{opened: map[string]frontend{}, openers: map[string]func(context.Context, AttachOptions) (frontend, error){
		FrontUblk: opener(FrontUblk, ublkErr), FrontNBD: opener(FrontNBD, nbdErr), FrontExport: opener(FrontExport, nil),
	}}, asked
}

func TestAutoIsTheFirstBlockDeviceThatThisMachineHas(t *testing.T) {
	missing := errors.New("missing")
	tests := []struct {
		name          string
		ublk, nbd     error
		front, chosen string
		asked         string
	}{
		{"ublk", nil, nil, FrontAuto, FrontUblk, "ublk"},
		{"nbd", missing, nil, FrontAuto, FrontNBD, "ublk nbd"},
		{"unsaid", missing, nil, "", FrontNBD, "ublk nbd"},
		{"nothing", missing, missing, FrontAuto, "", "ublk nbd"},
		{"export is only asked for", nil, nil, FrontExport, "", "export"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, asked := fakeFronts(tt.ublk, tt.nbd)
			_, err := f.pick(t.Context(), AttachOptions{Frontend: tt.front})
			if f.chosen != tt.chosen || strings.Join(*asked, " ") != tt.asked {
				t.Errorf("chosen %q, asked %v", f.chosen, *asked)
			}
			if failed := tt.chosen == "" && tt.front != FrontExport; failed != (err != nil) {
				t.Error(err)
			}
		})
	}
}

func TestSharedMemoryWantsUblk(t *testing.T) {
	missing := errors.New("missing")
	for _, tt := range []struct {
		front string
		ublk  error
		asked string
		want  error
	}{
		{FrontUblk, nil, "ublk", nil},
		{FrontUblk, missing, "ublk", missing},
		{FrontAuto, nil, "", ErrInput},
		{"", nil, "", ErrInput},
		{FrontNBD, nil, "", ErrInput},
		{FrontExport, nil, "", ErrInput},
	} {
		f, asked := fakeFronts(tt.ublk, nil)
		f.chosen = FrontNBD // by an attach before, without shared memory
		_, err := f.pick(t.Context(), AttachOptions{Frontend: tt.front, Shared: []SharedFile{{Path: "/dev/shm/buffers"}}})
		if !errors.Is(err, tt.want) || strings.Join(*asked, " ") != tt.asked {
			t.Errorf("%q: asked %v, %v", tt.front, *asked, err)
		}
	}
}

func TestMemoryIsSharedOnlyWhereADeviceMovesIt(t *testing.T) {
	o := AttachOptions{Shared: []SharedFile{{Path: "/dev/shm/buffers"}}}
	e := &engine{provider: softroce.New()}
	if err := e.canShare(o); !errors.Is(err, ErrInput) {
		t.Errorf("softroce: %v", err)
	}
	if err := e.canShare(AttachOptions{}); err != nil {
		t.Errorf("nothing to share: %v", err)
	}
	a := newAuto()
	e.provider, a.chosen = a, softroce.New()
	if err := e.canShare(o); !errors.Is(err, ErrInput) {
		t.Errorf("softroce, chosen by itself: %v", err)
	}
	a.chosen = &deviceProvider{}
	if err := e.canShare(o); err != nil {
		t.Errorf("a device: %v", err)
	}
}

func TestWhatAutoChoseStays(t *testing.T) {
	f, asked := fakeFronts(errors.New("missing"), nil)
	for range 3 {
		if _, err := f.pick(t.Context(), AttachOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Join(*asked, " ") != "ublk nbd" {
		t.Error(*asked)
	}
}

func TestWithoutAnyBlockDeviceTheErrorOffersTheExport(t *testing.T) {
	f, _ := fakeFronts(ublk.ErrUnsupported, errors.New("no nbd"))
	_, err := f.pick(t.Context(), AttachOptions{})
	if !errors.Is(err, ublk.ErrUnsupported) || !strings.Contains(err.Error(), "--frontend export") || ExitCode(err) != ExitNoTransport {
		t.Errorf("%v, exit code %d", err, ExitCode(err))
	}
	if _, err := f.pick(t.Context(), AttachOptions{Frontend: "scsi"}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestAnExportsSocketFitsIntoAnAddress(t *testing.T) {
	if got := exportSocket("/run/iserblk", "iqn.2026-01.x:d", 3); got != "/run/iserblk/iqn.2026-01.x:d-3.nbd" {
		t.Error(got)
	}
	long := "iqn.2026-01.x:" + strings.Repeat("d", 200)
	a, b := exportSocket("/run/iserblk", long, 3), exportSocket("/run/iserblk", long+"e", 3)
	if len(a) > maxSocketPath || a == b || !strings.HasSuffix(a, "-3.nbd") {
		t.Error(a, b)
	}
}

func TestTheSocketIsFoundInItsURI(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := "/" + rapid.String().Draw(t, "path")
		uri := exportURI(&net.UnixAddr{Name: path, Net: "unix"}, false)
		if got := socketOf(uri); got != path {
			t.Fatalf("%q is found as %q in %s", path, got, uri)
		}
		if strings.ContainsAny(uri, " \n") {
			t.Fatalf("%q is more than one word", uri)
		}
	})
	if uri := exportURI(&net.UnixAddr{Name: "/run/a b:c-0.nbd", Net: "unix"}, false); uri != "nbd+unix:///?socket=/run/a%20b:c-0.nbd" {
		t.Error(uri)
	}
	for addr, want := range map[string]string{
		"10.0.0.1:10809": "nbds://10.0.0.1:10809", "[::1]:7": "nbds://[::1]:7", "[::]:7": "nbds://localhost:7", "0.0.0.0:7": "nbds://localhost:7",
	} {
		at, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := exportURI(at, true); got != want || socketOf(got) != "" {
			t.Error(got, want)
		}
	}
}

func TestTheKernelWaitsLongerThanAnyRequestCanTake(t *testing.T) {
	if got := requestTimeout(Timeouts{NoPath: 60 * time.Second}); got != 150*time.Second {
		t.Error(got)
	}
	if got := requestTimeout(Timeouts{NoPath: 5 * time.Second, Command: 3 * time.Second}); got != 41*time.Second {
		t.Error(got)
	}
	three := plan{queues: make([]queuePlan, 3)}
	if three.sockets(Timeouts{}) != 3 || three.sockets(Timeouts{NoPath: -1}) != 1 {
		t.Error("a request that may wait for ever is on one of several sockets")
	}
	three.adopt = &Device{Queues: 2}
	if three.sockets(Timeouts{}) != 2 {
		t.Error("a device that is taken over has as many sockets as before")
	}
}

func TestCookiesAreOfThisRunDirectoryAndTarget(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if cookiePrefix(a, "x") == cookiePrefix(b, "x") || cookiePrefix(a, "x") == cookiePrefix(a, "y") {
		t.Error("two prefixes are the same")
	}
	p := cookiePrefix(a, "x")
	one, two := newCookie(p, 3), newCookie(p, 3)
	if p != cookiePrefix(a, "x") || !strings.HasPrefix(one, p+"3/") || one == two {
		t.Error(p, one, two)
	}
}

func TestAFileIsSharedOnlyIfTheWorkerSeesTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "buffers")
	if _, err := StatShared(path); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "truncate") {
		t.Errorf("no file: %v", err)
	}
	for _, size := range []int64{4096, ublk.MaxShared + 4096} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if _, err := StatShared(path); (err != nil) != (size > ublk.MaxShared) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	s, err := StatShared(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // keeps the inode from being used again
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "mounted after") {
		t.Errorf("gone: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "mounted after") {
		t.Errorf("another file: %v", err)
	}
}
