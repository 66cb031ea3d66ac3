#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: sandbox.sh ROOT WORK COMMAND...
#
# Runs a command within a Debian root of libvirt-root.sh that looks like a host
# with VFIO, IOMMUFD, KVM, huge pages and NUMA nodes to libvirt, which asks for
# files where it only writes a command line. WORK is /work there; what else the
# command writes goes away with it, as do its mounts and processes.
set -eu

# Within the namespaces: $0 is the root, $1 the work directory.
# shellcheck disable=SC2016 # expanded there
inside='set -eu
base=$1
shift
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/aside /mnt/root
mount -t overlay -o "lowerdir=$0,upperdir=/mnt/upper,workdir=/mnt/aside" overlay /mnt/root
cd /mnt/root
# Before Debian 13 only the package of the system daemon makes them.
grep -q ^libvirt-qemu: etc/passwd || echo "libvirt-qemu:x:64055:64055::/:/bin/false" >>etc/passwd
for group in kvm libvirt-qemu; do grep -q "^$group:" etc/group || echo "$group:x:64055:" >>etc/group; done
mkdir -p work
mount --bind "$base" work
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "ptmx 5 2"; do
	# shellcheck disable=SC2086 # three words
	set -- $node -- "$@"
	mknod -m 666 "dev/$1" c "$2" "$3"
	shift 4
done
ln -s /proc/self/fd dev/fd
mkdir -p dev/pts dev/shm dev/vfio dev/net
mount -t devpts devpts dev/pts
mknod -m 666 dev/net/tun c 10 200
# Files are enough: nothing is started with KVM or VFIO here.
touch dev/kvm dev/iommu dev/vfio/vfio dev/vhost-net
chmod 666 dev/kvm
for size in 2097152 536870912 1073741824; do mkdir "dev/hugepages-$size"; done
# Neither the processor nor the modules of this machine: libvirt keeps what it has found of QEMU together with them.
echo "processor : 0" >/mnt/cpuinfo
mount --bind /mnt/cpuinfo proc/cpuinfo
mount -t tmpfs tmpfs sys/module
mount -t tmpfs tmpfs sys/kernel/iommu_groups
mkdir -p sys/kernel/iommu_groups/0/devices
mount -t tmpfs tmpfs sys/devices/system/node
for node in 0 1; do
	mkdir "sys/devices/system/node/node$node"
	echo "$((72 * node))-$((72 * node + 71))" >"sys/devices/system/node/node$node/cpulist"
	printf "Node %s MemTotal: 1048576 kB\nNode %s MemFree: 1048576 kB\n" "$node" "$node" >"sys/devices/system/node/node$node/meminfo"
done
echo ff,ffffffff,ffffffff >sys/devices/system/node/node0/cpumap
echo ffff,ffffffff,ffffff00,00000000,00000000 >sys/devices/system/node/node1/cpumap
for file in online possible has_cpu has_memory has_normal_memory; do echo 0-1 >"sys/devices/system/node/$file"; done
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
ip link set lo up 2>/dev/null || true
exec chroot . /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root LC_ALL=C.UTF-8 "$@"'

[ $# -ge 3 ] || {
	echo "usage: sandbox.sh ROOT WORK COMMAND..." >&2
	exit 2
}
# A root in use is not removed as outdated: see roots.sh.
exec 8<"$1"
flock --shared 8
exec unshare --mount --pid --net --fork --kill-child sh -c "$inside" "$@"
