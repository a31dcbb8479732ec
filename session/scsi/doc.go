// Package scsi holds the SCSI data formats a block initiator needs: command
// descriptor blocks, sense data, vital product data, capacity, mode pages and
// logical unit numbers (SAM-5, SPC-4, SBC-3).
//
// It does no I/O. Builders write into memory the caller owns and allocate
// nothing. Parsers check every length they follow: a device that lies gets an
// *Error, it never makes a parser panic or read past its input.
package scsi
