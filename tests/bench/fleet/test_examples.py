# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EXAMPLES of the modules, and the tasks in the pages, carried out on a simulated GB200 host.

Needs a mount namespace of its own and root: tests/run does that.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "docs"), str(ROOT / ".build")]

# where the line above leads
from hosts import Fleet, fleet, on_host  # noqa: E402
from measure import Run, measure  # noqa: E402

# and where tests/docs has the examples
from examples import Example, fenced, kind, of_modules  # noqa: E402

# The order in which a play uses them; what an example leaves is what the next one finds.
ORDER = ("host_info", "gpu_info", "host_survey", "host_config", "dkms_module", "gpu_driver", "region_verify",
         "domain_xml", "host_report", "fleet_report")
LAST = "Give everything back"
# Example -> the names that others give to its result.
NAMES = {"Read the host": ("host_info_result", "gpu_preflight_host_info"),
         "All NVIDIA GPUs of the host": ("gpu_info_result", "gpu_preflight_gpu_info"),
         "Verify a GPU with a known product": ("region_verify_result", "gpu_verify_result")}
VALUES = {"gpus": [{"address": "0009:01:00.0"}], "vm": {"name": "other", "vcpus": 4, "memory": "8GiB", "gpus": 1},
          "saved_host": "{{ passthrough_host.host }}", "saved_gpus": "{{ found.gpus }}"}
# Programs of others, which would change the machine of this test.
NOT_RUN = {"ansible.builtin.package", "ansible.builtin.reboot"}
# What this host answers to an example that is another one's. It has no compiler, because its kernel has the driver.
MISSING = "cannot be built on this host because dkms and the headers of kernel .* are missing: install dkms"
KEY = "/etc/keys/modules.key does not exist .* put it there first"
REFUSED = {
    "These two, and fail where there are not exactly two": "wants 2 of 10de:2941 and this host has 4",
    "Prepare a Grace host": "no hugepages of 512 MiB; it has: 2 MiB",
    "Build for the running kernel unless it ships a driver that knows the GPU": MISSING,
    "Build for all installed kernels, also where the kernel has a driver of its own": MISSING,
    "Build for all installed kernels and sign with a key pair of the site": KEY,
    "Build once, for a kernel of other hosts": KEY,
    "Bind a card with its audio function": "There is no PCI function 0000:41:00.0 on this host",
    "Let the members of a group run QEMU with it": "There is no group vfio on this host: create it",
    "Verify again, with writes, and an exact size": "bytes of GPU memory and 102542344192 were expected",
    "Define a VM with the GPU of a GH200": "wants huge pages of 524288 KiB and this host has: 2048 KiB",
}


def tasks() -> list[dict[str, Any]]:
    found = {example.where.split("/")[-1].split(".")[0]: yaml.safe_load(example.text) for example in of_modules()}
    assert sorted(found) == sorted(ORDER)
    listed = [task for name in ORDER for task in found[name] if not NOT_RUN & set(task)]
    return sorted(listed, key=lambda task: task["name"] == LAST)


def tolerant(examples: list[dict[str, Any]], result: Path) -> list[dict[str, Any]]:
    """The examples to the letter, each with a name for its result where it has none; ``result`` gets what they say."""
    steps: list[dict[str, Any]] = []
    registered = []
    for number, example in enumerate(examples):
        name = example.get("register", f"example_{number}")
        registered.append(name)
        # The answers are looked at together: REFUSED has those that must be failures, and no other may be
        steps.append({**example, "register": name, "ignore_errors": True})
        steps += [{"name": f"Call it {other}", "ansible.builtin.set_fact": {other: f"{{{{ {name} }}}}"}}
                  for other in NAMES.get(example["name"], ())]
    answers = "{{ [" + ", ".join(registered) + "] | to_json }}"
    return [*steps, {"name": "Keep the answers", "delegate_to": "localhost",
                     "ansible.builtin.copy": {"dest": str(result), "content": answers, "mode": "0600"}}]


def carry_out(host: Fleet, steps: list[dict[str, Any]]) -> Run:
    """A play of these tasks. The hosts that they delegate to are this one."""
    inventory = json.loads(host.inventory.read_text())
    for other in ("builder", "login-node"):
        inventory["all"]["hosts"][other] = inventory["all"]["hosts"]["gb200-0001"]
    inventory["all"]["hosts"]["localhost"] = {"ansible_connection": "local",
                                              "ansible_python_interpreter": sys.executable}
    inventory["all"]["vars"]["ansible_become"] = False  # the connection is root's
    host.inventory.write_text(json.dumps(inventory))
    book = host.directory / "examples.yml"
    book.write_text(yaml.safe_dump([{"hosts": "gb200-0001", "gather_facts": False, "vars": VALUES, "tasks": steps}],
                                   sort_keys=False))
    return measure(host, "ansible-playbook", str(book))


def test_each_example_does_what_it_says_or_is_refused_in_a_sentence() -> None:
    examples = tasks()
    with fleet(1, ROOT / ".build") as host:
        result = host.directory / "answers.json"
        carry_out(host, tolerant(examples, result))
        answers = json.loads(result.read_text())
    refused = {example["name"]: answer["msg"] for example, answer in zip(examples, answers, strict=True)
               if answer.get("failed")}
    assert sorted(refused) == sorted(REFUSED), refused
    assert [refused[name] for name, sentence in REFUSED.items() if not re.search(sentence, refused[name])] == []
    assert {example["name"] for example in examples} - set(refused) > set(NAMES)


@pytest.mark.parametrize("example", [example for example in fenced() if example.language == "yaml"
                                     and kind(example) == "tasks"], ids=lambda example: example.where)
def test_the_tasks_of_a_page(example: Example) -> None:
    """The programs that they call are the site's: here they do nothing, and do it."""
    with fleet(1, ROOT / ".build") as host:
        for program in ("/usr/local/sbin/power-cap", "/usr/local/bin/scontrol"):
            on_host(host, "ln", "-s", "/bin/true", program)
        assert carry_out(host, yaml.safe_load(example.text)).calls
