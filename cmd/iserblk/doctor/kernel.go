package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Capabilities by number (linux/capability.h).
const (
	capIPCLock     = 14
	capSysAdmin    = 21
	capSysResource = 24
)

func (v *visit) path(p string) string { return filepath.Join(v.Root, p) }

func (v *visit) read(p string) string {
	text, _ := os.ReadFile(v.path(p))
	return strings.TrimSpace(string(text))
}

func (v *visit) exists(p string) bool {
	_, err := os.Stat(v.path(p))
	return err == nil
}

// capabilities are the effective ones (proc_pid_status(5), CapEff).
func (v *visit) capabilities() uint64 {
	for line := range strings.Lines(v.read("proc/self/status")) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return n
		}
	}
	return 0
}

func (v *visit) can(capability uint) bool { return v.caps&(1<<capability) != 0 }

func (v *visit) privileges() Result {
	if v.can(capSysAdmin) {
		return ok("CAP_SYS_ADMIN is there")
	}
	return fail("no CAP_SYS_ADMIN: block devices cannot be made",
		"run as root; in a container add --cap-add SYS_ADMIN; or attach --frontend export, which needs none")
}

// blockServer is about what keeps a worker from waiting for its own disk.
func (v *visit) blockServer() Result {
	switch {
	case !v.can(capSysAdmin):
		return warn("no mount namespace of its own: a worker can hang at its end if its disk is mounted where it runs",
			"add --cap-add SYS_ADMIN, or mount the disk in another mount namespace")
	case !v.can(capSysResource):
		return warn("no CAP_SYS_RESOURCE: under memory pressure a worker can wait for its own disk, and the OOM killer may take it",
			"run as root; in a container add --cap-add SYS_RESOURCE")
	}
	return ok("own mount namespace, PR_SET_IO_FLUSHER and OOM protection are possible")
}

func (v *visit) ioURing() Result {
	const fix = "sysctl kernel.io_uring_disabled=0"
	switch v.read("proc/sys/kernel/io_uring_disabled") {
	case "2":
		return v.withoutUblk(fail("io_uring is switched off on this machine", fix))
	case "1":
		if !v.can(capSysAdmin) {
			return v.withoutUblk(fail("io_uring is switched off for users without CAP_SYS_ADMIN", fix))
		}
	}
	return ok("allowed")
}

func (v *visit) loaded(module string) bool { return v.exists("sys/module/" + module) }

// available says whether the running kernel has the module, as far as its list of modules can be read.
func (v *visit) available(module string) bool {
	for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
		for _, list := range []string{"modules.dep", "modules.builtin"} {
			if strings.Contains(v.read(filepath.Join(dir, v.Kernel, list)), "/"+module+".ko") {
				return true
			}
		}
	}
	return false
}

// needModule is the result of a missing module: load it, or take another kernel.
func (v *visit) needModule(module, without string) Result {
	switch {
	case v.available(module):
		return fail("module "+module+" is not loaded", "modprobe "+module)
	case strings.Contains(v.Kernel, "-cloud-"):
		return fail("the cloud flavour of the kernel ("+v.Kernel+") has no "+module,
			"install the general flavour of the kernel and reboot")
	case !v.exists("lib/modules/"+v.Kernel) && !v.exists("usr/lib/modules/"+v.Kernel):
		return fail("module "+module+" is not loaded, and no modules of this kernel are seen here",
			"on the host: modprobe "+module)
	}
	return fail("kernel "+v.Kernel+" has no "+module, without)
}

func (v *visit) ublkDriver() Result {
	if v.loaded("ublk_drv") || v.exists("dev/ublk-control") {
		return ok("loaded")
	}
	return v.withoutUblk(v.needModule("ublk_drv", "use a kernel from 6.0 on that is built with CONFIG_BLK_DEV_UBLK"))
}

// withoutUblk takes the edge off what keeps ublk from working where there is another way to a block device.
func (v *visit) withoutUblk(r Result) Result {
	if v.hasNBD() {
		r.State, r.Detail = Warn, r.Detail+"; attach makes /dev/nbdN instead of /dev/ublkbN"
	}
	return r
}

func (v *visit) hasNBD() bool { return v.loaded("nbd") || v.available("nbd") }

// nbdDriver is about what stands in for ublk.
func (v *visit) nbdDriver() Result {
	switch {
	case v.loaded("nbd"):
		return ok("loaded")
	case v.available("nbd"):
		return ok("not loaded; attach loads it when it needs it")
	case v.loaded("ublk_drv"):
		return skip()
	}
	return warn("the kernel has no nbd to stand in for ublk", "attach --frontend export serves LUNs on a socket, without the kernel")
}

func (v *visit) ublkControl() Result {
	if !v.loaded("ublk_drv") && !v.exists("dev/ublk-control") {
		return skip()
	}
	return v.node("dev/ublk-control", "mknod /dev/ublk-control c 10 "+orUnknown(v.minor("sys/class/misc/ublk-control/dev")))
}

func (v *visit) rdmaCM() Result {
	if !v.loaded("rdma_ucm") && !v.exists("dev/infiniband/rdma_cm") {
		return v.needModule("rdma_ucm", "use a kernel that is built with CONFIG_INFINIBAND_USER_ACCESS")
	}
	return v.node("dev/infiniband/rdma_cm",
		"mkdir -p /dev/infiniband; mknod /dev/infiniband/rdma_cm c 10 "+orUnknown(v.minor("sys/class/misc/rdma_cm/dev")))
}

// node checks that a device node is there and may be opened. create makes it where udev does not.
func (v *visit) node(path, create string) Result {
	switch err := v.Open(v.path(path)); {
	case err == nil:
		return ok("/" + path + " can be opened")
	case errors.Is(err, fs.ErrNotExist):
		return fail("/"+path+" does not exist", create+"; for a container add --device /"+path)
	case errors.Is(err, fs.ErrPermission):
		return fail("/"+path+" may not be opened", "run as root; for a container add --device /"+path)
	default:
		return fail("/"+path+": "+err.Error(), "look into the kernel's log: dmesg")
	}
}

// minor is the number of a misc device as sysfs tells it.
func (v *visit) minor(file string) string {
	_, minor, _ := strings.Cut(v.read(file), ":")
	return minor
}

func orUnknown(s string) string {
	if s == "" {
		return "MINOR (see /proc/misc)"
	}
	return s
}

func (v *visit) memlock() Result {
	const enough = 1 << 30
	switch {
	case v.Memlock == NoLimit || v.can(capIPCLock):
		return ok("no limit")
	case v.can(capSysResource):
		return ok("a worker raises its own limit")
	case v.Memlock >= enough:
		return ok(strconv.FormatUint(v.Memlock>>20, 10) + " MiB")
	}
	return fail("RLIMIT_MEMLOCK is "+strconv.FormatUint(v.Memlock>>10, 10)+" KiB: buffers cannot be registered",
		"ulimit -l unlimited; in a unit LimitMEMLOCK=infinity; for a container --ulimit memlock=-1")
}
