# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of every module with values that nobody should give: a short refusal or a normal result, no traceback,
and nothing written but the files that the module is for.

The options come from the modules' own argument specs, so that a new one is covered by itself.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase
from harness import GPU, TRACES, MadeUpHost, Outcome
from hostile import VALUES, places, with_value

from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import pack
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

ROOT = Path(__file__).resolve().parents[2]
CONTROLLER = "ansible_collections.nvgrace.passthrough.plugins.action"
COLLECTION = "ansible_collections.nvgrace.passthrough.plugins.modules"
# Ansible lists all words for a boolean.
LONGEST_SENTENCE = 500
LONGEST_OUTPUT = 256 * 1024

_TREE = collect(str(ROOT / "files" / "kmod"))
# What a run that is right gives; the rest of the options has its defaults.
GOOD: dict[str, dict[str, Any]] = {
    "dkms_module": {"_source": pack(_TREE), "_source_sha256": _TREE.sha256},
    "domain_xml": {"vm": {"name": "tenant"}, "_xml": "<domain><name>tenant</name></domain>", "dest": "/etc/vm.xml"},
    "gpu_driver": {"gpus": [{"address": GPU}]},
    "gpu_info": {"gpus": [{"address": GPU}]},
    "host_survey": {"host_info": {"probe_qemu": False}, "gpu_info": {"gpus": [{"address": GPU}]}, "host_config": {}},
    "region_verify": {"gpus": [{"address": GPU, "expected_memory": 2560 << 20}], "timeout": 30},
}
# What the host's own kernel changes when it is used, and the lock.
_ALWAYS = [*TRACES, "/sys/*", "/kernel*"]
_STATE = ["/var", "/var/lib", "/var/lib/nvgrace-passthrough*"]
INTENDED: dict[str, list[str]] = {
    "host_info": [], "gpu_info": [], "host_survey": [],
    "host_config": [*_STATE, "/etc/modprobe.d*", "/etc/modules-load.d*", "/etc/default*", "/etc/security*",
                    "/etc/systemd*", "/etc/tmpfiles.d*"],
    "dkms_module": [*_STATE, "/usr/src*", "/etc/dkms*"],
    "gpu_driver": [*_STATE, "/etc/udev*", "/etc/modules-load.d*"],
    "region_verify": _STATE,
    # any absolute path is a good dest
    "domain_xml": [*_STATE, "*"],
}


def argument_spec(name: str) -> dict[str, Any]:
    """The spec that main() gives to AnsibleModule."""
    module = importlib.import_module(f"{COLLECTION}.{name}")
    found: dict[str, Any] = {}

    def remember(_self: Any, argument_spec: dict[str, Any], **_options: Any) -> None:
        found.update(argument_spec)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(basic.AnsibleModule, "__init__", remember)
        with patch_module_args({}):
            module.main()
    return found


def modules() -> list[str]:
    """The modules that have a main(); the others live in their action plugin."""
    names = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("[a-z]*.py"))
    return [name for name in names if hasattr(importlib.import_module(f"{COLLECTION}.{name}"), "main")]


SPECS = {name: argument_spec(name) for name in modules()}
# What begins with an underscore comes from the controller side of the module and is no option.
CASES_OF_MODULES = [(name, path) for name, spec in SPECS.items() for path in places(spec) if path[0][0] != "_"]


def told(path: tuple[Any, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUpHost:
    return MadeUpHost(tmp_path_factory.mktemp("hosts") / "host")


def wrong(outcome: Outcome, intended: list[str]) -> list[str]:
    """What is not as it must be, in words."""
    found = [f"{what} outside of the host" for what in outcome.outside]
    stray = [path for path in outcome.changed
             if not any(fnmatch.fnmatchcase(path, pattern) for pattern in [*_ALWAYS, *intended])]
    if stray:
        found.append(f"it wrote {stray[:5]}")
    if outcome.status not in (0, 1) or "Traceback" in outcome.output:
        return [*found, f"status {outcome.status}: {outcome.output[-300:]!r}"]
    if len(outcome.output) > LONGEST_OUTPUT:
        found.append(f"it prints {len(outcome.output)} characters")
    try:
        result = outcome.result
    except ValueError:
        return [*found, f"no result: {outcome.output[:200]!r}"]
    if result.get("failed"):
        message = result["msg"]
        if len(message) > LONGEST_SENTENCE:
            found.append(f"a sentence of {len(message)} characters: {message[:80]!r}")
        if not message.strip() or set(message) & set("\n\r\0\x1b"):
            found.append(f"no sentence of one line: {message[:200]!r}")
    return found


def test_there_are_modules_and_the_good_arguments_are_theirs() -> None:
    assert {"host_info", "host_config", "dkms_module", "gpu_info", "gpu_driver", "region_verify",
            "domain_xml"} <= set(SPECS)
    assert set(GOOD) <= set(SPECS)
    assert set(INTENDED) == set(SPECS), "say which files a new module may write"


@pytest.mark.parametrize("name", ["gpu_info", "gpu_driver", "region_verify", "host_info", "host_config",
                                  "domain_xml", "host_survey"])
def test_good_arguments_are_good(made_up: MadeUpHost, name: str) -> None:
    """Otherwise every value would be refused for another reason."""
    main = importlib.import_module(f"{COLLECTION}.{name}").main
    outcome = made_up.run(main, GOOD.get(name, {}), libvirt=name == "domain_xml")
    assert not outcome.result.get("failed"), outcome.output
    assert not wrong(outcome, INTENDED[name])


def test_the_harness_sees_what_is_wrong(made_up: MadeUpHost, tmp_path: Path) -> None:
    def bad() -> None:
        (tmp_path / "outside").write_text("x")
        (made_up.root / "etc" / "stray").write_text("x")
        __import__("subprocess").run(["true"], check=True)
        print(json.dumps({"failed": True, "msg": "two\nlines " + "x" * 500}))

    found = wrong(made_up.run(bad, {}), [])
    assert len(found) == 5, found
    assert wrong(made_up.run(lambda: print("Traceback"), {}), []) != []


@pytest.mark.parametrize(("name", "path"), CASES_OF_MODULES,
                         ids=[f"{name}-{told(path)}" for name, path in CASES_OF_MODULES])
def test_hostile_value(made_up: MadeUpHost, name: str, path: tuple[Any, ...]) -> None:
    main = importlib.import_module(f"{COLLECTION}.{name}").main
    found = {}
    for what, value in VALUES.items():
        arguments = with_value(GOOD.get(name, {}), SPECS[name], path, value)
        problems = wrong(made_up.run(main, arguments, libvirt=name == "domain_xml"), INTENDED[name])
        if problems:
            found[what] = problems
    assert not found, "\n".join(f"{what}: {problems}" for what, problems in found.items())


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, spec in SPECS.items() for option in spec
                                              if option.startswith("_")])
def test_what_the_controller_sends_cannot_be_given(made_up: MadeUpHost, name: str, option: str) -> None:
    outcome = made_up.run(on_controller(name, {**good_for_controller(name, made_up.root), option: "x"}), {})
    assert outcome.result["failed"] and option in outcome.result["msg"]


@pytest.mark.parametrize("name", sorted(SPECS))
def test_hostile_option_name(made_up: MadeUpHost, name: str) -> None:
    main = importlib.import_module(f"{COLLECTION}.{name}").main
    for option in ("../x", "a\nb", "\0", "A" * 100000, "\u202e", "__class__"):
        outcome = made_up.run(main, {**GOOD.get(name, {}), option: 1})
        assert not wrong(outcome, []), option
        assert outcome.result["failed"]


class Playing:
    """What of Ansible the controller side of a module touches. The host answers that all is well."""

    def __init__(self, arguments: dict[str, Any], check: bool) -> None:
        self._task = SimpleNamespace(args=arguments, action="x", async_val=0, check_mode=check)
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))

    def _execute_module(self, **_call: Any) -> dict[str, Any]:
        return {"changed": False}

    def _remove_tmp_path(self, _path: str) -> None:
        """There is none."""

    def _find_needle(self, _kind: str, needle: str) -> str:
        if not os.path.exists(needle):
            raise AnsibleError(f"Could not find {needle}.")
        return needle


def controller_spec(name: str) -> dict[str, Any]:
    """The options of a module, from its spec, or from its documentation where only the controller knows it."""
    if name in SPECS:
        return {option: value for option, value in SPECS[name].items() if not option.startswith("_")}
    text = (ROOT / "plugins" / "modules" / f"{name}.py").read_text().partition("DOCUMENTATION = r")[2].split('"""')[1]
    options: dict[str, Any] = yaml.safe_load(text)["options"]
    return options


ACTIONS = sorted(path.stem for path in (ROOT / "plugins" / "action").glob("[a-z]*.py"))
CASES_OF_ACTIONS = [(name, path) for name in ACTIONS for path in places(controller_spec(name))]


def good_for_controller(name: str, directory: Path) -> dict[str, Any]:
    if name == "domain_xml":
        return CASES["gh200-compat"]()
    return {"host_report": {"dest": str(directory / "reports")}, "host_survey": GOOD["host_survey"],
            "fleet_report": {"src": [str(ROOT / "tests" / "report" / "records")], "dest": str(directory / "reports")},
            "region_verify": GOOD["region_verify"]}.get(name, {})


def on_controller(name: str, arguments: dict[str, Any], check: bool = False) -> Callable[[], None]:
    """A main() that runs the controller side and prints its result as Ansible would show it."""
    plugin = importlib.import_module(f"{CONTROLLER}.{name}")
    action = type("Played", (Playing, plugin.ActionModule), {})(arguments, check)

    def main() -> None:
        ActionBase.run = lambda *_arguments: {}
        try:
            result = action.run(task_vars={"inventory_hostname": "rack1"})
        except AnsibleError as error:
            result = {"failed": True, "msg": str(error)}
        print(json.dumps(result))

    return main


@pytest.mark.parametrize("name", ACTIONS)
def test_good_arguments_are_good_on_the_controller(made_up: MadeUpHost, name: str) -> None:
    outcome = made_up.run(on_controller(name, good_for_controller(name, made_up.root)), {})
    assert not outcome.result.get("failed"), outcome.output
    assert not wrong(outcome, ["/reports*"])


@pytest.mark.parametrize(("name", "path"), CASES_OF_ACTIONS,
                         ids=[f"{name}-{told(path)}" for name, path in CASES_OF_ACTIONS])
def test_hostile_value_on_the_controller(made_up: MadeUpHost, name: str, path: tuple[Any, ...]) -> None:
    """In check mode for the directory of reports, which is wherever the operator says: also on this machine."""
    spec = controller_spec(name)
    found = {}
    check = (name, path) in (("host_report", ("dest",)), ("fleet_report", ("dest",)))
    for what, value in VALUES.items():
        arguments = with_value(good_for_controller(name, made_up.root), spec, path, value)
        problems = wrong(made_up.run(on_controller(name, arguments, check), {}), ["/reports*"])
        if problems:
            found[what] = problems
    assert not found, "\n".join(f"{what}: {problems}" for what, problems in found.items())
