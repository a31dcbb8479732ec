package chap

import "errors"

// Causes of a failed authentication, found with errors.Is.
var (
	// ErrConfig: the credentials cannot be used.
	ErrConfig = errors.New("unusable credentials")
	// ErrMethod: the target does not do CHAP.
	ErrMethod = errors.New("target refused CHAP")
	// ErrAlgorithm: the target wants an algorithm that was not offered.
	ErrAlgorithm = errors.New("no common algorithm")
	// ErrMissingKey: a key the step needs is not there.
	ErrMissingKey = errors.New("key missing")
	// ErrMalformed: the value of a key cannot be read or is out of bounds.
	ErrMalformed = errors.New("malformed value")
	// ErrReflection: the target sent back what we sent it, which proves
	// nothing and hints at an attack (RFC 7143 9.2.1).
	ErrReflection = errors.New("target reflects our own challenge or response")
	// ErrNotAuthentic: the target does not know the secret it should know.
	ErrNotAuthentic = errors.New("target failed to authenticate itself")
	// ErrUnexpected: the exchange is over, or was broken off before.
	ErrUnexpected = errors.New("step out of order")
)

// Error says at which key an authentication failed. It wraps one of the causes
// above and never holds a secret, a response or a challenge.
type Error struct {
	Key    string // such as "CHAP_R"
	Err    error  // the cause
	Detail string // more about it, or ""
}

// Error returns "chap: <key>: <cause>: <detail>".
func (e *Error) Error() string {
	text := "chap: " + e.Key + ": " + e.Err.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(key string, cause error, detail string) error {
	return &Error{Key: key, Err: cause, Detail: detail}
}
