#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# Builds the module for every kernel that it is for, for arm64 and amd64, and
# prints a table; fails when anything in it is not as expected:
#
#   ours         must build without a warning at W=1, be clean under sparse,
#                and be the same file when built elsewhere, as DKMS does
#   dkms         ours again, by dkms itself with our dkms.conf; must be what
#                the first build is, stripped
#   altered      headers of kernels that Debian does not have: see
#                alter-headers.sh; one of them must make the build fail
#   VERSION's    the kernel's own driver, for comparison. It is one source a
#                kernel: elsewhere it does not build, or builds and then lacks
#                an operation without which vfio-pci-core breaks
#
# The builds run in Debian roots, see buildroot.sh, on copies of the source.
set -eu

self=matrix
tests=$(cd "$(dirname "$0")" && pwd)
kmod=${tests%/tests}
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"
make_work
# shellcheck source-path=SCRIPTDIR source=building.sh
. "$tests/building.sh"

format='%-10s %-31s %-6s %-9s %-7s %-5s %-8s %s\n'
altered=
bad=0

row() { # DRIVER HEADERS ARCH WARNINGS SPARSE SAME RESULT
	driver=$1 name=$2 its_arch=$3 warned=$4 checked=$5 same=$6
	shift 6
	# shellcheck disable=SC2059 # the format of all rows
	printf "$format" "$driver" "$name" "$its_arch" "$warned" "$checked" \
		"$same" "$(($(date +%s) - started))" "$*" >>"$work/table"
	progress "$driver, $name, $its_arch: $*"
}

unexpected() { # LOG
	bad=$((bad + 1))
	tail -n 20 "$1" >&2
}

# How often sparse complains about what was built in $work/ours, or "none"
# where it was not run on every source.
sparse_complaints() {
	compile "$work/ours" /work /work "$work/sparse.log" W=1 C=2 || :
	objects=$(find "$work/ours" -name '*.o' ! -name '*.mod.o' ! -name '.module-common.o' \
		! -name 'nvgrace-gpu-vfio-pci.o' | wc -l)
	if [ "$(grep -c '^  CHECK ' "$work/sparse.log")" -eq "$objects" ]; then
		complaints "$work/sparse.log"
	else
		echo none
	fi
}

# Whether a build where DKMS has its own gives the same file.
same_elsewhere() {
	elsewhere=nvgrace-gpu-vfio-pci/1.0.0/build
	copy_module "$work/dkms/$elsewhere"
	compile "$work/dkms" /var/lib/dkms "/var/lib/dkms/$elsewhere" "$work/dkms.log" &&
		cmp "$work/ours/nvgrace-gpu-vfio-pci.ko" \
			"$work/dkms/$elsewhere/nvgrace-gpu-vfio-pci.ko" \
			>>"$work/dkms.log" && echo yes || echo NO
}

build_ours() { # VERSION ARCH
	select_kernel "$1" "$2"
	started=$(date +%s)
	rm -rf "$work/ours" "$work/dkms"
	copy_module "$work/ours"
	result=ok sparse=- same=-
	if compile "$work/ours" /work /work "$work/log" W=1; then
		sparse=$(sparse_complaints)
		same=$(same_elsewhere)
	else
		result=FAILED
	fi
	warnings=$(complaints "$work/log")
	row ours "${kernel%-"$arch"}" "$arch" "$warnings" "$sparse" "$same" "$result"
	case "$result $warnings $sparse $same" in
	"ok 0 0 yes") ;;
	"ok 0 0 "*) unexpected "$work/dkms.log" ;;
	"ok 0 "*) unexpected "$work/sparse.log" ;;
	*) unexpected "$work/log" ;;
	esac
}

# Builds ours with dkms, which strips a module, and signs it at its end.
build_dkms() { # VERSION
	select_kernel "$1" amd64
	started=$(date +%s)
	release=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' "$kmod/dkms.conf")
	rm -rf "$work/ours" "$work/dkms" "$work/source"
	copy_module "$work/ours"
	copy_module "$work/source/nvgrace-gpu-vfio-pci-$release"
	cp "$kmod/dkms.conf" "$work/source/nvgrace-gpu-vfio-pci-$release"
	mkdir "$work/dkms"
	compile "$work/ours" /work /work "$work/log" &&
		sh "$tests/enter.sh" "$root" --bind "$work/ours:/work" \
			--bind "$work/dkms:/var/lib/dkms" --ro-bind "$work/source:/mnt" -- sh -c '
			strip -g /work/nvgrace-gpu-vfio-pci.ko
			exec dkms build nvgrace-gpu-vfio-pci/"$0" -k "$1" --kernelsourcedir "$2" \
				--sourcetree /mnt' "$release" "$kernel" "$headers" >"$work/log" 2>&1 &&
		result=ok || result=FAILED
	same=NO
	ours=$work/ours/nvgrace-gpu-vfio-pci.ko
	cmp -n "$(stat -c %s "$ours")" "$ours" \
		"$work/dkms/nvgrace-gpu-vfio-pci/$release/$kernel/x86_64/module/nvgrace-gpu-vfio-pci.ko" \
		>>"$work/log" 2>&1 && same=yes
	row dkms "${kernel%-amd64}" amd64 - - "$same" "$result"
	[ "$result $same" = "ok yes" ] || unexpected "$work/log"
}

# Builds ours with altered headers. Expects a clean build, or where a SENTENCE
# is given a failed one that says so.
build_altered() { # VERSION ARCH SHAPE NAME [SENTENCE]
	select_kernel "$1" "$2"
	started=$(date +%s)
	rm -rf "$work/ours" "$work/include"
	copy_module "$work/ours"
	cp -a "$root${headers%-"$arch"}-common/include/linux" "$work/include"
	sh "$tests/alter-headers.sh" "$3" "$work/include"
	altered=$work/include
	if compile "$work/ours" /work /work "$work/log" W=1; then
		result=ok
	else
		result=fails
	fi
	altered=
	warnings=$(complaints "$work/log")
	if [ -n "${5:-}" ] && [ $result = fails ] && grep -qF "$5" "$work/log"; then
		row altered "$4" "$arch" - - - "fails as it must: ...$5..."
		return
	fi
	row altered "$4" "$arch" "$warnings" - - "$result"
	[ -z "${5:-}" ] && [ "$result $warnings" = "ok 0" ] || unexpected "$work/log"
}

# The operations that the headers have, the source does not set, and
# vfio-pci-core calls without asking or does not do without.
lacking() { # SOURCE
	for op in get_region_info_caps match_token_uuid; do
		grep -q "(\*$op)(" "$root${headers%-"$arch"}-common/include/linux/vfio.h" || continue
		grep -q "\.${op}[[:space:]]*=" "$1" || printf ' %s' "$op"
	done
}

# Builds the driver of kernel SOURCE for kernel VERSION, and compares with
# what is known: builds, fails, lacks.
build_theirs() { # SOURCE VERSION ARCH EXPECTED
	select_kernel "$2" "$3"
	started=$(date +%s)
	rm -rf "$work/theirs"
	mkdir "$work/theirs"
	cp "$(sh "$tests/kernel-source.sh" "$1")/drivers/vfio/pci/nvgrace-gpu/main.c" \
		"$kmod/Makefile" "$work/theirs"
	printf '%s\n' 'obj-m := nvgrace-gpu.o' 'nvgrace-gpu-y := main.o' >"$work/theirs/Kbuild"
	if ! compile "$work/theirs" /work /work "$work/log" W=1; then
		found=fails
		result="fails: $(grep -m 1 -oE 'error: .*' "$work/log" || tail -n 1 "$work/log")"
	elif [ -n "$(lacking "$work/theirs/main.c")" ]; then
		found=lacks
		result="builds, and lacks$(lacking "$work/theirs/main.c")"
	else
		found=builds
		result=ok
	fi
	[ "$found" = "$4" ] || result="$result (EXPECTED: $4)"
	row "$1's own" "${kernel%-"$arch"}" "$arch" "$(complaints "$work/log")" - - "$result"
	[ "$found" = "$4" ] || unexpected "$work/log"
}

for version in 6.1 6.12 7.2 7.3; do
	build_ours "$version" arm64
	build_ours "$version" amd64
done

build_dkms 6.12
build_dkms 7.3

for arch in arm64 amd64; do
	build_altered 7.3 "$arch" no-region-info "7.3, the shape of 6.16 to 6.18"
	build_altered 6.12 "$arch" no-io-rw "6.12 without do_io_rw"
	build_altered 6.12 "$arch" no-inode "6.12, the shape of 6.6 to 6.9"
done
build_altered 7.3 amd64 unknown-op "7.3 with an operation to come" \
	"has the operation 'migrate_memory'"

while read -r source version expected; do
	build_theirs "$source" "$version" arm64 "$expected" </dev/null
	build_theirs "$source" "$version" amd64 "$expected" </dev/null
done <<'KNOWN'
7.3 6.1 fails
7.3 6.12 fails
7.3 7.2 fails
7.3 7.3 builds
7.2 6.1 fails
7.2 6.12 fails
7.2 7.2 builds
7.2 7.3 builds
6.12 6.1 fails
6.12 6.12 builds
6.12 7.2 lacks
6.12 7.3 lacks
KNOWN

# shellcheck disable=SC2059
printf "$format" DRIVER HEADERS ARCH WARNINGS SPARSE SAME SECONDS RESULT
cat "$work/table"
[ "$bad" -eq 0 ] || fail "$bad rows are not as expected"
echo "matrix: all $(wc -l <"$work/table") rows as expected"
