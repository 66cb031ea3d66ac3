# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a domain of the host to what is described: reads, plans, applies. Never starts or stops a VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import STATE_DIR, Journal, StateFile
from .._core.plan import Call, Plan, RestoreFile, RunCommand, Step, WriteFile, apply_plan
from .._core.runner import diff_of
from .compare import digest, runs_as_defined, same_domain
from .request import parse_name
from .virsh import SYSTEM, Definition, Virsh

_KEY = "domain"
_PREFIX = "domain-"


@dataclass(frozen=True)
class Wanted:
    """What the operator asked for; ``dest`` is empty and ``autostart`` None where it was left open."""

    name: str
    xml: str
    define: bool
    dest: str
    autostart: Optional[bool]


@dataclass(frozen=True)
class Found:
    """The domain as libvirt has it, or None, and our record of what we defined."""

    definition: Optional[Definition]
    record: dict[str, Any]

    @property
    def xml(self) -> str:
        return self.definition.xml if self.definition else ""

    @property
    def running(self) -> bool:
        return self.definition is not None and self.definition.running

    @property
    def autostart(self) -> bool:
        return self.definition is not None and self.definition.autostart


_NOTHING = Found(None, {})


def state_name(name: str) -> str:
    """The state file of a domain (record and journal)."""
    return f"{_PREFIX}{name}"


def recorded_names(host: Host) -> list[str]:
    """The domains that the collection has defined on this host, or written a file for."""
    ending = ".json"
    return [parse_name(entry[len(_PREFIX):-len(ending)]) for entry in host.listdir(STATE_DIR)
            if entry.startswith(_PREFIX) and entry.endswith(ending)]


def make_present(host: Host, wanted: Wanted, check: bool) -> dict[str, Any]:
    """The module's result for state present. ``check`` computes the same plan and applies nothing."""
    if not wanted.define and not wanted.dest:
        raise PassthroughError(f"There is nothing to do for the domain {wanted.name}: define is false and there is no "
                               "dest; state rendered only shows the XML.")
    virsh = Virsh(host)
    found = _find(host, virsh, wanted.name) if wanted.define else _NOTHING
    final = _final_xml(virsh, wanted, found, check)
    plan = _plan_present(host, virsh, wanted, found, final)
    actions = plan.actions() if check else apply_plan(host, plan, Journal(host, state_name(wanted.name)))
    result = _result(plan, actions, wanted)
    if not wanted.define:
        return result
    if not check:
        final = virsh.inactive_xml(wanted.name) if final != found.xml else final
        _remember(host, wanted, found, final)
    result["defined_xml"] = final
    result["restart_required"] = _needs_restart(virsh, wanted, found, final)
    if final != found.xml:
        result.update(_preview(virsh, final))
    return result


def find_settled(host: Host, name: str, autostart: Optional[bool]) -> Optional[tuple[str, dict[str, Any]]]:
    """For a domain that libvirt still has as it was defined, and that is started at boot as it shall be: the SHA-256 of
    the XML that was rendered for it, and what make_present returns for that XML. None for any other."""
    virsh = Virsh(host)
    found = _find(host, virsh, name)
    rendered = found.record.get("rendered_sha256")
    if not rendered or not found.definition or found.record != _record_of(rendered, found.xml):
        return None
    if autostart not in (None, found.autostart):
        return None
    wanted = Wanted(name, "", True, "", autostart)
    result = _result(_plan_present(host, virsh, wanted, found, found.xml), [], wanted)
    return rendered, {**result, "defined_xml": found.xml,
                      "restart_required": _needs_restart(virsh, wanted, found, found.xml)}


def make_absent(host: Host, names: list[str], check: bool) -> dict[str, Any]:
    """Undefines domains with their NVRAM and gives files back. A running domain is refused before anything changed."""
    virsh = Virsh(host)
    # without virsh no domain can be defined; a file may still have to be given back
    found = {name: _find(host, virsh, name) if virsh.installed() else _NOTHING for name in names}
    for name, domain in found.items():
        if domain.running:
            raise PassthroughError(f"The domain {name} is running: shut it down, then run again.")
    actions: list[str] = []
    before, after = "", ""
    for name, domain in found.items():
        plan = _plan_absent(host, name, domain)
        actions += plan.actions() if check else apply_plan(host, plan, Journal(host, state_name(name)))
        before += _text(plan.before)
        after += _text(plan.after)
    return {"changed": bool(actions), "actions": actions, "diff": diff_of(before, after), "restart_required": False}


def _find(host: Host, virsh: Virsh, name: str) -> Found:
    return Found(virsh.find(name), StateFile(host, state_name(name)).load().get(_KEY, {}))


def _final_xml(virsh: Virsh, wanted: Wanted, found: Found, check: bool) -> str:
    """The definition that libvirt will have: the one it has, where that is what we want.

    The record tells it without another call: this text was defined, and libvirt still has what it made of it. Else
    libvirt itself says what it would make of the text.
    """
    if not wanted.define:
        return ""
    if found.record == _record(wanted.xml, found.xml):
        return found.xml
    if not found.definition and not check:
        # nothing to compare with, and libvirt validates when it defines: no need to start its driver a second time
        return wanted.xml
    normal = virsh.normalise(wanted.name, wanted.xml)
    return found.xml if found.xml and same_domain(normal, found.xml) else normal


def _record(rendered: str, defined: str) -> dict[str, str]:
    return _record_of(digest(rendered), defined)


def _record_of(rendered_sha256: str, defined: str) -> dict[str, str]:
    return {"rendered_sha256": rendered_sha256, "defined_sha256": digest(defined)}


def _plan_present(host: Host, virsh: Virsh, wanted: Wanted, found: Found, final: str) -> Plan:
    before: dict[str, Any] = {"xml": found.xml}
    after: dict[str, Any] = {"xml": final}
    steps: list[Step] = []
    if wanted.dest:
        content = wanted.xml.encode()
        before["file"] = host.file_state(wanted.dest).content
        after["file"] = content
        if before["file"] != content:
            steps.append(WriteFile(wanted.dest, content))
    if final != found.xml:
        steps.append(Call(f"define the domain {wanted.name} with validation",
                          lambda _host: virsh.define(wanted.name, wanted.xml)))
    if wanted.define and wanted.autostart is not None:
        before["autostart"] = found.autostart
        after["autostart"] = wanted.autostart
        if before["autostart"] != wanted.autostart:
            steps.append(_autostart(wanted.name, wanted.autostart))
    return Plan(before, after, tuple(steps))


def _autostart(name: str, enable: bool) -> RunCommand:
    options = () if enable else ("--disable",)
    return RunCommand(("virsh", "-q", "-c", SYSTEM, "autostart", *options, name), timeout=60)


def _plan_absent(host: Host, name: str, found: Found) -> Plan:
    journal = Journal(host, state_name(name))
    steps: list[Step] = [RestoreFile(path) for path in journal.paths()]
    if found.definition:
        steps.append(RunCommand(("virsh", "-q", "-c", SYSTEM, "undefine", name, "--nvram", "--managed-save",
                                 "--snapshots-metadata", "--checkpoints-metadata"), timeout=60))
    if StateFile(host, state_name(name)).load().get(_KEY):
        steps.append(Call(f"forget the domain {name}", lambda target: _forget(target, name)))
    return Plan({"xml": found.xml}, {"xml": ""}, tuple(steps))


def _remember(host: Host, wanted: Wanted, found: Found, defined: str) -> None:
    """Also adopts a domain that is what we want and was defined by others: no change of the host."""
    record = _record(wanted.xml, defined)
    if record != found.record:
        state = StateFile(host, state_name(wanted.name))
        state.save({**state.load(), _KEY: record})


def _forget(host: Host, name: str) -> None:
    state = StateFile(host, state_name(name))
    state.save({key: value for key, value in state.load().items() if key != _KEY})


def _needs_restart(virsh: Virsh, wanted: Wanted, found: Found, final: str) -> bool:
    return found.running and not runs_as_defined(virsh.live_xml(wanted.name), final)


def _preview(virsh: Virsh, final: str) -> dict[str, Any]:
    """The QEMU command line. libvirt looks at the host for it (tap device, huge pages), so it may not tell one."""
    try:
        return {"qemu_argv": virsh.argv(final)}
    except PassthroughError as error:
        return {"qemu_argv": None, "warnings": [f"The QEMU command line cannot be shown: {error.message}"]}


def _result(plan: Plan, actions: list[str], wanted: Wanted) -> dict[str, Any]:
    return {"changed": plan.changed, "actions": actions, "diff": _diff(plan), "name": wanted.name,
            "dest": wanted.dest or None}


def _diff(plan: Plan) -> dict[str, str]:
    """Empty where nothing changes: two copies of an unchanged domain would only make the result long."""
    return diff_of(_text(plan.before), _text(plan.after)) if plan.changed else diff_of("", "")


def _text(side: dict[str, Any]) -> str:
    """One side of the diff: readable XML, with what is not XML on lines above it."""
    head = f"autostart: {'yes' if side['autostart'] else 'no'}\n" if "autostart" in side else ""
    body = str(side["xml"])
    if not body and side.get("file"):
        body = bytes(side["file"]).decode("utf-8", "replace")
    return head + body
