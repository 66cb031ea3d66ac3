# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way on an emulated Grace host: image, boot, site.yml, what was found, and on wish a guest.

Prints what it does, how long each part took, and ends with the table of regions, the BAR map and the domain that
libvirt inside the host has defined. Interrupted and run again, it goes on with what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = str(ROOT / "tests" / "lab" / "lab")
WORK = ROOT / ".build" / "demo"
NAME = "demo"
DOMAIN = "demo"
SERIAL_LOG = "/var/log/libvirt/qemu/demo-serial.log"
GUEST_SECONDS = 420
NEEDED_BYTES = 6_000_000_000
TASK_SECONDS = WORK / "task-seconds.json"
# Tasks of site.yml that the breakdown names.
NAMED_TASKS = {"kernel module": "gpu_kmod : Install the kernel module", "verify": "gpu_verify : Verify the regions"}


class DemoError(Exception):
    """One sentence; the demo ends with it."""


class Stopwatch:
    """Seconds of each part, for the breakdown at the end."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str, text: str) -> Iterator[None]:
        print(f"\n==> {text}", flush=True)
        started = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - started

    def lines(self, tasks: dict[str, float]) -> list[str]:
        rows = []
        for name, seconds in self.parts.items():
            rows.append(f"  {name:<24}{seconds:7.1f} s")
            if name == "site.yml":
                rows += [f"    of which {label:<13}{tasks[label]:7.1f} s" for label in NAMED_TASKS]
        return [*rows, f"  {'total':<24}{sum(self.parts.values()):7.1f} s"]


def named_task_seconds() -> dict[str, float]:
    """Seconds of the tasks that NAMED_TASKS lists, in the last run of site.yml."""
    seconds: dict[str, float] = json.loads(TASK_SECONDS.read_text())
    return {label: seconds[f"nvgrace.passthrough.{task}"] for label, task in NAMED_TASKS.items()}


def lab(*arguments: str) -> None:
    """A command of the lab with its output on the terminal."""
    if subprocess.run([LAB, *arguments], check=False).returncode:
        raise DemoError(f"tests/lab/lab {' '.join(arguments)} failed; the lines above say why.")


def lab_output(*arguments: str) -> str:
    done = subprocess.run([LAB, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"tests/lab/lab {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def is_running() -> bool:
    labs = json.loads(lab_output("status", "--json"))
    return any(entry["name"] == NAME and entry["state"] == "running" for entry in labs)


def in_host(*command: str) -> str:
    return lab_output("ssh", NAME, "--", *command)


def check_machine() -> None:
    if os.geteuid() != 0:
        raise DemoError("make demo needs root: it installs packages and builds a disk image.")
    cache = Path(os.environ.get("NVGRACE_LAB_CACHE")
                 or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nvgrace-passthrough")
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES and not any(cache.glob("image-*")):
        raise DemoError(f"make demo needs {NEEDED_BYTES // 10**9} GB of disk under {existing}, "
                        f"{free // 10**9} GB are free.")


def run_site() -> None:
    inventory = WORK / "inventory.yml"
    inventory.write_text(lab_output("inventory", NAME))
    argv = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(inventory), "site.yml",
            "-e", "@tests/demo/vars.yml", "-e", f"gpu_report_dir={WORK / 'report'}", "-e", "gpu_report_show=false"]
    environment = {**os.environ, "NVGRACE_TASK_SECONDS": str(TASK_SECONDS), "ANSIBLE_CALLBACKS_ENABLED": "task_seconds",
                   "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "bench" / "callback_plugins")}
    if subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode:
        raise DemoError(f"site.yml failed; the lines above say why. The host still runs: tests/lab/lab ssh {NAME}")


def start_guest() -> list[str]:
    """Starts the domain inside the host and returns what its userspace printed."""
    in_host("rm", "-f", SERIAL_LOG)
    in_host("virsh", "--quiet", "start", DOMAIN)
    deadline = time.monotonic() + GUEST_SECONDS
    shown = 0
    while time.monotonic() < deadline:
        text = in_host(f"cat {SERIAL_LOG} 2>/dev/null; true")
        lines = [line.strip() for line in text.splitlines() if line.startswith("GUEST-")]
        for line in lines[shown:]:
            print(f"  {line}", flush=True)
        shown = len(lines)
        if lines and lines[-1].startswith("GUEST-DONE"):
            return lines
        time.sleep(3)
    raise DemoError(f"The guest did not finish within {GUEST_SECONDS} seconds; its console is {SERIAL_LOG} in the "
                    "host.")


def compare_guest(lines: list[str]) -> None:
    """The guest must see each BAR with the size that region_verify saw through VFIO."""
    report = json.loads((WORK / "report" / f"{NAME}.json").read_text())
    (device,) = report["devices"]
    verified = {region["index"]: region["reported"] for region in device["regions"]
                if region["name"].startswith("BAR") and region["reported"]}
    words = [line.split() for line in lines if line.startswith("GUEST-BAR ")]
    seen = {int(word[2]): int(word[6]) for word in words}
    if seen != verified:
        raise DemoError(f"The guest sees other BARs than region_verify did: {seen}, not {verified}.")
    print("  The guest's BARs have the sizes that region_verify saw.")


def stop_guest() -> None:
    """The guest powers itself off; one that is left over is ended."""
    if "running" in in_host("virsh", "domstate", DOMAIN):
        in_host("virsh", "--quiet", "destroy", DOMAIN)


def show_result() -> None:
    print()
    print((WORK / "report" / f"{NAME}.txt").read_text().rstrip())
    print(f"\nDomain {DOMAIN}, as libvirt inside the host has defined it:\n")
    print(in_host("virsh", "dumpxml", "--inactive", DOMAIN).rstrip())


def demo(options: argparse.Namespace) -> None:
    check_machine()
    WORK.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch()
    with watch.part("image", "image of the emulated host (built once, then taken from the cache)"):
        lab("build")
    with watch.part("boot", f"boot of the emulated host {NAME} ({options.product})"):
        if is_running():
            print(f"{NAME} runs already; tests/lab/lab stop {NAME} ends it.")
        else:
            lab("start", NAME, "--product", options.product)
    with watch.part("site.yml", "site.yml: check, configure, build, bind, verify, define"):
        run_site()
    show_result()
    if options.guest:
        with watch.part("guest", f"the domain {DOMAIN} starts inside the host; what its guest sees:"):
            compare_guest(start_guest())
            stop_guest()
    print("\nTime of each part")
    print("\n".join(watch.lines(named_task_seconds())))
    print(f"\nThe host still runs. Log in: tests/lab/lab ssh {NAME}    End it: tests/lab/lab stop {NAME}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--product", default="gh200-120gb")
    parser.add_argument("--guest", action="store_true", help="start the domain with a guest that prints its BARs")
    try:
        demo(parser.parse_args())
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again: it goes on with what is there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
