package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// unhex reads hex digits that may be parted by blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkLie(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error", err)
	}
	if e.Data == "" || e.Reason == "" {
		t.Errorf("error says too little: %v", err)
	}
}

func checkNoAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times, want 0", what, n)
	}
}

// checkCutShort feeds every prefix of valid data to a parser. None may panic,
// and those shorter than least must fail.
func checkCutShort(t *testing.T, valid []byte, least int, parse func([]byte) error) {
	t.Helper()
	if err := parse(valid); err != nil {
		t.Fatalf("the whole data is refused: %v", err)
	}
	for n := range valid {
		err := parse(valid[:n:n])
		if n < least && err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(valid))
		}
	}
}

// vpdPage returns a page with a header for body.
func vpdPage(page uint8, body ...byte) []byte {
	b := []byte{TypeDisk, page, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(len(body)))
	return append(b, body...)
}
