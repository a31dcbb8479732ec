package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/demo"
)

// Environment that makes the test binary the program itself, and a container that it runs in first.
const (
	envReal      = "ISERBLK_TEST_REAL"
	envContainer = "ISERBLK_TEST_CONTAINER"
)

// playReal is main, after it has shut itself in if that was asked for.
func playReal() {
	if os.Getenv(envContainer) != "" {
		os.Unsetenv(envContainer)
		if err := shutIn(); err != nil {
			os.Stderr.WriteString("shut in: " + err.Error() + "\n")
			os.Exit(1)
		}
	}
	main()
}

// demonstration runs the program's demo in a process of its own, in a directory that it must leave empty, and gives its
// output when it has ended, which is asked for after a while if that is not 0.
func demonstration(t *testing.T, end time.Duration, args ...string) (out, errs string, code int) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "demo") // t.TempDir is too long for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(os.Args[0], append([]string{"demo", "--size", "4"}, args...)...)
	cmd.Env = append(os.Environ(), envReal+"=1", "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if end > 0 {
		defer time.AfterFunc(end, func() { _ = cmd.Process.Signal(unix.SIGINT) }).Stop()
	}
	_ = cmd.Wait()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestTheDemonstrationShowsWhatItSays(t *testing.T) {
	out, errs, code := demonstration(t, 0, "--portals", "127.0.0.1:23260,127.0.0.2:23260")
	if code != 0 {
		t.Fatalf("%s\n%s", errs, out)
	}
	for _, part := range []string{
		"$ iserblk discover 127.0.0.1:23260", "127.0.0.2:23260,1 iqn.", "nbd+unix:///", "4 MiB in", "every byte",
		"from 127.0.0.1:23260 to 127.0.0.2:23260 without an error",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in:\n%s", part, out)
		}
	}
}

func TestAnInterruptedDemonstrationLeavesNothing(t *testing.T) {
	for i, after := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond} {
		out, errs, code := demonstration(t, after, "--stay", "--portals", fmt.Sprintf("127.0.0.1:2327%d,127.0.0.2:2327%d", i, i))
		// Where it has only been waiting it ends well, and before there was a handler it was killed.
		if code != exitInterrupted && code != 0 && code != -1 {
			t.Errorf("after %v: exit code %d: %s\n%s", after, code, errs, out)
		}
	}
}

func TestADemonstrationSaysWhatIsMissing(t *testing.T) {
	_, errs, code := demonstration(t, 0, "--portals", "192.0.2.1:3260,192.0.2.2:3260")
	if code == 0 || !strings.Contains(errs, "192.0.2.1") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// As in a container: a user without rights, in a network namespace of its own, where io_uring is forbidden. Only the
// export can serve there, on the lane that does without.
func TestAllRunsWithoutRightsDevicesAndIOUring(t *testing.T) {
	dir, err := os.MkdirTemp("", "iserblk-container-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe := copyProgram(t, dir)
	var out, errs bytes.Buffer
	cmd := exec.Command(exe, "demo", "--size", "4", "-o", "json")
	cmd.Env = append(os.Environ(), envReal+"=1", envContainer+"=1", "TMPDIR="+filepath.Join(dir, "tmp"))
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = contained()
	if err := cmd.Run(); errors.Is(err, unix.EPERM) {
		t.Skip("this machine lets nobody have a network namespace")
	} else if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var r struct {
		Version int         `json:"version"`
		Demo    demo.Report `json:"demo"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if r.Version != outputVersion || r.Demo.Reread.Bytes != 4<<20 || r.Demo.To != "127.0.0.2:3260" {
		t.Errorf("%s", out.String())
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// copyProgram puts this binary where everybody may run it.
func copyProgram(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "iserblk")
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(err, out.Close(), os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777)); err != nil {
		t.Fatal(err)
	}
	return path
}

const nobody = 65534

// contained makes a process nobody's, in a network namespace of its own whose interface it may bring up. Who is nobody
// already has to have a user namespace for that.
func contained() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}}
	if os.Geteuid() == 0 {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		return a
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
	return a
}

// shutIn brings the loopback interface up, gives the right to do so away, and forbids io_uring to this process and those
// it starts.
func shutIn() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	return forbidIOUring()
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return err
	}
	_, err = net.InterfaceByName("lo")
	return err
}

// forbidIOUring has io_uring_setup fail with EPERM, as container runtimes do (seccomp(2)).
func forbidIOUring() error {
	const setMode, sync, ioUringSetup = 1, 1, 425
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: ioUringSetup, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setMode, sync, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(ioUringSetup, 1, 0, 0); errno != unix.EPERM {
		return errors.New("io_uring is still there")
	}
	return nil
}

func TestDemoTakesSensibleOptionsOnly(t *testing.T) {
	s := newShell(t)
	for args, part := range map[string]string{
		"demo here": "usage: iserblk demo", "demo --size 0": "want 1 to", "demo --size many": "invalid value",
		"demo -o yaml": "want table or json", "demo --portals 127.0.0.1:1": "want two portals",
		"demo --portals here,there": "want ADDRESS:PORT",
	} {
		s.want(7, "", part, strings.Fields(args)...)
	}
	if _, errs, code := s.do("demo", "--provider", "nobody"); code == 0 || !strings.Contains(errs, "nobody") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
