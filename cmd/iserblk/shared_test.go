package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSharedMemoryThatMeansNothingIsRefused(t *testing.T) {
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "buffers")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	for args, part := range map[string]string{
		"--shared-memory " + file + " --frontend nbd":                       "goes with --frontend ublk",
		"--shared-memory " + file + " --frontend export":                    "goes with --frontend ublk",
		"--shared-memory " + file + ",":                                     "without a name",
		"--shared-memory ,":                                                 "without a name",
		"--shared-memory=":                                                  "without a name",
		"--shared-memory " + file + "," + filepath.Dir(file) + "/./buffers": "buffers twice",
		"--shared-memory " + file + "," + file + "2":                        "buffers2 twice",
		"--shared-memory " + file + ",/none/buffers":                        "truncate -s",
	} {
		s.want(7, "", part, append([]string{"attach", url0}, strings.Fields(args)...)...)
	}
	s.want(0, "/dev/fake0\n", "", "attach", url0, "--shared-memory", file)
}
