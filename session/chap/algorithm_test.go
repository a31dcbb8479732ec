package chap

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

// The expected hashes were computed by other implementations (coreutils' sums
// and openssl) over 27, "initiator-secret" and the bytes 0 to 15.
func TestResponseMatchesOtherImplementations(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	want := map[Algorithm]string{
		MD5:     "a6c056c9276cf04e5a3983f42bb83f10",
		SHA1:    "bc460dee436d72f358062aca92be08d0b3087ada",
		SHA256:  "52b407b3bd7f94ee06a07dc9762c46cfa2aaea3855d587cd9b5d03555b95d091",
		SHA3256: "fa8c7413ce8243c47be4c86d0c3600a8fc45bdf6bfd99427789cad4a8ec3890b",
	}
	for a, sum := range want {
		got, err := Response(a, 27, NewSecret([]byte("initiator-secret")), challenge)
		if err != nil || hex.EncodeToString(got) != sum {
			t.Errorf("%v gives %x, %v, want %s", a, got, err, sum)
		}
		if len(got) != a.Size() {
			t.Errorf("%v has size %d, but gave %d bytes", a, a.Size(), len(got))
		}
		if !Verify(a, 27, NewSecret([]byte("initiator-secret")), challenge, got) {
			t.Errorf("%v does not verify its own response", a)
		}
	}
}

func TestVerifyRefusesAnyOtherInput(t *testing.T) {
	secret, challenge := NewSecret([]byte("initiator-secret")), []byte("0123456789abcdef")
	good, err := Response(SHA256, 1, secret, challenge)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[0] ^= 1
	checks := map[string]bool{
		"another response":   Verify(SHA256, 1, secret, challenge, bad),
		"a response cut":     Verify(SHA256, 1, secret, challenge, good[:31]),
		"no response":        Verify(SHA256, 1, secret, challenge, nil),
		"another identifier": Verify(SHA256, 2, secret, challenge, good),
		"another challenge":  Verify(SHA256, 1, secret, challenge[1:], good),
		"another secret":     Verify(SHA256, 1, NewSecret([]byte("x")), challenge, good),
		"another algorithm":  Verify(SHA3256, 1, secret, challenge, good),
		"unknown algorithm":  Verify(9, 1, secret, challenge, nil),
	}
	for name, accepted := range checks {
		if accepted {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestUnknownAlgorithmsAreNamedButNotComputed(t *testing.T) {
	a := Algorithm(9)
	if a.Supported() || a.Size() != 0 || a.String() != "algorithm 9" {
		t.Errorf("%v: supported %v, size %d", a, a.Supported(), a.Size())
	}
	if _, err := Response(a, 0, Secret{}, nil); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("error is %v", err)
	}
}

func TestParseAlgorithmsReadsAnOffer(t *testing.T) {
	got, err := ParseAlgorithms("8,7, 6 ,5")
	if err != nil || !slices.Equal(got, DefaultAlgorithms()) {
		t.Errorf("algorithms are %v, %v", got, err)
	}
	if s := formatAlgorithms(got); s != "8,7,6,5" {
		t.Errorf("offer is %q", s)
	}
	for _, list := range []string{"", "9", "5,", "MD5", "261", "-5"} {
		if _, err := ParseAlgorithms(list); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%q: error is %v", list, err)
		}
	}
}
