package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxUsers is how many users of a device an error names.
const maxUsers = 4

// Users says who uses a block device or a part of it, in words for an error: "mounted on /srv", "open by fio (pid
// 12)". It looks at what this process may see; nothing found does not prove that nobody has it open.
func Users(device string) []string { return users("/", device, everybody) }

// claims are the users that mean to keep the device: mounts, swap, and devices made of it.
func claims(device string) []string { return users("/", device, claimants) }

// A finder looks for users of one kind, with everything below root.
type finder func(root string, nodes []blockNode) []string

var (
	claimants = []finder{mountsOf, swapsOf, holdersOf}
	everybody = []finder{mountsOf, swapsOf, holdersOf, openersOf}
)

// users asks each of finders for the users of a device.
func users(root, device string, finders []finder) []string {
	nodes := blockNodes(root, filepath.Base(device))
	var found []string
	for _, find := range finders {
		for _, user := range find(root, nodes) {
			if !slices.Contains(found, user) && len(found) < maxUsers {
				found = append(found, user)
			}
		}
	}
	return found
}

// blockNode is a disk or one of its partitions.
type blockNode struct {
	name   string // "ublkb0p1"
	number string // "259:1"
	sysfs  string
}

func blockNodes(root, disk string) []blockNode {
	dir := filepath.Join(root, "sys/block", disk)
	parts, _ := filepath.Glob(filepath.Join(dir, disk+"*"))
	var nodes []blockNode
	for _, sysfs := range append([]string{dir}, parts...) {
		number, err := os.ReadFile(filepath.Join(sysfs, "dev"))
		if err == nil {
			nodes = append(nodes, blockNode{filepath.Base(sysfs), strings.TrimSpace(string(number)), sysfs})
		}
	}
	return nodes
}

// mountsOf looks through every mount namespace that has a process.
func mountsOf(root string, nodes []blockNode) []string {
	var found []string
	seen := map[string]bool{}
	for _, pid := range pids(root) {
		dir := filepath.Join(root, "proc", strconv.Itoa(pid))
		ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err == nil && seen[ns] {
			continue
		}
		seen[ns] = true
		text, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
		for _, m := range parseMounts(string(text)) {
			if m.of(nodes) {
				found = append(found, "mounted on "+m.point)
			}
		}
	}
	return found
}

func swapsOf(root string, nodes []blockNode) []string {
	text, _ := os.ReadFile(filepath.Join(root, "proc/swaps"))
	for line := range strings.Lines(string(text)) {
		for _, n := range nodes {
			if strings.HasPrefix(line, "/dev/"+n.name+" ") || strings.HasPrefix(line, "/dev/"+n.name+"\t") {
				return []string{"used as swap"}
			}
		}
	}
	return nil
}

func holdersOf(_ string, nodes []blockNode) []string {
	var found []string
	for _, n := range nodes {
		entries, _ := os.ReadDir(filepath.Join(n.sysfs, "holders"))
		for _, e := range entries {
			found = append(found, "part of "+e.Name())
		}
	}
	return found
}

func openersOf(root string, nodes []blockNode) []string {
	var found []string
	for _, pid := range pids(root) {
		if pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(root, "proc", strconv.Itoa(pid))
		if opens(filepath.Join(dir, "fd"), nodes) {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			found = append(found, fmt.Sprintf("open by %s (pid %d)", strings.TrimSpace(string(comm)), pid))
		}
	}
	return found
}

func opens(fds string, nodes []blockNode) bool {
	entries, _ := os.ReadDir(fds)
	for _, e := range entries {
		file, _ := os.Readlink(filepath.Join(fds, e.Name()))
		for _, n := range nodes {
			if file == "/dev/"+n.name {
				return true
			}
		}
	}
	return false
}

func pids(root string) []int {
	entries, _ := os.ReadDir(filepath.Join(root, "proc"))
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all
}

// mountLine is a line of proc_pid_mountinfo(5).
type mountLine struct {
	number string // of the device, "259:1"; "0:…" where the file system has none of its own
	point  string
	source string
}

// of says whether the mount is of one of the nodes. Btrfs has numbers of its own, so the source counts too.
func (m mountLine) of(nodes []blockNode) bool {
	return slices.ContainsFunc(nodes, func(n blockNode) bool {
		return m.number == n.number || m.source == "/dev/"+n.name
	})
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parseMounts(mountinfo string) []mountLine {
	var all []mountLine
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) >= 5 && len(r) >= 2 {
			all = append(all, mountLine{l[2], unescapeMount.Replace(l[4]), unescapeMount.Replace(r[1])})
		}
	}
	return all
}
