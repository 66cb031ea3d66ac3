# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our choice of the VFIO driver is libvirt's, for every function that a variant driver of Debian's kernels names.

The oracle below follows the way of libvirt 11.3 (virPCIDeviceFindBestVFIOVariant) step by step, with searches in the
text of the file where our code has a regular expression, so that the two do not share their faults.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import PRODUCTS
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.variant import VariantChooser

NAMES = ("v", "d", "sv", "sd", "bc", "sc", "i")
# What a field that the alias leaves open is filled with: two values, so that a filler cannot match by accident alone.
FILLERS = (("0000ABCD", "00001234", "00005678", "00009ABC", "03", "02", "00"),
           ("000010DE", "00002342", "000010DE", "000016EB", "08", "80", "01"))
# Debian builds none of the variant drivers. These are the ids of those of Linux 7.3 (drivers/vfio/pci), of xe a few, in
# the form in which depmod writes them for a kernel that has the drivers, or after DKMS has installed ours.
VARIANTS = {
    "nvgrace_gpu_vfio_pci": ("10DE", ("2342", "2345", "2348", "2941", "31C2")),
    "mlx5_vfio_pci": ("15B3", ("101E",)),
    "hisi_acc_vfio_pci": ("19E5", ("A251", "A256", "A259")),
    "qat_vfio_pci": ("8086", ("4941", "4943", "4945", "4947", "4949")),
    "pds_vfio_pci": ("1DD8", ("1003",)),
    "virtio_vfio_pci": ("1AF4", ("1041", "1042")),
    "xe_vfio_pci": ("8086", ("E220", "E221", "B080", "B081")),
    "ism_vfio_pci": ("1014", ("04ED",)),
}
VARIANT_LINES = "".join(f"alias vfio_pci:v0000{vendor}d0000{device}sv*sd*bc*sc*i* {module}\n"
                        for module, (vendor, devices) in VARIANTS.items() for device in devices)
# No driver has such aliases today; the rule has an answer for them.
NARROWER = """\
alias vfio_pci:v000010DEd*sv*sd*bc03sc*i* nvidia_display
alias vfio_pci:v000010DEd00002342sv000010DEsd*bc*sc*i* nvidia_board
alias vfio_pci:v000010DEd00002330sv*sd*bc03sc02i00* never_in_libvirt
alias vfio_pci:v000010DEd0000233*sv*sd*bc*sc*i* never_in_libvirt
alias vfio_pci:v000010DEd00002331 broken
"""
# (vendor, device, class) beside those of the aliases: H100 SXM and PCIe, RTX 4090, its audio, NVSwitch, a network card.
FUNCTIONS = [("10DE", product.device.upper(), "030200") for product in PRODUCTS] + [
    ("10DE", "2330", "030200"), ("10DE", "2331", "030200"), ("10DE", "2684", "030000"), ("10DE", "22BA", "040300"),
    ("10DE", "22A3", "068000"), ("1AF4", "1000", "020000"), ("8086", "1572", "020000"),
]
# What the file of the package becomes where more drivers are installed.
ADDED = {"as packaged": ("", ""), "variants after": ("", VARIANT_LINES), "variants before": (VARIANT_LINES, ""),
         "narrower aliases": (VARIANT_LINES, NARROWER), "narrower aliases before": (NARROWER, VARIANT_LINES)}


def libvirt_fields(text: str) -> list[str] | None:
    """The seven fields as libvirt finds them: each name has to follow at once, and the value ends at the next name."""
    fields = []
    for number, name in enumerate(NAMES):
        if not text.startswith(name):
            return None
        text = text[len(name):]
        if number + 1 < len(NAMES):
            end = text.find(NAMES[number + 1])
            if end < 0:
                return None
        else:
            end = len(text.split(None, 1)[0]) if text.strip() else 0
        fields.append(text[:end])
        text = text[end:]
    return fields


def libvirt_choice(modules_alias: str, modalias: str) -> str:
    """The module that libvirt takes, vfio-pci where none of the aliases matches."""
    wanted = libvirt_fields(modalias.removeprefix("pci:"))
    assert wanted is not None, modalias
    best, fewest = "vfio-pci", len(NAMES) + 1
    position = modules_alias.find("\nalias vfio_pci:")
    while position >= 0:
        start = position + len("\nalias vfio_pci:")
        line = modules_alias[start:modules_alias.index("\n", start)]
        fields = libvirt_fields(line)
        if fields is not None and all(field in ("*", value) for field, value in zip(fields, wanted, strict=True)):
            open_fields = fields.count("*")
            if open_fields < fewest:
                best, fewest = line[line.index(" ") + 1:], open_fields
        position = modules_alias.find("\nalias vfio_pci:", start)
    return best


def modaliases(modules_alias: str) -> set[str]:
    """A function for each alias of a VFIO driver, with two fillings, and those of FUNCTIONS."""
    found = set()
    for line in modules_alias.splitlines():
        if not line.startswith("alias vfio_pci:"):
            continue
        fields = libvirt_fields(line.removeprefix("alias vfio_pci:").split()[0])
        if fields is None or any("*" in field and field != "*" for field in fields):
            continue  # no function has such a value
        for filler in FILLERS:
            values = [fill if field == "*" else field for field, fill in zip(fields, filler, strict=True)]
            found.add("pci:" + "".join(itertools.chain(*zip(NAMES, values, strict=True))))
    for vendor, device, code in FUNCTIONS:
        found.add(f"pci:v0000{vendor}d0000{device}sv0000{vendor}sd00000001bc{code[:2]}sc{code[2:4]}i{code[4:]}")
    return found


@pytest.fixture(params=["6.12-amd64", "6.12-arm64", "7.3-amd64", "7.3-arm64"])
def kernel(request: pytest.FixtureRequest, kernels: dict[str, Path]) -> Path:
    version, arch = request.param.split("-")
    (path,) = (path for name, path in kernels.items() if name.startswith(f"{version}.") and name.endswith(f"-{arch}"))
    return path


def make_chooser(root: Path, kernel: Path, modules_alias: str) -> VariantChooser:
    directory = root / "lib" / "modules" / kernel.name
    directory.mkdir(parents=True)
    (directory / "modules.alias").write_text(modules_alias)
    (directory / "modules.builtin.modinfo").write_bytes((kernel / "modules.builtin.modinfo").read_bytes())
    release = root / "proc" / "sys" / "kernel" / "osrelease"
    release.parent.mkdir(parents=True)
    release.write_text(kernel.name)
    return VariantChooser(Host(str(root)))


@pytest.mark.parametrize("added", ADDED)
def test_every_choice_is_libvirts(tmp_path: Path, kernel: Path, added: str) -> None:
    before, after = ADDED[added]
    head, body = (kernel / "modules.alias").read_text().split("\n", 1)
    text = f"{head}\n{before}{body}{after}"
    chooser = make_chooser(tmp_path, kernel, text)
    choices = {modalias: (chooser.choose(modalias).module.replace("-", "_"),
                          libvirt_choice(text, modalias).replace("-", "_")) for modalias in modaliases(text)}
    assert {modalias: pair for modalias, pair in choices.items() if pair[0] != pair[1]} == {}
    chosen = {ours for ours, _theirs in choices.values()}
    wanted = {"vfio_pci", *(VARIANTS if before or after else ())}
    assert wanted <= chosen and "never_in_libvirt" not in chosen and "broken" not in chosen
    assert ("nvidia_display" in chosen) == ("narrower" in added)


def test_the_packaged_kernel_has_its_vfio_pci_in_the_file(kernel: Path) -> None:
    """Else the test above would compare two answers to an empty question."""
    assert "\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n" in (kernel / "modules.alias").read_text()
