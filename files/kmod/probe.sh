#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: probe.sh KERNEL_SOURCE
#
# Looks into the headers of the kernel that is built for and prints the -D
# options for compat.h. Version numbers are not asked: stable series and
# distributions take over parts of newer interfaces.
#
# Fails, with one sentence on standard error, where the driver would build and
# then misbehave: a header with an operation that the driver does not set, or
# one that no probe recognises.
set -eu

inc=$1/include/linux

fail() {
	echo "nvgrace-gpu-vfio-pci: $*" >&2
	exit 1
}

# The function pointers of struct $2 in header $1, one per line.
members() {
	sed -n "/^struct $2 {/,/^};/s/^[^(]*(\*\([a-z0-9_]*\))(.*/\1/p" "$inc/$1"
}

has() {
	grep -qE "$2" "$inc/$1"
}

# Fails unless every function pointer of struct $2 in $1 is one of $3...
only_known() {
	header=$1 struct=$2
	shift 2
	for op in $(members "$header" "$struct"); do
		case " $* " in
		*" $op "*) ;;
		*) fail "struct $struct in $inc/$header has the operation '$op'," \
			"which this driver does not set and therefore would" \
			"break on this kernel: use a newer driver" ;;
		esac
	done
}

for header in vfio.h vfio_pci_core.h mm.h; do
	[ -r "$inc/$header" ] ||
		fail "$inc/$header is missing: install the headers of the" \
			"kernel that the module is built for"
done

# dma_unmap is for emulated devices that pin pages themselves: no PCI driver
# sets it.
only_known vfio.h vfio_device_ops \
	init release bind_iommufd unbind_iommufd attach_ioas detach_ioas \
	pasid_attach_ioas pasid_detach_ioas open_device close_device read \
	write ioctl get_region_info_caps mmap request match match_token_uuid \
	dma_unmap device_feature
only_known vfio_pci_core.h vfio_pci_device_ops get_dmabuf_phys

ops=$(members vfio.h vfio_device_ops)
# shellcheck disable=SC2086,SC2116 # echo makes one line of it
case " $(echo $ops) " in
*" open_device "*" read "*" mmap "*) ;;
*) fail "struct vfio_device_ops was not understood in $inc/vfio.h" ;;
esac

flags=
for op in $ops $(members vfio_pci_core.h vfio_pci_device_ops); do
	flags="$flags -DNVGRACE_OP_$(echo "$op" | tr '[:lower:]' '[:upper:]')"
done

have() {
	flags="$flags -DNVGRACE_HAVE_$1"
}

if has mm.h 'void vm_flags_set\('; then have VM_FLAGS_SET; fi
if has mm.h 'define VM_ALLOW_ANY_UNCACHED'; then have ALLOW_ANY_UNCACHED; fi

if has vfio.h '^	struct inode \*inode;'; then have VFIO_INODE; fi

if [ -e "$inc/memory-failure.h" ]; then
	has memory-failure.h 'pfn_to_vma_pgoff' ||
		fail "struct pfn_address_space was not understood in" \
			"$inc/memory-failure.h: use a newer driver"
	have PFN_ADDRESS_SPACE
fi

if has vfio_pci_core.h 'vfio_pci_vmf_insert_pfn\('; then
	have VMF_INSERT_PFN
elif has huge_mm.h 'vmf_insert_pfn_pmd\(struct vm_fault \*vmf, pfn_t '; then
	have PFN_T
elif ! has huge_mm.h 'vmf_insert_pfn_pmd\(struct vm_fault \*vmf, unsigned long '; then
	fail "vmf_insert_pfn_pmd() was not understood in $inc/huge_mm.h: use a" \
		"newer driver"
fi

echo "$flags"
