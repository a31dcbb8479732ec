package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// outputVersion is the "version" of every JSON listing. It changes when a field changes its meaning or goes.
const outputVersion = 1

// printJSON writes a listing with its version first.
func (p *program) printJSON(key string, value any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	return e.Encode(listing{key, value})
}

// listing marshals as {"version": 1, KEY: VALUE}.
type listing struct {
	key   string
	value any
}

// MarshalJSON keeps the version in front.
func (l listing) MarshalJSON() ([]byte, error) {
	value, err := json.Marshal(l.value)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"version":%d,%q:%s}`, outputVersion, l.key, value), nil
}

// print writes all of a listing at once, so that "| grep -q" does not end the program half way.
func (p *program) print(text string) error {
	_, err := io.WriteString(p.stdout, text)
	return err
}

// table prints rows under a heading.
func (p *program) table(heading string, rows [][]string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(heading, " ", "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
	return p.print(b.String())
}

// size is a number of bytes as lsblk shows it.
func size(n uint64) string {
	const units = "BKMGTPE"
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + units[u:u+1]
}

// note says something that is no failure.
func (p *program) note(line string) { fmt.Fprintln(p.stderr, "iserblk: "+line) }

// progress shows what goes on during long work: on a terminal one line that changes, with --verbose every line, else
// nothing.
type progress struct {
	out     io.Writer
	verbose bool
	moving  bool // the line moves
	mu      sync.Mutex
	line    string
	done    chan struct{}
	ended   sync.WaitGroup
}

// startProgress shows line until it is told another.
func (p *program) startProgress(line string, verbose bool) *progress {
	g := &progress{out: p.stderr, verbose: verbose, moving: p.terminal && !verbose, line: line, done: make(chan struct{})}
	if g.moving {
		g.ended.Go(g.spin)
	}
	return g
}

func (g *progress) tell(line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.line = line
	if g.verbose {
		fmt.Fprintln(g.out, "iserblk: "+line)
	}
}

// end takes the line off the terminal.
func (g *progress) end() {
	close(g.done)
	g.ended.Wait()
}

func (g *progress) spin() {
	tick := time.NewTicker(120 * time.Millisecond)
	defer tick.Stop()
	defer fmt.Fprint(g.out, "\r\x1b[K")
	for i := 0; ; i++ {
		select {
		case <-g.done:
			return
		case <-tick.C:
			g.mu.Lock()
			fmt.Fprintf(g.out, "\r\x1b[K%c %s", `|/-\`[i%4], cut(g.line, 76))
			g.mu.Unlock()
		}
	}
}

// cut shortens a line to n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
