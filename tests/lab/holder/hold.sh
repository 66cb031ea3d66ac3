#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: hold.sh KIND ADDRESS
#
# Runs on the host: starts a process that has a function's device node open, and prints "PID NODE". KIND says whose:
#   vfio    the group's of VFIO; a VFIO driver must have the function
#   nvidia  that of a driver that looks like NVIDIA's; it is built, loaded, and gets the function when nobody has it
set -eu
kind=$1 address=$2
device=/sys/bus/pci/devices/$address
source=$(dirname "$0")

fail() {
    echo "$*" >&2
    exit 1
}

driver() {
    if test -e "$device/driver"; then basename "$(readlink "$device/driver")"; else echo none; fi
}

load_nvidia() {
    if test ! -e /sys/bus/pci/drivers/nvidia; then
        make -s -C "/lib/modules/$(uname -r)/build" "M=$source" modules >&2
        insmod "$source/nvidia.ko"
    fi
    test "$(driver)" != none || echo "$address" > /sys/bus/pci/drivers/nvidia/bind
    test "$(driver)" = nvidia || fail "$address belongs to $(driver), not to nvidia"
    test -e /dev/nvidiactl || mknod -m 0666 /dev/nvidiactl c 195 255
}

case $kind in
vfio)
    node=/dev/vfio/$(basename "$(readlink "$device/iommu_group")")
    test -e "$node" || fail "$address has no $node; its driver is $(driver)"
    ;;
nvidia)
    load_nvidia
    minor=$(sed -n 's/^Device Minor:[^0-9]*//p' "/proc/driver/nvidia/gpus/$address/information")
    node=/dev/nvidia$minor
    test -e "$node" || mknod -m 0666 "$node" c 195 "$minor"
    ;;
*)
    fail "nobody holds a function as $kind" ;;
esac

unit=nvgrace-lab-hold-$kind-$address
systemd-run --quiet --collect --unit="$unit" --property=Type=notify --property=NotifyAccess=all \
    python3 -c '
import os, signal, subprocess, sys
node = os.open(sys.argv[1], os.O_RDWR)
subprocess.run(["systemd-notify", "--ready"], check=True)
signal.pause()
' "$node" || fail "$node cannot be opened: $(journalctl -q -o cat -n 1 -u "$unit")"
echo "$(systemctl show --property MainPID --value "$unit") $node"
