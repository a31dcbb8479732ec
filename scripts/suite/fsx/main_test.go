package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileSystemThatWorksPasses(t *testing.T) {
	if err := run(filepath.Join(t.TempDir(), "file"), 256<<10, 500, 1, false); err != nil {
		t.Fatal(err)
	}
}

func TestOneChangedByteIsFound(t *testing.T) {
	f, err := open(filepath.Join(t.TempDir(), "file"), 64<<10, 2, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 100 {
		if err := f.step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.write(); err != nil {
		t.Fatal(err)
	}
	at := len(f.want) - 1
	if _, err := f.WriteAt([]byte{f.want[at] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.checkAll(); err == nil || !strings.Contains(err.Error(), "1 bytes are wrong") {
		t.Fatalf("the changed byte was not reported: %v", err)
	}
}
