# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of domain_xml: plans and renders the XML, then lets the module define it on the host."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import (
    WRONG_FORM,
    require_usable,
    shorten,
    wrong_form,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.compare import digest
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_plan, check_xml
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.request import parse_name
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.spec import ARGUMENT_SPEC, REQUIRED_IF
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import domain_key, domain_question
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import prepare, read_template, render
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.registered import REGISTERED, registered_results
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.stage import SURVEY, lost_host_fails, surveyed

MODULE = "nvgrace.passthrough.domain_xml"
# What is taken of a registered result, by the option that it stands for.
_PARTS = {"host": "host", "gpus": "gpus", "regions": "devices"}

# Ansible's main process loads this plugin and then forks a worker for each host and task. What is made here, the
# workers have; else each of them would make it again for its one domain.
prepare()
_VALIDATOR = ArgumentSpecValidator(ARGUMENT_SPEC, required_if=REQUIRED_IF)


class ActionModule(ActionBase):
    """Facts stay on the controller; the host gets the finished XML."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        # out of the arguments, which are checked as what a user writes
        survey = self._task.args.pop(SURVEY, None)
        given = self._task.args
        try:
            require_usable(given)
            arguments = self._validated(task_vars or {})
            result.update(self._work({**arguments, SURVEY: survey}, task_vars or {}))
        except PassthroughError as error:
            result.update(failed=True, msg=shorten(error.message, given), **error.details)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            # from None: Ansible would append the long message of the cause
            raise AnsibleActionFail(shorten(error.message, given)) from None
        return result

    def _validated(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        try:
            validation = _VALIDATOR.validate(self._task.args)
        except WRONG_FORM as error:
            raise PassthroughError(wrong_form(error)) from error
        if validation.error_messages:
            raise AnsibleActionFail(f"domain_xml cannot take these arguments: {validation.errors.msg}")
        found = _registered(self._task.args, task_vars)
        checked: dict[str, Any] = {**validation.validated_parameters, **found}
        require_usable(checked)  # again: text has become numbers, and results were not looked at yet
        if not all(gpu.get("address") for gpu in checked["gpus"]):
            raise PassthroughError("gpus has an item without an address: give what gpu_info returned.")
        return checked

    def _work(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        state = arguments["state"]
        if state == "absent":
            return self._on_host(arguments, task_vars, "")
        if not arguments["vm"]:
            raise PassthroughError("vm is missing: describe the VM, with its name at least.")
        if not arguments["host"] and state != "rendered":
            raise PassthroughError("host is missing: give what host_info returned, or set state to rendered.")
        if arguments["dest"] and state == "rendered":
            raise PassthroughError("dest is for a file on the host, which state rendered does not touch: use present "
                                   "with define set to false.")
        plan = plan_domain(arguments["vm"], arguments["host"], arguments["gpus"], arguments["regions"])
        check_plan(plan)
        xml = render(plan, read_template(self._template(arguments["template"])))
        check_xml(plan.name, xml)
        found = {"changed": False} if state == "rendered" else self._on_host(arguments, task_vars, xml)
        return {**found, "name": plan.name, "xml": xml, **_remarks(found, plan)}

    def _template(self, path: Optional[str]) -> str:
        """A relative path is looked for as the template action does: in the role, then beside the playbook."""
        if not path:
            return ""
        try:
            return str(self._find_needle("templates", path))
        except AnsibleError as error:
            raise PassthroughError(f"The template {path} was not found on the controller.") from error

    def _on_host(self, arguments: dict[str, Any], task_vars: dict[str, Any], xml: str) -> dict[str, Any]:
        vm = arguments["vm"]
        module_args: dict[str, Any] = {"state": arguments["state"], "define": arguments["define"]}
        if vm:
            module_args["vm"] = {"name": parse_name(vm["name"])}
        if xml:
            autostart = arguments["autostart"] if arguments["autostart"] is not None else vm["autostart"]
            module_args.update(_xml=xml, dest=arguments["dest"], autostart=autostart)
        known = surveyed(arguments[SURVEY], task_vars, *_question(module_args)) if arguments[SURVEY] and xml else None
        if known:
            return known
        with lost_host_fails(self._task):
            result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=module_args,
                                                          task_vars=task_vars)
        return result


def _registered(given: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """The parts of registered results that ``given`` names variables of. Each has to be there: the VM depends on it."""
    names = given.get(REGISTERED) or {}
    results = registered_results(names, _PARTS, task_vars)
    for option in names:
        if given.get(option) is not None:
            raise PassthroughError(f"{option} is given as a value and in registered: leave one of the two out.")
        if not isinstance(results.get(option, {}).get(_PARTS[option]), dict if option == "host" else list):
            raise PassthroughError(f"registered: {names[option]} has no {_PARTS[option]} for {option}: run the module "
                                   "that reads it before, and register its result.")
    return {option: result[_PARTS[option]] for option, result in results.items()}


def _question(module_args: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a survey's answer that is this call's, too."""
    name = module_args["vm"]["name"]
    return domain_key(name), domain_question(name, digest(module_args["_xml"]), module_args["autostart"],
                                             module_args["define"], module_args["dest"])


def _remarks(found: dict[str, Any], plan: DomainPlan) -> dict[str, Any]:
    """The planner's choices and warnings, behind the warnings of the host."""
    warnings = [*found.get("warnings", []), *plan.warnings]
    remarks: dict[str, Any] = {"features": [asdict(feature) for feature in plan.features]}
    return {**remarks, "warnings": warnings} if warnings else remarks
