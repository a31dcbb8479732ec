package pdu

import "fmt"

// LoginStatus is the outcome of a login step: the class in the high byte, the
// detail in the low one (RFC 7143 11.13.5).
type LoginStatus uint16

// LoginClass is the class of a LoginStatus.
type LoginClass uint8

// Login status classes.
const (
	LoginClassSuccess        LoginClass = 0
	LoginClassRedirection    LoginClass = 1
	LoginClassInitiatorError LoginClass = 2
	LoginClassTargetError    LoginClass = 3
)

// Login statuses.
const (
	LoginSuccess               LoginStatus = 0x0000
	LoginMovedTemporarily      LoginStatus = 0x0101
	LoginMovedPermanently      LoginStatus = 0x0102
	LoginInitiatorError        LoginStatus = 0x0200
	LoginAuthenticationFailure LoginStatus = 0x0201
	LoginAuthorizationFailure  LoginStatus = 0x0202
	LoginNotFound              LoginStatus = 0x0203
	LoginTargetRemoved         LoginStatus = 0x0204
	LoginUnsupportedVersion    LoginStatus = 0x0205
	LoginTooManyConnections    LoginStatus = 0x0206
	LoginMissingParameter      LoginStatus = 0x0207
	LoginCannotInclude         LoginStatus = 0x0208
	LoginSessionTypeNotSupp    LoginStatus = 0x0209
	LoginSessionNotFound       LoginStatus = 0x020a
	LoginInvalidRequest        LoginStatus = 0x020b
	LoginTargetError           LoginStatus = 0x0300
	LoginServiceUnavailable    LoginStatus = 0x0301
	LoginOutOfResources        LoginStatus = 0x0302
)

// Class returns the status class. A class above 3 is unknown.
func (s LoginStatus) Class() LoginClass { return LoginClass(s >> 8) }

// Detail returns the status detail within the class.
func (s LoginStatus) Detail() uint8 { return uint8(s) }

// Retryable reports whether the same login may succeed later without any
// change on this side: the target was busy, out of resources or failed.
func (s LoginStatus) Retryable() bool { return s.Class() == LoginClassTargetError }

// String returns the meaning of the status.
func (s LoginStatus) String() string {
	if name := s.name(); name != "" {
		return name
	}
	return fmt.Sprintf("login status class 0x%02x detail 0x%02x", uint8(s.Class()), s.Detail())
}

func (s LoginStatus) name() string {
	switch s.Class() {
	case LoginClassSuccess, LoginClassRedirection:
		return s.successName()
	case LoginClassTargetError:
		return s.targetErrorName()
	}
	switch s {
	case LoginInitiatorError:
		return "initiator error"
	case LoginAuthenticationFailure:
		return "authentication failure"
	case LoginAuthorizationFailure:
		return "authorization failure"
	case LoginNotFound:
		return "target not found"
	case LoginTargetRemoved:
		return "target removed"
	case LoginUnsupportedVersion:
		return "unsupported version"
	case LoginTooManyConnections:
		return "too many connections"
	case LoginMissingParameter:
		return "missing parameter"
	case LoginCannotInclude:
		return "cannot include connection in session"
	case LoginSessionTypeNotSupp:
		return "session type not supported"
	case LoginSessionNotFound:
		return "session does not exist"
	case LoginInvalidRequest:
		return "invalid during login"
	}
	return ""
}

func (s LoginStatus) successName() string {
	switch s {
	case LoginSuccess:
		return "success"
	case LoginMovedTemporarily:
		return "target moved temporarily"
	case LoginMovedPermanently:
		return "target moved permanently"
	}
	return ""
}

func (s LoginStatus) targetErrorName() string {
	switch s {
	case LoginTargetError:
		return "target error"
	case LoginServiceUnavailable:
		return "service unavailable"
	case LoginOutOfResources:
		return "target out of resources"
	}
	return ""
}
