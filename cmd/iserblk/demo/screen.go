package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// screen is where the story is told. Its zero value tells nothing.
type screen struct {
	out    io.Writer
	colour bool // and lines may move

	mu   sync.Mutex
	last time.Time
	step int
}

func (s *screen) printf(format string, args ...any) {
	if s.out != nil {
		fmt.Fprintf(s.out, format, args...)
	}
}

// paint puts text between escape codes, where somebody is looking.
func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// heading begins the next step.
func (s *screen) heading(format string, args ...any) {
	s.step++
	s.printf("\n%s\n", s.paint("1", fmt.Sprintf("%d. ", s.step)+fmt.Sprintf(format, args...)))
}

// command shows what a person would type.
func (s *screen) command(words ...string) {
	s.printf("  %s\n", s.paint("2", "$ "+strings.Join(words, " ")))
}

// text shows what a command says.
func (s *screen) text(text string) {
	for line := range strings.Lines(text) {
		s.printf("    %s\n", strings.TrimRight(line, "\n"))
	}
}

// ok says that something has been shown.
func (s *screen) ok(format string, args ...any) {
	s.printf("  %s %s\n", s.paint("32", "ok"), fmt.Sprintf(format, args...))
}

// bar returns a function that draws how far something has got, at most ten times a second.
func (s *screen) bar(what string) (tick func(done, total uint64), end func()) {
	const width, often = 30, 100 * time.Millisecond
	if s.out == nil || !s.colour {
		return nil, func() {}
	}
	begin := time.Now()
	tick = func(done, total uint64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now := time.Now(); done == total || now.Sub(s.last) > often {
			s.last = now
			full := int(width * done / total)
			s.printf("\r    %-12s [%s%s] %3d%%  %4.0f MB/s ", what, strings.Repeat("=", full), strings.Repeat(" ", width-full),
				100*done/total, float64(done)/1e6/now.Sub(begin).Seconds())
		}
	}
	return tick, func() { s.printf("\r\x1b[K") }
}
