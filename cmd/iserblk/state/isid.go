package state

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// ISID is the initiator's part of a session identifier (RFC 7143, 11.12.5).
type ISID [6]byte

// String is the ISID in hex, as targets show it.
func (id ISID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is the ISID in hex.
func (id ISID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText takes what MarshalText made.
func (id *ISID) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(id) {
		return errors.New("ISID of the wrong length")
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("ISID: %w", err)
	}
	return nil
}

// isidRandom is the type field (10b, "random") with a zero A field: it can never meet open-iscsi's 00 02 3D, which
// would end the kernel's session with the same target.
const isidRandom = 0x80

// Seed is the random number of this host that its ISIDs are derived from. Whoever has it can end our sessions with
// the same ISID, but only after logging in.
type Seed [32]byte

// ISID derives the identifier of one session: the same for the same host, target, path and lane for ever, so that a
// login after a crash reinstates the dead session and so ends its tasks.
func (s Seed) ISID(target, path string, lane int) ISID {
	h := sha256.New()
	h.Write(s[:])
	for _, part := range []string{target, path} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(lane)))
	return randomISID(h.Sum(nil))
}

// FreshISID is an ISID of this moment, for a session that must not reinstate another.
func FreshISID() ISID {
	var b [5]byte
	_, _ = rand.Read(b[:]) // it never fails
	return randomISID(b[:])
}

func randomISID(b []byte) ISID {
	id := ISID{isidRandom}
	copy(id[1:], b)
	return id
}

// MarshalText is the seed in hex.
func (s Seed) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(s[:])), nil }

// UnmarshalText takes what MarshalText made.
func (s *Seed) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(s) {
		return errors.New("seed of the wrong length")
	}
	if _, err := hex.Decode(s[:], text); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}
