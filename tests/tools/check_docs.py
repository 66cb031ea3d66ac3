# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that ansible-doc accepts, for every module, callback and role; argument_specs that equal the defaults;
an action group that has all modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from gate import ROOT, finish

FQCN = "nvgrace.passthrough"
GROUP = "passthrough"


def ansible_doc(kind: str, names: list[str]) -> dict[str, Any]:
    """ansible-doc's JSON. Its own complaints are errors here."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build")}
    program = str(Path(sys.executable).parent / "ansible-doc")
    done = subprocess.run([program, "--type", kind, "--json", *names], cwd=ROOT, env=environment, check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ansible-doc --type {kind} failed: {done.stderr.strip()}")
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def module_problems() -> list[str]:
    names = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("[a-z]*.py"))
    documents = ansible_doc("module", [f"{FQCN}.{name}" for name in names])
    problems = []
    for name in names:
        entry = documents.get(f"{FQCN}.{name}", {})
        if entry.get("error") or not entry.get("doc"):
            problems.append(f"module {name}: ansible-doc cannot read it ({entry.get('error', 'no documentation')})")
            continue
        for part in ("examples", "return"):
            if not entry.get(part):
                problems.append(f"module {name}: no {part}")
        groups = entry["doc"].get("attributes", {}).get("action_group", {}).get("membership", [])
        if groups != [f"{FQCN}.{GROUP}"]:
            problems.append(f"module {name}: its documentation says that its action groups are {groups}")
    return problems + group_problems(names)


def group_problems(modules: list[str]) -> list[str]:
    """Differences between the action group in meta/runtime.yml and the modules."""
    groups = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]
    different = set(groups[GROUP]) ^ {f"{FQCN}.{name}" for name in modules}
    return [f"action group {GROUP} and the modules differ in {name}" for name in sorted(different)]


def callback_problems() -> list[str]:
    names = sorted(path.stem for path in (ROOT / "plugins" / "callback").glob("[a-z]*.py"))
    documents = ansible_doc("callback", [f"{FQCN}.{name}" for name in names])
    return [f"callback {name}: ansible-doc cannot read it" for name in names
            if not documents.get(f"{FQCN}.{name}", {}).get("doc")]


def role_problems() -> list[str]:
    problems = []
    roles = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    documents = ansible_doc("role", [f"{FQCN}.{name}" for name in roles])
    for name in roles:
        if f"{FQCN}.{name}" not in documents:
            problems.append(f"role {name}: ansible-doc does not know it")
        base = ROOT / "roles" / name
        specs = yaml.safe_load((base / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        options = specs["main"]["options"]
        defaults = yaml.safe_load((base / "defaults" / "main.yml").read_text()) or {}
        documented = {option: spec["default"] for option, spec in options.items() if "default" in spec}
        if documented != defaults:
            different = sorted(key for key in {*documented, *defaults} if documented.get(key) != defaults.get(key))
            problems.append(f"role {name}: argument_specs and defaults differ in {', '.join(different)}")
        if not (base / "README.md").exists():
            problems.append(f"role {name}: no README.md")
    return problems


def main() -> int:
    return finish(module_problems() + callback_problems() + role_problems())


if __name__ == "__main__":
    sys.exit(main())
