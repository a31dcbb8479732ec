package chap

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Algorithm is the number of a hash in the PPP authentication registry, which
// CHAP_A carries.
type Algorithm uint8

// Algorithms. MD5 is the one every target has; SHA1, SHA256 and SHA3256 came
// with RFC 7143 and its registry.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// DefaultAlgorithms returns the offer made unless another is configured,
// strongest first. A target takes the first it knows. tgt takes 7 to mean
// SHA1, so it must be offered MD5 alone.
func DefaultAlgorithms() []Algorithm { return []Algorithm{SHA3256, SHA256, SHA1, MD5} }

// String returns the usual name of the hash.
func (a Algorithm) String() string {
	switch a {
	case MD5:
		return "MD5"
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA-256"
	case SHA3256:
		return "SHA3-256"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Supported reports whether Response can compute the hash.
func (a Algorithm) Supported() bool { return a.newHash() != nil }

// Size returns the length of a response in bytes, or 0 if a is not supported.
func (a Algorithm) Size() int {
	if h := a.newHash(); h != nil {
		return h.Size()
	}
	return 0
}

func (a Algorithm) newHash() hash.Hash {
	switch a {
	case MD5:
		return md5.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA3256:
		return sha3.New256()
	}
	return nil
}

// ParseAlgorithms reads a comma-separated list of numbers, as CHAP_A carries.
func ParseAlgorithms(list string) ([]Algorithm, error) {
	var out []Algorithm
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 8)
		if err != nil || !Algorithm(n).Supported() {
			return nil, fmt.Errorf("chap: %q is not one of the algorithms 5 (MD5), 6 (SHA1), 7 (SHA-256), 8 (SHA3-256): %w",
				word, ErrAlgorithm)
		}
		out = append(out, Algorithm(n))
	}
	return out, nil
}

func formatAlgorithms(list []Algorithm) string {
	words := make([]string, len(list))
	for i, a := range list {
		words[i] = strconv.Itoa(int(a))
	}
	return strings.Join(words, ",")
}

// Response returns the answer to a challenge: the hash of the identifier, the
// secret and the challenge (RFC 1994 4.1).
func Response(a Algorithm, id uint8, secret Secret, challenge []byte) ([]byte, error) {
	h := a.newHash()
	if h == nil {
		return nil, fmt.Errorf("chap: %v: %w", a, ErrAlgorithm)
	}
	h.Write([]byte{id})
	h.Write(secret.reveal())
	h.Write(challenge)
	return h.Sum(nil), nil
}

// Verify reports in constant time whether response is the answer to challenge.
func Verify(a Algorithm, id uint8, secret Secret, challenge, response []byte) bool {
	want, err := Response(a, id, secret, challenge)
	return err == nil && subtle.ConstantTimeCompare(want, response) == 1
}
