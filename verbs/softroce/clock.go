package softroce

import "time"

var started = time.Now()

// now is the time that the protocol goes by: monotonic, from the start of the process.
func now() time.Duration { return time.Since(started) }
