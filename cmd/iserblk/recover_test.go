package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWaitForTheNextWorkerThatCannotBeIsRefused(t *testing.T) {
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "buffers")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, part := range map[string]string{
		"--dead-timeout 5s --frontend ublk":          "for ever (-1s) or not at all",
		"--dead-timeout 5s --shared-memory " + file:  "for ever (-1s) or not at all",
		"--dead-timeout -1s --shared-memory " + file: "ends with its worker",
		"--dead-timeout -1s --frontend export":       "connect again",
		"--dead-timeout soon":                        "soon",
	} {
		s.want(7, "", part, append([]string{"attach", url0}, strings.Fields(args)...)...)
	}
	s.want(0, "/dev/fake0\n", "", "attach", url0, "--frontend", "ublk", "--dead-timeout", "-1s")
	s.want(0, "", "", "detach", "/dev/fake0")
	s.want(0, "/dev/fake0\n", "", "attach", url0, "--dead-timeout", "5s")
}
