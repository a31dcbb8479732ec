package isertarget

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"strconv"
	"strings"

	"iserblk/session/pdu"
)

// chapMax is more than any CHAP value has bytes (RFC 7143 12.1.3).
const chapMax = 1024

// chap is the target's side of an authentication (RFC 7143 12.1).
type chap struct {
	algorithm int // 0 until one was chosen
	id        byte
	challenge []byte
	done      bool
}

// satisfied tells whether the initiator may leave the security stage.
func (s *chap) satisfied(o CHAP) bool { return o.Secret == "" || s.done }

// step answers the security keys of one request.
func (s *chap) step(b []byte, o CHAP, keys pdu.Text) ([]byte, pdu.LoginStatus) {
	if methods, ok := keys.Get("AuthMethod"); ok {
		return s.chooseMethod(b, o, methods)
	}
	if list, ok := keys.Get("CHAP_A"); ok {
		return s.challengeWith(b, o, list)
	}
	if _, ok := keys.Get("CHAP_R"); ok {
		return s.judge(b, o, keys)
	}
	return b, pdu.LoginSuccess
}

func (s *chap) chooseMethod(b []byte, o CHAP, methods string) ([]byte, pdu.LoginStatus) {
	want := "None"
	if o.Secret != "" {
		want = "CHAP"
	}
	for m := range strings.SplitSeq(methods, ",") {
		if m == want {
			return pdu.AppendKey(b, "AuthMethod", want), pdu.LoginSuccess
		}
	}
	return nil, pdu.LoginAuthenticationFailure
}

// challengeWith takes the first of the initiator's algorithms that it knows, as LIO does.
func (s *chap) challengeWith(b []byte, o CHAP, list string) ([]byte, pdu.LoginStatus) {
	for a := range strings.SplitSeq(list, ",") {
		n, _ := strconv.Atoi(a)
		for _, mine := range o.Algorithms {
			if n == mine && s.algorithm == 0 {
				s.algorithm = n
			}
		}
	}
	if s.algorithm == 0 {
		return nil, pdu.LoginAuthenticationFailure
	}
	random := make([]byte, 33)
	_, _ = rand.Read(random)
	s.id, s.challenge = random[0], random[1:]
	b = pdu.AppendKey(b, "CHAP_A", strconv.Itoa(s.algorithm))
	b = pdu.AppendKey(b, "CHAP_I", strconv.Itoa(int(s.id)))
	return appendBinary(b, "CHAP_C", s.challenge), pdu.LoginSuccess
}

// judge checks the initiator's answer and answers its challenge.
func (s *chap) judge(b []byte, o CHAP, keys pdu.Text) ([]byte, pdu.LoginStatus) {
	name, _ := keys.Get("CHAP_N")
	value, _ := keys.Get("CHAP_R")
	response, err := pdu.ParseBinary(value, chapMax)
	want := chapDigest(s.algorithm, s.id, o.Secret, s.challenge)
	if err != nil || want == nil || name != o.User || !hmac.Equal(response, want) {
		return nil, pdu.LoginAuthenticationFailure
	}
	s.done = true
	challenge, ok := keys.Get("CHAP_C")
	if !ok {
		return b, pdu.LoginSuccess
	}
	id, _ := keys.Get("CHAP_I")
	return s.prove(b, o, id, challenge)
}

// prove authenticates the target to the initiator.
func (s *chap) prove(b []byte, o CHAP, id, challenge string) ([]byte, pdu.LoginStatus) {
	n, err := pdu.ParseNumber(id)
	c, err2 := pdu.ParseBinary(challenge, chapMax)
	if err != nil || err2 != nil || n > 255 || o.MutualSecret == "" || string(c) == string(s.challenge) {
		return nil, pdu.LoginAuthenticationFailure
	}
	b = pdu.AppendKey(b, "CHAP_N", o.MutualUser)
	return appendBinary(b, "CHAP_R", chapDigest(s.algorithm, byte(n), o.MutualSecret, c)), pdu.LoginSuccess
}

func appendBinary(b []byte, key string, v []byte) []byte {
	return pdu.AppendKey(b, key, string(pdu.AppendHex(nil, v)))
}

// chapDigest is the response to a challenge (RFC 1994 4.1), nil for an unknown algorithm.
func chapDigest(algorithm int, id byte, secret string, challenge []byte) []byte {
	in := append(append([]byte{id}, secret...), challenge...)
	switch algorithm {
	case 5:
		d := md5.Sum(in)
		return d[:]
	case 6:
		d := sha1.Sum(in)
		return d[:]
	case 7:
		d := sha256.Sum256(in)
		return d[:]
	case 8:
		d := sha3.Sum256(in)
		return d[:]
	}
	return nil
}
