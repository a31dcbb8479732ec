//go:build cgo && linux

package rdmacore

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"iserblk/verbs"
)

func TestMain(m *testing.M) {
	if os.Getenv("ISERBLK_SAY_LIBRARY") != "" {
		_, err := New()
		if err != nil && errors.Is(err, verbs.ErrNoProvider) {
			os.Stdout.WriteString(err.Error())
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestAMissingLibraryIsNamedAndTheProgramStillStarts(t *testing.T) {
	dir := t.TempDir() // a library that cannot be loaded comes before the real one
	if err := os.WriteFile(filepath.Join(dir, "librdmacm.so.1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ISERBLK_SAY_LIBRARY=1", "LD_LIBRARY_PATH="+dir)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "librdmacm.so.1") || !strings.Contains(string(out), "install rdma-core") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestThePackageBuildsWithoutCgo(t *testing.T) {
	if os.Getenv("ISERBLK_LAB") != "" {
		return // the lab runs what was built
	}
	cmd := exec.Command("go", "vet", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWhatNoDeviceCanDoIsRefused(t *testing.T) {
	arena, err := verbs.NewArena(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	good := verbs.DialAttr{Dst: netip.MustParseAddrPort("127.0.0.1:3260"), SendDepth: 1, RecvDepth: 1, Arena: arena}
	for name, change := range map[string]func(*verbs.DialAttr){
		"at most 56":       func(a *verbs.DialAttr) { a.PrivateData = make([]byte, 57) },
		"for ever":         func(a *verbs.DialAttr) { a.RetryCount = 7 },
		"RNR":              func(a *verbs.DialAttr) { a.RNRRetry = 8 },
		"send depth 0":     func(a *verbs.DialAttr) { a.SendDepth = 0 },
		"2 first receives": func(a *verbs.DialAttr) { a.Recvs = make([]verbs.RecvWR, 2) },
		"no arena":         func(a *verbs.DialAttr) { a.Arena = nil },
	} {
		a := good
		change(&a)
		if _, err := (&Provider{}).Dial(context.Background(), a); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAddressSurvivesTheWayThroughC(t *testing.T) {
	for _, s := range []string{"10.0.0.1:3260", "[fd00::7]:1", "[fe80::1%1]:65535"} {
		want := netip.MustParseAddrPort(s)
		a := cAddr(want)
		if got := goAddr(&a); got != want {
			t.Errorf("%v came back as %v", want, got)
		}
	}
	none := cAddr(netip.AddrPort{})
	if none.family != 0 {
		t.Error("no address became one")
	}
}

func TestResponderResourcesFitTheirByte(t *testing.T) {
	for limit, want := range map[uint32]uint8{16: 16, 128: 128, 200: 128, 255: 128, 256: 0, 272: 16, 512 + 128: 128} {
		if got := responderResources(limit); got != want {
			t.Errorf("limit %d gives %d, want %d", limit, got, want)
		}
	}
}
