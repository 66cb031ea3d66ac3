# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans kernel arguments for each boot loader. Pure: reads and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import Call, RestoreFile, Step, WriteFile
from . import files
from .bootloader import ENTRIES_DIR, ESP_MOUNTS, GRUB_CFG, GRUB_DROPIN, KERNEL_INSTALL_CMDLINE
from .entries import (
    DEFAULT_GRUB,
    grub_text,
    grub_words,
    key_of,
    parse_entries,
    picture,
    with_arguments,
)
from .settings import HostSettings
from .state import GRUBBY_INFO, JOURNAL, HostState, RecordFile
from .steps import GENERATE_SECONDS, file_step, fingerprint, forget, generated, owned

UPDATE_GRUB = "update-grub"
KERNEL_INSTALL = "kernel-install"

_SHARED_FILES = (DEFAULT_GRUB, KERNEL_INSTALL_CMDLINE)
# Where we cannot write the arguments: what the operator has to do instead.
_BY_HAND = {
    "none": "no boot loader is installed here, so add them where this kernel is started (hypervisor, PXE or firmware)",
    "unknown": "the boot loader of this host is not known, so add them to its configuration",
}


def is_loader_file(path: str) -> bool:
    """Whether a file has steps of its own here."""
    return path in (GRUB_DROPIN, *_SHARED_FILES) or path.startswith(f"{ENTRIES_DIR}/")


def require_loader(settings: HostSettings, state: HostState) -> None:
    """Raises PassthroughError where the wanted arguments cannot be given to the kernels of this host."""
    wanted, kind = settings.kernel_arguments, state.bootloader.kind
    if kind == "systemd-boot" and wanted and not state.kernels:
        raise PassthroughError("No kernel image was found in /boot or /lib/modules for kernel-install to enter into "
                               "the boot menu: install the distribution's kernel package first.")
    if kind == "bls":
        _require_single_names(wanted, state)
    missing = [argument for argument in wanted if argument not in state.cmdline]
    advice = _BY_HAND.get(kind)
    if missing and advice is not None:
        raise PassthroughError(f"The kernel runs without {' '.join(missing)}, and {advice}, reboot, then run again.",
                               missing_kernel_arguments=missing)


def _require_single_names(wanted: tuple[str, ...], state: HostState) -> None:
    """grubby keeps one argument of a name and drops the others."""
    if wanted and not state.boot_entries:
        raise PassthroughError("grubby lists no kernel: look at what grubby --info=ALL says, and mount /boot.")
    for argument in wanted:
        name = key_of(argument)
        for words in (wanted, *(entry.arguments for entry in state.boot_entries)):
            if sum(key_of(word) == name for word in words) > 1:
                raise PassthroughError(f"grubby keeps one argument of a name, and {name} is given more than once "
                                       f"({' '.join(word for word in words if key_of(word) == name)}): leave it out "
                                       "of kernel_arguments and set it by hand in the boot loader entries.")


def loader_steps(settings: HostSettings, state: HostState) -> list[Step]:
    """The steps for the boot loader that this host has."""
    kind = state.bootloader.kind
    if kind == "grub":
        return _grub_steps(settings, state)
    if kind == "systemd-boot":
        return _systemd_boot_steps(settings, state)
    if kind == "bls":
        return _bls_steps(settings, state)
    return _gone_steps(state)


def _gone_steps(state: HostState) -> list[Step]:
    """A loader that was here in an earlier run is gone: its files are still ours to give back."""
    steps: list[Step] = [RestoreFile(path) if state.files[path].exists or not path.startswith(ENTRIES_DIR)
                         else forget(path, "its kernel is gone") for path in state.originals if is_loader_file(path)]
    steps += [_gone_program(program) for program in (UPDATE_GRUB, KERNEL_INSTALL) if program in state.record.generated]
    return owned((), state, steps)


def _gone_program(program: str) -> Step:
    return Call(f"record that {program} is gone", lambda host: RecordFile(host).stamp(program, None))


def _grub_steps(settings: HostSettings, state: HostState) -> list[Step]:
    wanted = settings.kernel_arguments
    content = files.grub_dropin(wanted)

    def check(host: Host) -> None:
        menu = set((host.read_text(GRUB_CFG) or "").split())
        lost = [argument for argument in wanted if argument not in menu]
        if lost:
            raise PassthroughError(f"update-grub ran, and {GRUB_CFG} does not have {' '.join(lost)}: a file that is "
                                   f"read after {GRUB_DROPIN} sets GRUB_CMDLINE_LINUX_DEFAULT anew; make it append.")

    return owned(wanted, state, [
        *file_step(GRUB_DROPIN, content, state),
        *generated(UPDATE_GRUB, fingerprint(content), (("update-grub",),), "kernel arguments", state, check),
    ])


def _systemd_boot_steps(settings: HostSettings, state: HostState) -> list[Step]:
    """kernel-install copies the command line into each entry.

    Without /etc/kernel/cmdline it takes that of the running kernel, which still has our arguments when they are given
    back: therefore the entries are made from an explicit file first, and the original file comes back after that.
    """
    base = tuple(word for word in state.loader_cmdline if word not in state.record.arguments_added)
    added = tuple(argument for argument in settings.kernel_arguments if argument not in base)
    content = (" ".join(base + added) + "\n").encode()
    mark = fingerprint(content) if added else None
    commands = tuple((KERNEL_INSTALL, "add", release, image) for release, image in state.kernels)

    def check(host: Host) -> None:
        _require_entries(host, [release for release, _image in state.kernels], added)

    generate = generated(KERNEL_INSTALL, mark, commands, "kernel arguments", state, check)
    steps: list[Step] = []
    if added or generate:
        steps += file_step(KERNEL_INSTALL_CMDLINE, content, state)
    steps += generate
    if not added and KERNEL_INSTALL_CMDLINE in state.originals:
        steps += _give_back_cmdline(base, state)
    return owned(added, state, steps)


def _require_entries(host: Host, releases: list[str], added: tuple[str, ...]) -> None:
    """Images that hold their command line themselves have no entries, so that nothing can be read back from them."""
    for directory in (f"{mount}/loader/entries" for mount in ESP_MOUNTS):
        for name in host.listdir(directory):
            if name.endswith(".conf") and any(f"-{release}.conf" in name for release in releases):
                words = (host.read_text(f"{directory}/{name}") or "").split()
                lost = [argument for argument in added if argument not in words]
                if lost:
                    raise PassthroughError(f"kernel-install ran, and {directory}/{name} does not have "
                                           f"{' '.join(lost)}: look for a plugin in /etc/kernel/install.d that writes "
                                           "the command line itself.")


def _give_back_cmdline(base: tuple[str, ...], state: HostState) -> Iterator[Step]:
    original = state.originals[KERNEL_INSTALL_CMDLINE].content
    if original is None or tuple(original.decode("utf-8", "replace").split()) == base:
        yield RestoreFile(KERNEL_INSTALL_CMDLINE)
    else:
        # The file without our arguments is there already, from the step that made the entries.
        yield forget(KERNEL_INSTALL_CMDLINE, "another hand has changed it")


def _bls_steps(settings: HostSettings, state: HostState) -> list[Step]:
    """grubby edits the entries that exist; the files are where kernel packages take the arguments of new ones from."""
    old = state.record.arguments_added
    shared = {path: _words_of(path, content) for path, content in _shared_files(state)}
    lines = [*(entry.arguments for entry in state.boot_entries), *shared.values()]
    added = tuple(argument for argument in settings.kernel_arguments
                  if argument in old or any(argument not in line for line in lines))
    removed = tuple(argument for argument in old if argument not in added)
    steps: list[Step] = []
    for path, content in _shared_files(state):
        text = _shared_text(path, content, with_arguments(shared[path], removed, added))
        if added and text is not None:
            steps.append(WriteFile(path, text, state.files[path].mode))
    steps += _grubby_steps(added, removed, state)
    if not added:
        steps += [step for path in sorted(state.originals) if is_loader_file(path)
                  for step in _give_back_shared(path, old, state)]
    return owned(added, state, steps)


def _shared_files(state: HostState) -> Iterator[tuple[str, bytes]]:
    for path in _SHARED_FILES:
        found = state.files.get(path)
        if found is not None and found.content is not None:
            yield path, found.content


def _words_of(path: str, content: bytes) -> tuple[str, ...]:
    text = content.decode("utf-8", "surrogateescape")
    return grub_words(text) if path == DEFAULT_GRUB else tuple(text.split())


def _shared_text(path: str, content: bytes, words: tuple[str, ...]) -> Optional[bytes]:
    """The file with these arguments; None where it has them already."""
    if _words_of(path, content) == words:
        return None
    text = content.decode("utf-8", "surrogateescape")
    text = grub_text(text, words) if path == DEFAULT_GRUB else " ".join(words) + "\n"
    return text.encode("utf-8", "surrogateescape")


def _grubby_steps(added: tuple[str, ...], removed: tuple[str, ...], state: HostState) -> list[Step]:
    wrong = [entry for entry in state.boot_entries
             if any(argument not in entry.arguments for argument in added)
             or any(argument in entry.arguments for argument in removed)]
    if not wrong:
        return []
    argv = ["grubby", "--update-kernel=ALL"]
    if removed:
        argv.append(f"--remove-args={' '.join(removed)}")
    if added:
        argv.append(f"--args={' '.join(added)}")
    ours = {*added, *state.record.arguments_added}
    # An entry that came with our arguments in it has no state before us: taking them out is all there is to give back.
    keep = [path for path, found in sorted(state.files.items())
            if path.startswith(f"{ENTRIES_DIR}/") and found.content is not None and path not in state.originals
            and not ours.intersection(found.content.decode("utf-8", "replace").split())]

    def change(host: Host) -> None:
        journal = Journal(host, JOURNAL)
        for path in keep:
            journal.remember(path)
        host.run(argv, timeout=GENERATE_SECONDS)
        for entry in parse_entries(host.run(GRUBBY_INFO).stdout):
            lost = [argument for argument in added if argument not in entry.arguments]
            left = [argument for argument in removed if argument in entry.arguments]
            if lost or left:
                raise PassthroughError(f"grubby ran, and the entry of {entry.kernel} "
                                       f"{'does not have' if lost else 'still has'} {' '.join(lost or left)}: look at "
                                       "what grubby --info=ALL says.")

    return [Call(f"run {' '.join(argv)} (kernel arguments)", change)]


def _give_back_shared(path: str, ours: tuple[str, ...], state: HostState) -> Iterator[Step]:
    """Byte for byte where nobody else has changed the file since; else it keeps what others wrote."""
    content, original = state.files[path].content, state.originals[path].content
    if content is None and path.startswith(ENTRIES_DIR):
        yield forget(path, "its kernel is gone")
    elif content is None or picture(path, content, ours) == picture(path, original, ours):
        yield RestoreFile(path)
    else:
        if path in _SHARED_FILES:
            text = _shared_text(path, content, tuple(word for word in _words_of(path, content) if word not in ours))
            if text is not None:
                yield WriteFile(path, text, state.files[path].mode)
        yield forget(path, "another hand has changed it")
