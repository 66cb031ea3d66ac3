# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The kernels that a host can run: Debian's of other suites, and the debug kernel that is built here."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest
from nvlab import debugkernel, processes, recipe, state
from nvlab.argv import TCG, Files, qemu_argv
from nvlab.cache import Cache
from nvlab.check import judge, sections
from nvlab.cli import main
from nvlab.emulator import Emulator
from nvlab.errors import LabError, UsageError
from nvlab.image import Image
from nvlab.spec import Spec, make_spec

SCRIPTS = Path(__file__).resolve().parents[2] / "lab" / "kernels"


def spec(kernel: str, arch: str = "amd64") -> Spec:
    return make_spec("grace", arch, kernel, "gb200", 1, [])


@pytest.mark.parametrize(("kernel", "packages", "suite"), [
    ("7.3", ["linux-image-arm64/trixie-backports", "linux-headers-arm64/trixie-backports"], None),
    ("6.12", ["linux-image-arm64/trixie", "linux-headers-arm64/trixie"], None),
    ("7.2", ["linux-image-arm64"], "forky"),
    ("6.1", ["linux-image-arm64"], "bookworm"),
])
def test_packages(kernel: str, packages: list[str], suite: str | None) -> None:
    found = recipe.KERNELS[kernel]
    wanted = recipe.image_packages(recipe.ARCHES["arm64"], found)
    assert [name for name in wanted if name.startswith("linux-")] == packages
    hooks = recipe.suite_options(found)
    assert hooks == () if suite is None else f"suite.sh {suite} " in hooks[0]


def test_every_kernel_has_an_image_of_its_own() -> None:
    kernels = [kernel for kernel in recipe.KERNELS.values() if kernel.disk is None]
    assert len({recipe.image_key(recipe.ARCHES["arm64"], kernel, "key") for kernel in kernels}) == len(kernels) == 4


def test_another_suite_gives_the_kernel_only(tmp_path: Path) -> None:
    apt = tmp_path / "etc/apt"
    for name in ("sources.list.d", "preferences.d"):
        (apt / name).mkdir(parents=True)
    (apt / "sources.list").write_text("deb [signed-by=/k.gpg] http://mirror/debian trixie main\n")
    subprocess.run(["sh", SCRIPTS / "suite.sh", "forky", tmp_path], check=True, env={**os.environ, "SUITE": "trixie"})
    line = (apt / "sources.list.d/forky.list").read_text()
    assert line == "deb [signed-by=/k.gpg] http://mirror/debian forky main\n"
    pins = [dict(field.split(": ") for field in block.splitlines())
            for block in (apt / "preferences.d/forky").read_text().strip().split("\n\n")]
    assert {pin["Pin"] for pin in pins} == {"release n=forky"}
    assert {pin["Package"]: pin["Pin-Priority"] for pin in pins}["*"] == "100", "below the image's own suite"


def test_the_debug_kernel_is_for_amd64() -> None:
    with pytest.raises(UsageError, match=r"kernel 'debug' is for amd64 only; add --arch amd64"):
        spec("debug", "arm64")
    assert spec("debug").disk_kernel.name == "7.3"
    assert spec("6.1").disk_kernel.name == "6.1"


def test_command_line_of_the_debug_kernel(tmp_path: Path) -> None:
    words = qemu_argv(spec("debug"), Files(tmp_path, tmp_path), Emulator(Path("/")), tmp_path / "vmlinuz", 2222, TCG)
    arguments = words[words.index("-append") + 1].split()
    assert {"kasan_multi_shot", "kmemleak=on", "root=/dev/vda"} <= set(arguments)


def make_image(tmp_path: Path) -> Image:
    for name, release in (("image", "7.3.4+deb13-amd64"), ("debug", "7.3.4-nvgrace-debug")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"kernel_release": release}))
    (tmp_path / "image/initrd.img").write_bytes(b"initrd")
    return Image(tmp_path / "image", tmp_path / "debug")


def test_a_kernel_takes_the_place_of_the_images_own(tmp_path: Path) -> None:
    debug = make_image(tmp_path)
    own = Image(debug.directory)
    assert (debug.kernel, own.kernel) == (tmp_path / "debug/vmlinuz", tmp_path / "image/vmlinuz")
    assert (debug.initrd(), own.initrd()) == (b"", b"initrd")
    assert (debug.modules, own.modules) == (tmp_path / "debug/modules", None)
    assert (debug.release(), own.release()) == ("7.3.4-nvgrace-debug", "7.3.4+deb13-amd64")
    assert debug.disk == own.disk
    assert debug.guest_kernel == own.kernel


def test_a_kernel_in_use_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    directory = state.lab_directory(cache, "grace")
    directory.mkdir(parents=True)
    process = processes.launch(["sleep", "60"], tmp_path / "log")
    lab = state.Lab(spec("debug"), Files(directory, tmp_path), state.RUNNING, 2222, TCG, tmp_path / "image",
                    {"qemu": process}, kernel=tmp_path / "debug")
    state.save(lab)
    assert state.load(cache, "grace") == lab
    assert state.images_in_use(cache) == {tmp_path / "image", tmp_path / "debug"}
    processes.end([process])
    assert state.images_in_use(cache) == set()


DEBUG_HOST = """@@ iomem
@@ kvm
@@ libvirt
error: failed to get emulator capabilities
@@ initiators
1-8
@@ distance
10 80 80 80 80 80 80 80 80
@@ properties
/sys/firmware/acpi/tables/SSDT2
@@ kernel
7.3.4-nvgrace-debug
@@ loader
@@ secure-boot
@@ lockdown
@@ functions
0000:00:10.0 0x10de:0x2941 4
"""


@pytest.mark.parametrize(("old", "new", "failing"), [
    ("", "", []), ("7.3.4-nvgrace-debug", "7.3.4+deb13-amd64", ["kernel"]), ("@@ kvm", "@@ kvm\npresent", ["/dev/kvm"]),
])
def test_check_knows_what_the_debug_kernel_lacks(old: str, new: str, failing: list[str]) -> None:
    results = judge(spec("debug"), sections(DEBUG_HOST.replace(old, new)))
    assert [result.name for result in results if not result.passed] == failing


# A kernel source as far as its configuration goes: merging takes the fragment as it is, olddefconfig does as told.
MAKEFILE = """tinyconfig:
\tprintf 'include {source}/rules\\n' > $(O)/Makefile
\ttouch $(O)/.config
"""


def configure(tmp_path: Path, olddefconfig: str, fragment: str) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "source"
    (source / "scripts/kconfig").mkdir(parents=True)
    (source / "Makefile").write_text(MAKEFILE.format(source=source))
    (source / "rules").write_text(f"olddefconfig:\n\t{olddefconfig}\nbzImage modules:\n\tfalse\n")
    merge = source / "scripts/kconfig/merge_config.sh"
    merge.write_text('#!/bin/sh\ncat "$5" > "$4"\n')
    merge.chmod(0o755)
    (tmp_path / "fragment").write_text(fragment)
    (tmp_path / "out").mkdir()
    return subprocess.run(["sh", SCRIPTS / "debug-kernel.sh", source, tmp_path / "fragment", tmp_path / "out"],
                          check=False, capture_output=True, text=True)


FRAGMENT = '# a comment\nCONFIG_A=y\nCONFIG_B="text"\n# CONFIG_C is not set\n'


@pytest.mark.parametrize(("olddefconfig", "lost"), [
    ("sed -i '/^CONFIG_A/d' .config", ["CONFIG_A=y"]),
    ("sed -i 's/^CONFIG_B=.*/CONFIG_B=\"other\"/' .config", ['CONFIG_B="text"']),
    ("sed -i 's/^# CONFIG_C is.*/CONFIG_C=m/' .config", ["# CONFIG_C is not set"]),
])
def test_a_lost_option_ends_the_build(olddefconfig: str, lost: list[str], tmp_path: Path) -> None:
    done = configure(tmp_path, olddefconfig, FRAGMENT)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["debug kernel: the configuration lost these lines of the fragment:", *lost]


def test_an_option_that_does_not_exist_is_not_set(tmp_path: Path) -> None:
    done = configure(tmp_path, "sed -i '/CONFIG_C/d' .config", FRAGMENT)
    assert "lost" not in done.stdout
    assert done.returncode == 2, "make bzImage is reached, and fails here"


def test_only_what_matters_makes_another_kernel(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(debugkernel, "KERNEL_ASSETS", tmp_path)
    (tmp_path / "debug-kernel.sh").write_text("#!/bin/sh\nmake\n")
    names = []
    for fragment in (FRAGMENT, FRAGMENT + "\n# more about it\n", FRAGMENT.replace("# CONFIG_C is not set\n", ""),
                     FRAGMENT.replace("=y", "=m")):
        (tmp_path / "debug.config").write_text(fragment)
        names.append(debugkernel.entry(Cache(tmp_path)).name)
    assert names[0] == names[1]
    assert len(set(names)) == 3


def fake_tools(tmp_path: Path, build: str) -> Path:
    tools = tmp_path / "tools"
    for name in ("root", "source", "tools"):
        (tmp_path / name).mkdir()
    (tools / "buildroot.sh").write_text(f"test $1 = trixie && echo {tmp_path}/root")
    (tools / "kernel-source.sh").write_text(f"test $1 = 7.3 && echo {tmp_path}/source")
    (tools / "enter.sh").write_text(f"out=${{7%%:*}}\n{build}\n")
    return tools


def test_the_debug_kernel_is_built_once(tmp_path: Path, monkeypatch) -> None:
    build = 'printf "kernel_release 7.3.4-nvgrace-debug\\ncompiler 14.2.0\\n" > "$out/facts"'
    monkeypatch.setattr(debugkernel, "TOOLS", fake_tools(tmp_path, build))
    cache = Cache(tmp_path / "cache")
    directory = debugkernel.provide(cache)
    assert directory == debugkernel.entry(cache)
    assert json.loads((directory / "manifest.json").read_text()) == {
        "arch": "amd64", "kernel": "debug", "source": "source", "kernel_release": "7.3.4-nvgrace-debug",
        "compiler": "14.2.0"}
    monkeypatch.setattr(debugkernel, "TOOLS", tmp_path / "gone")
    assert debugkernel.provide(cache) == directory


def test_the_source_is_held_while_the_kernel_is_built(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(debugkernel, "TOOLS", fake_tools(tmp_path, f"flock --nonblock {tmp_path}/source true"))
    with pytest.raises(LabError, match="nice failed with status 1"):
        debugkernel.provide(Cache(tmp_path / "cache"))
    handle = os.open(tmp_path / "source", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_other_kernels_have_no_tree_here(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path / "cache"))
    assert main(["kernel-tree", "6.12"]) == 2
    assert "Only the kernel 'debug' has a tree here, not '6.12'" in capsys.readouterr().err
