package pdu

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// message is what the tests ask of every Fields struct.
type message interface{ Encode(dst []byte) }

// unhex reads hex digits that may be parted by blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encode fills a header that held other bytes before.
func encode(f message) []byte {
	b := make([]byte, BHSLen)
	for i := range b {
		b[i] = 0xa5
	}
	f.Encode(b)
	return b
}

func checkGolden(t *testing.T, f message, want string) {
	t.Helper()
	if diff := cmp.Diff(hex.Dump(unhex(t, want)), hex.Dump(encode(f))); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// checkRoundTrip draws fields, brings them into the form the wire can hold,
// and expects decode to return them from the encoded header.
func checkRoundTrip[F message](t *testing.T, normalize func(*F), decode func([]byte) F) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Make[F]().Draw(t, "fields")
		if normalize != nil {
			normalize(&f)
		}
		if diff := cmp.Diff(f, decode(encode(f))); diff != "" {
			t.Fatalf("fields (-want +got):\n%s", diff)
		}
	})
}

// checkFields expects Validate to name each field a case breaks.
func checkFields(t *testing.T, valid message, validate func([]byte, int) error, cases []fieldCase) {
	t.Helper()
	if err := validate(encode(valid), 0); err != nil {
		t.Fatalf("the untouched header is refused: %v", err)
	}
	common := []fieldCase{
		{"another opcode", "Opcode", 0, func(b []byte) { b[0] ^= 0x3f }},
		{"additional header segments", "TotalAHSLength", 0, func(b []byte) { b[4] = 1 }},
		{"more data announced than arrived", "DataSegmentLength", 0, func(b []byte) { b[7] = 1 }},
		{"more data arrived than padding explains", "DataSegmentLength", 4, func([]byte) {}},
	}
	for _, c := range append(common, cases...) {
		t.Run(c.name, func(t *testing.T) {
			b := encode(valid)
			c.spoil(b)
			checkError(t, validate(b, c.dataLen), c.field)
		})
	}
	t.Run("a header cut short", func(t *testing.T) {
		checkError(t, validate(encode(valid)[:BHSLen-1], 0), "length")
	})
	t.Run("three bytes of padding are accepted", func(t *testing.T) {
		if err := validate(encode(valid), MaxPad); err != nil {
			t.Error(err)
		}
	})
}

type fieldCase struct {
	name    string
	field   string
	dataLen int
	spoil   func(b []byte)
}

func checkError(t *testing.T, err error, field string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error about %s", err, field)
	}
	if e.Field != field {
		t.Errorf("error is about %s, want %s: %v", e.Field, field, err)
	}
}

func checkNoAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times, want 0", what, n)
	}
}

// maskDataLen keeps a drawn length inside its 24 bits.
func maskDataLen(n *int) { *n &= MaxDataSegmentLength }

func reservedITT(b []byte) { copy(b[16:20], "\xff\xff\xff\xff") }
