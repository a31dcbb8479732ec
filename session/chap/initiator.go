package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"slices"
	"strconv"

	"iserblk/session/pdu"
)

// Text keys of the exchange (RFC 7143 12.1, 12.1.3).
const (
	KeyAuthMethod = "AuthMethod"
	KeyAlgorithm  = "CHAP_A"
	KeyIdentifier = "CHAP_I"
	KeyChallenge  = "CHAP_C"
	KeyName       = "CHAP_N"
	KeyResponse   = "CHAP_R"
	methodCHAP    = "CHAP"
)

// Bounds of a challenge in bytes: the upper one is RFC 7143's, the lower one
// ours, since a short challenge can be answered from a recording. Our own
// challenges have challengeLen bytes.
const (
	MinChallengeLen = 16
	MaxChallengeLen = 1024
	challengeLen    = 32
)

// Credentials are a name and the secret that proves it.
type Credentials struct {
	Name   string
	Secret Secret
}

func (c Credentials) empty() bool { return c.Name == "" && c.Secret.Empty() }

// Config is what an Initiator is made from.
type Config struct {
	Own Credentials // who we are
	// Target, if set, is who the target must prove to be (mutual CHAP).
	Target     Credentials
	Algorithms []Algorithm // in order of preference; nil: DefaultAlgorithms
	Rand       io.Reader   // of challenges; nil: crypto/rand
}

// Initiator authenticates one login. It is not reusable: a new login takes a
// new one. It is not safe for concurrent use.
type Initiator struct {
	own, target Credentials
	algorithms  []Algorithm
	rand        io.Reader
	next        step
	challenge   []byte // that we sent
	id          uint8  // that we sent
	response    []byte // that we sent
	algorithm   Algorithm
}

// step is what the next call of Step does.
type step uint8

const (
	stepMethod    step = iota // expects AuthMethod, sends CHAP_A
	stepChallenge             // expects CHAP_A, CHAP_I, CHAP_C, sends CHAP_N, CHAP_R
	stepVerify                // expects CHAP_N, CHAP_R of the target
	stepDone
	stepFailed
)

// New returns an Initiator, or an error that wraps ErrConfig.
func New(c Config) (*Initiator, error) {
	if c.Algorithms == nil {
		c.Algorithms = DefaultAlgorithms()
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Initiator{
		own: c.Own, target: c.Target, rand: c.Rand,
		algorithms: slices.Clone(c.Algorithms),
	}, nil
}

func (c Config) check() error {
	if err := checkCredentials("initiator", c.Own); err != nil {
		return err
	}
	if len(c.Algorithms) == 0 || slices.ContainsFunc(c.Algorithms, unsupported) {
		return fail(KeyAlgorithm, ErrConfig, "offer "+formatAlgorithms(c.Algorithms)+" is empty or has an unknown algorithm")
	}
	if c.Target.empty() {
		return nil
	}
	if err := checkCredentials("target", c.Target); err != nil {
		return err
	}
	if c.Own.Secret.Equal(c.Target.Secret) {
		// RFC 7143 9.2.1: with one secret both ways, our own answers would do.
		return fail(KeyResponse, ErrConfig, "initiator and target must have different secrets")
	}
	return nil
}

func unsupported(a Algorithm) bool { return !a.Supported() }

func checkCredentials(whose string, c Credentials) error {
	if c.Name == "" || c.Secret.Empty() {
		return fail(KeyName, ErrConfig, whose+" needs both a name and a secret")
	}
	if pdu.CheckPair(KeyName, c.Name) != nil {
		return fail(KeyName, ErrConfig, whose+" name cannot be sent as text")
	}
	return nil
}

// Start appends the key that opens the exchange, AuthMethod=CHAP, to the text
// of the first login request.
func (i *Initiator) Start(dst []byte) []byte {
	return pdu.AppendKey(dst, KeyAuthMethod, methodCHAP)
}

// Step takes the keys of a login response and appends those of the next
// request to dst. Keys that are not CHAP's are ignored. After an error, an
// *Error, the login must be broken off; dst is then returned as it was.
func (i *Initiator) Step(dst []byte, in pdu.Text) ([]byte, error) {
	out, err := i.step(dst, in)
	if err != nil {
		i.next = stepFailed
		return dst, err
	}
	i.next = i.following()
	return out, nil
}

func (i *Initiator) step(dst []byte, in pdu.Text) ([]byte, error) {
	switch i.next {
	case stepMethod:
		return i.offer(dst, in)
	case stepChallenge:
		return i.answer(dst, in)
	case stepVerify:
		return dst, i.verify(in)
	}
	return dst, fail(KeyAuthMethod, ErrUnexpected, "")
}

func (i *Initiator) following() step {
	if i.next == stepChallenge && !i.Mutual() {
		return stepDone
	}
	return i.next + 1
}

// Mutual reports that the target has to authenticate itself too.
func (i *Initiator) Mutual() bool { return !i.target.empty() }

// CanTransit reports that nothing is left for us to send, so that the request
// with the text of the last Step may set the T bit.
func (i *Initiator) CanTransit() bool { return i.next == stepVerify || i.next == stepDone }

// Done reports that the exchange is complete: we answered, and a mutual
// target proved itself. A login must not leave the security stage before it.
func (i *Initiator) Done() bool { return i.next == stepDone }

// Algorithm returns the algorithm the target chose, 0 before it did.
func (i *Initiator) Algorithm() Algorithm { return i.algorithm }

// Format writes a fixed text whatever the verb, as an Initiator
// holds secrets.
func (Initiator) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "chap.Initiator") }

func (i *Initiator) offer(dst []byte, in pdu.Text) ([]byte, error) {
	method, err := get(in, KeyAuthMethod)
	if err != nil {
		return dst, err
	}
	if method != methodCHAP {
		return dst, fail(KeyAuthMethod, ErrMethod, "answer "+excerpt(method))
	}
	return pdu.AppendKey(dst, KeyAlgorithm, formatAlgorithms(i.algorithms)), nil
}

func (i *Initiator) answer(dst []byte, in pdu.Text) ([]byte, error) {
	algorithm, err := i.chosen(in)
	if err != nil {
		return dst, err
	}
	id, err := identifier(in)
	if err != nil {
		return dst, err
	}
	challenge, err := getChallenge(in)
	if err != nil {
		return dst, err
	}
	response, err := Response(algorithm, id, i.own.Secret, challenge)
	if err != nil {
		return dst, err
	}
	i.algorithm, i.response = algorithm, response
	dst = pdu.AppendKey(dst, KeyName, i.own.Name)
	dst = pdu.AppendKey(dst, KeyResponse, string(pdu.AppendHex(nil, response)))
	if !i.Mutual() {
		return dst, nil
	}
	return i.ask(dst, id, challenge)
}

// ask appends our own challenge. Its identifier and bytes must differ from the
// target's, or our answer to the one would answer the other.
func (i *Initiator) ask(dst []byte, theirID uint8, theirs []byte) ([]byte, error) {
	var fresh [1 + challengeLen]byte
	if _, err := io.ReadFull(i.rand, fresh[:]); err != nil {
		return dst, fail(KeyChallenge, err, "no randomness for a challenge")
	}
	i.id, i.challenge = fresh[0], fresh[1:]
	if i.id == theirID {
		i.id++
	}
	if bytes.Equal(i.challenge, theirs) {
		return dst, fail(KeyChallenge, ErrReflection, "")
	}
	dst = pdu.AppendKey(dst, KeyIdentifier, strconv.Itoa(int(i.id)))
	return pdu.AppendKey(dst, KeyChallenge, string(pdu.AppendHex(nil, i.challenge))), nil
}

func (i *Initiator) chosen(in pdu.Text) (Algorithm, error) {
	v, err := get(in, KeyAlgorithm)
	if err != nil {
		return 0, err
	}
	n, err := pdu.ParseNumber(v)
	if err != nil || n > 255 || !slices.Contains(i.algorithms, Algorithm(n)) {
		return 0, fail(KeyAlgorithm, ErrAlgorithm,
			"answer "+excerpt(v)+" to the offer "+formatAlgorithms(i.algorithms))
	}
	return Algorithm(n), nil
}

func (i *Initiator) verify(in pdu.Text) error {
	name, err := get(in, KeyName)
	if err != nil {
		return err
	}
	v, err := get(in, KeyResponse)
	if err != nil {
		return err
	}
	response, err := pdu.ParseBinary(v, i.algorithm.Size())
	if err != nil {
		return fail(KeyResponse, ErrMalformed, "")
	}
	if subtle.ConstantTimeCompare(response, i.response) == 1 {
		return fail(KeyResponse, ErrReflection, "")
	}
	// Both are compared before either verdict, so that timing tells nothing.
	sameName := subtle.ConstantTimeCompare([]byte(name), []byte(i.target.Name))
	proven := Verify(i.algorithm, i.id, i.target.Secret, i.challenge, response)
	switch {
	case !proven:
		return fail(KeyResponse, ErrNotAuthentic, "")
	case sameName != 1:
		return fail(KeyName, ErrNotAuthentic, "it calls itself "+excerpt(name))
	}
	return nil
}

func get(in pdu.Text, key string) (string, error) {
	v, ok := in.Get(key)
	if !ok {
		return "", fail(key, ErrMissingKey, "")
	}
	return v, nil
}

func identifier(in pdu.Text) (uint8, error) {
	v, err := get(in, KeyIdentifier)
	if err != nil {
		return 0, err
	}
	n, err := pdu.ParseNumber(v)
	if err != nil || n > 255 {
		return 0, fail(KeyIdentifier, ErrMalformed, excerpt(v)+" is not 0 to 255")
	}
	return uint8(n), nil
}

func getChallenge(in pdu.Text) ([]byte, error) {
	v, err := get(in, KeyChallenge)
	if err != nil {
		return nil, err
	}
	b, err := pdu.ParseBinary(v, MaxChallengeLen)
	if err != nil || len(b) < MinChallengeLen {
		return nil, fail(KeyChallenge, ErrMalformed,
			fmt.Sprintf("not a binary value of %d to %d bytes", MinChallengeLen, MaxChallengeLen))
	}
	return b, nil
}

// excerpt quotes a value from the wire, cut to a length fit for a message.
func excerpt(v string) string {
	const limit = 64
	return strconv.Quote(v[:min(len(v), limit)])
}
