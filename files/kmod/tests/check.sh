#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# What can be tested of the module without a kernel: region.h in userspace
# under the address and undefined behaviour sanitizers, probe.sh on made-up
# header trees, and that all files agree on the version.
set -eu

kmod=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

result() { # WHAT STATUS
	if [ "$2" -eq 0 ]; then
		echo "ok   $1"
	else
		echo "FAIL $1"
		failed=$((failed + 1))
	fi
}

# A header tree with the given struct vfio_device_ops members.
make_headers() { # DIR MEMBER...
	inc=$1/include/linux
	mkdir -p "$inc"
	shift
	{
		echo 'struct vfio_device_ops {'
		echo '	char	*name;'
		for member in "$@"; do
			echo "	int	(*$member)(struct vfio_device *vdev);"
		done
		echo '};'
	} >"$inc/vfio.h"
	echo 'struct vfio_pci_core_device { int x; };' >"$inc/vfio_pci_core.h"
	echo '#define VM_IO 1' >"$inc/mm.h"
	echo 'vm_fault_t vmf_insert_pfn_pmd(struct vm_fault *vmf, pfn_t pfn, bool write);' \
		>"$inc/huge_mm.h"
}

probe() { # DIR; leaves flags or the sentence in $out
	if out=$(sh "$kmod/probe.sh" "$1" 2>&1); then status=0; else status=1; fi
}

said() { # TEXT: the probe has failed and said TEXT
	case "$status $out" in
	"1 "*"$1"*) result "probe: $2" 0 ;;
	*) echo "     $status $out"; result "probe: $2" 1 ;;
	esac
}

gave() { # FLAG WHAT: the probe has succeeded and given FLAG
	case "$status $out " in
	"0 "*" -DNVGRACE_$1 "*) result "probe: $2" 0 ;;
	*) echo "     $status $out"; result "probe: $2" 1 ;;
	esac
}

old_ops="init release open_device close_device read write ioctl mmap request
	match dma_unmap device_feature"

for test in layout_test access_test; do
	${CC:-gcc} -std=gnu11 -O1 -g -Wall -Wextra -Werror \
		-fsanitize=address,undefined -fno-sanitize-recover=all \
		-o "$work/$test" "$kmod/tests/$test.c"
	"$work/$test" || failed=$((failed + 1))
done

${CC:-gcc} -std=gnu11 -O1 -g -Wall -Wextra -Werror -DSTANDALONE \
	-fsanitize=address,undefined -fno-sanitize-recover=all \
	-o "$work/region_fuzz" "$kmod/tests/fuzz/region_fuzz.c"
"$work/region_fuzz" 1000000 || failed=$((failed + 1))

probe "$work/nothing"
said 'install the headers' 'no headers'

# shellcheck disable=SC2086 # a list of words
make_headers "$work/old" $old_ops
probe "$work/old"
gave OP_OPEN_DEVICE 'an operation that is there'
gave HAVE_PFN_T 'pfn_t for huge mappings'

# shellcheck disable=SC2086
make_headers "$work/future" $old_ops migrate_memory
probe "$work/future"
said "has the operation 'migrate_memory'" 'an operation that the driver does not set'

# shellcheck disable=SC2086
make_headers "$work/dmabuf" $old_ops
printf 'struct vfio_pci_device_ops {\n\tint (*put_dmabuf)(int x);\n};\n' \
	>>"$work/dmabuf/include/linux/vfio_pci_core.h"
probe "$work/dmabuf"
said "has the operation 'put_dmabuf'" 'an unknown operation of vfio-pci-core'

make_headers "$work/empty"
probe "$work/empty"
said 'was not understood' 'an empty struct vfio_device_ops'

# shellcheck disable=SC2086
make_headers "$work/undecided" $old_ops
echo 'vm_fault_t vmf_insert_pfn_pmd(struct folio *folio);' \
	>"$work/undecided/include/linux/huge_mm.h"
probe "$work/undecided"
said 'vmf_insert_pfn_pmd() was not understood' 'a huge mapping interface of unknown shape'

# shellcheck disable=SC2086
make_headers "$work/new" $old_ops get_region_info_caps match_token_uuid
echo 'vm_fault_t vfio_pci_vmf_insert_pfn(int x);' \
	>>"$work/new/include/linux/vfio_pci_core.h"
echo 'static inline void vm_flags_set(int x)' >>"$work/new/include/linux/mm.h"
probe "$work/new"
gave OP_GET_REGION_INFO_CAPS 'region info as an operation of its own'
gave HAVE_VMF_INSERT_PFN "the core's own insertion of pages"
gave HAVE_VM_FLAGS_SET 'vm_flags_set()'

version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' "$kmod/dkms.conf")
grep -q "^#define NVGRACE_VERSION	\"$version\"$" "$kmod/main.c" && same=0 || same=1
result "version: $version in dkms.conf and main.c" "$same"

admits() { # RELEASE: dkms.conf lets DKMS build for that kernel
	echo "$1" | grep -qE "$(sed -n 's/^BUILD_EXCLUSIVE_KERNEL="\(.*\)"$/\1/p' "$kmod/dkms.conf")"
}

wrong=
for release in 6.1.0-50-amd64 6.1.176 6.8.0-45-generic 6.12.117+deb13-arm64 \
	6.17.0-1008-nvidia-64k 7.2.12+deb14-amd64 7.3.4+deb13-arm64 7.10.1; do
	admits "$release" || wrong="$wrong $release"
done
for release in 4.18.0-553.el8 5.14.0-427.el9.aarch64 5.15.0-100-generic 6.0.19; do
	! admits "$release" || wrong="$wrong $release"
done
[ -z "$wrong" ] && same=0 || same=1
result "dkms.conf: kernels from 6.1 on, and none before$wrong" "$same"

if [ "$failed" -ne 0 ]; then
	echo "files/kmod: FAILED"
	exit 1
fi
echo "files/kmod: passed"
