package main

import (
	"errors"
	"time"
)

// patience is a time that may be endless, as a flag's value: negative is for ever.
type patience struct{ time.Duration }

const endless = "forever"

// Set takes a duration, "forever", or for the same any negative number.
func (p *patience) Set(text string) error {
	if text == endless || text == "-1" {
		p.Duration = -1
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a time such as 30s, 0 or forever")
	}
	p.Duration = max(d, -1)
	return nil
}

// String is what Set takes.
func (p *patience) String() string {
	if p.Duration < 0 {
		return endless
	}
	return p.Duration.String()
}
