# shellcheck shell=bash
# What the end-to-end scripts stand on. They run in a lab guest, as root, in the
# root of the repository, with the binary in bin/iserblk:
#
#   scripts/test verify flush          or      scripts/lab run -- scripts/suite/verify.sh
#
# ISERBLK_PEER=kernel puts the kernel's own initiator in iserblk's place where
# that makes sense: a judge has to find a known-good initiator good.

# shellcheck source=../lab.d/guest.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lab.d/guest.sh"

readonly PORTAL=10.0.0.1
readonly RUN=/run/iserblk
readonly NAME=iqn.2026-01.lab.iserblk:suite # our initiator name
PEER=${ISERBLK_PEER:-iserblk}
ISERBLK=${ISERBLK_BIN:-bin/iserblk} # the binary
IN=() # prefix of what runs on the initiator's host

ok() { echo "ok: $*"; }

# fail MESSAGE ends the script, with what helps to find out why.
fail() {
	echo "FAIL: $*" >&2
	tail -n 40 "$RUN"/*.log >&2 2>/dev/null || true
	dmesg | tail -n 20 >&2
	exit 1
}
trap 'fail "${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR

# expect WHAT GOT WANTED
expect() { [[ $2 == "$3" ]] || fail "$1: got '$2', not '$3'"; }

# host makes this guest an initiator host with ublk and one RoCE port that also has the
# targets; any_host does without ublk.
host() {
	[[ $PEER != iserblk ]] || modprobe -q ublk_drv || fail "this kernel has no ublk"
	any_host
}
any_host() {
	mkdir -p /etc/iscsi
	echo "InitiatorName=$NAME" >/etc/iscsi/initiatorname.iscsi
	lab_link d0 "$PORTAL"
}

# two_hosts makes a second host, the network namespace far, for the initiator; the
# targets are here. A switch joins them, so a cable can be pulled (unplug, plug) as
# hands do it: both hosts keep their interfaces, one loses its carrier. From here on
# attach works in far.
two_hosts() {
	[[ $PEER == iserblk ]] || fail "the kernel's initiator lives in one network namespace only"
	mkdir -p /etc/iscsi
	echo "InitiatorName=$NAME" >/etc/iscsi/initiatorname.iscsi
	modprobe -a ublk_drv bridge
	ip netns add far
	ip netns add switch
	ip -n far link set lo up
	ip -n switch link add br0 mtu 4200 type bridge
	ip link add h0 mtu 4200 type veth peer name s0 mtu 4200 netns switch
	ip link add h1 mtu 4200 netns far type veth peer name s1 mtu 4200 netns switch
	local port
	for port in s0 s1; do ip -n switch link set $port up master br0; done
	ip -n switch link set br0 up
	ip address add "$PORTAL/24" dev h0
	ip -n far address add 10.0.0.2/24 dev h1
	ip link set h0 up
	ip -n far link set h1 up
	lab_rxe rxe_h0 h0
	ip netns exec far rdma link add rxe_h1 type rxe netdev h1
	lab_until 10 neighbours
	IN=(ip netns exec far)
}
neighbours() {
	ip netns exec far bash -c "echo >/dev/udp/$PORTAL/9"
	ip -n far neighbour show "$PORTAL" | grep -q REACHABLE
}
unplug() { ip -n switch link set s1 down; }
plug() { ip -n switch link set s1 up; }

# tgt starts tgtd. Its buffers are 1 GiB; without huge pages for them it gets along
# with fewer, and crashes at its second connection.
tgt() {
	sysctl -q vm.nr_hugepages=520
	lab_tgt_start "$@"
}

# ---- devices ------------------------------------------------------------------

# attach IQN[/LUN] [OPTION...] prints the devices, one a line.
attach() {
	if [[ $PEER == kernel ]]; then
		lab_ib_iser_login "${1%%/*}" "$PORTAL"
		return
	fi
	"${IN[@]}" "$ISERBLK" attach "${@:2}" "iser://$PORTAL/$1"
}

# detach DEVICE... in the order given.
detach() {
	local device
	if [[ $PEER == kernel ]]; then
		iscsiadm -m node --logoutall=all >/dev/null
		return
	fi
	for device; do "$ISERBLK" detach "$device"; done
}

# killed HOW...: the worker of device dies under two loads that check what they wrote, and HOW brings the device back. The
# kernel sends again what was on its way within RESENT seconds.
killed() {
	local load fio again waited
	bin/hammer -time 120s -offset $((32 << 20)) -settle 3s "$device" >/run/lab/hammer & load=$!
	fio --name=verify --filename="$device" --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-64k \
		--size=12M --rate_iops=,150 --verify=crc32c --verify_fatal=1 --do_verify=1 --output-format=json --output=/run/lab/fio & fio=$!
	sleep 2
	kill -9 "$(worker_pids)"
	sleep 1
	"$ISERBLK" list >/run/lab/list
	grep -q "^$device .*parked" /run/lab/list || fail "not parked: $(</run/lab/list)"
	again=$("$@") || fail "$*"
	expect "the device after: $*" "$again" "$device"
	sleep "$RESENT"
	kill -TERM $load
	wait $load || fail "hammer: $(</run/lab/hammer)"
	wait $fio || { cat /run/lab/fio >&2; fail "fio"; }
	jq -e '[.jobs[] | .error, .total_err] | add == 0' <(sed -n '/^{/,$p' /run/lab/fio) >/dev/null || { cat /run/lab/fio >&2; fail "fio"; }
	waited=$(jq .longest /run/lab/hammer)
	((waited >= 1000)) || fail "the longest request took $waited ms: the kill missed"
	ok "worker killed, back by ${*: -1}: nothing lost, the longest request took $waited ms"
}

# without PATTERN COMMAND... fails if a line of COMMAND's output matches PATTERN.
without() {
	local lines
	lines=$("${@:2}" 2>/dev/null | grep -E -- "$1") || return 0
	fail "left behind, by '${*:2}': $lines"
}

worker_pids() { pgrep -x iserblk || true; }

# nothing_left fails unless iserblk has left no trace on this machine. A QP may
# take a moment to go: the kernel frees it on its own.
nothing_left() {
	[[ $PEER == iserblk ]] || return 0
	lab_until 5 no_process || fail "processes left: $(ps -o pid,args -C iserblk | tail -n +2)"
	without '^ublk' ls /sys/class/block
	without '^ublkc' ls /dev
	without . find /sys/block/ -maxdepth 1 -name 'nbd*' -execdir test -e {}/pid ';' -print
	without . find "$RUN" -mindepth 1
	lab_until 5 no_qp || fail "QPs left: $(rdma resource show qp)"
	without 'iserblk' rdma resource show mr
	without 'iserblk' rdma resource show cm_id
}
no_process() { [[ -z $(worker_pids) ]]; }
no_qp() { ! rdma resource show qp | grep -E 'comm iserblk'; }

# target_empty IQN fails while the target still has a session of ours.
target_empty() { lab_until 5 no_session "$1" || fail "sessions left at $1: $(lab_lio_sessions "$1")"; }
no_session() { [[ -z $(lab_lio_sessions "$1") ]]; }

# ---- bad use ------------------------------------------------------------------

# refuse CODE PATTERN COMMAND... : COMMAND must exit with CODE ("24", or "1|24"), print nothing, and
# explain itself on stderr in one line that matches PATTERN.
refuse() {
	local code=$1 pattern=$2 status=0
	shift 2
	"$@" >/run/lab/stdout 2>/run/lab/stderr || status=$?
	sed 's/^/  /' /run/lab/stderr
	[[ $status =~ ^($code)$ ]] || fail "exit status $status, not $code: $*"
	[[ ! -s /run/lab/stdout ]] || fail "printed '$(</run/lab/stdout)': $*"
	expect "lines on stderr of: $*" "$(wc -l </run/lab/stderr)" 1
	grep -Eq -- "$pattern" /run/lab/stderr || fail "no '$pattern' in '$(</run/lab/stderr)': $*"
}

# ---- load ---------------------------------------------------------------------

# verify DEVICE DEPTH [FIO_OPTION...] writes at random and reads back, with a
# checksum for every 512 bytes (or block), in I/Os from one block to 1 MiB.
verify() {
	local how block=512 large=1m
	case $1 in
	nbd*) how=(--ioengine=nbd --uri="$1") large=256k ;; # fio does not heed what the server takes at most
	*) how=(--ioengine=io_uring --filename="$1" --direct=1) block=$(blockdev --getss "$1") ;;
	esac
	fio --name="verify-qd$2" "${how[@]}" --iodepth="$2" \
		--rw=randrw --rwmixwrite=70 --bssplit="$block/20:4k/30:16k/20:64k/15:256k/10:$large/5" \
		--serialize_overlap=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 \
		--output=/run/lab/fio "${@:3}" || { cat /run/lab/fio >&2; fail "fio on $1, depth $2"; }
	! grep -E 'verify:|err= *[1-9]' /run/lab/fio >&2 || fail "fio on $1, depth $2"
}

# longest prints the longest latency, in milliseconds, of the last fio run that had --output-format=json.
longest() { jq '[.jobs[] | .read.clat_ns.max, .write.clat_ns.max] | max / 1000000 | floor' /run/lab/fio; }

# ---- what the target was asked ----------------------------------------------------

readonly TRACE=/sys/kernel/tracing

# commands_start has LIO note every SCSI command that reaches it; commands prints
# them, a line each: LUN, data length, and the 16 bytes of the CDB in hex.
commands_start() {
	echo >"$TRACE/trace"
	echo 1 >"$TRACE/events/target/target_sequencer_start/enable"
}
commands() {
	sed -nE 's/.*-> LUN 0*([0-9]+) .*data_length +([0-9]+) +CDB ([0-9a-f ]+) +\(.*/\1 \2 \3/p' "$TRACE/trace"
}
