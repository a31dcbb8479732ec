package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a disk that can be told to misbehave: spoil changes what a write does.
type memory struct {
	mu    sync.Mutex
	data  []byte
	count int
	spoil func(m *memory, b []byte, off int64) (handled bool, err error)
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(b, m.data[off:]), nil
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count++
	if m.spoil != nil {
		if handled, err := m.spoil(m, b, off); handled {
			return len(b), err
		}
	}
	return copy(m.data[off:], b), nil
}

var small = options{blocks: 8, size: 512, depth: 2, reads: 50}

func hammerFor(t *testing.T, m *memory, o options) error {
	t.Helper()
	m.data = make([]byte, o.blocks*o.size)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := run(ctx, m, o, 0)
	return err
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want an error with %q", err, text)
	}
}

func TestADiskThatWorksPasses(t *testing.T) {
	if err := hammerFor(t, &memory{}, small); err != nil {
		t.Fatal(err)
	}
}

func TestALostWriteIsFound(t *testing.T) {
	lose := func(m *memory, _ []byte, _ int64) (bool, error) { return m.count%50 == 0, nil }
	wantError(t, hammerFor(t, &memory{spoil: lose}, small), "went back to write")
}

func TestAnOldWriteThatComesLateIsFound(t *testing.T) {
	var old []byte
	ghost := func(m *memory, b []byte, off int64) (bool, error) {
		switch {
		case off == 0 && old == nil:
			old = append(old, b...)
		case off == 512 && m.count > 40:
			copy(m.data, old)
		}
		return false, nil
	}
	wantError(t, hammerFor(t, &memory{spoil: ghost}, small), "went back to write 1")
}

func TestATornWriteIsFound(t *testing.T) {
	tear := func(m *memory, b []byte, off int64) (bool, error) {
		if m.count < 60 {
			return false, nil
		}
		copy(m.data[off:], b[:100])
		return true, nil
	}
	wantError(t, hammerFor(t, &memory{spoil: tear}, small), "torn")
}

func TestAMisplacedWriteIsFound(t *testing.T) {
	misplace := func(m *memory, b []byte, off int64) (bool, error) {
		if m.count < 60 {
			return false, nil
		}
		copy(m.data[(off+512)%int64(len(m.data)):], b)
		return true, nil
	}
	wantError(t, hammerFor(t, &memory{spoil: misplace}, small), "block")
}

func TestAnErrorFailsTheRunUnlessItWasToBeExpected(t *testing.T) {
	broken := errors.New("input/output error")
	fail := func(m *memory, _ []byte, _ int64) (bool, error) {
		if m.count == 60 {
			return true, broken
		}
		return false, nil
	}
	if err := hammerFor(t, &memory{spoil: fail}, small); !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	expected := small
	expected.errors = true
	if err := hammerFor(t, &memory{spoil: fail}, expected); err != nil {
		t.Fatal(err)
	}
}

func TestABufferThatIsWrittenAfterItsRequestHasFailedIsFound(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "buffers"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	late := func(m *memory, _ []byte, _ int64) (bool, error) {
		if m.count == 60 {
			time.AfterFunc(2*time.Millisecond, func() { _, _ = f.WriteAt(make([]byte, 1<<20), 0) })
			return true, errors.New("input/output error")
		}
		return false, nil
	}
	o := small
	o.errors, o.shared, o.watch = true, f.Name(), 10*time.Millisecond
	if err := hammerFor(t, &memory{}, o); err != nil {
		t.Fatal(err)
	}
	wantError(t, hammerFor(t, &memory{spoil: late}, o), "then its buffer was written")
}
