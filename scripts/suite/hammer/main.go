// Hammer overwrites a few blocks of a device again and again and checks that no acknowledged write is ever lost, torn,
// misplaced or replaced by an older one, whatever happens to the way to the device meanwhile. It ends after -time or
// with SIGTERM, looks at every block once more, prints what it did as JSON, and exits 1 if anything was wrong.
//
// Each block says which it is, whose, how often it was written, and has a checksum. A block has one writer, so after
// write N was acknowledged, or seen by a read, no read may return an older one. A write that failed may have been
// carried out or not, also later, until the next one is acknowledged.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.IntVar(&o.blocks, "blocks", 64, "how many blocks")
	flag.IntVar(&o.size, "bs", 4096, "size of a block, in bytes")
	flag.IntVar(&o.depth, "depth", 8, "how many requests at a time")
	flag.IntVar(&o.reads, "reads", 30, "percentage of reads")
	flag.Int64Var(&o.offset, "offset", 0, "where the first block lies, in bytes")
	flag.StringVar(&o.shared, "shared", "", "have the buffers in this file, and see that nobody writes there once a request has failed")
	flag.DurationVar(&o.watch, "watch", 10*time.Millisecond, "how long to wait after a failed request, with -errors")
	flag.BoolVar(&o.errors, "errors", false, "failed requests are to be expected")
	limit := flag.Duration("time", time.Minute, "how long at most")
	settle := flag.Duration("settle", time.Second, "how long to wait before the last look, for writes that come late")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: hammer [OPTION...] DEVICE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	report, err := hammer(ctx, flag.Arg(0), o, *settle)
	_ = json.NewEncoder(os.Stdout).Encode(report)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hammer:", err)
		os.Exit(1)
	}
}

// options are the choices of one run.
type options struct {
	blocks, size, depth, reads int
	offset                     int64
	errors                     bool
	shared                     string
	watch                      time.Duration
}

// report is what a run did. Longest is the longest request in milliseconds.
type report struct {
	Writes  uint64 `json:"writes"`
	Reads   uint64 `json:"reads"`
	Errors  uint64 `json:"errors"`
	Longest int64  `json:"longest"`
}

func (r *report) add(o report) {
	r.Writes += o.Writes
	r.Reads += o.Reads
	r.Errors += o.Errors
	r.Longest = max(r.Longest, o.Longest)
}

func hammer(ctx context.Context, path string, o options, settle time.Duration) (report, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return report{}, err
	}
	defer f.Close()
	return run(ctx, f, o, settle)
}
