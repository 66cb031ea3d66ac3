#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutation test of the planners and judges: usage: tests/tools/mutants.py [--minutes N] [--report FILE] [AREA...]

cosmic-ray changes one thing at a time in a copy of the checkout and runs the area's unit tests. A change that they do
not notice is a survivor: a test is missing, or the change means the same. docs/mutation.md explains those of the second
kind. Runs at the lowest priority. A run that its time ends says how many changes were not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".build" / "mutants"
COSMIC_RAY = "cosmic-ray==8.7.0"
UTILS = "plugins/module_utils"
# One partner for each operator: the dozen others that cosmic-ray has are found by the same tests.
_BINARY = ("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul", "Mod_FloorDiv", "BitAnd_BitOr", "BitOr_BitAnd",
           "LShift_RShift", "RShift_LShift")
_COMPARISON = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE", "Eq_NotEq", "NotEq_Eq", "Is_IsNot",
               "IsNot_Is")


@dataclass(frozen=True)
class Area:
    """``modules`` whose changes are tried, each with the tests that look at it most closely. The rest of the area's
    tests comes after those, without the ``slow`` ones, which look at more than these modules."""

    modules: dict[str, tuple[str, ...]]
    slow: tuple[str, ...] = ()


AREAS = {
    "_vfio": Area({"judge.py": ("judge",), "layout.py": ("layout",), "uapi.py": ("uapi",), "driver.py": ("driver",)},
                  slow=("verify", "action")),
    "_gpu": Area({"binding.py": ("binding",), "group.py": ("binding",), "variant.py": ("variant",),
                  "release.py": ("release",), "rollback.py": ("rollback",)}, slow=("child",)),
    "_kmod": Area({"planner.py": ("present", "absent"), "source.py": ("source",)}, slow=("action",)),
    "_host": Area({"checks.py": ("checks",), "planner.py": ("planner",), "settings.py": ("settings",)}),
    "_domain": Area({"planner.py": ("domain_planner", "golden"), "invariants.py": ("invariants",),
                     "view.py": ("compare",), "compare.py": ("compare",)}, slow=("action", "properties")),
    "_core": Area({"plan.py": ("journal_and_plan",), "journal.py": ("journal_and_plan",), "module.py": ("module",)}),
}


def tests_of(name: str, module: str) -> list[str]:
    """The area's test files for a module, the closest first: most changes are noticed there. FileNotFoundError where a
    closest one is not there."""
    area = AREAS[name]
    directory = Path("tests", "unit", name)
    closest = [directory / f"test_{test}.py" for test in area.modules[module]]
    for path in closest:
        (ROOT / path).stat()
    slow = {directory / f"test_{test}.py" for test in area.slow}
    rest = [path.relative_to(ROOT) for path in sorted((ROOT / directory).glob("test_*.py"))]
    return [str(path) for path in [*closest, *(path for path in rest if path not in slow and path not in closest)]]


@dataclass
class Tally:
    """What became of the changes of one module."""

    outcomes: Counter[str] = field(default_factory=Counter)
    survivors: list[str] = field(default_factory=list)


def make_copy() -> Path:
    """The files of the checkout, so that a change never touches it."""
    copy = WORK / "tree"
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    return copy


def cosmic_ray() -> str:
    """The program, in an environment of its own."""
    environment = WORK / "venv"
    program = environment / "bin" / "cosmic-ray"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check",
                        COSMIC_RAY], check=True)
    return str(program)


def configuration(name: str, module: str) -> str:
    without = [f"core/ReplaceBinaryOperator_(?!({'|'.join(_BINARY)})$).*",
               f"core/ReplaceComparisonOperator_(?!({'|'.join(_COMPARISON)})$).*",
               # -x and ~x for x are found by whatever finds another number
               "core/ReplaceUnaryOperator.*", "core/RemoveDecorator"]
    return (f"[cosmic-ray]\nmodule-path = \"{UTILS}/{name}/{module}\"\ntimeout = 1\n"
            f"excluded-modules = []\ntest-command = \"true\"\n"
            f"[cosmic-ray.distributor]\nname = \"local\"\n"
            f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(without)}\n")


def try_module(program: str, name: str, module: str, copy: Path, deadline: float) -> dict[str, Tally]:
    """Tries the changes of a module until the deadline. CalledProcessError where its tests fail without any."""
    base = f"{name}-{Path(module).stem}"
    config, session = WORK / f"{base}.toml", WORK / f"{base}.sqlite"
    # mutant_runner.py carries the session out: cosmic-ray finds, makes and counts the changes
    config.write_text(configuration(name, module))
    session.unlink(missing_ok=True)

    def call(*argv: str) -> None:
        subprocess.run(["nice", "-n", "19", *argv], cwd=copy, check=True)

    call(program, "init", str(config), str(session))
    call(str(Path(program).parent / "cr-filter-operators"), str(session), str(config))
    (site,) = (WORK / "venv" / "lib").glob("python*/site-packages")
    subprocess.run(["nice", "-n", "19", sys.executable, "tests/tools/mutant_runner.py", str(session),
                    f"{UTILS}/{name}/{module}", str(max(1.0, deadline - time.monotonic())), *tests_of(name, module)],
                   cwd=copy, check=True, env={**os.environ, "MUTANTS_SITE": str(site)})
    return read_results(program, session)


def read_results(program: str, session: Path) -> dict[str, Tally]:
    dump = subprocess.run([program, "dump", str(session)], check=True, capture_output=True, text=True).stdout
    tallies: dict[str, Tally] = {}
    for line in dump.splitlines():
        item, result = json.loads(line)
        mutation = item["mutations"][0]
        tally = tallies.setdefault(str(mutation["module_path"]).removeprefix(f"{UTILS}/"), Tally())
        outcome = "not tried" if result is None else str(result["test_outcome"] or result["worker_outcome"])
        if result is not None and result["worker_outcome"] == "skipped":
            continue
        tally.outcomes[outcome] += 1
        if outcome == "survived":
            changed = [text for text in (result["diff"] or "").splitlines()
                       if text[:1] in "+-" and text[:3] not in ("+++", "---")]
            tally.survivors.append(f"line {mutation['start_pos'][0]}: {mutation['operator_name'].split('/')[-1]}\n"
                                   + "\n".join(f"    {text}" for text in changed))
    return tallies


def report(results: dict[str, dict[str, Tally]], minutes: float) -> str:
    lines = [f"Mutation test, {minutes:.0f} minutes.", "", "| module | changes | noticed | survived | not tried |",
             "|---|---|---|---|---|"]
    for tallies in results.values():
        for module, tally in sorted(tallies.items()):
            tried = tally.outcomes
            noticed = tried["killed"] + tried["incompetent"] + tried["abnormal"]
            lines.append(f"| {module} | {sum(tried.values())} | {noticed} | {tried['survived']} | "
                         f"{tried['not tried']} |")
    for tallies in results.values():
        for module, tally in sorted(tallies.items()):
            if tally.survivors:
                lines += ["", f"{module}:", "", *tally.survivors]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"one of {', '.join(AREAS)}; all without one")
    parser.add_argument("--minutes", type=float, default=240, help="time for all areas together (240)")
    parser.add_argument("--report", type=Path, default=WORK / "report.md", help="where the report goes, too")
    options = parser.parse_args()
    unknown = sorted(set(options.areas) - set(AREAS))
    if unknown:
        parser.error(f"no area {', '.join(unknown)}: choose from {', '.join(AREAS)}")
    names = options.areas or list(AREAS)
    WORK.mkdir(parents=True, exist_ok=True)
    program, started, results = cosmic_ray(), time.monotonic(), {}
    modules = [(name, module) for name in names for module in AREAS[name].modules]
    for position, (name, module) in enumerate(modules):
        left = options.minutes * 60 - (time.monotonic() - started)
        deadline = time.monotonic() + left / (len(modules) - position)
        results.setdefault(name, {}).update(try_module(program, name, module, make_copy(), deadline))
    text = report(results, (time.monotonic() - started) / 60)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
