package main

import (
	"strings"
	"testing"
)

func TestSharedMemoryThatMeansNothingIsRefused(t *testing.T) {
	s := newShell(t)
	for args, part := range map[string]string{
		"--shared-memory /dev/shm/x --frontend nbd":    "goes with --frontend ublk",
		"--shared-memory /dev/shm/x --frontend export": "goes with --frontend ublk",
		"--shared-memory /dev/shm/x,":                  "without a name",
		"--shared-memory ,":                            "without a name",
		"--shared-memory=":                             "without a name",
		"--shared-memory /dev/shm/x,/dev/shm/../shm/x": "/dev/shm/x twice",
	} {
		s.want(7, "", part, append([]string{"attach", url0}, strings.Fields(args)...)...)
	}
	s.want(0, "/dev/fake0\n", "", "attach", url0, "--shared-memory", "/dev/shm/x,y")
}
