package chap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const hidden = "opensesame-opensesame"

// forms are the ways a secret could leak: its text, its bytes in decimal and
// leaks reports whether s shows the secret as text, in decimal or in hex.
func leaks(s string) bool {
	for _, form := range []string{
		hidden, fmt.Sprint([]byte(hidden)), fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprintf("%#v", []byte(hidden)),
	} {
		if strings.Contains(s, strings.Trim(form, "[]")) {
			return true
		}
	}
	return false
}

func TestASecretShowsInNoFormat(t *testing.T) {
	secret := NewSecret([]byte(hidden))
	config := Config{Own: Credentials{"me", secret}}
	initiator, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := struct{ unexported Credentials }{Credentials{"me", secret}}
	for _, v := range []any{secret, &secret, config, config.Own, initiator, *initiator, wrapped, &wrapped, []Secret{secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			if text := fmt.Sprintf(verb, v); leaks(text) {
				t.Errorf("%T shows its secret in %s: %s", v, verb, text)
			}
		}
	}
}

func TestASecretShowsInNoLogOrDocument(t *testing.T) {
	secret := NewSecret([]byte(hidden))
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("login", "secret", secret, "credentials", Credentials{"me", secret})
	}
	doc, err := json.Marshal(Credentials{"me", secret})
	if err != nil {
		t.Fatal(err)
	}
	if text := log.String() + string(doc); leaks(text) || !strings.Contains(text, redacted) {
		t.Errorf("output is %s", text)
	}
	if secret.String() != redacted {
		t.Errorf("secret prints as %q", secret.String())
	}
}

func TestASecretIsACopy(t *testing.T) {
	b := []byte(hidden)
	s := NewSecret(b)
	clear(b)
	if !s.Equal(NewSecret([]byte(hidden))) {
		t.Error("the secret changed with the caller's bytes")
	}
}

func TestSecretsAreJudgedByLength(t *testing.T) {
	tests := []struct {
		name        string
		secret      Secret
		empty, weak bool
	}{
		{"zero value", Secret{}, true, true},
		{"no bytes", NewSecret(nil), true, true},
		{"11 bytes", NewSecret(make([]byte, 11)), false, true},
		{"12 bytes", NewSecret(make([]byte, 12)), false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.secret.Empty() != test.empty || test.secret.Weak() != test.weak {
				t.Errorf("empty %v, weak %v", test.secret.Empty(), test.secret.Weak())
			}
		})
	}
}
