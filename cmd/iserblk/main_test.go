package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
	"iserblk/session"
	"iserblk/verbs"
)

// shell runs commands as a user would, in directories of its own.
type shell struct {
	t         *testing.T
	run, keep string
	root      string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	dir := t.TempDir()
	s := &shell{t, filepath.Join(dir, "run"), filepath.Join(dir, "keep"), filepath.Join(dir, "root")}
	t.Cleanup(func() { s.do("detach", target, "--force") })
	return s
}

func (s *shell) do(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = s.program(&out, &errs).run(append([]string{"iserblk"}, append(args, "--run-dir", s.run, "--state-dir="+s.keep)...))
	return out.String(), errs.String(), code
}

func (s *shell) program(out, errs io.Writer) *program {
	return &program{
		stdout: out, stderr: errs, backend: fakeBackend(), root: s.root, isolate: func(state.Dirs, ...string) []string { return nil },
		lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if host == "storage" && network == "ip4" {
				return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1")}, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
	}
}

// want runs a command and checks its exit code and what it prints: exactly stdout, and a part of stderr.
func (s *shell) want(code int, stdout, stderr string, args ...string) {
	s.t.Helper()
	out, errs, got := s.do(args...)
	if got != code || out != stdout || !strings.Contains(errs, stderr) {
		s.t.Errorf("iserblk %s\n exit code %d, want %d\n stdout %q, want %q\n stderr %q, want %q in it",
			strings.Join(args, " "), got, code, out, stdout, errs, stderr)
	}
	if strings.Count(errs, "\n") > 1 && code != 0 {
		s.t.Errorf("iserblk %s: more than one line on stderr: %q", strings.Join(args, " "), errs)
	}
}

func TestAttachPrintsOnlyPaths(t *testing.T) {
	s := newShell(t)
	s.want(0, "/dev/fake0\n", "", "attach", url0)
	s.want(15, "", "already attached as /dev/fake0", "attach", url0+"/0")
	s.want(0, "/dev/fake7\n", "--queues of its first attach stay in force", "attach", url0+"/7", "--queues", "1")
	s.want(28, "", "/dev/fake7 is in use", "detach", "/dev/fake7")
	s.want(0, "", "", "detach", "--force", "/dev/fake7")
	s.want(0, "", "", "detach", "fake0")
	s.want(21, "", "not found", "detach", "/dev/fake0")
	if left, _ := os.ReadDir(s.run); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestBadInput(t *testing.T) {
	s := newShell(t)
	for args, part := range map[string]string{
		"atach " + url0:   `did you mean "attach"`,
		"attach":          "usage: iserblk attach [options] iser://",
		"attach one two":  "usage:",
		"attach 10.0.0.1": "write iser://",
		"attach iser://u:secret@10.0.0.1/" + target:   "--chap-secret-file",
		"attach iser://u%3Asecret@10.0.0.1/" + target: "--chap-secret-file",
		"attach " + url0 + " --queues 0":              "want 1 to",
		"attach " + url0 + " --queues many":           "invalid value",
		"attach " + url0 + " --queues 65":             "64 at most",
		"attach " + url0 + " --no-path-timeout never": "want a time such as 30s, 0 or forever",
		"attach " + url0 + " --frontend scsi":         "want auto, ublk",
		"attach " + url0 + " --source here":           "is no address",
		"attach " + url0 + " --initiator-name me":     "not an iSCSI name",
		"attach " + url0 + " --chap-user me":          "no secret for CHAP user me",
		"attach " + url0 + " --timeout -3s":           "not negative",
		"attach " + url0 + "/x":                       "decimal",
		"luns iser://10.0.0.1/disk":                   "iqn., eui. or naa",
		"list -o yaml":                                "want table or json",
		"list --outptu json":                          "did you mean --output?",
		"--outptu json list":                          "did you mean",
		"discover [::1":                               "] is missing",
		"discover 10.0.0.1:0":                         "port",
		"completion tcsh":                             "bash, zsh or fish",
		"worker x --nope":                             "unknown option",
	} {
		s.want(7, "", part, strings.Fields(args)...)
	}
	out, errs, _ := s.do("attach", "iser://u:hunter2@10.0.0.1/"+target)
	if strings.Contains(out+errs, "hunter2") {
		t.Errorf("the password is shown: %q", errs)
	}
}

func TestDiscoverAndLUNs(t *testing.T) {
	s := newShell(t)
	s.want(0, "10.0.0.1:3260,1 "+target+"\n", "", "discover", "storage")
	s.want(8, "", "connect to 10.0.0.1:3261: timed out", "discover", "10.0.0.1:3261")
	s.want(4, "", "portal nowhere:3260", "discover", "nowhere")
	s.want(0, "LUN  SIZE  BLOCK  VENDOR   MODEL  WWN\n0    64M   512    LIO-ORG  ram0   naa.6001405\n"+
		"1    -     -      -        -      (not a disk)\n", "", "luns", url0)
	s.want(21, "", "LUN 5: not found", "luns", url0+"/5")
	for _, args := range [][]string{{"discover", "10.0.0.1"}, {"luns", url0}} {
		out, _, code := s.do(append(args, "-o", "json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || v["version"] != 1.0 || code != 0 || len(v) != 2 {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
}

func TestListings(t *testing.T) {
	s := newShell(t)
	s.want(0, "", "", "list")
	s.want(0, "/dev/fake0\n", "", "attach", url0)
	out, _, _ := s.do("list")
	row := regexp.MustCompile(`(?m)^/dev/fake0 +64M +0 +live +10\.0\.0\.1:3260 +` + regexp.QuoteMeta(target) + ` +[0-9]+$`)
	if !strings.HasPrefix(out, "DEVICE ") || !row.MatchString(out) {
		t.Errorf("list prints\n%s", out)
	}
	out, _, _ = s.do("status", "/dev/fake0")
	for _, part := range []string{"target ", target, "/dev/fake0", "64M (67108864 bytes), blocks of 512", "10.0.0.2 rxe0", "live, in use", "bursts of 256K"} {
		if !strings.Contains(out, part) {
			t.Errorf("status lacks %q:\n%s", part, out)
		}
	}
	out, _, _ = s.do("paths", "fake0")
	if !strings.Contains(out, "10.0.0.1:3260  10.0.0.2  rxe0  live   yes   -") {
		t.Errorf("paths prints\n%s", out)
	}
	for _, verb := range []string{"list", "status", "paths"} {
		args := []string{verb, "-o=json"}
		if verb == "paths" {
			args = append(args, "/dev/fake0")
		}
		out, errs, code := s.do(args...)
		var v struct{ Version int }
		if err := json.Unmarshal([]byte(out), &v); err != nil || v.Version != 1 || code != 0 {
			t.Errorf("%v: %q %q %d %v", args, out, errs, code, err)
		}
	}
	s.want(21, "", "not found", "status", "/dev/none")
}

func TestADeadWorkerIsShownAsSuch(t *testing.T) {
	s := newShell(t)
	s.want(0, "/dev/fake0\n", "", "attach", url0)
	out, _, _ := s.do("list", "-o", "json")
	var v struct{ Devices []struct{ PID int } }
	if err := json.Unmarshal([]byte(out), &v); err != nil || len(v.Devices) != 1 {
		t.Fatalf("%q: %v", out, err)
	}
	_ = unix.Kill(v.Devices[0].PID, unix.SIGKILL)
	for range 100 {
		if out, _, _ = s.do("list"); strings.Contains(out, " dead ") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !strings.Contains(out, " dead ") {
		t.Errorf("list prints\n%s", out)
	}
	s.want(0, "", "", "detach", "/dev/fake0", "--force")
	s.want(0, "", "", "list")
}

func TestWrongSecretsAreAnAuthenticationFailure(t *testing.T) {
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(24, "", "authentication failed; check the secret", "attach", "--chap-user=me", url0, "--chap-secret-file", file)
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(0, "/dev/fake0\n", "", "attach", "iser://me@10.0.0.1/"+target, "--chap-secret-file", file)
	s.want(0, "", "", "detach", target)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	s.want(7, "", "chmod o-rwx "+file, "attach", "iser://me@10.0.0.1/"+target, "--chap-secret-file", file)
	t.Setenv(envSecret, "sesame")
	s.want(0, "/dev/fake0\n", "", "attach", "iser://me@10.0.0.1/"+target)
}

func TestForegroundPrintsPathsAndServesUntilASignal(t *testing.T) {
	s := newShell(t)
	out, in := io.Pipe()
	done := make(chan int, 1)
	go func() {
		p := s.program(in, io.Discard)
		done <- p.run([]string{"iserblk", "attach", "--foreground", url0, "--run-dir", s.run, "--state-dir", s.keep})
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "/dev/fake0\n" {
		t.Errorf("foreground prints %q, %v", line, err)
	}
	all, err := worker.List(context.Background(), state.Dirs{Run: s.run})
	if err != nil || len(all) != 1 || all[0].PID != os.Getpid() {
		t.Errorf("workers: %+v, %v", all, err)
	}
	_ = unix.Kill(os.Getpid(), unix.SIGTERM)
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.want(0, "", "", "list")
}

func TestDoctorExitsByWhatItFinds(t *testing.T) {
	s := newShell(t)
	out, errs, code := s.do("doctor") // below an empty root everything is missing
	if code != 1 || errs != "" || !strings.Contains(out, "fail  ublk driver") || !strings.Contains(out, "      fix: ") {
		t.Errorf("doctor: %d\n%s%s", code, out, errs)
	}
	out, _, code = s.do("doctor", "10.0.0.1", "-o", "json")
	var v struct {
		Version int
		Checks  []struct{ Check, State, Detail, Fix string }
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Version != 1 || len(v.Checks) < 5 || code != 1 {
		t.Errorf("doctor -o json: %d %v\n%s", code, err, out)
	}
}

func TestVersionManualAndCompletion(t *testing.T) {
	s := newShell(t)
	if out, _, code := s.do("version"); code != 0 || !strings.HasPrefix(out, "iserblk ") || !strings.Contains(out, "on Linux ") {
		t.Errorf("version: %q", out)
	}
	man, _, code := s.do("man")
	for _, part := range []string{".TH", "EXIT STATUS", "chap", "SIGNALS", "detach"} {
		if code != 0 || !strings.Contains(man, part) {
			t.Errorf("the manual lacks %q", part)
		}
	}
	for shell := range completions {
		if out, _, code := s.do("completion", shell); code != 0 || !strings.Contains(out, completeVerb) {
			t.Errorf("completion %s: %q", shell, out)
		}
	}
}

func TestTheManualListsEveryExitCode(t *testing.T) {
	for _, err := range []error{
		worker.ErrInput, worker.ErrBusy, worker.ErrAttached, worker.ErrSilent, worker.ErrNotFound, worker.ErrUnsupported,
		verbs.ErrTimeout, verbs.ErrRejected, verbs.ErrNoDevice, session.ErrAuth, session.ErrNegotiation, os.ErrPermission,
	} {
		if row := fmt.Sprintf("| %d |", worker.ExitCode(err)); !strings.Contains(manualRest, row) {
			t.Errorf("the manual lacks %q for %v", row, err)
		}
	}
}

func TestCompletionOffersWhatFits(t *testing.T) {
	s := newShell(t)
	s.want(0, "/dev/fake0\n", "", "attach", url0)
	t.Setenv("ISERBLK_RUN_DIR", s.run)
	for words, want := range map[string]string{
		"d":                   "discover detach doctor demo",
		"detach ":             "/dev/fake0",
		"list -o ":            "json table",
		"attach --chap-t":     "--chap-target-user --chap-target-secret-file",
		"attach --frontend n": "nbd",
		"--ru":                "--run-dir",
		"completion f":        "fish",
		"version ":            "",
	} {
		var out bytes.Buffer
		p := &program{stdout: &out}
		p.run(append([]string{"iserblk", completeVerb}, strings.Split(words, " ")...))
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q completes to %q, want %q", words, got, want)
		}
	}
}

func TestProgressMovesOnlyOnATerminal(t *testing.T) {
	var out bytes.Buffer
	for _, tt := range []struct {
		terminal, verbose bool
		want              string
	}{{false, false, ""}, {false, true, "iserblk: logging in\n"}} {
		out.Reset()
		g := (&program{stderr: &out, terminal: tt.terminal}).startProgress("attaching", tt.verbose)
		g.tell("logging in")
		g.end()
		if out.String() != tt.want {
			t.Errorf("%+v: %q", tt, out.String())
		}
	}
	g := (&program{stderr: &out, terminal: true}).startProgress("attaching", false)
	time.Sleep(300 * time.Millisecond)
	g.end()
	if !strings.Contains(out.String(), " attaching") || !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("on a terminal: %q", out.String())
	}
}

func TestInterruptedIsAnExitCodeOfItsOwn(t *testing.T) {
	ctx, stop := interruptible(context.Background())
	defer stop()
	_ = unix.Kill(os.Getpid(), unix.SIGINT)
	<-ctx.Done()
	err := causeOf(ctx, fmt.Errorf("log in: %w", ctx.Err()))
	if !errors.Is(err, errInterrupted) {
		t.Errorf("got %v", err)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 512: "512B", 1536: "1.5K", 64 << 20: "64M", 1 << 40: "1T", 1<<64 - 1: "16E"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}
