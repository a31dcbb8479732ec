// Fsx exercises one file of a filesystem at random and checks every byte it reads against a copy in memory: reads,
// writes, mapped writes, truncations, holes, syncs and cold caches. It exits 1 with the first difference, and with it
// the steps that led there.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
)

func main() {
	size := flag.Int("size", 1<<20, "largest size of the file, in bytes")
	ops := flag.Int("ops", 1000, "how many operations")
	seed := flag.Uint64("seed", rand.Uint64(), "of the random numbers; the same seed does the same again")
	direct := flag.Bool("direct", false, "bypass the page cache")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: fsx [OPTION...] FILE")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *size, *ops, *seed, *direct); err != nil {
		fmt.Fprintf(os.Stderr, "fsx: %v (seed %d)\n", err, *seed)
		os.Exit(1)
	}
}

func run(path string, size, ops int, seed uint64, direct bool) error {
	f, err := open(path, size, seed, direct)
	if err != nil {
		return err
	}
	defer f.Close()
	for range ops {
		if err := f.step(); err != nil {
			return fmt.Errorf("%w\nlast steps:\n%s", err, f.history())
		}
	}
	return f.checkAll()
}
