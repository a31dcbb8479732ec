// Command iserblk attaches the LUNs of iSER targets as local block devices.
package main

import (
	"net"
	"os"

	"iserblk/cmd/iserblk/worker"
)

func main() {
	p := &program{
		stdout: os.Stdout, stderr: os.Stderr, backend: backend(), root: "/", lookup: net.DefaultResolver.LookupNetIP,
		terminal: isTerminal(os.Stderr), isolate: worker.Isolate,
	}
	os.Exit(p.run(os.Args))
}
