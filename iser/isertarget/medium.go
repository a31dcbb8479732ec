package isertarget

import (
	"fmt"
	"io"
	"sync"
)

// Medium holds a disk's bytes. *os.File is one.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// memory is the medium of a disk that was given none.
type memory struct {
	mu sync.RWMutex
	b  []byte
}

func newMemory(size int64) *memory { return &memory{b: make([]byte, size)} }

// ReadAt reads whole, or not at all.
func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(len(b), off); err != nil {
		return 0, err
	}
	return copy(b, m.b[off:]), nil
}

// WriteAt writes whole, or not at all.
func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(len(b), off); err != nil {
		return 0, err
	}
	return copy(m.b[off:], b), nil
}

func (m *memory) check(n int, off int64) error {
	if off < 0 || off > int64(len(m.b)) || int64(n) > int64(len(m.b))-off {
		return fmt.Errorf("isertarget: %d bytes at %d of a medium of %d: %w", n, off, len(m.b), io.ErrUnexpectedEOF)
	}
	return nil
}

// Truncate changes the size; what is new is zero.
func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := make([]byte, size)
	copy(b, m.b)
	m.b = b
	return nil
}

// Sync has nothing to do.
func (*memory) Sync() error { return nil }
