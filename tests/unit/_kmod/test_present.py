# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""State present, end to end against a host in a directory: what is called, what stands there, what is reported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.plan import apply_step
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod import steps
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.facts import Package
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import (
    ALIAS,
    MACHINE,
    NAME,
    OTHER,
    RUNNING,
    FakeHost,
    Killed,
    parameters,
    source,
)

TREE = f"/var/lib/dkms/{NAME}/1.0.0"
INSTALLED = f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko"


def present(host: FakeHost, check_mode: bool = False, **overrides: Any) -> dict[str, Any]:
    return ensure(parameters(**overrides), check_mode, host)


def test_a_fresh_host_gets_the_module(host: FakeHost) -> None:
    result = present(host)
    assert result["changed"]
    assert host.dkms_calls() == ["add", "build", "install"]
    kernel = result["kernels"][0]
    assert (kernel["kernel"], kernel["state"], kernel["path"]) == (RUNNING, "installed", INSTALLED)
    assert (len(kernel["srcversion"]), kernel["signer"]) == (8, "DKMS module signing key")
    assert kernel["build_seconds"] >= 0
    assert result["provides"] == [{"module": "nvgrace_gpu_vfio_pci", "driver": "nvgrace_gpu_vfio_pci",
                                   "aliases": [ALIAS]}]
    assert not result["reload_required"]
    assert '"state": "absent"' in result["diff"]["before"]
    assert '"state": "installed"' in result["diff"]["after"]


def test_scripts_are_executable_on_the_host(host: FakeHost) -> None:
    present(host)
    directory = host.path(f"/usr/src/{NAME}-1.0.0")
    modes = {name: os.stat(os.path.join(directory, name)).st_mode & 0o777 for name in os.listdir(directory)}
    assert modes == {"dkms.conf": 0o644, "main.c": 0o644, "probe.sh": 0o755}


def test_a_converged_host_is_left_alone_and_dkms_is_not_called(host: FakeHost) -> None:
    present(host)
    host.calls.clear()
    result = present(host)
    assert (result["changed"], result["actions"], host.calls) == (False, [], [])
    assert result["kernels"][0]["srcversion"]
    assert result["kernels"][0]["build_seconds"] is None


def test_check_mode_predicts_the_real_run_and_touches_nothing(host: FakeHost) -> None:
    before = host.manifest()
    predicted = present(host, check_mode=True)
    assert host.calls == []
    assert host.manifest() == before
    real = present(host)
    assert predicted["actions"] == real["actions"]
    assert predicted["diff"] == real["diff"]
    assert predicted["provides"] == real["provides"]
    assert predicted["kernels"][0]["state"] == "installed"
    assert predicted["kernels"][0]["path"] is None


def test_a_changed_source_of_the_same_version_is_built_anew(host: FakeHost) -> None:
    first = present(host)
    host.load(first["kernels"][0]["srcversion"])
    host.calls.clear()
    predicted = present(host, check_mode=True, tree=source(code="two"))
    assert (predicted["changed"], predicted["reload_required"]) == (True, True)
    second = present(host, tree=source(code="two"))
    assert host.dkms_calls() == ["remove", "add", "build", "install"]
    assert second["kernels"][0]["srcversion"] != first["kernels"][0]["srcversion"]
    assert second["kernels"][0]["loaded_srcversion"] == first["kernels"][0]["srcversion"]
    assert second["reload_required"]
    assert not present(host, tree=source(code="two"))["changed"]


def test_the_loaded_build_is_the_installed_one(host: FakeHost) -> None:
    host.load(present(host)["kernels"][0]["srcversion"])
    assert present(host)["reload_required"] is False


def test_other_kernels_keep_their_module_when_the_source_changes(host: FakeHost) -> None:
    host.add_kernel(OTHER)
    present(host, kernels=["installed"])
    host.calls.clear()
    present(host, tree=source(code="two"))
    assert [call for call in host.calls if " build " in call] == [
        f"dkms build -m {NAME} -v 1.0.0 -k {RUNNING}", f"dkms build -m {NAME} -v 1.0.0 -k {OTHER}"]
    assert not present(host, tree=source(code="two"), kernels=[RUNNING, OTHER, "running"])["changed"]


def test_force_builds_anew(host: FakeHost) -> None:
    present(host)
    host.calls.clear()
    assert present(host, force=True)["changed"]
    assert host.dkms_calls() == ["remove", "add", "build", "install"]


def test_a_new_version_takes_over_and_the_old_one_stays_in_the_tree(host: FakeHost) -> None:
    present(host)
    result = present(host, tree=source(version="1.1.0", code="next"))
    assert (result["version"], result["other_versions"]) == ("1.1.0", ["1.0.0"])
    assert result["kernels"][0]["state"] == "installed"
    assert not present(host, tree=source(version="1.1.0", code="next"))["changed"]


@pytest.mark.parametrize("lack,packages,sentence", [
    ({"dkms"}, ["dkms"], "because dkms is missing: install dkms, then"),
    ({"gcc"}, ["gcc"], "because gcc is missing: install gcc, then"),
    ({"dkms", "make", "gcc"}, ["dkms", "make", "gcc"], "because dkms, make and gcc are missing: install dkms make"),
])
def test_missing_programs_are_named_by_package(host: FakeHost, lack: set[str], packages: list[str],
                                               sentence: str) -> None:
    host.programs -= lack
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        present(host)
    assert sentence in caught.value.message
    assert caught.value.details["missing_packages"] == packages
    assert host.manifest() == before


@pytest.mark.parametrize("os_release,package", [
    ("ID=ubuntu\nID_LIKE=debian\n", f"linux-headers-{RUNNING}"),
    ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', f"kernel-deb13-arm64-devel-{RUNNING.partition('+')[0]}"),
    ("ID=sles\n", "kernel-arm64-devel"),
])
def test_missing_headers_are_named_by_package(host: FakeHost, os_release: str, package: str) -> None:
    shutil.rmtree(host.path(f"/lib/modules/{RUNNING}/build"))
    host.make("/etc/os-release", os_release)
    with pytest.raises(PassthroughError, match=f"headers of kernel {RUNNING.split('+')[0]}.* are missing") as caught:
        present(host)
    assert caught.value.details["missing_packages"] == [package]


@pytest.mark.parametrize(("release", "image", "headers", "expected"), [
    (RUNNING, "linux-image-arm64", "linux-headers-arm64", "linux-headers-arm64"),
    ("6.17.0-1008-nvidia-64k", "linux-image-nvidia-64k", "linux-headers-nvidia-64k", "linux-headers-nvidia-64k"),
    ("6.17.0-12-generic", "linux-image-generic-hwe-13", "linux-headers-generic-hwe-13", "linux-headers-generic-hwe-13"),
    ("6.1.0-56-rt-amd64", "linux-image-rt-amd64", "linux-headers-rt-amd64", "linux-headers-rt-amd64"),
    (RUNNING, "linux-image-amd64", "linux-headers-amd64", None),
    ("6.12.1", "linux-image-arm64", "linux-headers-arm64", None),
])
def test_headers_have_to_follow_a_kernel_upgrade(host: FakeHost, release: str, image: str, headers: str,
                                                 expected: Optional[str]) -> None:
    if release != RUNNING:
        host.add_kernel(release)
    host.make(f"/var/lib/dpkg/info/{image}.list")
    for result in (present(host, kernels=[release]), present(host, kernels=[release])):
        assert [expected in text for text in result["warnings"]] == ([True] if expected else [])
    shutil.rmtree(host.path(f"/lib/modules/{release}/build"))
    with pytest.raises(PassthroughError) as caught:
        present(host, kernels=[release], force=True)
    assert caught.value.details["missing_packages"] == [f"linux-headers-{release}", *([expected] if expected else [])]
    host.add_headers(release)
    host.make(f"/var/lib/dpkg/info/{headers}.list")
    assert present(host, kernels=[release])["warnings"] == []


def test_an_unknown_distribution_gets_the_sentence_without_packages(host: FakeHost) -> None:
    shutil.rmtree(host.path(f"/lib/modules/{RUNNING}/build"))
    host.make("/etc/os-release", "ID=void\n")
    with pytest.raises(PassthroughError, match="are missing: install them") as caught:
        present(host)
    assert caught.value.details["missing_packages"] == []


def test_missing_packages_are_a_warning_in_check_mode(host: FakeHost) -> None:
    host.programs -= {"dkms"}
    result = present(host, check_mode=True)
    assert (result["changed"], result["missing_packages"]) == (True, ["dkms"])
    assert "dkms is missing" in result["warnings"][0]


def test_a_clang_kernel_wants_clang(host: FakeHost) -> None:
    host.make(f"/lib/modules/{RUNNING}/build/include/config/auto.conf", 'CONFIG_CC_VERSION_TEXT="clang version 19"\n')
    with pytest.raises(PassthroughError) as caught:
        present(host)
    assert caught.value.details["missing_packages"] == ["clang"]


def test_a_failed_build_shows_the_end_of_its_log(host: FakeHost) -> None:
    host.build_result = CommandResult(("dkms",), 10, "", "Consult make.log for more information.\n")
    lines = [f"line {number}" for number in range(60)] + ["main.c:3:1: error: unknown type name 'u65'", "make: *** 2"]
    original = host.run

    def failing(argv: Any, **options: Any) -> CommandResult:
        result = original(argv, **options)
        if " build " in " ".join(argv):
            host.make(f"{TREE}/build/make.log", "\n".join(lines))
        return result

    host.run = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(PassthroughError, match="could not be built .*: main.c:3:1: error: unknown type name") as caught:
        present(host)
    assert caught.value.details["build_log"] == f"{TREE}/build/make.log"
    assert caught.value.details["build_log_tail"] == lines[-40:]
    assert caught.value.details["actions"][-1] == f"run dkms add -m {NAME} -v 1.0.0"


@pytest.mark.parametrize("rc,seconds,sentence", [
    (124, 1800, "it did not end within 1800 seconds"),
    (137, 1830, "it did not end within 1800 seconds"),
    (137, 5, "it was killed by signal 9"),
    (-9, 5, "it was killed by signal 9"),
    (77, 5, "is not meant for kernel"),
    (21, 5, "could not be built for kernel .*: Consult"),
])
def test_a_build_that_ends_otherwise_has_its_own_sentence(host: FakeHost, monkeypatch: pytest.MonkeyPatch, rc: int,
                                                          seconds: int, sentence: str) -> None:
    clock = iter((1000.0, 1000.0 + seconds))
    monkeypatch.setattr(steps.time, "monotonic", lambda: next(clock))
    host.build_result = CommandResult(("dkms",), rc, "", "Consult the log\n")
    with pytest.raises(PassthroughError, match=sentence):
        present(host)


def test_after_a_failed_build_the_next_run_succeeds(host: FakeHost) -> None:
    host.build_result = CommandResult(("dkms",), 10, "", "no\n")
    with pytest.raises(PassthroughError):
        present(host)
    host.build_result = None
    assert present(host)["kernels"][0]["state"] == "installed"


@pytest.mark.parametrize("name", ["dkms", "depmod"])
def test_programs_that_claim_success_are_not_believed(host: FakeHost, name: str) -> None:
    if name == "depmod":
        present(host)
        host.make(f"/lib/modules/{RUNNING}/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko:\n")
    original = host.run

    def lying(argv: Any, **options: Any) -> CommandResult:
        if argv[0] == name:
            return CommandResult(tuple(argv), 0, "", "")
        return original(argv, **options)

    host.run = lying  # type: ignore[method-assign, assignment]
    if name == "dkms":
        host.build_result = CommandResult(("dkms",), 0, "", "")
    with pytest.raises(PassthroughError, match="Every step succeeded, yet|depmod left"):
        present(host)


@pytest.mark.parametrize("damage,calls", [
    ("half-copied module", [f"depmod -a {RUNNING}"]),
    ("deleted module", [f"depmod -a {RUNNING}"]),
    ("old modules.dep", [f"depmod -a {RUNNING}"]),
    ("link lost", [f"dkms add -m {NAME} -v 1.0.0"]),
    ("link elsewhere", [f"dkms add -m {NAME} -v 1.0.0"]),
    ("build lost", [f"dkms build -m {NAME} -v 1.0.0 -k {RUNNING}",
                    f"dkms install -m {NAME} -v 1.0.0 -k {RUNNING} --force"]),
    ("build half-made", [f"dkms build -m {NAME} -v 1.0.0 -k {RUNNING}",
                         f"dkms install -m {NAME} -v 1.0.0 -k {RUNNING} --force"]),
    ("not active", [f"dkms install -m {NAME} -v 1.0.0 -k {RUNNING} --force"]),
    ("DKMS tree lost", [f"dkms add -m {NAME} -v 1.0.0", f"dkms build -m {NAME} -v 1.0.0 -k {RUNNING}",
                        f"dkms install -m {NAME} -v 1.0.0 -k {RUNNING} --force"]),
])
def test_damage_is_repaired_with_the_fewest_calls(host: FakeHost, damage: str, calls: list[str]) -> None:
    present(host)
    good = host.manifest()
    {
        "half-copied module": lambda: host.make(INSTALLED, (host.read_bytes(INSTALLED) or b"")[:20]),
        "deleted module": lambda: host.remove(INSTALLED),
        "old modules.dep": lambda: host.make(f"/lib/modules/{RUNNING}/modules.dep", "\n"),
        "link lost": lambda: host.remove(f"{TREE}/source"),
        "link elsewhere": lambda: (host.remove(f"{TREE}/source"),
                                   os.symlink("/home/someone", host.path(f"{TREE}/source"))),
        "build lost": lambda: shutil.rmtree(host.path(f"{TREE}/{RUNNING}")),
        "build half-made": lambda: host.remove(f"{TREE}/{RUNNING}/{MACHINE}/module/{NAME}.ko"),
        "not active": lambda: host.remove(f"/var/lib/dkms/{NAME}/kernel-{RUNNING}-{MACHINE}"),
        "DKMS tree lost": lambda: shutil.rmtree(host.path(f"/var/lib/dkms/{NAME}")),
    }[damage]()
    host.calls.clear()
    predicted = present(host, check_mode=True)
    assert present(host)["actions"] == predicted["actions"]
    assert host.calls == calls
    if damage != "DKMS tree lost":  # there DKMS sets the module file that it finds aside
        assert host.manifest() == good
    assert not present(host)["changed"]


def test_a_build_that_is_no_module_is_made_anew(host: FakeHost) -> None:
    present(host)
    good = host.manifest()
    for path in (f"{TREE}/{RUNNING}/{MACHINE}/module/{NAME}.ko", INSTALLED):
        host.make(path, b"\x7fELF damaged")
    host.calls.clear()
    assert present(host)["changed"]
    assert host.dkms_calls() == ["build", "install"]
    assert host.manifest() == good
    assert not present(host)["changed"]


@pytest.mark.parametrize("damage", ["edited", "extra file", "file lost", "directory lost", "record lost"])
def test_a_source_that_is_not_ours_any_more_is_replaced(host: FakeHost, damage: str) -> None:
    present(host)
    directory = f"/usr/src/{NAME}-1.0.0"
    {
        "edited": lambda: host.make(f"{directory}/main.c", "evil"),
        "extra file": lambda: host.make(f"{directory}/sub/extra.h", "evil"),
        "file lost": lambda: host.remove(f"{directory}/main.c"),
        "directory lost": lambda: shutil.rmtree(host.path(directory)),
        "record lost": lambda: host.remove("/var/lib/nvgrace-passthrough/kmod.json"),
    }[damage]()
    host.calls.clear()
    assert present(host)["changed"]
    assert host.dkms_calls() == ["remove", "add", "build", "install"]
    assert not present(host)["changed"]


@pytest.mark.parametrize("tree", [source(), source(code="two")], ids=["same source", "other source"])
@pytest.mark.parametrize("start", ["fresh", "installed"])
def test_a_run_killed_within_any_program_is_finished_by_the_next(host: FakeHost, start: str, tree: Any) -> None:
    """force makes the interrupted run go through every program; the run after it has to notice by itself."""
    host.add_in_tree(RUNNING)
    pristine = host.manifest()
    if start == "installed":
        present(host, prefer_in_tree=False)
    for step in range(1, 10):
        host.calls.clear()
        host.kill_at = step
        try:
            present(host, prefer_in_tree=False, tree=tree, force=True)
        except Killed:
            host.kill_at = 0
            assert present(host, prefer_in_tree=False, tree=tree)["kernels"][0]["state"] == "installed"
            assert not present(host, prefer_in_tree=False, tree=tree)["changed"]
        else:
            break
    assert step > 4
    host.kill_at = 0
    ensure(parameters(state="absent"), False, host)
    after = {path: text for path, text in host.manifest().items() if "mok." not in path}
    assert after == pristine


def test_a_new_source_after_an_interrupted_build_of_the_old_one(host: FakeHost) -> None:
    host.add_kernel(OTHER)
    present(host, kernels=[OTHER])
    host.kill_at = len(host.calls) + 1
    with pytest.raises(Killed):
        present(host)
    host.kill_at = 0
    assert present(host, tree=source(code="two"), kernels=["installed"])["kernels"][0]["state"] == "installed"
    assert not present(host, tree=source(code="two"))["changed"]


def test_the_kernels_own_driver_is_preferred(host: FakeHost) -> None:
    host.add_in_tree(RUNNING)
    host.programs -= {"dkms", "make", "gcc"}
    result = present(host, required_ids=["10DE:2342"])
    assert not result["changed"]
    assert result["kernels"][0]["state"] == "in-tree"
    assert result["kernels"][0]["srcversion"] == "KERNEL"
    assert result["provides"][0]["aliases"] == [ALIAS]
    assert not host.exists("/var/lib/nvgrace-passthrough")


@pytest.mark.parametrize("overrides", [{"required_ids": ["10de:2342", "10de:31c2"]}, {"prefer_in_tree": False}])
def test_the_kernels_own_driver_is_passed_over(host: FakeHost, overrides: dict[str, Any]) -> None:
    host.add_in_tree(RUNNING)
    assert present(host, **overrides)["kernels"][0]["path"] == INSTALLED
    assert not present(host, **overrides)["changed"]


UNNEEDED: dict[str, Any] = {"required_ids": [], "only_if_required": True}


def test_a_host_without_gpus_that_need_it_gets_nothing(host: FakeHost) -> None:
    host.programs -= {"dkms", "make", "gcc"}
    result = present(host, **UNNEEDED)
    assert not result["changed"] and result["actions"] == [] and result["missing_packages"] == []
    assert [kernel["state"] for kernel in result["kernels"]] == ["absent"]
    assert (result["signing"]["key_pair"], result["signing"]["enrolment_steps"]) == (None, [])
    assert result["provides"] == []
    assert host.dkms_calls() == [] and not host.exists("/var/lib/nvgrace-passthrough")


def test_a_module_that_no_gpu_needs_any_more_stays(host: FakeHost) -> None:
    present(host)
    result = present(host, tree=source(code="two"), **UNNEEDED)
    assert not result["changed"]
    assert (result["kernels"][0]["state"], result["kernels"][0]["path"]) == ("installed", INSTALLED)
    assert result["provides"][0]["aliases"] == [ALIAS]


@pytest.mark.parametrize("overrides", [
    {"required_ids": None, "only_if_required": True}, {"required_ids": [], "only_if_required": False},
    {"required_ids": ["10de:2342"], "only_if_required": True}], ids=["not known", "all the same", "one needs it"])
def test_it_is_built_where_a_gpu_may_need_it(host: FakeHost, overrides: dict[str, Any]) -> None:
    assert present(host, **overrides)["kernels"][0]["state"] == "installed"


def test_a_built_in_driver_counts(host: FakeHost) -> None:
    host.make(f"/lib/modules/{RUNNING}/modules.builtin", f"kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko\n")
    host.make(f"/lib/modules/{RUNNING}/modules.builtin.modinfo", f"nvgrace_gpu_vfio_pci.alias={ALIAS}\0other.alias=x\0")
    result = present(host, required_ids=["10de:2342"])
    assert (result["changed"], result["kernels"][0]["path"]) == (False, "built-in")


@pytest.mark.parametrize("damage", ["none", "link lost", "link elsewhere", "source lost"])
def test_back_to_the_kernels_own_driver(host: FakeHost, damage: str) -> None:
    host.add_in_tree(RUNNING)
    present(host, prefer_in_tree=False)
    if damage.startswith("link"):
        host.remove(f"{TREE}/source")
    if damage == "link elsewhere":
        os.symlink("/home/someone", host.path(f"{TREE}/source"))
    if damage == "source lost":
        shutil.rmtree(host.path(f"/usr/src/{NAME}-1.0.0"))
    result = present(host)
    assert (result["changed"], result["kernels"][0]["state"]) == (True, "in-tree")
    assert host.dkms_calls()[-1] == "remove"
    assert not host.exists(INSTALLED)
    assert not present(host)["changed"]


def test_back_to_the_kernels_own_driver_after_an_interrupted_install(host: FakeHost) -> None:
    host.add_in_tree(RUNNING)
    host.kill_at = 3
    with pytest.raises(Killed):
        present(host, prefer_in_tree=False)
    host.kill_at = 0
    # The real DKMS may die before it has moved the kernel's own file.
    host.add_in_tree(RUNNING)
    assert present(host)["kernels"][0]["state"] == "in-tree"
    assert not host.exists(INSTALLED)


def test_a_module_from_elsewhere_is_told(host: FakeHost) -> None:
    foreign = f"/lib/modules/{RUNNING}/extra/{NAME}.ko"
    host.add_in_tree(RUNNING)
    host.make(foreign, "ELF by hand\n")
    result = present(host)
    assert "modprobe loads it instead" in result["warnings"][0]
    assert "gives it back on removal" in present(host, prefer_in_tree=False, check_mode=True)["warnings"][0]
    assert foreign in result["warnings"][0]


@pytest.mark.parametrize("overrides,sentence", [
    ({"kernels": ["5.10.0-none"]}, "Kernel 5.10.0-none is not installed on this host"),
    ({"kernels": ["../../etc"]}, "cannot be a kernel release"),
    ({"kernels": ["a\0b"]}, "cannot be a kernel release"),
    ({"kernels": []}, "'kernels' is empty"),
    ({"build_timeout": 0}, "'build_timeout' must be at least 1 second"),
    ({"required_ids": ["0x2342"]}, "'0x2342' in 'required_ids' is not of the form"),
    ({"version": "2.0.0"}, "The source is version 1.0.0, 'version' asks for 2.0.0"),
    ({"name": "other"}, "all three must be the same"),
    ({"_source": None}, "did not arrive"),
    ({"_source_sha256": "0" * 64}, "nothing was written"),
    ({"tree": source(version="../1")}, "cannot be a package version"),
])
def test_bad_input_is_one_sentence_and_changes_nothing(host: FakeHost, overrides: dict[str, Any],
                                                       sentence: str) -> None:
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        present(host, **overrides)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert host.manifest() == before


def test_a_linked_source_directory_is_refused(host: FakeHost) -> None:
    os.symlink("/etc", host.path(f"/usr/src/{NAME}-1.0.0"))
    with pytest.raises(PassthroughError, match="is a symbolic link"):
        present(host)


def test_moved_dkms_trees_are_refused(host: FakeHost) -> None:
    host.make("/etc/dkms/framework.conf.d/site.conf", "# comment\ndkms_tree=/srv/dkms\n")
    with pytest.raises(PassthroughError, match="site.conf sets dkms_tree"):
        present(host)


def test_a_module_file_that_vanishes_meanwhile_is_told(host: FakeHost) -> None:
    step = steps.DkmsSteps(Package(NAME, "1.0.0"), 60).copy_built("/nothing", INSTALLED)
    with pytest.raises(PassthroughError, match="/nothing vanished"):
        apply_step(host, step, None)
    assert not Path(host.path(INSTALLED)).exists()
