# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The command line. Data goes to standard output, progress and errors to standard error.

Exit status: 0 done, 1 something failed, 2 the request was wrong and nothing was changed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import check, clean, efivars, gpuserver, holders, lifecycle, report, snapshot, state
from .cache import Cache, default_root
from .errors import LabError, UsageError
from .machine import require_root
from .products import PRODUCTS, fault_names
from .recipe import ARCHES, KERNELS
from .spec import BOOTS, DIRECT, Spec, check_name, make_spec
from .steps import say, step

DEFAULT_NAME = "grace"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}; 'lab {self.prog.partition(' ')[2]} --help' explains."
                         .replace("'lab  ", "'lab "))


def _spec(options: argparse.Namespace) -> Spec:
    return make_spec(options.name, options.arch, options.kernel, options.product, options.gpus, options.fault,
                     options.snapshots, boot=options.boot, secure_boot=options.secure_boot, hotplug=options.hotplug)


def _certificates(paths: Sequence[str]) -> list[bytes]:
    try:
        return [efivars.certificate_der(Path(path).read_bytes(), path) for path in paths]
    except OSError as error:
        raise UsageError(f"The certificate cannot be read: {error}.") from error


def _build(cache: Cache, options: argparse.Namespace) -> int:
    spec = _spec(options)
    require_root()
    with step(f"image {options.arch}, kernel {options.kernel}"):
        _, image = lifecycle.build(cache, spec)
    print(image.disk)
    return 0


def _start(cache: Cache, options: argparse.Namespace) -> int:
    spec, certificates = _spec(options), _certificates(options.enrol)
    if certificates and not spec.secure_boot:
        raise UsageError("Only a firmware with Secure Boot takes a certificate; add --secure-boot.")
    lab = lifecycle.start(cache, spec, certificates)
    print(report.table([lab]))
    return 0


def _stop(cache: Cache, options: argparse.Namespace) -> int:
    require_root()
    lifecycle.stop(cache, options.name)
    return 0


def _status(cache: Cache, options: argparse.Namespace) -> int:
    labs = [state.require(cache, options.name)] if options.name else state.load_all(cache)
    if options.json:
        print(json.dumps([report.as_data(lab, cache.key) for lab in labs], indent=2))
    else:
        print(report.table(labs))
    return 0


def _ssh(cache: Cache, options: argparse.Namespace) -> int:
    lab = state.require_running(cache, options.name)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    return subprocess.run(lifecycle.login(cache, lab).argv(command), check=False).returncode


def _console(cache: Cache, options: argparse.Namespace) -> int:
    path = state.require(cache, options.name).files.console
    if not path.exists():
        raise LabError(f"{options.name} has not written to its console yet.")
    argv = ["tail", "-n", "+1", *(["-f"] if options.follow else []), str(path)]
    try:
        return subprocess.run(argv, check=False).returncode
    except KeyboardInterrupt:
        return 0


def _reboot(cache: Cache, options: argparse.Namespace) -> int:
    lifecycle.reboot(cache, options.name, _certificates(options.enrol))
    return 0


def _reset(cache: Cache, options: argparse.Namespace) -> int:
    lifecycle.reset(cache, options.name)
    return 0


def _snapshot(cache: Cache, options: argparse.Namespace) -> int:
    snapshot.take(cache, options.name)
    return 0


def _rollback(cache: Cache, options: argparse.Namespace) -> int:
    snapshot.rollback(cache, options.name)
    return 0


def _kernel_tree(cache: Cache, options: argparse.Namespace) -> int:
    if options.kernel != "debug":
        raise UsageError(f"Only the kernel 'debug' has a tree here, not {options.kernel!r}; Debian's have headers.")
    print(lifecycle.debug_kernel(cache) / "tree")
    return 0


def _wait(cache: Cache, options: argparse.Namespace) -> int:
    lifecycle.wait(cache, options.name, options.timeout)
    return 0


def _inventory(cache: Cache, options: argparse.Namespace) -> int:
    labs = [state.require_running(cache, name) for name in options.names or [DEFAULT_NAME]]
    print(report.inventory(labs, cache.key))
    return 0


def _check(cache: Cache, options: argparse.Namespace) -> int:
    results = check.check(cache, options.name)
    for result in results:
        print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.detail}")
    return 0 if all(result.passed for result in results) else 1


def _gpu(cache: Cache, options: argparse.Namespace) -> int:
    print(json.dumps(lifecycle.tell_gpu(cache, options.name, options.index, " ".join(options.request))))
    return 0


def _hold(cache: Cache, options: argparse.Namespace) -> int:
    print(json.dumps(lifecycle.hold_gpu(cache, options.name, options.index, options.kind)))
    return 0


def _let_go(cache: Cache, options: argparse.Namespace) -> int:
    lifecycle.let_go_of_gpu(cache, options.name, options.index)
    return 0


def _clean(cache: Cache, options: argparse.Namespace) -> int:
    del options
    require_root()
    with step(f"remove {cache.root}"):
        clean.clean(cache)
    return 0


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="arm64", help=f"{', '.join(ARCHES)} (default: arm64)")
    parser.add_argument("--kernel", default="7.3", help=f"{', '.join(KERNELS)} (default: 7.3)")
    parser.add_argument("--product", default="gh200-120gb", help=f"{', '.join(PRODUCTS)} (default: gh200-120gb)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="number of GPUs (default: 1)")
    parser.add_argument("--fault", action="append", default=[],
                        help=f"{', '.join(fault_names())}; repeatable; for all GPUs, or as 1:NAME for GPU 1 alone")
    parser.add_argument("--boot", default=DIRECT, help=f"{', '.join(BOOTS)} (default: {DIRECT})")
    parser.add_argument("--secure-boot", action="store_true",
                        help="the firmware has Microsoft's keys and starts only what is signed")
    parser.add_argument("--hotplug", action="store_true",
                        help="the GPUs can be taken out and put in while the host runs")
    parser.add_argument("--snapshots", action="store_true",
                        help="make a host that can be saved while it runs; on arm64 its KVM does without VHE")


def _add_enrol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--enrol", action="append", default=[], metavar="CERTIFICATE",
                        help="a file in PEM or DER; the firmware then trusts it as the machine owner's")


def _parser() -> Parser:
    parser = Parser(prog="lab", description="An emulated NVIDIA Grace host under QEMU.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def verb(name: str, action: Callable[[Cache, argparse.Namespace], int], text: str,
             named: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        if named:
            sub.add_argument("name", nargs="?", default=DEFAULT_NAME, metavar="NAME", help="default: grace")
        return sub

    _add_spec(verb("build", _build, "build the image that a lab boots from"))
    start = verb("start", _start, "start a host and wait until ssh answers")
    _add_spec(start)
    _add_enrol(start)
    verb("stop", _stop, "stop a host and discard its disk")
    status = verb("status", _status, "show one host or all", named=False)
    status.add_argument("name", nargs="?", metavar="NAME")
    status.add_argument("--json", action="store_true")
    ssh = verb("ssh", _ssh, "log in, or run a command: lab ssh NAME -- COMMAND")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    verb("console", _console, "print the serial console").add_argument("-f", "--follow", action="store_true")
    _add_enrol(verb("reboot", _reboot, "reboot the host and wait until ssh answers"))
    verb("reset", _reset, "take the host's power and give it back at once, without a shutdown")
    verb("snapshot", _snapshot, "save the running host; its GPUs must have no driver")
    verb("rollback", _rollback, "bring the host back to its snapshot, also after a crash")
    wait = verb("wait", _wait, "wait until ssh answers")
    wait.add_argument("--timeout", type=float, default=lifecycle.BOOT_TIMEOUT, metavar="SECONDS")
    inventory = verb("inventory", _inventory, "print an Ansible inventory of running hosts", named=False)
    inventory.add_argument("names", nargs="*", metavar="NAME")
    verb("check", _check, "check that the host is what it should be")
    gpu = verb("gpu", _gpu, f"ask or tell a GPU: {gpuserver.REQUESTS}; with --hotplug vanish or add")
    gpu.add_argument("index", type=int)
    gpu.add_argument("request", nargs="+")
    hold = verb("hold", _hold, "start a process on the host that has a GPU in use; print its pid and device node")
    hold.add_argument("index", type=int)
    hold.add_argument("kind", metavar="KIND", help=f"whose device node it has open: {', '.join(holders.KINDS)}")
    verb("let-go", _let_go, "end the processes that hold a GPU").add_argument("index", type=int)
    tree = verb("kernel-tree", _kernel_tree, "print what modules for the debug kernel are built against", named=False)
    tree.add_argument("kernel", metavar="KERNEL", help="debug")
    verb("clean", _clean, "stop every host and remove the whole cache", named=False)
    return parser


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    # a build that is told to end cleans up as it does for Ctrl-C
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        options = _parser().parse_args(arguments)
        if getattr(options, "name", None) is not None:
            check_name(options.name)
        return int(options.action(Cache(default_root()), options))
    except UsageError as error:
        say(f"lab: {error}")
        return 2
    except LabError as error:
        say(f"lab: {error}")
        return 1
    except KeyboardInterrupt:
        say("lab: interrupted; what was started for this command has been ended")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        say(f"lab: {error}")
        return 1
