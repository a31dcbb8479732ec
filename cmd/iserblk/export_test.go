package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExportOptionsThatMeanNothingAreRefused(t *testing.T) {
	s := newShell(t)
	export := "attach " + url0 + " --frontend export --listen "
	for args, part := range map[string]string{
		"attach " + url0 + " --listen unix:/x":           "goes with --frontend export",
		"attach " + url0 + " --frontend nbd --no-tls":    "goes with --frontend export",
		"attach " + url0 + " --frontend export --no-tls": "goes with --listen tcp:",
		export + "/x":                                                "want unix:PATH or tcp:HOST:PORT",
		export + "unix:":                                             "without a path",
		export + "unix:/x --tls-cert y":                              "goes with --listen tcp:",
		export + "tcp:localhost":                                     "missing port",
		export + "tcp:localhost:10809":                               "--no-tls",
		export + "tcp:localhost:10809 --tls-cert x":                  "go together",
		export + "tcp:localhost:10809 --tls-client-ca x --no-tls":    "wants --tls-cert",
		export + "tcp:localhost:1 --tls-cert x --tls-key y --no-tls": "in the clear with --no-tls",
		export + "tcp:localhost:1 --tls-cert /none --tls-key y":      "no such file",
	} {
		s.want(7, "", part, strings.Fields(args)...)
	}
}

func TestAKeyThatEverybodyMayReadIsRefused(t *testing.T) {
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, code := s.do("attach", url0, "--frontend", "export", "--listen", "tcp:localhost:1", "--tls-cert", file, "--tls-key", file)
	if code == 0 || !strings.Contains(errs, file) {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestRecoveringNothingIsNoError(t *testing.T) {
	s := newShell(t)
	s.want(0, "", "", "recover")
	s.want(21, "", "not found", "recover", "/dev/nbd0")
	s.want(0, "/dev/fake0\n", "", "attach", url0)
	s.want(21, "", "no device of it waits for a worker", "recover", "/dev/fake0")
}
