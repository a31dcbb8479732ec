package chap

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"iserblk/session/pdu"
)

var (
	ourSecret   = NewSecret([]byte("initiator-secret"))
	theirSecret = NewSecret([]byte("target-secret-16"))
	us          = Credentials{"iqn.2026-01.test:host", ourSecret}
	them        = Credentials{"iqn.2026-01.test:disk", theirSecret}
	challenge16 = []byte("0123456789abcdef")
)

func newInitiator(t testing.TB, c Config) *Initiator {
	t.Helper()
	if c.Own.empty() {
		c.Own = us
	}
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// exchange runs one step and parses what the initiator sends.
func exchange(t testing.TB, i *Initiator, in pdu.Text) pdu.Text {
	t.Helper()
	out, err := i.Step(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	text, err := pdu.ParseText(out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func value(t testing.TB, text pdu.Text, key string) string {
	t.Helper()
	v, ok := text.Get(key)
	if !ok {
		t.Fatalf("%s is missing from %v", key, text)
	}
	return v
}

func binaryOf(t testing.TB, text pdu.Text, key string) []byte {
	t.Helper()
	b, err := pdu.ParseBinary(value(t, text, key), MaxChallengeLen)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexText(b []byte) string { return string(pdu.AppendHex(nil, b)) }

func challengeText(a Algorithm) pdu.Text {
	return pdu.Text{
		{Key: KeyAlgorithm, Value: strconv.Itoa(int(a))},
		{Key: KeyIdentifier, Value: "27"},
		{Key: KeyChallenge, Value: hexText(challenge16)},
	}
}

var accepted = pdu.Text{{Key: "TargetPortalGroupTag", Value: "1"}, {Key: KeyAuthMethod, Value: "CHAP"}}

// proof is what an honest target answers to our challenge.
func proof(t testing.TB, a Algorithm, c Credentials, sent pdu.Text) pdu.Text {
	t.Helper()
	id, err := strconv.ParseUint(value(t, sent, KeyIdentifier), 10, 8)
	if err != nil {
		t.Fatal(err)
	}
	response, err := Response(a, uint8(id), c.Secret, binaryOf(t, sent, KeyChallenge))
	if err != nil {
		t.Fatal(err)
	}
	return pdu.Text{{Key: KeyName, Value: c.Name}, {Key: KeyResponse, Value: hexText(response)}}
}

func TestOneWayLoginAnswersTheTargetsChallenge(t *testing.T) {
	for _, a := range DefaultAlgorithms() {
		t.Run(a.String(), func(t *testing.T) {
			i := newInitiator(t, Config{})
			if got := string(i.Start(nil)); got != "AuthMethod=CHAP\x00" {
				t.Errorf("start is %q", got)
			}
			if diff := cmp.Diff(pdu.Text{{Key: KeyAlgorithm, Value: "8,7,6,5"}}, exchange(t, i, accepted)); diff != "" {
				t.Errorf("offer (-want +got):\n%s", diff)
			}
			if i.Done() || i.CanTransit() || i.Mutual() {
				t.Error("the exchange ended before the response")
			}
			sent := exchange(t, i, challengeText(a))
			if len(sent) != 2 || value(t, sent, KeyName) != us.Name ||
				!Verify(a, 27, ourSecret, challenge16, binaryOf(t, sent, KeyResponse)) {
				t.Errorf("response is %v", sent)
			}
			if !i.Done() || !i.CanTransit() || i.Algorithm() != a {
				t.Errorf("done %v, can transit %v, algorithm %v", i.Done(), i.CanTransit(), i.Algorithm())
			}
		})
	}
}

func TestMutualLoginChecksTheTargetToo(t *testing.T) {
	for _, a := range DefaultAlgorithms() {
		t.Run(a.String(), func(t *testing.T) {
			i := newInitiator(t, Config{Target: them, Algorithms: []Algorithm{a}})
			exchange(t, i, accepted)
			sent := exchange(t, i, challengeText(a))
			if !Verify(a, 27, ourSecret, challenge16, binaryOf(t, sent, KeyResponse)) {
				t.Error("our response is wrong")
			}
			if i.Done() || !i.CanTransit() {
				t.Errorf("done %v, can transit %v before the target's proof", i.Done(), i.CanTransit())
			}
			if rest := exchange(t, i, proof(t, a, them, sent)); len(rest) != 0 || !i.Done() || !i.CanTransit() {
				t.Errorf("sent %v, done %v, can transit %v", rest, i.Done(), i.CanTransit())
			}
		})
	}
}

func TestChallengesAreLongFreshAndOfAnotherIdentifier(t *testing.T) {
	seen := map[string]bool{}
	for range 16 {
		i := newInitiator(t, Config{Target: them})
		exchange(t, i, accepted)
		sent := exchange(t, i, challengeText(SHA256))
		c := binaryOf(t, sent, KeyChallenge)
		if len(c) < MinChallengeLen || seen[string(c)] {
			t.Errorf("challenge of %d bytes, seen before: %v", len(c), seen[string(c)])
		}
		seen[string(c)] = true
	}
	sameID := append([]byte{27}, make([]byte, challengeLen)...)
	i := newInitiator(t, Config{Target: them, Rand: bytes.NewReader(sameID)})
	exchange(t, i, accepted)
	if id := value(t, exchange(t, i, challengeText(SHA256)), KeyIdentifier); id == "27" {
		t.Error("our identifier is the target's")
	}
}

func TestStepNamesWhatIsWrongWithAChallenge(t *testing.T) {
	replace := func(key, v string) pdu.Text {
		text := challengeText(SHA256)
		for n := range text {
			if text[n].Key == key {
				text[n].Value = v
			}
		}
		return text
	}
	tests := []struct {
		name  string
		in    pdu.Text
		key   string
		cause error
	}{
		{"nothing at all", nil, KeyAlgorithm, ErrMissingKey},
		{"no identifier", challengeText(SHA256)[:1], KeyIdentifier, ErrMissingKey},
		{"no challenge", challengeText(SHA256)[:2], KeyChallenge, ErrMissingKey},
		{"algorithm not offered", replace(KeyAlgorithm, "5"), KeyAlgorithm, ErrAlgorithm},
		{"algorithm rejected", replace(KeyAlgorithm, "Reject"), KeyAlgorithm, ErrAlgorithm},
		{"algorithm that is offered but for the high byte", replace(KeyAlgorithm, "263"), KeyAlgorithm, ErrAlgorithm},
		{"a list of algorithms", replace(KeyAlgorithm, "8,7"), KeyAlgorithm, ErrAlgorithm},
		{"identifier of nine bits", replace(KeyIdentifier, "256"), KeyIdentifier, ErrMalformed},
		{"identifier no number", replace(KeyIdentifier, "x"), KeyIdentifier, ErrMalformed},
		{"challenge of 15 bytes", replace(KeyChallenge, hexText(challenge16[1:])), KeyChallenge, ErrMalformed},
		{"challenge of 1025 bytes", replace(KeyChallenge, hexText(make([]byte, 1025))), KeyChallenge, ErrMalformed},
		{"challenge no binary value", replace(KeyChallenge, "plain text of some length"), KeyChallenge, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := newInitiator(t, Config{Algorithms: []Algorithm{SHA3256, SHA256}})
			exchange(t, i, accepted)
			checkFails(t, i, test.in, test.key, test.cause)
		})
	}
}

func TestTheLongestChallengeIsAnswered(t *testing.T) {
	long := make([]byte, MaxChallengeLen)
	i := newInitiator(t, Config{})
	exchange(t, i, accepted)
	in := challengeText(SHA256)
	in[2].Value = string(pdu.AppendBase64(nil, long))
	sent := exchange(t, i, in)
	if !Verify(SHA256, 27, ourSecret, long, binaryOf(t, sent, KeyResponse)) {
		t.Error("the response is wrong")
	}
}

// checkFails expects a step to fail at key for cause, to send nothing, and the
// initiator to be of no more use.
func checkFails(t *testing.T, i *Initiator, in pdu.Text, key string, cause error) {
	t.Helper()
	out, err := i.Step([]byte("before"), in)
	var e *Error
	if !errors.As(err, &e) || e.Key != key || !errors.Is(err, cause) {
		t.Fatalf("error is %v, want %v at %s", err, cause, key)
	}
	if string(out) != "before" {
		t.Errorf("sent %q", out)
	}
	if strings.Contains(err.Error(), "secret-") || strings.Contains(err.Error(), "-secret") {
		t.Errorf("error shows a secret: %v", err)
	}
	if i.Done() || i.CanTransit() {
		t.Error("the login may go on")
	}
	if _, err := i.Step(nil, in); !errors.Is(err, ErrUnexpected) {
		t.Errorf("a further step returns %v", err)
	}
}

func TestStepRefusesATargetThatWillNotDoCHAP(t *testing.T) {
	for _, v := range []string{"None", "Reject", "CHAP,None", ""} {
		i := newInitiator(t, Config{})
		checkFails(t, i, pdu.Text{{Key: KeyAuthMethod, Value: v}}, KeyAuthMethod, ErrMethod)
	}
	checkFails(t, newInitiator(t, Config{}), nil, KeyAuthMethod, ErrMissingKey)
}

func TestStepAfterTheEndIsRefused(t *testing.T) {
	i := newInitiator(t, Config{})
	exchange(t, i, accepted)
	exchange(t, i, challengeText(SHA256))
	if _, err := i.Step(nil, nil); !errors.Is(err, ErrUnexpected) || i.Done() {
		t.Errorf("error is %v, done %v", err, i.Done())
	}
}

func TestMutualLoginRefusesATargetThatProvesNothing(t *testing.T) {
	other := Credentials{them.Name, NewSecret([]byte("not-the-right-one"))}
	impostor := Credentials{"iqn.2026-01.test:other", theirSecret}
	tests := []struct {
		name  string
		in    func(t *testing.T, sent pdu.Text) pdu.Text
		key   string
		cause error
	}{
		{
			"no proof at all",
			func(*testing.T, pdu.Text) pdu.Text { return nil }, KeyName, ErrMissingKey,
		},
		{
			"a name alone",
			func(t *testing.T, sent pdu.Text) pdu.Text { return proof(t, SHA256, them, sent)[:1] },
			KeyResponse, ErrMissingKey,
		},
		{
			"another secret",
			func(t *testing.T, sent pdu.Text) pdu.Text { return proof(t, SHA256, other, sent) },
			KeyResponse, ErrNotAuthentic,
		},
		{
			"another name",
			func(t *testing.T, sent pdu.Text) pdu.Text { return proof(t, SHA256, impostor, sent) },
			KeyName, ErrNotAuthentic,
		},
		{
			"another algorithm of the same size",
			func(t *testing.T, sent pdu.Text) pdu.Text { return proof(t, SHA3256, them, sent) },
			KeyResponse, ErrNotAuthentic,
		},
		{
			"a response too short",
			func(t *testing.T, sent pdu.Text) pdu.Text { return proof(t, MD5, them, sent) },
			KeyResponse, ErrNotAuthentic,
		},
		{
			"a response too long",
			func(t *testing.T, _ pdu.Text) pdu.Text {
				return pdu.Text{{Key: KeyName, Value: them.Name}, {Key: KeyResponse, Value: hexText(make([]byte, 33))}}
			},
			KeyResponse, ErrMalformed,
		},
		{
			"our own response",
			func(t *testing.T, sent pdu.Text) pdu.Text {
				return pdu.Text{{Key: KeyName, Value: them.Name}, {Key: KeyResponse, Value: value(t, sent, KeyResponse)}}
			},
			KeyResponse, ErrReflection,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := newInitiator(t, Config{Target: them})
			exchange(t, i, accepted)
			sent := exchange(t, i, challengeText(SHA256))
			checkFails(t, i, test.in(t, sent), test.key, test.cause)
		})
	}
}

func TestAChallengeEqualToOursIsTakenForAReflection(t *testing.T) {
	ours := make([]byte, 1+challengeLen)
	if _, err := rand.Read(ours); err != nil {
		t.Fatal(err)
	}
	i := newInitiator(t, Config{Target: them, Rand: bytes.NewReader(ours)})
	exchange(t, i, accepted)
	in := challengeText(SHA256)
	in[2].Value = hexText(ours[1:])
	checkFails(t, i, in, KeyChallenge, ErrReflection)
}

func TestNoRandomnessEndsTheLogin(t *testing.T) {
	i := newInitiator(t, Config{Target: them, Rand: iotest.ErrReader(io.ErrClosedPipe)})
	exchange(t, i, accepted)
	checkFails(t, i, challengeText(SHA256), KeyChallenge, io.ErrClosedPipe)
}

func TestNewRefusesCredentialsThatCannotWork(t *testing.T) {
	tests := []struct {
		name   string
		config Config
	}{
		{"none", Config{}},
		{"no secret", Config{Own: Credentials{Name: "me"}}},
		{"no name", Config{Own: Credentials{Secret: ourSecret}}},
		{"a name that starts another key", Config{Own: Credentials{"me\x00CHAP_R=0x00", ourSecret}}},
		{"target without a secret", Config{Own: us, Target: Credentials{Name: "it"}}},
		{"one secret both ways", Config{Own: us, Target: Credentials{"it", NewSecret([]byte("initiator-secret"))}}},
		{"empty offer", Config{Own: us, Algorithms: []Algorithm{}}},
		{"unknown algorithm", Config{Own: us, Algorithms: []Algorithm{MD5, 9}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.config)
			if !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "initiator-secret") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// FuzzStep drives a whole mutual login with whatever a target may send.
func FuzzStep(f *testing.F) {
	f.Add(accepted.Append(nil), challengeText(SHA256).Append(nil), []byte(nil))
	f.Add(accepted.Append(nil), challengeText(MD5).Append(nil),
		pdu.AppendKey(pdu.AppendKey(nil, KeyName, them.Name), KeyResponse, hexText(challenge16)))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		i := newInitiator(t, Config{Target: them})
		for _, b := range [][]byte{first, second, third} {
			in, err := pdu.ParseText(b)
			if err != nil {
				return
			}
			out, err := i.Step(nil, in)
			if err != nil {
				return
			}
			if _, err := pdu.ParseText(out); err != nil {
				t.Fatalf("sent broken text: %v", err)
			}
		}
		if i.Done() {
			t.Fatal("a target without the secret was accepted")
		}
	})
}
