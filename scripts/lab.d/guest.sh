# shellcheck shell=bash
# Helpers for scripts that run in a lab guest:
#
#   source scripts/lab.d/guest.sh
#
# From there on the first command that fails ends the script and says where.
# Words in brackets are optional; key=value options come last, in any order.

set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "FAIL: ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR

LAB_IQN=${LAB_IQN:-iqn.2026-01.lab.iserblk:disk}   # target name when none is given
LAB_LIO=/sys/kernel/config/target

lab_say() { echo "# $*" >&2; }
lab_fail() { echo "FAIL: $*" >&2; return 1; }

# lab_until SECONDS COMMAND... runs COMMAND ten times a second until it succeeds.
lab_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || { lab_fail "never became true: $*"; return 1; }
		sleep 0.1
	done
}

# lab_has_netns says whether RDMA devices can live in a network namespace (Linux 7.x).
lab_has_netns() { (($(uname -r | cut -d. -f1) >= 7)); }

# lab_not COMMAND... fails if COMMAND succeeds ("set -e" does not look at "! COMMAND").
lab_not() { ! "$@" || lab_fail "should have failed: $*"; }

# lab_hook FUNCTION has FUNCTION called when the script ends, the last one first.
lab_hook() {
	LAB_HOOKS="$1;${LAB_HOOKS:-}"
	trap 'eval "$LAB_HOOKS"' EXIT
}

# lab_in [-n NETNS] WORD... splits the arguments of helpers that work here or in a
# namespace: LAB_IN is the prefix for commands, LAB_DEV the first word, LAB_ARGS the rest.
lab_in() {
	LAB_IN=()
	if [[ $1 == -n ]]; then
		LAB_IN=(ip netns exec "$2")
		shift 2
	fi
	LAB_DEV=$1
	LAB_ARGS=("${@:2}")
}

# ---- links ------------------------------------------------------------------

# lab_rxe NAME DEV puts a soft RoCE device on a network device.
lab_rxe() {
	# 6.x asks the crypto API for crc32, which does not load its modules in time.
	modprobe -qa crc32_generic crc32_pclmul || true
	modprobe -a ib_uverbs rdma_ucm rdma_rxe
	rdma link add "$1" type rxe netdev "$2"
	lab_until 5 lab_rdma_active "$1"
}

# lab_rdma_active NAME is true when the device's port is up and has the address's GID.
lab_rdma_active() { rdma link show "$1/1" | grep -q 'state ACTIVE'; }

# lab_link NAME ADDRESS makes one RoCE port on which target and initiator both
# live: device NAME with ADDRESS/24, its cable's far end NAMEp, RDMA device rxe_NAME.
lab_link() {
	ip link add "$1" mtu 4200 type veth peer name "${1}p" mtu 4200
	ip address add "$2/24" dev "$1"
	ip link set "${1}p" up
	ip link set "$1" up
	lab_rxe "rxe_$1" "$1"
}

# lab_host_link NAME NETNS HERE THERE lays a cable to a second host, a network
# namespace that is made if missing: NAME (HERE/24) and rxe_NAME stay here, where
# LIO listens; NAMEp (THERE/24) and rxe_NAMEp are in the namespace, for the initiator.
lab_host_link() {
	ip netns list | grep -qw "$2" || { ip netns add "$2" && ip -n "$2" link set lo up; }
	ip link add "$1" mtu 4200 type veth peer name "${1}p" mtu 4200 netns "$2"
	ip address add "$3/24" dev "$1"
	ip -n "$2" address add "$4/24" dev "${1}p"
	ip -n "$2" link set "${1}p" up
	ip link set "$1" up
	lab_rxe "rxe_$1" "$1"
	ip netns exec "$2" rdma link add "rxe_${1}p" type rxe netdev "${1}p"
	lab_until 5 ip netns exec "$2" rdma link show "rxe_${1}p/1"
	lab_until 5 ip netns exec "$2" busybox ping -c1 -W1 "$3"
}

# lab_yank [-n NETNS] DEV pulls the cable: the port goes down at once.
lab_yank() { lab_in "$@"; "${LAB_IN[@]}" ip link set "$LAB_DEV" down; }

# lab_plug [-n NETNS] DEV puts it back.
lab_plug() { lab_in "$@"; "${LAB_IN[@]}" ip link set "$LAB_DEV" up; }

# lab_netem [-n NETNS] DEV off|NETEM... shapes what DEV sends, for instance "loss 1%",
# "delay 5ms", "delay 2ms reorder 25%". One host's own traffic never meets it: use lab_host_link.
lab_netem() {
	lab_in "$@"
	if [[ ${LAB_ARGS[0]} == off ]]; then
		"${LAB_IN[@]}" tc qdisc del dev "$LAB_DEV" root
		return
	fi
	modprobe sch_netem
	"${LAB_IN[@]}" tc qdisc replace dev "$LAB_DEV" root netem limit 100000 "${LAB_ARGS[@]}"
}

# lab_blackhole [-n NETNS] DEV on|off makes DEV silently lose all it sends and
# receives; both ports stay up and nobody is told. Needs lab_host_link.
lab_blackhole() {
	lab_in "$@"
	local verb=add
	[[ ${LAB_ARGS[0]} == on ]] || verb=del
	modprobe -a sch_ingress cls_matchall act_gact sch_netem
	if [[ $verb == del ]]; then
		"${LAB_IN[@]}" tc qdisc del dev "$LAB_DEV" clsact
		return
	fi
	"${LAB_IN[@]}" tc qdisc add dev "$LAB_DEV" clsact
	"${LAB_IN[@]}" tc filter add dev "$LAB_DEV" ingress matchall action drop
	"${LAB_IN[@]}" tc filter add dev "$LAB_DEV" egress matchall action drop
}

# ---- backing stores ---------------------------------------------------------

# lab_ramdisks COUNT MEGABYTES makes /dev/ram0, /dev/ram1...
lab_ramdisks() { modprobe brd rd_nr="$1" rd_size=$(($2 * 1024)); }

# lab_delay NAME DEV READ_MS [WRITE_MS] prints /dev/mapper/NAME: DEV, but slow. Again: changes it.
lab_delay() {
	modprobe dm_delay
	local table
	table="0 $(blockdev --getsz "$2") delay $2 0 $3 $2 0 ${4:-$3}"
	if [[ -e /dev/mapper/$1 ]]; then
		dmsetup reload --noudevsync "$1" --table "$table"
		dmsetup suspend --noudevsync "$1"
		dmsetup resume --noudevsync "$1"
	else
		dmsetup create --noudevsync --verifyudev "$1" --table "$table"
	fi
	echo "/dev/mapper/$1"
}

# ---- LIO --------------------------------------------------------------------

lab_lio_load() {
	mkdir -p /etc/target /run/lab
	modprobe -a configfs target_core_mod iscsi_target_mod ib_isert
	[[ -d $LAB_LIO/core ]] || mount -t configfs configfs /sys/kernel/config
	mkdir -p "$LAB_LIO/iscsi"
}

# lab_lio_store HBA NAME CONTROL [key=value...] makes a backstore.
#   serial=TEXT  unit serial number (default: from NAME), so also the WWN
#   ATTRIBUTE=V  any of LIO's attrib files: block_size=4096, emulate_write_cache=1,
#                emulate_tpu=1, emulate_tpws=1, emulate_fua_write=0, is_nonrot=1...
lab_lio_store() {
	local dir=$LAB_LIO/core/$1/$2 serial option
	serial=$(printf %s "$2" | md5sum | cut -c1-32)
	lab_lio_load
	mkdir -p "$dir"
	printf %s "$3" >"$dir/control"
	for option in "${@:4}"; do
		[[ $option != serial=* ]] || serial=${option#*=}
	done
	echo 1 >"$dir/enable"
	echo "$serial" >"$dir/wwn/vpd_unit_serial"
	for option in "${@:4}"; do
		[[ $option == serial=* ]] || echo "${option#*=}" >"$dir/attrib/${option%%=*}"
	done
}

# lab_lio_ram NAME MEGABYTES [key=value...] is a disk in kernel memory.
lab_lio_ram() {
	lab_lio_store rd_mcp_0 "$1" "rd_pages=$(($2 * 256))" "${@:3}"
}

# lab_lio_file NAME MEGABYTES [key=value...] is a sparse file in /run; it has UNMAP.
lab_lio_file() {
	truncate -s "$2M" "/run/lab/$1.img"
	lab_lio_store fileio_0 "$1" "fd_dev_name=/run/lab/$1.img,fd_dev_size=$(($2 << 20))" "${@:3}"
}

# lab_lio_block NAME DEV [key=value...] is a block device here, see lab_delay.
lab_lio_block() {
	lab_lio_store iblock_0 "$1" "udev_path=$2" "${@:3}"
}

# lab_lio_target [IQN] portal=ADDR[:PORT]... lun=STORE... [option...]
#   lun=         the first becomes LUN 0, the next LUN 1...
#   chap=U:P     the initiator has to log in as U with password P
#   mutual=U:P   and the target answers as U with password P
#   transport=T  iser (default) or tcp, for all portals
#   ATTRIBUTE=V  any of the TPG's attrib files, param.KEY=V any of its keys, e.g.
#                param.ImmediateData=No, param.FirstBurstLength=65536
# Any initiator is let in; demo_mode_write_protect=1 lets it only read.
lab_lio_target() {
	local iqn=$LAB_IQN
	[[ $1 == *=* ]] || { iqn=$1; shift; }
	local tpg=$LAB_LIO/iscsi/$iqn/tpgt_1 option value transport=iser lun=0
	lab_lio_load
	mkdir -p "$tpg"
	for option in authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1 default_cmdsn_depth=64 "$@"; do
		value=${option#*=}
		case $option in
		transport=*) transport=$value ;;
		portal=*) ;;
		lun=*) lab_lio_lun "$iqn" "$lun" "$value"; lun=$((lun + 1)) ;;
		chap=*) lab_lio_chap "$tpg/auth" '' "$value"; echo 1 >"$tpg/attrib/authentication" ;;
		mutual=*) lab_lio_chap "$tpg/auth" _mutual "$value" ;;
		param.*) option=${option#param.}; echo "$value" >"$tpg/param/${option%%=*}" ;;
		*) echo "$value" >"$tpg/attrib/${option%%=*}" ;;
		esac
	done
	for option; do
		[[ $option != portal=* ]] || lab_lio_portal "$iqn" "${option#*=}" "$transport"
	done
	echo 1 >"$tpg/enable"
}

# lab_lio_chap AUTHDIR ''|_mutual USER:PASSWORD
lab_lio_chap() {
	# A newline would become part of the name.
	printf %s "${3%%:*}" >"$1/userid$2"
	printf %s "${3#*:}" >"$1/password$2"
}

# lab_lio_discovery_chap USER:PASSWORD [MUTUAL_USER:PASSWORD] guards discovery.
lab_lio_discovery_chap() {
	lab_lio_load
	lab_lio_chap "$LAB_LIO/iscsi/discovery_auth" '' "$1"
	(($# < 2)) || lab_lio_chap "$LAB_LIO/iscsi/discovery_auth" _mutual "$2"
	echo 1 >"$LAB_LIO/iscsi/discovery_auth/enforce_discovery_auth"
}

# lab_lio_acl IQN INITIATOR [chap=U:P] [mutual=U:P] [ro=LUN...] lets in only initiators
# that are named so, with the LUNs the target has by now; ro= write-protects one of them.
lab_lio_acl() {
	local tpg=$LAB_LIO/iscsi/$1/tpgt_1 acl lun option
	acl=$tpg/acls/$2
	echo 0 >"$tpg/attrib/generate_node_acls"
	mkdir -p "$acl"
	for lun in "$tpg"/lun/lun_*; do
		mkdir "$acl/${lun##*/}"
		ln -s "$lun" "$acl/${lun##*/}/store"
	done
	for option in "${@:3}"; do
		case $option in
		chap=*) lab_lio_chap "$acl/auth" '' "${option#*=}"; echo 1 >"$tpg/attrib/authentication" ;;
		mutual=*) lab_lio_chap "$acl/auth" _mutual "${option#*=}" ;;
		ro=*) echo 1 >"$acl/lun_${option#*=}/write_protect" ;;
		*) lab_fail "lab_lio_acl: $option?" ;;
		esac
	done
}

# lab_lio_portal IQN ADDR[:PORT] [iser|tcp] adds a portal; IPv6 in brackets.
lab_lio_portal() {
	local np=$2
	[[ ! $np =~ ^([^:]+|\[.*\])$ ]] || np=$np:3260
	np=$LAB_LIO/iscsi/$1/tpgt_1/np/$np
	mkdir -p "$np"
	[[ ${3:-iser} != iser ]] || echo 1 >"$np/iser"
}

# lab_lio_lun IQN NUMBER STORE maps a backstore.
lab_lio_lun() {
	local dir=$LAB_LIO/iscsi/$1/tpgt_1/lun/lun_$2
	mkdir -p "$dir"
	ln -s "$(echo "$LAB_LIO"/core/*_0/"$3")" "$dir/store"
}

# lab_lio_unmap IQN NUMBER takes a LUN away from a running target.
lab_lio_unmap() {
	rm "$LAB_LIO/iscsi/$1/tpgt_1/lun/lun_$2/store"
	rmdir "$LAB_LIO/iscsi/$1/tpgt_1/lun/lun_$2"
}

# lab_lio_stop [IQN] and lab_lio_start [IQN]: the target ends its sessions and
# refuses new ones, and is back.
lab_lio_stop() { echo 0 >"$LAB_LIO/iscsi/${1:-$LAB_IQN}/tpgt_1/enable"; }
lab_lio_start() { echo 1 >"$LAB_LIO/iscsi/${1:-$LAB_IQN}/tpgt_1/enable"; }

# lab_lio_sessions [IQN] prints one line a session.
lab_lio_sessions() {
	tr '\0' '\n' <"$LAB_LIO/iscsi/${1:-$LAB_IQN}/tpgt_1/dynamic_sessions" | grep . || true
}

# lab_lio_remove [IQN] deletes a target; its backstores stay.
lab_lio_remove() {
	local iqn=${1:-$LAB_IQN} tpg
	tpg=$LAB_LIO/iscsi/$iqn/tpgt_1
	echo 0 >"$tpg/enable"
	find "$tpg/acls" "$tpg/lun" -type l -delete
	find "$tpg/acls" -mindepth 2 -maxdepth 2 -name 'lun_*' -exec rmdir {} +
	rmdir "$tpg"/acls/* "$tpg"/lun/lun_* "$tpg"/np/* 2>/dev/null || true
	rmdir "$tpg" "$LAB_LIO/iscsi/$iqn"
}

# lab_lio_drop STORE deletes a backstore no target uses.
lab_lio_drop() { rmdir "$LAB_LIO"/core/*_0/"$1"; }

# ---- tgt --------------------------------------------------------------------

# lab_tgt_start [-n NETNS] starts tgtd with iSER on port 3260 of every address: Debian's
# takes no other port, so LIO must not listen there at the same time.
lab_tgt_start() {
	lab_in "$@" tgtd
	mkdir -p /run/lab
	# TCP it cannot be kept from: out of the way with it.
	"${LAB_IN[@]}" tgtd -f --iscsi portal=127.0.0.1:13260 >/run/lab/tgtd.log 2>&1 &
	LAB_TGT_PID=$!
	lab_until 10 tgtadm --lld iser --mode sys --op show
}

# lab_tgt_disk [IQN] MEGABYTES INITIATOR [option...] makes a target with LUN 1, in /run.
# tgt lets an RDMA initiator in only if its address and its name are both bound.
#   chap=U:P, mutual=U:P, block_size=4096
lab_tgt_disk() {
	local iqn=$LAB_IQN option tid size=512 file
	[[ $1 =~ ^[0-9]+$ ]] || { iqn=$1; shift; }
	tid=$(lab_tgtadm target show | awk '/^Target/ { n++ } END { print n + 1 }')
	file=/run/lab/tgt$tid.img
	truncate -s "$1M" "$file"
	lab_tgtadm target new --tid "$tid" --targetname "$iqn"
	for option in "${@:3}"; do
		case $option in
		block_size=*) size=${option#*=} ;;
		chap=*) lab_tgt_account "$tid" "${option#*=}" ;;
		mutual=*) lab_tgt_account "$tid" "${option#*=}" --outgoing ;;
		*) lab_fail "lab_tgt_disk: $option?" ;;
		esac
	done
	lab_tgtadm logicalunit new --tid "$tid" --lun 1 --backing-store "$file" --blocksize "$size"
	lab_tgtadm target bind --tid "$tid" --initiator-address ALL
	lab_tgtadm target bind --tid "$tid" --initiator-name "$2"
}

# lab_tgtadm MODE OP ARG...
lab_tgtadm() { tgtadm --lld iser --mode "$1" --op "$2" "${@:3}"; }

# lab_tgt_account TID USER:PASSWORD [--outgoing]
lab_tgt_account() {
	lab_tgtadm account new --user "${2%%:*}" --password "${2#*:}"
	lab_tgtadm account bind --tid "$1" --user "${2%%:*}" "${@:3}"
}

# lab_tgt_kill is a crash, if it has not had one, lab_tgt_stop an orderly end, lab_tgt_freeze and
# lab_tgt_thaw a target that hangs for a while.
lab_tgt_kill() { kill -KILL "$LAB_TGT_PID" 2>/dev/null || true; wait "$LAB_TGT_PID" 2>/dev/null || true; }
lab_tgt_stop() { lab_tgtadm sys delete; lab_tgtadm sys update --name State -v offline || true; lab_tgt_kill; }
lab_tgt_freeze() { kill -STOP "$LAB_TGT_PID"; }
lab_tgt_thaw() { kill -CONT "$LAB_TGT_PID"; }

# ---- the kernel's own initiator -----------------------------------------------

# lab_initiator_name prints this machine's initiator name; makes one if there is none.
lab_initiator_name() {
	local file=/etc/iscsi/initiatorname.iscsi
	grep -qs '^InitiatorName=iqn' "$file" ||
		{ mkdir -p /etc/iscsi && echo "InitiatorName=iqn.2026-01.lab.iserblk:initiator" >"$file"; }
	sed -n 's/^InitiatorName=//p' "$file"
}

lab_iscsid() {
	modprobe -a sd_mod ib_iser
	lab_initiator_name >/dev/null
	! grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix || return 0
	mkdir -p /run/lock/iscsi
	iscsid -f -d "${LAB_ISCSID_DEBUG:-0}" >/run/lab/iscsid.log 2>&1 &
	lab_until 10 grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
}

# lab_ib_iser_login [IQN] ADDR[:PORT] [SETTING=VALUE...] logs ib_iser in and prints its
# disks, a line each. SETTING: as in iscsid.conf, e.g. node.session.auth.authmethod=CHAP
lab_ib_iser_login() {
	local iqn=$LAB_IQN option
	[[ $1 != iqn.* ]] || { iqn=$1; shift; }
	lab_iscsid
	iscsiadm -m node -o new -T "$iqn" -p "$1" -I iser >/dev/null
	for option in "${@:2}"; do
		iscsiadm -m node -T "$iqn" -p "$1" -o update -n "${option%%=*}" -v "${option#*=}"
	done
	iscsiadm -m node -T "$iqn" -p "$1" --login >/dev/null
	lab_until 10 lab_ib_iser_ready "$iqn"
	lab_ib_iser_disks "$iqn"
}

# lab_ib_iser_ready IQN is true when its scan has come to rest.
lab_ib_iser_ready() {
	local before
	before=$(lab_ib_iser_disks "$1")
	[[ -n $before ]] && sleep 0.3 && [[ $before == "$(lab_ib_iser_disks "$1")" ]]
}

# lab_ib_iser_disks [IQN] prints the block devices of its sessions.
lab_ib_iser_disks() {
	local s disk
	for s in /sys/class/iscsi_session/session*; do
		[[ $(cat "$s/targetname" 2>/dev/null) == "${1:-$LAB_IQN}" ]] || continue
		for disk in "$s"/device/target*/*/block/*; do
			[[ ! -e $disk ]] || echo "/dev/${disk##*/}"
		done
	done
}

# lab_ib_iser_logout [IQN]
lab_ib_iser_logout() { iscsiadm -m node -T "${1:-$LAB_IQN}" --logout >/dev/null; }

# ---- judging ------------------------------------------------------------------

# lab_dmesg_check fails and prints what the kernel has to say for itself, if it
# met a bug, a stuck task or a use after free.
lab_dmesg_check() {
	local bad='BUG:|Oops|KASAN|KFENCE|UBSAN|general protection|blocked for more than|refcount_t:|list_(add|del) corruption|WARNING: (CPU|.* at )|unregister_netdevice: waiting'
	! dmesg | grep -E -A20 "$bad" >&2 || lab_fail "the kernel complained"
}

# lab_pattern DEV MEGABYTES SEED and lab_pattern_check DEV MEGABYTES SEED write and
# verify data that differs by place and by seed.
lab_pattern() { lab_stream "$2" "$3" | dd of="$1" bs=1M iflag=fullblock oflag=direct status=none; }
lab_pattern_check() {
	cmp <(lab_stream "$2" "$3") <(dd if="$1" bs=1M count="$2" iflag=direct status=none) >&2 ||
		lab_fail "$1 does not hold pattern $3"
}
lab_stream() {
	head -c "$1M" /dev/zero | openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -iter 1
}
