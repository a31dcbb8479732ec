#!/bin/bash
# The guest's half of scripts/bench: SECONDS ROUNDS ONLY ATTACH_ARGS.
set -euo pipefail
shopt -s inherit_errexit
# shellcheck source-path=SCRIPTDIR disable=SC2119
source "$(dirname "$0")/../lab.d/guest.sh"

seconds=$1 rounds=$2 only=,$3, attach=$4
# ublk, nbd and export are iserblk's front ends, shared is ublk with --shared-memory; export and qemu-export are sockets,
# with fio as the NBD client.
readonly peers_known=(ublk shared nbd export kernel qemu qemu-export)
# Where the data of every client is: huge pages, as who shares memory with a device had better have.
readonly buffers=/run/lab/huge/buffers
# NAME RW BLOCK_SIZE DEPTH
readonly jobs_known=(
	"4k-read-qd1 randread 4k 1"
	"4k-read-qd32 randread 4k 32"
	"4k-write-qd1 randwrite 4k 1"
	"4k-write-qd32 randwrite 4k 32"
	"128k-read-qd1 randread 128k 1"
	"128k-read-qd8 randread 128k 8"
	"128k-write-qd1 randwrite 128k 1"
	"128k-write-qd8 randwrite 128k 8"
)

# choose KNOWN... prints those that $only names by their first word, all if it names none.
choose() {
	local item chosen=()
	for item; do [[ $only != *",${item%% *},"* ]] || chosen+=("$item"); done
	((${#chosen[@]})) || chosen=("$@")
	printf '%s\n' "${chosen[@]}"
}

# can PEER JOB: Linux 7's target rejects libiscsi's immediate data, so qemu-nbd hangs on writes.
can() { [[ $1 != qemu* || $2 != *-write-* ]]; }

# ---- the peers; each prints its device or socket -----------------------------------

# attach_iserblk FRONTEND LUN ARG...
attach_iserblk() {
	# shellcheck disable=SC2086 # arguments
	bin/iserblk attach --frontend "$1" $attach "${@:3}" "iser://10.0.0.1/$LAB_IQN/$2"
}

attach_ublk() { attach_iserblk ublk 0; }
attach_nbd() { attach_iserblk nbd 1; }
attach_export() { attach_iserblk export 2; }
attach_shared() { attach_iserblk ublk 3 --shared-memory "$buffers"; }

attach_kernel() {
	local disks
	mapfile -t disks < <(lab_ib_iser_login 10.0.0.1)
	echo "${disks[0]}"
}

# qemu_nbd ARG...
qemu_nbd() {
	qemu-nbd --fork --read-only --format raw --cache none --aio io_uring "$@" "iser://10.0.0.1/$LAB_IQN/0" >&2
}

attach_qemu() {
	modprobe nbd
	qemu_nbd --connect /dev/nbd15
	lab_until 10 grep -qvx 0 /sys/block/nbd15/size
	echo /dev/nbd15
}

attach_qemu-export() {
	qemu_nbd --socket /run/lab/qemu.nbd --persistent --shared 4
	echo 'nbd+unix:///?socket=/run/lab/qemu.nbd'
}

# check_shared DEV fails unless nearly all was moved in place: udev's reads are not.
check_shared() {
	bin/iserblk status "$1" -o json | jq -e '.targets[0].devices[0].counters |
		.zeroCopy > 0 and .zeroCopy >= 0.99 * (.reads + .writes)' >/dev/null ||
		lab_fail "requests of $1 were copied: $(bin/iserblk status "$1")"
}

# ---- measuring ------------------------------------------------------------------

# engine DEV prints how fio gets at it.
engine() {
	case $1 in
	nbd*) echo "--ioengine=nbd --uri=$1" ;;
	*) echo "--ioengine=io_uring --filename=$1 --direct=1" ;;
	esac
}

# measure DEV RW BS DEPTH prints IOPS, mean, 99th percentile and longest latency in microseconds.
measure() {
	# shellcheck disable=SC2046 # arguments
	fio --name=bench $(engine "$1") --mem="mmaphuge:$buffers" --rw="$2" --bs="$3" --iodepth="$4" --size=256M \
		--randrepeat=0 --norandommap --time_based --ramp_time=1 --runtime="$seconds" \
		--output-format=json --output=/run/lab/fio.json >&2 || return
	jq -r '.jobs[0] | if .error != 0 then error("fio failed") else . end |
		(if .read.total_ios > 0 then .read else .write end) |
		[.iops, .clat_ns.mean / 1000, .clat_ns.percentile."99.000000" / 1000, .clat_ns.max / 1000] |
		map(tostring) | join(" ")' /run/lab/fio.json
}

# run ROUND writes a line for every job and peer; which peer goes first changes with the round.
run() {
	local job name rw bs depth peer i result
	for job in "${jobs[@]}"; do
		read -r name rw bs depth <<<"$job"
		for ((i = 0; i < ${#peers[@]}; i++)); do
			peer=${peers[(i + $1) % ${#peers[@]}]}
			can "$peer" "$name" || continue
			result=$(measure "${device[$peer]}" "$rw" "$bs" "$depth") || lab_fail "$name on $peer"
			echo "$1 $name $peer $result" | tee -a "$results" >&2
		done
	done
}

# summary turns the lines into JSON: for each job and peer the median and its range, and the ratios. A ratio is the median
# of those within each round, which were taken within a minute.
summary() {
	jq -Rn --arg kernel "$(uname -r)" --argjson seconds "$seconds" --argjson rounds "$rounds" '
		def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2] + .[length / 2 - 1]) / 2 end;
		[inputs | split(" ") | {round: .[0], job: .[1], peer: .[2], iops: (.[3] | tonumber), mean: (.[4] | tonumber),
			p99: (.[5] | tonumber), max: (.[6] | tonumber)}] as $all |
		def ratio($a; $b): [group_by(.round)[] | map({key: .peer, value: .iops}) | from_entries |
			select(.[$a] and .[$b]) | .[$a] / .[$b]] | if length > 0 then median else null end;
		{version: 1, kernel: $kernel, seconds: $seconds, rounds: $rounds, jobs: [
			[$all[].job] | reduce .[] as $j ([]; if index($j) then . else . + [$j] end) | .[] | . as $job |
			[$all[] | select(.job == $job)] |
			{job: $job, peers: (group_by(.peer) | map({key: .[0].peer, value: {
				iops: ([.[].iops] | median), low: ([.[].iops] | min), high: ([.[].iops] | max),
				mean_us: ([.[].mean] | median), p99_us: ([.[].p99] | median), max_us: ([.[].max] | max)}}) | from_entries),
			ratios: {"ublk/kernel": ratio("ublk"; "kernel"), "shared/kernel": ratio("shared"; "kernel"), "ublk/qemu": ratio("ublk"; "qemu"),
				"nbd/qemu": ratio("nbd"; "qemu"), "export/qemu-export": ratio("export"; "qemu-export")}}]}' "$results"
}

table() {
	jq -r --args 'def two: if . == null then "-" else (. * 100 | round / 100 | tostring) end;
		def cell: if . == null then "-" else "\(.iops | round) (\(.low | round)-\(.high | round))" end;
		$ARGS.positional as $peers | ["job"] + $peers + (.jobs[0].ratios | keys_unsorted),
		(.jobs[] | [.job] + [.peers[$peers[]] | cell] + [.ratios[] | two]) | @tsv' "${peers[@]}" | column -t -s $'\t'
}

mapfile -t peers < <(choose "${peers_known[@]}")
mapfile -t jobs < <(choose "${jobs_known[@]}")
results=/run/lab/bench
lab_link d0 10.0.0.1
for lun in ram0 ram1 ram2 ram3; do lab_lio_ram "$lun" 256; done
lab_lio_target portal=10.0.0.1 lun=ram0 lun=ram1 lun=ram2 lun=ram3
sysctl -q vm.nr_hugepages=16
mkdir -p "${buffers%/*}"
mount -t hugetlbfs none "${buffers%/*}"
fallocate -l 16M "$buffers"
declare -A device
for peer in "${peers[@]}"; do
	device[$peer]=$("attach_$peer")
	lab_say "$peer: ${device[$peer]}"
done
for ((round = 0; round < rounds; round++)); do run "$round"; done
summary >/run/lab/bench.json
echo "IOPS, medians of $rounds rounds of $seconds s, Linux $(uname -r), $(nproc) CPUs, rxe loopback, RAM LUN"
table </run/lab/bench.json
[[ -z ${LAB_OUT:-} ]] || cp /run/lab/bench.json "$LAB_OUT/bench.json"
[[ -z ${device[shared]:-} ]] || check_shared "${device[shared]}"
for peer in ublk shared nbd export; do
	[[ -z ${device[$peer]:-} ]] || bin/iserblk detach "${device[$peer]}"
done
lab_dmesg_check
