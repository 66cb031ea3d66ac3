# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints a domain plan with a Jinja2 template. Runs on the controller only, where Ansible brings Jinja2."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan

# The role owns the template so that a user who reads the role finds it; the plugin sits two levels below the root.
DEFAULT_TEMPLATE = Path(__file__).resolve().parents[2] / "roles" / "gpu_domain" / "templates" / "domain.xml.j2"


def read_template(path: str = "") -> str:
    """The text of a template on the controller; the collection's own where no path is given."""
    chosen = Path(path) if path else DEFAULT_TEMPLATE
    try:
        return chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PassthroughError(f"The template {chosen} cannot be read: {error}.") from error


def render(plan: DomainPlan, template: str) -> str:
    """The domain's XML. Every value is escaped; an unknown name in the template is an error."""
    try:
        return _compile(template).render(plan=plan)
    except TemplateError as error:
        raise PassthroughError(f"The domain template cannot be rendered: {error}.") from error


def prepare() -> None:
    """Compiles the collection's own template ahead of the first domain. Why one cannot be, that domain says."""
    with suppress(PassthroughError, TemplateError):
        _compile(read_template())


@lru_cache(maxsize=4)
def _compile(template: str) -> Template:
    """Compiling takes ten times as long as printing one domain."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=True)
    return environment.from_string(template)
