# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each example of the documentation is run, or looked at as far as one can without the host that it wants."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.cli.playbook import PlaybookCLI
from specs import FQCN, module_spec, problems, role_options

from examples import COMMAND_LANGUAGES, NO_EXAMPLES, ROOT, Example, fenced, in_text, kind, of_modules, words

sys.path.insert(0, str(ROOT / "tests" / "lab"))
from nvlab.cli import _parser as lab_parser

BIN = Path(sys.executable).parent
FENCED = fenced()
YAML = [*(example for example in FENCED if example.language == "yaml"), *of_modules()]
TO_RUN = [(example, command) for example in FENCED if example.how == "run" for command in example.commands()]
# What wants a host is looked at only. This list is the honest part: pytest shows each with -v.
ON_HOSTS = [(example, command) for example in [*FENCED, *in_text()] if example.how == "host"
            for command in example.commands()]
PLACEHOLDERS = re.compile(r"\b(?:INVENTORY|HOST|NAME|PLAYBOOK|FILE|X)\b|\.\.\.")
MODULE_TASK = f"{FQCN}."
# Programs of the managed hosts and of every system, whose options are theirs.
OTHERS = {"cat", "virsh", "export", "openssl", "git"}


def ids(item: Any) -> str:
    example, command = item if isinstance(item, tuple) else (item, "")
    return f"{example.where} {command}".strip()


@functools.cache
def ansible(*argv: str) -> str:
    """What one of Ansible's programs prints. The same command is asked once only."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_NOCOLOR": "1",
                   "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=ROOT, env=environment, check=False, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.mark.parametrize("example", FENCED, ids=ids)
def test_each_block_says_what_it_is(example: Example) -> None:
    """A block of a language that no test knows would go untested, and so would commands without a mark."""
    known = COMMAND_LANGUAGES | NO_EXAMPLES | {"yaml", "ini"}
    assert example.language in known
    assert (example.how in ("run", "host")) == (example.language in COMMAND_LANGUAGES)


def tasks_of(value: Any) -> list[dict[str, Any]]:
    found = []
    for item in value:
        inner = [task for key in ("tasks", "pre_tasks", "block") for task in tasks_of(item.get(key, []))]
        found += inner or [item]
    return found


def check_variables(given: dict[str, Any]) -> None:
    """Each is an option of a role or a play's variable, with a value that it takes."""
    options = role_options()
    ours = {name: value for name, value in given.items() if not name.startswith("ansible_")}
    assert sorted(set(ours) - set(options)) == []
    assert problems({"argument_spec": {name: options[name] for name in ours}}, ours) == []


@pytest.mark.parametrize("example", YAML, ids=ids)
def test_yaml(example: Example, tmp_path: Path) -> None:
    value, what = yaml.safe_load(example.text), kind(example)
    path = tmp_path / "example.yml"
    path.write_text(example.text)
    if what == "variables":
        return check_variables(value)
    if what == "inventory":
        listed = json.loads(ansible("ansible-inventory", "-i", str(path), "--list"))["_meta"]["hostvars"]
        assert listed
        for variables in listed.values():
            check_variables(variables)
        return None
    if what == "tasks":
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": value}], sort_keys=False))
    ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", str(path))
    for task in tasks_of(value):
        for name in [key for key in task if key.startswith(MODULE_TASK)]:
            assert problems(module_spec(name.removeprefix(MODULE_TASK)), task[name] or {}) == [], task["name"]
    return None


@pytest.mark.parametrize("example", [example for example in FENCED if example.language == "ini"], ids=ids)
def test_ini(example: Example, tmp_path: Path) -> None:
    """A part of ansible.cfg that Ansible takes: each setting is known and shows the value."""
    path = tmp_path / "ansible.cfg"
    path.write_text(example.text)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(path)}
    argv = [str(BIN / "ansible-config"), "dump", "-t", "all", "--only-changed", "--format", "json"]
    shown = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout
    for line in example.text.splitlines()[1:]:
        name, _, value = line.partition(" = ")
        # Ansible's own settings are in capitals there, those of plugins are not
        assert f'"{name}"' in shown.lower() and json.dumps(value) in shown


@pytest.mark.parametrize("item", TO_RUN, ids=ids)
def test_commands_that_run(item: tuple[Example, str], tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-euc", item[1]], cwd=tmp_path, check=False, capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}",
                               "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build")})
    assert done.returncode == 0, done.stderr


def check_playbook(argv: list[str]) -> None:
    """ansible-playbook's own parser takes the options, the playbook is there, and so are tags and variables."""
    program = PlaybookCLI(argv)
    program.init_parser()
    # A command in a sentence may leave the playbook out.
    options, rest = program.parser.parse_known_args([*argv[1:], "PLAYBOOK"])
    assert rest in ([], ["PLAYBOOK"])
    for given in options.extra_vars:
        check_extra(f"@{os.path.relpath(given[1:])}" if given.startswith("@") else given)
    tags = re.findall(r"tags: \[(.*)\]", (ROOT / "playbooks" / "site.yml").read_text())
    known = {tag.strip() for line in tags for tag in line.split(",")}
    assert set(",".join(options.tags).split(",")) - {"", "all"} <= known
    for playbook in options.args:
        if not PLACEHOLDERS.fullmatch(playbook):
            ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", playbook)


def check_extra(given: str) -> None:
    if given.startswith("@"):
        shown = {f"@{line.removeprefix('# ')}" for example in YAML for line in example.text.splitlines()[:1]}
        assert given in shown or (ROOT / given[1:]).exists()
    else:
        value = json.loads(given) if given.startswith("{") else dict([given.split("=", 1)])
        check_variables(value)


def check_module_call(argv: list[str]) -> None:
    """ansible -m of a module of the collection, with its arguments as key=value."""
    name = argv[argv.index("-m") + 1] if "-m" in argv else "ansible.builtin.command"
    if name.startswith(MODULE_TASK):
        given = dict(pair.split("=", 1) for pair in (argv[argv.index("-a") + 1].split() if "-a" in argv else []))
        assert problems(module_spec(name.removeprefix(MODULE_TASK)), given) == []
    else:
        ansible("ansible-doc", "-t", "module", "--json", name)


def check_make(argv: list[str]) -> None:
    """Targets of the Makefile, and variables that it or a program of its recipes reads."""
    folder = ROOT / argv[argv.index("-C") + 1] if "-C" in argv else ROOT
    makefile = (folder / "Makefile").read_text()
    for word in argv[3 if "-C" in argv else 1:]:
        if re.fullmatch(r"[A-Z]+=.*", word):
            assert re.search(rf"\$\(({word.split('=')[0]}|if \$\({word.split('=')[0]}\))", makefile), word
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.M), word


@pytest.mark.parametrize("item", ON_HOSTS, ids=ids)
def test_commands_that_want_a_host(item: tuple[Example, str]) -> None:
    """Looked at, not run."""
    argv = words(item[1])
    program = argv[0]
    if program == "ansible-playbook":
        check_playbook(argv)
    elif program == "ansible":
        check_module_call(argv)
    elif program == "ansible-doc":
        ansible(*argv)
    elif program == "make":
        check_make(argv)
    elif program in ("tests/lab/lab", "lab"):
        check_lab(argv)
    elif program == "molecule":
        assert (ROOT / "molecule" / (argv[argv.index("-s") + 1] if "-s" in argv else "default")).is_dir()
    elif program == "tools/fleet-report":
        source = (ROOT / program).read_text(encoding="utf-8")
        assert [word for word in argv if word.startswith("--") and f'"{word}"' not in source] == []
    elif program == "ansible-galaxy":
        assert argv[1:3] == ["collection", "install"]
        assert re.fullmatch(r"\.build/nvgrace-passthrough-[\d.]+\.tar\.gz", argv[3])
    else:
        assert program in OTHERS, f"{item[0].where}: no test knows {program}"


def check_lab(argv: list[str]) -> None:
    """The lab's own parser takes the words; what stands for a value takes one that fits."""
    fitting = {"INDEX": "0", "SECONDS": "5", "N": "1", "NAME": "grace", "CERT": "/x", "KIND": "nvidia"}
    lab_parser().parse_args([fitting.get(word, word) for word in argv[1:] if word != "..."])


def test_there_are_examples_of_each_kind() -> None:
    assert {kind(example) for example in YAML} == {"inventory", "tasks", "variables"}
    assert len(of_modules()) == len(list((ROOT / "plugins" / "modules").glob("*.py")))
    assert len(TO_RUN) >= 1 and len(ON_HOSTS) > 30


@pytest.mark.parametrize(("given", "word"), [({"gpu": []}, "Supported parameters"), ({"in_use": "kill"}, "one of"),
                                             ({"timeout": "soon"}, "int")])
def test_wrong_arguments_are_found(given: dict[str, Any], word: str) -> None:
    assert any(word in problem for problem in problems(module_spec("gpu_driver"), given))


@pytest.mark.parametrize("given", [{"gpu_hots_iommu": "auto"}, {"gpu_host_iommu": "sometimes"}, {"nvgrace_gpus": 3}])
def test_wrong_variables_are_found(given: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_variables(given)


@pytest.mark.parametrize("argv", [["make", "no-such-target"], ["make", "demo", "NOTHING=1"]])
def test_wrong_targets_are_found(argv: list[str]) -> None:
    with pytest.raises(AssertionError):
        check_make(argv)
