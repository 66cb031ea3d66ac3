# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which firmware image a guest gets: always named, never left to libvirt's choice.

Left alone, libvirt picks the Secure Boot image with enrolled keys on Debian arm64 (unsigned NVIDIA modules do not load
there), and on newer x86 the AMD SEV build.
"""

from __future__ import annotations

from .._core.errors import PassthroughError
from .model import Firmware, HostView, VmRequest

# Best first. The directory names tell the architecture, the file names the build.
_PREFERRED: dict[str, tuple[str, ...]] = {
    "aarch64": ("/AAVMF/AAVMF_CODE.no-secboot.fd", "/AAVMF/AAVMF_CODE.fd", "/aarch64/QEMU_EFI-pflash.raw",
                "/aarch64/QEMU_EFI-silent-pflash.raw", "/aarch64/QEMU_EFI-pflash.qcow2"),
    "x86_64": ("/OVMF/OVMF_CODE_4M.fd", "/OVMF/OVMF_CODE.fd", "/ovmf/OVMF_CODE.fd", "/x64/OVMF_CODE.4m.fd"),
}
_DEFAULT: dict[str, Firmware] = {
    "aarch64": Firmware("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    "x86_64": Firmware("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
}


def choose_firmware(request: VmRequest, host: HostView, arch: str) -> Firmware:
    """The described image, else the best one of the host without Secure Boot, else Debian's path for a host unseen."""
    if bool(request.loader) != bool(request.nvram_template):
        raise PassthroughError(f"firmware of VM {request.name} needs both loader and nvram_template: the variables "
                               "belong to one image.")
    if request.loader:
        return Firmware(request.loader, request.nvram_template)
    if not host.known:
        return _DEFAULT[arch]
    plain = [image for image in host.firmware if not image.secure_boot and image.nvram_template]
    for ending in _PREFERRED[arch]:
        for image in plain:
            if image.path.endswith(ending):
                return image
    package = "qemu-efi-aarch64" if arch == "aarch64" else "ovmf"
    raise PassthroughError(f"VM {request.name}: no UEFI image without Secure Boot was found on the host; install "
                           f"{package}, or name one with firmware.loader and firmware.nvram_template.")
