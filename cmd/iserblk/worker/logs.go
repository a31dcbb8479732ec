package worker

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxLog bounds the log file; the one before it is kept. Together they stay below twice this.
const maxLog = 1 << 20

// logFile writes to standard error, which is the worker's log file, so that a panic ends up there too. It starts a
// new file when the old one is full.
type logFile struct {
	files files
	mu    sync.Mutex
	size  int64
}

func newLogFile(f files) *logFile {
	l := &logFile{files: f}
	if info, err := os.Stderr.Stat(); err == nil {
		l.size = info.Size()
	}
	return l
}

// Write appends p. When the file cannot be changed for a new one, the old one starts over.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > maxLog {
		l.rotate()
	}
	n, err := os.Stderr.Write(p)
	l.size += int64(n)
	return n, err
}

func (l *logFile) rotate() {
	l.size = 0
	_ = os.Rename(l.files.log(), l.files.oldLog())
	f, err := openLog(l.files)
	if err == nil {
		err = unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
		f.Close()
	}
	if err != nil {
		_ = os.Stderr.Truncate(0)
	}
}

func openLog(f files) (*os.File, error) {
	return os.OpenFile(f.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// logTail is the end of a dead worker's log: its last words.
func logTail(f files) string {
	text, err := os.ReadFile(f.log())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// fanout hands records to the log and, as plain lines, to whoever waits for an operation to end.
type fanout struct {
	slog.Handler
	plain slog.Handler
}

// listener is where plain lines go at the moment.
type listener struct {
	fn atomic.Pointer[func(line string)]
}

// Write passes one line on.
func (l *listener) Write(p []byte) (int, error) {
	if fn := l.fn.Load(); fn != nil {
		(*fn)(plainLine(string(bytes.TrimSpace(p))))
	}
	return len(p), nil
}

// plainLine takes the key and the quotes off the message that a line starts with.
func plainLine(line string) string {
	line = strings.TrimPrefix(line, slog.MessageKey+"=")
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return line
	}
	msg, _ := strconv.Unquote(quoted)
	return msg + line[len(quoted):]
}

// newLogger makes the worker's logger. Lines from Info on also go to the listener, at any level if verbose.
func newLogger(out io.Writer, verbose bool) (*slog.Logger, *listener) {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	l := &listener{}
	plain := slog.NewTextHandler(l, &slog.HandlerOptions{Level: level, ReplaceAttr: plainAttr})
	log := slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})
	return slog.New(fanout{log, plain}), l
}

// plainAttr leaves out what a user at a terminal knows.
func plainAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// Handle writes to both; only the log's error counts.
func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	_ = f.plain.Handle(ctx, r)
	return f.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (f fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fanout{f.Handler.WithAttrs(attrs), f.plain.WithAttrs(attrs)}
}

// WithGroup is slog.Handler's.
func (f fanout) WithGroup(name string) slog.Handler {
	return fanout{f.Handler.WithGroup(name), f.plain.WithGroup(name)}
}
