package state

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrName marks a name that is not an iSCSI name.
var ErrName = errors.New("not an iSCSI name")

// maxName is the longest iSCSI name in bytes (RFC 7143, 4.2.7.1).
const maxName = 223

var (
	iqnForm = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9._:-]+)?$`)
	euiForm = regexp.MustCompile(`^eui\.[0-9A-Fa-f]{16}$`)
	naaForm = regexp.MustCompile(`^naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$`)
)

// CheckName says whether name is an iSCSI name of one of the three types (RFC 7143, 4.2.7). Its error, which matches
// ErrName, says what is wrong with it. Names beyond ASCII are refused.
func CheckName(name string) error {
	form, want := iqnForm, "iqn.YYYY-MM.DOMAIN[:ANYTHING], of letters, digits and . : - _"
	switch {
	case strings.HasPrefix(name, "iqn."):
	case strings.HasPrefix(name, "eui."):
		form, want = euiForm, "eui. and 16 hexadecimal digits"
	case strings.HasPrefix(name, "naa."):
		form, want = naaForm, "naa. and 16 or 32 hexadecimal digits"
	default:
		return fmt.Errorf("%w: %q does not start with iqn., eui. or naa", ErrName, name)
	}
	if len(name) > maxName {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrName, len(name), maxName)
	}
	if !form.MatchString(name) {
		return fmt.Errorf("%w: %q is not of the form %s", ErrName, name, want)
	}
	return nil
}
