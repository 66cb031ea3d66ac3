# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_info and gpu_driver over whole hosts: GB200 with four GPUs, HGX H100 with eight, a card with four functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.inventory import read_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import load_records
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import VARIANT, FakeHost, options
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import (
    GB200,
    GIB,
    HGX,
    MIB,
    SWITCHES,
    TURING,
    captured,
    gb200,
    hgx_h100,
    load,
    turing_card,
)

ROOT = Path(__file__).resolve().parents[3]
Maker = Callable[[Path], FakeHost]


@pytest.mark.parametrize(("make", "addresses", "expected"), [
    (gb200, GB200, {"product_key": "gb200", "family": "grace-blackwell", "coherent": True, "driver": "nvidia",
                    "best_variant": {"module": VARIANT, "driver": VARIANT, "source": "modules.alias"}}),
    (hgx_h100, HGX, {"product_key": None, "coherent": False, "driver": "nvidia",
                     "best_variant": {"module": "vfio_pci", "driver": "vfio-pci", "source": "modules.alias"}}),
    (turing_card, TURING[:1], {"coherent": False, "driver": "nouveau"}),
])
def test_gpus(tmp_path: Path, make: Maker, addresses: tuple[str, ...], expected: dict[str, Any]) -> None:
    gpus = read_gpus(make(tmp_path), None)
    assert tuple(gpu["address"] for gpu in gpus) == addresses
    for gpu in gpus:
        assert {key: gpu[key] for key in expected} == expected
        assert gpu["state"] == "free"


def test_gb200_knows_where_everything_is(tmp_path: Path) -> None:
    gpus = read_gpus(gb200(tmp_path), None)
    assert [gpu["numa_node"] for gpu in gpus] == [0, 0, 1, 1]
    assert [gpu["iommu_group"] for gpu in gpus] == [20, 21, 22, 23]
    assert [gpu["generic_initiator_nodes"] for gpu in gpus] == [list(range(2 + 8 * number, 10 + 8 * number))
                                                                for number in range(4)]
    assert [(bar["index"], bar["size"]) for bar in gpus[0]["bars"]] == [(0, 64 * MIB), (2, 256 * GIB), (4, 32 * MIB)]


@pytest.mark.parametrize(("make", "number", "members"), [
    (gb200, 2, [("0018:01:00.0", "gpu", "nvidia")]),
    (hgx_h100, 4, [("0001:99:00.0", "bridge", "pcieport"), ("0001:9a:00.0", "gpu", "nvidia")]),
    (turing_card, 0, [("0000:64:00.0", "bridge", "pcieport"), ("0000:65:00.0", "gpu", "nouveau"),
                      ("0000:65:00.1", "audio", "snd_hda_intel"), ("0000:65:00.2", "usb", "xhci_hcd"),
                      ("0000:65:00.3", "usb-c", "nvidia-gpu")]),
])
def test_group_members(tmp_path: Path, make: Maker, number: int, members: list[tuple[str, str, Optional[str]]]) -> None:
    gpu = read_gpus(make(tmp_path), None)[number]
    assert [(item["address"], item["kind"], item["driver"]) for item in gpu["group_members"]] == members


@pytest.mark.parametrize(("make", "all_gpus", "chosen", "driver"), [
    (gb200, GB200, GB200, VARIANT),
    (gb200, GB200, ("0009:01:00.0", "0018:01:00.0"), VARIANT),
    (hgx_h100, HGX, HGX, "vfio-pci"),
    (hgx_h100, HGX, ("0000:5d:00.0", "0001:9a:00.0", "0001:db:00.0"), "vfio-pci"),
])
def test_some_gpus_are_given_to_vms_and_the_others_stay(tmp_path: Path, make: Maker, all_gpus: tuple[str, ...],
                                                        chosen: tuple[str, ...], driver: str) -> None:
    host = make(tmp_path)
    # NVIDIA's persistence daemon holds the GPUs that stay, which is nobody's business here
    host.add_process(700, "nvidia-persiste", [f"/dev/nvidia{number}" for number, address in enumerate(all_gpus)
                                              if address not in chosen] + ["/dev/nvidiactl"])
    before, drivers = host.manifest(), {address: host.driver(address)
                                        for address in host.listdir("/sys/bus/pci/devices")}
    result = bind_gpus(host, options(*chosen))
    assert [device["address"] for device in result["devices"]] == sorted(chosen)
    assert {address: host.driver(address) for address in drivers} == {
        **drivers, **dict.fromkeys(chosen, driver)}
    touched = {action.split()[1] for action in result["actions"] if action.startswith(("bind", "unbind"))}
    assert touched == set(chosen)
    # one goes back, the others stay
    release_gpus(host, options(chosen[0]))
    assert set(load_records(host)) == set(chosen[1:])
    assert host.driver(chosen[0]) == "nvidia"
    release_gpus(host, options())
    assert host.manifest() == before


def test_a_gpu_that_the_persistence_daemon_holds_is_refused_with_its_name(tmp_path: Path) -> None:
    host = hgx_h100(tmp_path)
    host.add_process(700, "nvidia-persiste", ["/dev/nvidia2", "/dev/nvidia3"])
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(HGX[2], HGX[4]))
    assert caught.value.message == (f"In use: {HGX[2]}: nvidia-persiste (pid 700) holds /dev/nvidia2. End that first; "
                                    "nothing was changed.")
    assert caught.value.details["in_use"] == [HGX[2]]
    assert host.manifest() == before


def test_an_nvswitch_in_the_group_is_named_and_needs_consent(tmp_path: Path) -> None:
    host = hgx_h100(tmp_path)
    host.set_group(SWITCHES[0], 30)
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(HGX[0]))
    assert caught.value.message == (
        "The IOMMU group 30 of 0000:18:00.0 also has 0000:05:00.0 (10de:22a3, nvswitch), which nobody consented to: "
        "add it to group_consent to have it bound too, or leave this GPU out.")
    assert caught.value.details["unconsented"] == [SWITCHES[0]]


@pytest.mark.parametrize(("address", "name"), [
    (SWITCHES[1], "0000:06:00.0 (10de:22a3, nvswitch) is not an NVIDIA GPU"),
    ("0001:99:00.0", "0001:99:00.0 (1000:c030, bridge) is not an NVIDIA GPU"),
    ("0000:60:00.0", "0000:60:00.0 (15b3:1021, other) is not an NVIDIA GPU"),
    ("0000:9a:00.0", "There is no PCI function 0000:9a:00.0 on this host"),
])
def test_what_is_no_gpu_is_named(tmp_path: Path, address: str, name: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(hgx_h100(tmp_path), options(address))
    assert name in caught.value.message


@pytest.mark.parametrize(("consent", "missing"), [
    ((), "0000:65:00.1 (10de:10f7, audio), 0000:65:00.2 (10de:1ad6, usb), 0000:65:00.3 (10de:1ad7, usb-c)"),
    (TURING[1:3], "0000:65:00.3 (10de:1ad7, usb-c)"),
    (TURING[1:], None),
])
def test_auxiliary_functions_need_consent(tmp_path: Path, consent: tuple[str, ...], missing: Optional[str]) -> None:
    host = turing_card(tmp_path)
    before = host.manifest()
    if missing is not None:
        with pytest.raises(PassthroughError, match="also has") as caught:
            bind_gpus(host, options(TURING[0], consent=frozenset(consent)))
        assert f"also has {missing}, which" in caught.value.message
        assert host.manifest() == before
        return
    bind_gpus(host, options(TURING[0], consent=frozenset(consent)))
    assert [host.driver(address) for address in TURING] == ["vfio-pci"] * 4
    assert host.driver("0000:64:00.0") == "pcieport"
    release_gpus(host, options(TURING[0]))
    assert host.manifest() == before


def test_a_card_whose_audio_function_has_a_group_of_its_own_leaves_it_to_the_host(tmp_path: Path) -> None:
    host = turing_card(tmp_path)
    for number, address in enumerate(TURING[1:]):
        host.remove(f"/sys/kernel/iommu_groups/9/devices/{address}")
        host.set_group(address, 100 + number)
    bind_gpus(host, options(TURING[0]))
    assert [host.driver(address) for address in TURING] == ["vfio-pci", "snd_hda_intel", "xhci_hcd", "nvidia-gpu"]


class WatchedHost(FakeHost):
    """Remembers what is read: files, links, and whatever is in directories that are listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.seen: set[str] = set()

    def read_bytes(self, path: str) -> Optional[bytes]:
        self.seen.add(path)
        return super().read_bytes(path)

    def readlink_name(self, path: str) -> Optional[str]:
        self.seen.add(path)
        return super().readlink_name(path)

    def listdir(self, path: str) -> list[str]:
        names = super().listdir(path)
        self.seen.update(f"{path}/{name}" for name in names)
        return names


def capture(root: Path) -> dict[str, dict[str, str]]:
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "tools" / "capture-sysfs"), str(root)], check=True,
                          capture_output=True, text=True)
    loaded: dict[str, dict[str, str]] = json.loads(done.stdout)
    return loaded


@pytest.mark.parametrize("make", [gb200, hgx_h100, turing_card])
def test_what_is_captured_of_a_host_is_what_the_modules_read(tmp_path: Path, make: Maker) -> None:
    original = make(tmp_path / "original")
    tree = capture(tmp_path / "original")
    copy = load(tmp_path / "copy", tree, WatchedHost)
    assert isinstance(copy, WatchedHost)
    gpus = read_gpus(original, None)
    assert read_gpus(copy, None) == gpus
    wish = options(*(gpu["address"] for gpu in gpus), consent=frozenset(TURING))
    assert bind_gpus(copy, wish) == bind_gpus(original, wish)
    assert release_gpus(copy, options()) == release_gpus(original, options())
    # a driver that nobody has is captured with its module all the same, and so is what a bridge of a group has
    bridges = {member["address"] for gpu in gpus for member in gpu["group_members"] if member["kind"] == "bridge"}
    unread = {path for path in set(tree) - copy.seen if not path.startswith(("/sys/bus/pci/drivers/", "/sys/module/"))
              and path.split("/")[5:6] not in [[bridge] for bridge in bridges]}
    assert unread <= {"/sys/class/iommu/smmu3"}  # asked for only where a GPU is in no group


@pytest.mark.parametrize("source", [gb200, hgx_h100, turing_card, *captured()])
def test_captured_hosts_can_be_bound_and_given_back(tmp_path: Path, source: Union[Maker, str]) -> None:
    if isinstance(source, str):
        host = load(tmp_path, captured()[source])
    else:
        source(tmp_path / "original")
        host = load(tmp_path / "copy", capture(tmp_path / "original"))
    before = host.manifest()
    gpus = read_gpus(host, None)
    addresses = [gpu["address"] for gpu in gpus]
    consent = frozenset(member["address"] for gpu in gpus for member in gpu["group_members"])
    bind_gpus(host, options(*addresses, consent=consent))
    assert {gpu["driver"] for gpu in read_gpus(host, None)} <= {gpu["best_variant"]["driver"] for gpu in gpus}
    release_gpus(host, options())
    assert host.manifest() == before
