package nbd

import (
	"bytes"
	"context"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iserblk/internal/block"
)

// The clients that people use. scripts/deps installs them.

// run runs one of them and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: scripts/deps installs it", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin") // Debian's Python has libnbd, another may not
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (b *bed) uri() string { return "nbd+unix:///?socket=" + b.path }

// thin makes the second quarter of a unit a hole.
func thin(u *unit) {
	u.late = true
	u.extents = func(r *block.Request) {
		const quarter = testSize / 4
		for at, left := r.Offset, r.Length; left > 0 && len(r.Extents) < cap(r.Extents); {
			n := min(quarter-at%quarter, left)
			hole := at/quarter == 1
			r.Extents = append(r.Extents, block.Extent{Length: n, Hole: hole, Zero: hole})
			at, left = at+n, left-n
		}
	}
}

// tooled is a listening bed with random content but for its hole.
func tooled(t *testing.T, o bedOptions) *bed {
	o.listen, o.unit, o.limits = true, thin, testLimits()
	o.buffer = BufferSize(&o.limits)
	b := newBed(t, o)
	b.on(b.units[0], func() {
		r := rand.NewChaCha8([32]byte{1})
		_, _ = r.Read(b.data.bytes)
		clear(b.data.bytes[testSize/4 : testSize/2])
	})
	return b
}

func TestNbdinfoSeesTheExport(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := tooled(t, o)
		out := run(t, "nbdinfo", b.uri())
		for _, want := range []string{
			"using structured packets", "export-size: 1048576", "base:allocation", "can_fua: true", "can_multi_conn: true", "can_df: true",
			"can_fast_zero: true", "can_trim: true", "can_cache: true", "block_size_minimum: 512", "block_size_maximum: 262144", "description: a test",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %s", want, out)
			}
		}
		if out := run(t, "nbdinfo", "--list", b.uri()); !strings.Contains(out, `export="disk"`) {
			t.Errorf("listed %s", out)
		}
		fields := strings.Fields(run(t, "nbdinfo", "--map", b.uri()))
		want := strings.Fields("0 262144 0 data 262144 262144 3 hole,zero 524288 524288 0 data")
		if strings.Join(fields, " ") != strings.Join(want, " ") {
			t.Errorf("map %v", fields)
		}
	})
}

func TestNbdcopyCopiesBothWays(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := tooled(t, o)
		dir := t.TempDir()
		run(t, "nbdcopy", b.uri(), dir+"/out")
		if got, err := os.ReadFile(dir + "/out"); err != nil || !bytes.Equal(got, b.content()) {
			t.Errorf("copied out something else: %v", err)
		}
		in := make([]byte, testSize)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(in)
		clear(in[testSize/2 : testSize*3/4])
		if err := os.WriteFile(dir+"/in", in, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "nbdcopy", "--flush", dir+"/in", b.uri())
		if !bytes.Equal(in, b.content()) {
			t.Error("copied in something else")
		}
	})
}

func TestQemuReadsWritesAndCompares(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := tooled(t, o)
		out := run(t, "qemu-io", "-f", "raw", "-c", "write -f -P 171 4k 64k", "-c", "read -P 171 4k 64k", "-c", "write -z -u 8k 8k", "-c", "read -P 0 8k 8k",
			"-c", "write -z 512 512", "-c", "read -P 0 512 512", "-c", "discard 256k 64k", "-c", "read -P 0 256k 64k", "-c", "flush", b.uri())
		if strings.Contains(out, "failed") {
			t.Errorf("qemu-io: %s", out)
		}
		b.on(b.units[0], func() {
			if b.units[0].fua == 0 || b.units[0].flushes == 0 {
				t.Errorf("%d writes with FUA, %d flushes", b.units[0].fua, b.units[0].flushes)
			}
		})
		image := filepath.Join(t.TempDir(), "image")
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", b.uri(), image)
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", b.uri(), image)
		run(t, "qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "16", "-s", "4096", b.uri())
	})
}

func TestNbdshEveryCommandAndError(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := tooled(t, o)
		run(t, "nbdsh", "--base-allocation", "-u", b.uri(), "-c", `
import errno
h.set_strict_mode(0)
data = bytes(range(256)) * 16
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == data
got = []
h.pread_structured(4096, 8192, lambda buf, off, status, err: got.append((bytes(buf), off)), nbd.CMD_FLAG_DF)
assert got == [(data, 8192)], got
h.zero(512, 8192, nbd.CMD_FLAG_NO_HOLE)
h.zero(512, 8704, nbd.CMD_FLAG_FAST_ZERO)
h.trim(512, 9216, nbd.CMD_FLAG_FUA)
assert h.pread(1536, 8192) == bytearray(1536)
assert h.pread(512, 9728) == data[:512]
h.cache(65536, 0)
h.flush()
runs = []
h.block_status(262144, 131072, lambda c, off, e, err: runs.extend(e))
assert runs == [131072, 0, 131072, 3], runs
def fails(want, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == want, (want, e)
        return
    raise AssertionError("no error")
end = h.get_size()
fails(errno.EINVAL, h.pread, 512, end)
fails(errno.EINVAL, h.pread, 100, 0)
fails(errno.EINVAL, h.pread, 512, 1)
fails(errno.EOVERFLOW, h.pread, 524288, 0)
fails(errno.ENOSPC, h.pwrite, bytes(512), end)
fails(errno.EINVAL, h.pwrite, bytes(524288), 0)
h.pwrite(bytes(262144), 0)
assert h.pread(262144, 0) == bytearray(262144)
fails(errno.ENOSPC, h.zero, 512, end)
fails(errno.ENOTSUP, h.zero, 512, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EINVAL, h.trim, 512, end)
fails(errno.EINVAL, h.cache, 512, end)
fails(errno.EINVAL, h.block_status, 512, end, lambda *a: 0)
h.shutdown()
`)
	})
}

func TestLibnbdOverTLS(t *testing.T) {
	b, a := secured(t)
	a.issue("client", x509.ExtKeyUsageClientAuth)
	_, port, err := net.SplitHostPort(b.path)
	if err != nil {
		t.Fatal(err)
	}
	uri := "nbds://localhost:" + port + "/disk?tls-certificates=" + a.dir
	if out := run(t, "nbdinfo", uri); !strings.Contains(out, "newstyle-fixed with TLS") {
		t.Error(out)
	}
	out := filepath.Join(t.TempDir(), "out")
	run(t, "nbdcopy", uri, out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, b.content()) {
		t.Errorf("copied out something else: %v", err)
	}
}
