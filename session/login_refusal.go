package session

import (
	"errors"
	"fmt"
	"strings"

	"iserblk/session/pdu"
)

// unproven: a target that was to prove itself has refused to begin with it. Each says that in another way: by its keys,
// by one of two statuses, by hanging up.
func (l *login) unproven(err error) bool {
	if err == nil || l.auth == nil || !l.auth.Mutual() || l.challenged {
		return false
	}
	var refused *LoginError
	if errors.As(err, &refused) {
		return refused.Status() == pdu.LoginInitiatorError || refused.Status() == pdu.LoginAuthenticationFailure
	}
	return errors.Is(err, ErrAuth)
}

// hungUp explains a connection that ended in place of an answer. LIO closes it without a word when we offer no
// authentication and it wants some, and so soon after a refusal that this is often lost on the way.
func (l *login) hungUp(stage pdu.Stage, err error) error {
	switch {
	case stage != pdu.StageSecurity:
		return err
	case l.auth == nil && !l.answered:
		return fmt.Errorf("%w: it may not have this target, or want CHAP: %w", ErrHungUp, err)
	case !l.answered:
		return fmt.Errorf("%w: it may not have this target: %w", ErrHungUp, err)
	case l.auth != nil && l.auth.CanTransit():
		return fmt.Errorf("%w: the target hung up on our name and secret: %w", ErrAuth, err)
	case l.auth != nil && l.auth.Mutual():
		return fmt.Errorf("%w: the target hung up when it was to do CHAP: %w", ErrAuth, err)
	}
	return err
}

// refusal makes an error of a status. A redirection says where to in its text.
func (l *login) refusal(s pdu.LoginStatus) error {
	refused := &LoginError{Class: uint8(s.Class()), Detail: s.Detail()}
	if s.Class() != pdu.LoginClassRedirection {
		return refused
	}
	text, err := pdu.ParseText(l.data[:pdu.BHS(l.bhs[:]).DataSegmentLength()])
	if err != nil {
		return refused
	}
	address, ok := text.Get(keyTargetAddress)
	if !ok {
		return refused
	}
	host, _, _ := strings.Cut(address, ",")
	moved := &RedirectError{Address: printable(host), Permanent: s == pdu.LoginMovedPermanently}
	return fmt.Errorf("%w: %w", refused, moved)
}

// early marks a refusal of the first request of the operational stage.
func early(err error) error {
	if refused := new(LoginError); errors.As(err, &refused) {
		refused.early = true
	}
	return err
}
