#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: alter-headers.sh SHAPE DIR
#
# Changes DIR, a copy of a kernel's include/linux, into what a kernel looks
# like that Debian does not have. Fails where it finds nothing to change.
#
#   no-region-info  7.3 as 6.16 to 6.18 are: GET_REGION_INFO still reaches the
#                   driver's ioctl, and vfio-pci-core inserts no pages for it
#   no-io-rw        6.12 before vfio-pci-core lent its copying loop
#   no-inode        6.12 as 6.6 to 6.9 are: no inode for a VFIO device, and no
#                   huge mappings of pages without a struct page
#   unknown-op      an operation that no driver of today sets
set -eu

shape=$1
cd "$2"

fail() {
	echo "alter-headers: $*" >&2
	exit 1
}

found() { # FILE REGEX
	grep -q "$2" "$1" || fail "$shape: $1 has no line with $2"
}

# Removes from each line with START to the next with END, or that line alone.
remove() { # FILE START END
	found "$1" "$2"
	sed -i "/$2/{:more;/$3/!{N;b more};d}" "$1"
}

case "$shape" in
no-region-info)
	remove vfio.h '(\*get_region_info_caps)(' ');'
	remove vfio_pci_core.h '^int vfio_pci_ioctl_get_region_info(' ');'
	remove vfio_pci_core.h '^vm_fault_t vfio_pci_vmf_insert_pfn(' ');'
	remove vfio_pci_core.h '^bool __vfio_pci_memory_enabled(' ');'
	remove vfio_pci_core.h '^struct vfio_pci_device_ops {' '\n};'
	remove vfio_pci_core.h '\*pci_ops;' ';'
	rm memory-failure.h
	;;
no-io-rw)
	remove vfio_pci_core.h '^ssize_t vfio_pci_core_do_io_rw(' ');'
	;;
no-inode)
	remove vfio.h '^	struct inode \*inode;' ';'
	found kconfig.h '^#include <generated/autoconf.h>'
	sed -i '/^#include <generated\/autoconf.h>/a\
#undef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP\
#undef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP\
#undef CONFIG_ARCH_SUPPORTS_PUD_PFNMAP' kconfig.h
	;;
unknown-op)
	found vfio.h '(\*open_device)('
	sed -i '/(\*open_device)(/a\	int	(*migrate_memory)(struct vfio_device *vdev);' vfio.h
	;;
*)
	fail "no shape $shape"
	;;
esac
