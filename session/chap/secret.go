package chap

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// MinSecretLen is the length in bytes below which a secret can be guessed from
// a recorded login (96 bits, RFC 7143 9.2.1).
const MinSecretLen = 12

const redacted = "[secret]"

// Secret is a CHAP secret. It prints as "[secret]" in every format. fmt asks
// no method of an unexported field and follows pointers for a verb it cannot
// use, so the bytes sit in a closure, which never prints as more than an
// address. The zero value is no secret.
type Secret struct{ open func() []byte }

// NewSecret returns the secret made of a copy of b.
func NewSecret(b []byte) Secret {
	c := bytes.Clone(b)
	return Secret{open: func() []byte { return c }}
}

func (s Secret) reveal() []byte {
	if s.open == nil {
		return nil
	}
	return s.open()
}

// Empty reports that there is no secret or none of its bytes.
func (s Secret) Empty() bool { return len(s.reveal()) == 0 }

// Weak reports that the secret is shorter than MinSecretLen.
func (s Secret) Weak() bool { return len(s.reveal()) < MinSecretLen }

// Equal reports in constant time whether both secrets are the same bytes.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare(s.reveal(), o.reveal()) == 1
}

// String returns "[secret]".
func (Secret) String() string { return redacted }

// Format writes "[secret]" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[secret]" to log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[secret]" to encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
