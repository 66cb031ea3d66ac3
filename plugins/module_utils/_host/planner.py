# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the way from a host as it is to the wanted settings. Pure: reads and writes nothing.

"Absent" is the plan for empty settings: whatever is ours and no longer wanted is given back. What other programs
generate from our files (GRUB's menu, initramfs images) carries a fingerprint of its inputs in the record, so that a
run that died between a file and its generator is completed by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Call, Plan, RestoreFile, RunCommand, Step, WriteFile
from . import files
from .bootloader import ENTRIES_DIR
from .entries import with_arguments
from .loaders import is_loader_file, loader_steps, require_loader
from .platform import KIB, hugepage_attribute
from .settings import UNLIMITED, HostSettings
from .state import HostState, HugepageRecord, RecordFile
from .steps import file_step, fingerprint, generated
from .until_boot import UntilBoot

DAEMON_RELOAD = "daemon-reload"

_INITRAMFS: dict[str, tuple[str, ...]] = {
    # All kernels, not the running one: the next boot may take a newer one, whose image has the old files.
    "update-initramfs": ("update-initramfs", "-u", "-k", "all"),
    "dracut": ("dracut", "--force", "--regenerate-all"),
}
_UNTESTED_LOADERS = {"bls": "boot loader entries by grubby"}
_UNTESTED_INITRAMFS = {"dracut": "initramfs images by dracut"}


def plan_host(settings: HostSettings, state: HostState) -> Plan:
    """The plan. Raises PassthroughError where the wish cannot be carried out on this host; nothing is changed then."""
    require_loader(settings, state)
    if settings.hold_kernel and not state.has_apt:
        raise PassthroughError("hold_kernel is carried out by apt, which this host does not have: leave it out and "
                               "hold the kernel with the host's own package manager, for example by dnf versionlock.")
    wanted = _wanted_files(settings, state)
    steps = [
        *_file_steps(wanted, state),
        *_initramfs_steps(settings, wanted[files.MODPROBE_CONF], state),
        *_daemon_reload_steps(settings, state),
        *loader_steps(settings, state),
        *_hugepage_steps(settings, state),
        *_module_steps(settings, state),
    ]
    after = {path: _final_content(steps, path, state) for path in state.files}
    return Plan(_picture(settings, {path: found.content for path, found in state.files.items()}, state),
                _picture(settings, after, state, done=True), tuple(steps))


def until_boot(settings: HostSettings, before: HostState) -> UntilBoot:
    """What of this wish only a boot will bring into effect, with what earlier runs left to it."""
    known = before.until_boot
    written = (before.files[files.MODPROBE_CONF].content or b"").decode("utf-8", "replace").splitlines()
    return UntilBoot(
        leaving=tuple(argument for argument in dict.fromkeys(known.leaving + before.record.arguments_added)
                      if argument not in settings.kernel_arguments and argument in before.cmdline),
        options=tuple(line for line in settings.modprobe_options
                      if (line in known.options or line not in written) and line not in before.in_effect))


def reboot_reasons(settings: HostSettings, before: HostState, now: HostState) -> list[str]:
    """Why the wish is not in effect until the next boot. ``before`` is the state ahead of the plan."""
    missing = [argument for argument in settings.kernel_arguments if argument not in now.cmdline]
    pending = until_boot(settings, before)
    loaded = [name for name in settings.modprobe_blacklist if name in now.modules.loaded]
    reasons = [f"The kernel argument {argument} is not in effect yet." for argument in missing]
    reasons += [f"The kernel argument {argument} is in effect until then." for argument in pending.leaving]
    reasons += [f"The line {line!r} of modprobe.d is not in effect yet, because its module was loaded before."
                for line in pending.options]
    reasons += [f"The blacklisted module {name} is still loaded." for name in loaded]
    wish = settings.hugepages
    if wish is not None and _tried(settings, now) and now.hugepages[wish.size] < wish.count:
        reasons.append(f"Only {now.hugepages[wish.size]} of {wish.count} hugepages of {_size(wish.size)} could be "
                       "reserved while memory is in use.")
    return reasons


def untested(settings: HostSettings, state: HostState) -> list[str]:
    """What of this wish goes a way that was never run on a host of its kind: it was made from documentation."""
    ways = []
    if state.bootloader.kind in _UNTESTED_LOADERS and (settings.kernel_arguments or state.record.arguments_added):
        ways.append(_UNTESTED_LOADERS[state.bootloader.kind])
    modprobe = settings.modprobe_blacklist or settings.modprobe_options or files.MODPROBE_CONF in state.originals
    if settings.update_initramfs and state.initramfs in _UNTESTED_INITRAMFS and modprobe:
        ways.append(_UNTESTED_INITRAMFS[state.initramfs])
    return ways


def service_restarts(settings: HostSettings, state: HostState) -> list[str]:
    """Units of running daemons whose limit of locked memory is not the wanted one."""
    if settings.memlock is None:
        return []
    wanted = -1 if settings.memlock == UNLIMITED else int(settings.memlock)
    return sorted(unit for unit, limit in state.running_memlock.items() if limit != wanted)


def _wanted_files(settings: HostSettings, state: HostState) -> dict[str, Optional[bytes]]:
    """Path -> content, None for a file that shall not be ours. The loader's files have steps of their own."""
    wanted: dict[str, Optional[bytes]] = {path: None for path in state.originals if not is_loader_file(path)}
    wanted.update({
        files.MODPROBE_CONF: files.modprobe_conf(settings),
        files.MODULES_LOAD_CONF: files.modules_load_conf(settings),
        files.TMPFILES_CONF: files.tmpfiles_conf(settings),
        files.LIMITS_CONF: files.limits_conf(settings),
        files.PREFERENCES: files.preferences(settings),
    })
    wanted.update({files.memlock_dropin(unit): files.unit_conf(settings) for unit in state.libvirt_units})
    return wanted


def _file_steps(wanted: Mapping[str, Optional[bytes]], state: HostState) -> list[Step]:
    return [step for path in sorted(wanted) for step in file_step(path, wanted[path], state)]


def _initramfs_steps(settings: HostSettings, modprobe_conf: Optional[bytes], state: HostState) -> list[Step]:
    if not settings.update_initramfs or state.initramfs is None:
        return []
    return generated(state.initramfs, fingerprint(modprobe_conf), (_INITRAMFS[state.initramfs],),
                     "modprobe.d is part of the initramfs", state)


def _daemon_reload_steps(settings: HostSettings, state: HostState) -> list[Step]:
    content = files.unit_conf(settings) if state.libvirt_units else None
    return generated(DAEMON_RELOAD, fingerprint(content), (("systemctl", "daemon-reload"),),
                     "limits of libvirt's units", state)


def _hugepage_steps(settings: HostSettings, state: HostState) -> list[Step]:
    wish, record = settings.hugepages, state.record.hugepages
    steps: list[Step] = []
    if record is not None and (wish is None or wish.size != record.size):
        steps.append(_give_back_hugepages(record))
        record = None
    if wish is None:
        return steps
    if wish.size not in state.hugepages:
        sizes = ", ".join(_size(size) for size in sorted(state.hugepages)) or "none"
        raise PassthroughError(f"This kernel has no hugepages of {_size(wish.size)}; it has: {sizes}.")
    present = state.hugepages[wish.size]
    if present != wish.count and not _tried(settings, state):
        before = present if record is None else record.before
        steps.append(_reserve_hugepages(HugepageRecord(wish.size, before, wish.count, state.boot_id)))
    return steps


def _tried(settings: HostSettings, state: HostState) -> bool:
    """The kernel gives what it has left; asking again in the same boot would be a change that changes nothing."""
    wish, record = settings.hugepages, state.record.hugepages
    return (wish is not None and record is not None
            and (record.size, record.wanted, record.boot_id) == (wish.size, wish.count, state.boot_id))


def _reserve_hugepages(record: HugepageRecord) -> Step:
    def reserve(host: Host) -> None:
        RecordFile(host).hugepages(record)
        host.write_sysfs(hugepage_attribute(record.size), str(record.wanted))

    return Call(f"write {record.wanted} to {hugepage_attribute(record.size)}", reserve)


def _give_back_hugepages(record: HugepageRecord) -> Step:
    def give_back(host: Host) -> None:
        host.write_sysfs(hugepage_attribute(record.size), str(record.before))
        RecordFile(host).hugepages(None)

    return Call(f"write {record.before} to {hugepage_attribute(record.size)}", give_back)


def _module_steps(settings: HostSettings, state: HostState) -> list[Step]:
    return [RunCommand(("modprobe", name), "load it now too") for name in settings.modules_load
            if not state.modules.available(name)]


def _final_content(steps: list[Step], path: str, state: HostState) -> Optional[bytes]:
    """What a file holds when all steps are done."""
    content = state.files[path].content
    for step in steps:
        if isinstance(step, WriteFile) and step.path == path:
            content = step.content
        elif isinstance(step, RestoreFile) and step.path == path:
            content = state.originals[path].content
    return content


def _picture(settings: HostSettings, contents: Mapping[str, Optional[bytes]], state: HostState,
             done: bool = False) -> dict[str, Any]:
    """One side of the diff: files line by line, pools and modules."""
    picture: dict[str, Any] = {path: content.decode("utf-8", "replace").splitlines()
                               for path, content in contents.items()
                               if content is not None and not path.startswith(f"{ENTRIES_DIR}/")}
    old, new = state.record.arguments_added, settings.kernel_arguments
    for entry in state.boot_entries:
        picture[f"arguments of {entry.kernel}"] = list(with_arguments(entry.arguments, old, new) if done
                                                       else entry.arguments)
    pools = {hugepage_attribute(size): pages for size, pages in state.hugepages.items()}
    wish, record = settings.hugepages, state.record.hugepages
    if done and record is not None and (wish is None or wish.size != record.size):
        pools[hugepage_attribute(record.size)] = record.before
    if done and wish is not None and not _tried(settings, state):
        pools[hugepage_attribute(wish.size)] = wish.count
    picture.update(pools)
    picture["modules"] = sorted(name for name in settings.modules_load if done or state.modules.available(name))
    return picture


def _size(size: int) -> str:
    for unit, factor in (("GiB", KIB ** 3), ("MiB", KIB ** 2)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size // KIB} KiB"
