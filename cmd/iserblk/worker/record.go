package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"iserblk/cmd/iserblk/state"
)

// Record is what a worker leaves in the run directory so that others find it, and its devices after its death.
type Record struct {
	Version    int       `json:"version"`
	Target     string    `json:"target"`
	PID        int       `json:"pid"`
	StartTicks uint64    `json:"startTicks"` // of the process, since boot: tells it from a later one with its PID
	BootID     string    `json:"bootID"`
	Started    time.Time `json:"started"`
	Initiator  string    `json:"initiator"`
	Portals    []string  `json:"portals"`
	Foreground bool      `json:"foreground,omitempty"`
	Spec       Spec      `json:"spec"` // without its secrets: who takes the devices over has to be the same initiator
	Devices    []Device  `json:"devices"`
}

const recordVersion = 2

func newRecord(spec Spec, foreground bool) Record {
	r := Record{
		Version: recordVersion, Target: spec.Target, PID: os.Getpid(), BootID: bootID(),
		Started: time.Now().UTC().Truncate(time.Second), Initiator: spec.InitiatorName, Foreground: foreground,
		Spec: spec.withoutSecrets(),
	}
	r.StartTicks, _ = startTicks(r.PID)
	for _, p := range spec.Portals {
		r.Portals = append(r.Portals, p.String())
	}
	return r
}

func (r Record) write(f files) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return state.WriteFile(f.record(), append(text, '\n'))
}

// readRecord reads a target's record. One that is torn, of another version or of another boot is as good as none.
func readRecord(f files) (Record, error) {
	var r Record
	text, err := os.ReadFile(f.record())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w", f.record(), err)
	}
	if r.Version != recordVersion || r.Target != f.target {
		return Record{}, fmt.Errorf("%s: not a record of this version and target", f.record())
	}
	if r.BootID != bootID() {
		r.Devices = nil // a reboot took them away
	}
	return r, nil
}

// targets are the targets that have files in the run directory.
func targets(run string) ([]string, error) {
	entries, err := os.ReadDir(run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock {
			var isRecord bool
			if name, isRecord = strings.CutSuffix(e.Name(), recordSuffix); !isRecord {
				continue
			}
		}
		if state.CheckName(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// startTicks is when a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
func startTicks(pid int) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(stat), ") ") // field 2 may hold spaces, and what follows may not hold ')'
	for ok {
		var more string
		if _, more, ok = strings.Cut(rest, ") "); ok {
			rest = more
		}
	}
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}
