# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the documentation's site in docs/build: the pages of docs, and one for each module and role.

The pages stay as they are; what they say of places outside of docs is led to pages of the site. Nothing is fetched.
A warning of antsibull-docs or Sphinx is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from layers_picture import FLOWCHART
from layers_picture import picture as layers_picture

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / ".build" / "site"
TARGET = DOCS / "build"
FQCN = "nvgrace.passthrough"

# Pages that live outside of docs, and the names that they have in the site.
ELSEWHERE = {"tests/lab/README.md": "lab.md"}
OTHER_PAGES = "<!-- other pages -->"
# The collection is installed from a file, and has no page elsewhere.
ANTSIBULL = """\
collection_url = {
    * = "index.html"
}
collection_install = {
    * = "ansible-galaxy collection install nvgrace-passthrough-VERSION.tar.gz"
}
"""
# What the pages of modules say of Ansible's own documentation: links, because its index of labels is not fetched.
ANSIBLE = {
    "action_plugins": "plugins/action.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
_ANSIBLE_LINK = re.compile(r":ref:`([^<`]+) <(" + "|".join(ANSIBLE) + r")>`")
# Where a role or module describes itself in the repository: its page is made of the same text.
_DESCRIBED = re.compile(r"roles/(?P<role>\w+)/README\.md|plugins/modules/(?P<module>\w+)\.py")
_TARGETS = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
_ENTRY = re.compile(r"^([a-z0-9][a-z0-9/_-]*)$", re.MULTILINE)


def place_in_site(origin: Path, target: str) -> str:
    """Where a link of the page ``origin`` (below the repository) leads in the site."""
    path, _, anchor = target.partition("#")
    wanted = os.path.normpath(origin.parent / path)
    suffix = f"#{anchor}" if anchor else ""
    if wanted in ELSEWHERE:
        return ELSEWHERE[wanted] + suffix
    described = _DESCRIBED.fullmatch(wanted)
    if described:
        kind = "role" if described["role"] else "module"
        return f"collection/{described['role'] or described['module']}_{kind}.rst{suffix}"
    if wanted.startswith("examples/"):
        return wanted
    if not wanted.startswith("docs/"):
        raise SystemExit(f"{origin} links to {target}: no page of the site shows that file")
    return os.path.relpath(wanted, "docs") + suffix


def page(origin: Path) -> str:
    """The text of a page with its links led to pages of the site."""
    text = (ROOT / origin).read_text(encoding="utf-8")
    # Drawn where the repository is looked at; here that would need a script from elsewhere.
    text = FLOWCHART.sub("![The areas of module_utils in layers, and what each imports](pictures/layers.svg)\n", text)
    return _TARGETS.sub(lambda link: f"]({place_in_site(origin, link[1])})", text)


def with_other_pages(index: str, names: list[str]) -> str:
    """The index with each page in its last list that no list of it names: a new page is never lost."""
    listed = set(_ENTRY.findall(index))
    return index.replace(OTHER_PAGES, "\n".join(name for name in names if name not in {*listed, "index"}))


def prepare() -> None:
    """Copies the pages and writes those of modules and roles."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "collection").mkdir(parents=True)
    origins = {Path("docs", path.name): path.name for path in sorted(DOCS.glob("*.md"))}
    origins |= {Path(path): name for path, name in ELSEWHERE.items()}
    for origin, name in origins.items():
        text = page(origin)
        if name == "index.md":
            text = with_other_pages(text, sorted(Path(other).stem for other in origins.values()))
        (SOURCE / name).write_text(text, encoding="utf-8")
    for name in ("conf.py", "site.css"):
        shutil.copy(DOCS / name, SOURCE)
    for directory in (DOCS / "pictures", DOCS / "schemas", ROOT / "examples"):
        shutil.copytree(directory, SOURCE / directory.name)
    (SOURCE / "pictures" / "layers.svg").write_text(layers_picture(), encoding="utf-8")
    (SOURCE / "antsibull.cfg").write_text(ANTSIBULL, encoding="utf-8")


def for_this_site(text: str) -> str:
    """A page of antsibull-docs without its table of contents, which the theme has beside the page; with links for
    references to Ansible's own documentation, and short names in the list at the side."""
    text = re.sub(r"^\.\. contents::\n(?:[ ]+:.*\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( +)(\w+)_(module|role|callback)$", r"\1\2 <\2_\3>", text, flags=re.MULTILINE)
    for name in ANSIBLE:
        text = text.replace(f":ref:`{name}`", f":ref:`{name.replace('_', ' ')} <{name}>`")
    return _ANSIBLE_LINK.sub(
        lambda found: f"`{found[1]} <https://docs.ansible.com/ansible/latest/{ANSIBLE[found[2]]}>`__", text)


def adapt_collection() -> None:
    for path in (SOURCE / "collection").glob("*.rst"):
        path.write_text(for_this_site(path.read_text(encoding="utf-8")), encoding="utf-8")


def run(*argv: str) -> None:
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{argv[0]} ended with status {done.returncode}")


def main() -> int:
    prepare()
    run("antsibull-docs", "--config-file", str(SOURCE / "antsibull.cfg"), "collection", "--use-current",
        "--squash-hierarchy", "--fail-on-error", "--no-add-antsibull-docs-version", "--dest-dir",
        str(SOURCE / "collection"), FQCN)
    (SOURCE / "collection" / "environment_variables.rst").unlink()  # the collection declares none
    adapt_collection()
    shutil.rmtree(TARGET, ignore_errors=True)
    run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", str(SOURCE), str(TARGET))
    print(f"{sum(1 for _ in TARGET.rglob('*.html'))} pages: {TARGET.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
