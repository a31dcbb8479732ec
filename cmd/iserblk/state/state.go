// Package state keeps what outlives a process: the host's seed for ISIDs and its initiator name for good, and the
// workers' files for one boot.
package state

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dirs says where things are kept.
type Dirs struct {
	Run  string // for one boot: sockets, locks, logs, who serves what
	Keep string // for good: seed and initiator name
}

// The directories when nothing else is asked for.
const (
	DefaultRun  = "/run/iserblk"
	DefaultKeep = "/var/lib/iserblk"
)

// Default is where things are kept unless something else is asked for: the system's directories for root, and for everybody
// else those of the XDG base directory specification. getenv is os.Getenv but in tests.
func Default(euid int, getenv func(string) string) Dirs {
	d := Dirs{Run: DefaultRun, Keep: DefaultKeep}
	if euid == 0 {
		return d
	}
	if run := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		d.Run = filepath.Join(run, "iserblk")
	}
	if keep := getenv("XDG_STATE_HOME"); filepath.IsAbs(keep) {
		d.Keep = filepath.Join(keep, "iserblk")
	} else if home := getenv("HOME"); filepath.IsAbs(home) {
		d.Keep = filepath.Join(home, ".local/state/iserblk")
	}
	return d
}

// Ensure makes both directories, for the owner's eyes only, and their paths absolute.
func (d Dirs) Ensure() (Dirs, error) {
	for _, dir := range []*string{&d.Run, &d.Keep} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return d, fmt.Errorf("state directory %s: %w", *dir, err)
		}
		*dir = abs
		if err := os.MkdirAll(abs, 0o700); err != nil {
			return d, fmt.Errorf("state directory: %w; choose others with --run-dir and --state-dir", err)
		}
		if err := checkPrivate(abs); err != nil {
			return d, err
		}
	}
	return d, nil
}

// checkPrivate refuses a directory in which others could put files in the place of ours.
func checkPrivate(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	switch {
	case st.Mode&0o022 != 0:
		return fmt.Errorf("state directory %s: others may write to it; chmod go-w %s, or choose another", dir, dir)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("state directory %s: it belongs to user %d; choose another", dir, st.Uid)
	}
	return nil
}

// Seed is this host's seed, made at its first use. It must stay: without it a restart cannot end the sessions that
// a crash left at the targets.
func (d Dirs) Seed() (Seed, error) {
	var fresh, s Seed
	_, _ = rand.Read(fresh[:]) // it never fails
	text, err := keepOnce(filepath.Join(d.Keep, "seed"), hex.AppendEncode(nil, fresh[:]))
	if err != nil {
		return s, fmt.Errorf("seed for ISIDs: %w", err)
	}
	if err := s.UnmarshalText(bytes.TrimSpace(text)); err != nil {
		return s, fmt.Errorf("seed for ISIDs in %s: %w; remove the file to have a new one", d.Keep, err)
	}
	return s, nil
}

// iscsiName is where open-iscsi keeps the initiator name of a host.
const iscsiName = "etc/iscsi/initiatorname.iscsi"

// InitiatorName is the host's iSCSI name: that of open-iscsi below root if there is one that this user may read, else one
// that is made once and kept.
func (d Dirs) InitiatorName(root string) (string, error) {
	file := filepath.Join(root, iscsiName)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // the host's name is root's business
		file = filepath.Join(d.Keep, "initiatorname.iscsi")
		text, err = keepOnce(file, []byte("InitiatorName="+newInitiatorName()+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("initiator name: %w; or give one with --initiator-name", err)
	}
	name := parseInitiatorName(string(text))
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("initiator name in %s: %w; or give one with --initiator-name", file, err)
	}
	return name, nil
}

// newInitiatorName makes a name that no other host has. "local" belongs to nobody, the random part makes it unique.
func newInitiatorName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "iqn.2026-11.local.iserblk:" + hex.EncodeToString(b[:])
}

// parseInitiatorName takes the last InitiatorName= line, as iscsid does.
func parseInitiatorName(text string) string {
	name := ""
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "InitiatorName="); ok {
			name = strings.TrimSpace(v)
		}
	}
	return name
}

// keepOnce returns what the file holds, writing fresh to it if it is not there yet. When two processes race for it,
// both get the winner's.
func keepOnce(file string, fresh []byte) ([]byte, error) {
	text, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	tmp, err := writeTemp(file, fresh)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, file); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// WriteFile replaces the file's content at once and on stable storage, readable to the owner alone.
func WriteFile(file string, content []byte) error {
	tmp, err := writeTemp(file, content)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(file))
}

// writeTemp writes content to stable storage beside file. os.CreateTemp gives it mode 0600.
func writeTemp(file string, content []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(content); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
