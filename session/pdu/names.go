package pdu

import "fmt"

// hexName is the String of a code without a name of its own.
func hexName(kind string, v uint8) string { return fmt.Sprintf("%s 0x%02x", kind, v) }
