# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as GitHub-flavoured Markdown, for a ticket. Pure.

What comes from a host is shown as it is: nothing in it can end a cell of a table, make a link or a heading, or
call a user. Lists end where nobody reads on, with the number of those left out; the hosts that need a look come first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from .fleet import Finding, Fleet, ProductGroup, findings, products, timings
from .record import OUTCOMES, Gpu, Record
from .text import human_size

# A ticket has room for 65,536 characters.
MAX_HOSTS = 250
MAX_ITEMS = 50
MAX_NAMES = 5
MAX_REASONS = 3
_MAX_SENTENCE = 500

# An underscore within a word is only that, and names of drivers have many.
_MEANS_SOMETHING = re.compile(r"[\\`*\[\]<>|&~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|:(?=//)|(?<=www)\.")
# GitHub looks for users and tickets in the text as it is shown, after the escapes: a space without width ends it.
_CALLS = re.compile("[@#](?=[^ ])")


def markdown(fleet: Fleet) -> str:
    """The whole document. A part that has nothing to say is left out."""
    parts = (_head(fleet), _stopped(fleet), _problems(fleet), _findings(fleet), _outliers(fleet), _products(fleet),
             _hosts(fleet), _timings(fleet))
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def escape(text: str) -> str:
    """``text`` in one line, without a meaning for Markdown, and cut where it is longer than a sentence may be."""
    line = " ".join(text.split())
    if len(line) > _MAX_SENTENCE:
        line = f"{line[:_MAX_SENTENCE].rstrip()} (...)"
    return _CALLS.sub(r"\g<0>&#8203;", _MEANS_SOMETHING.sub(r"\\\g<0>", line))


def _head(fleet: Fleet) -> list[str]:
    lines = [f"# GPU passthrough, {fleet.made_at:%Y-%m-%d %H:%M} UTC", ""]
    if not fleet.records:
        return [*lines, "There is no record of a host."]
    gpus = sum(len(record.gpus) for record in fleet.records)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in fleet.outcomes)
    lines.append(f"{_count(len(fleet.records), 'host')} with {_count(gpus, 'GPU')}: {counts}.")
    reboots = [record.host for record in fleet.records if record.reboot_required]
    if reboots:
        lines += ["", f"A reboot is due on {_names(reboots, 'host')}."]
    domains = [f"{domain.name} on {record.host}" for record in fleet.records for domain in record.domains
               if domain.restart_required]
    if domains:
        lines += ["", f"A restart is due of {_names(domains, 'domain')}."]
    return lines


def _stopped(fleet: Fleet) -> list[str]:
    rows = [f"- **{escape(record.host)}** ({record.outcome}): "
            f"{escape(record.failure)} {escape(record.after_failure)}".rstrip() for record in fleet.stopped]
    return _section("Hosts that stopped", _limited(rows, MAX_ITEMS, "host"))


def _problems(fleet: Fleet) -> list[str]:
    newest = fleet.newest
    rows = [f"- **{escape(problem.name)}**: {escape(problem.why)}" for problem in fleet.problems]
    rows += [f"- **{escape(record.host)}**: Its record is of {record.made_at:%Y-%m-%d %H:%M} UTC, "
             f"{_age(newest - record.made_at)} before the newest one: the last run did not reach this host."
             for record in fleet.old]
    return _section("What this report lacks", _limited(rows, MAX_ITEMS, "problem"))


def _findings(fleet: Fleet) -> list[str]:
    rows = [_finding(finding) for finding in findings(fleet)]
    return _section("Findings", _table(("Check", "Status", "Hosts", "Why", "What to do"), rows, MAX_ITEMS, "finding"))


def _finding(finding: Finding) -> tuple[str, ...]:
    """Reasons in lines of their own: a host's own name may be all that they differ in."""
    reasons = [escape(why) for why in finding.why[:MAX_REASONS]]
    if len(finding.why) > MAX_REASONS:
        reasons.append(f"and {_count(len(finding.why) - MAX_REASONS, 'other reason')}")
    return (escape(finding.id), finding.status, _names(finding.hosts, "host"), "<br>".join(reasons),
            escape(finding.remedy))


def _outliers(fleet: Fleet) -> list[str]:
    rows = [f"- **{escape(outlier.host)}**, {escape(outlier.address)}: {escape(outlier.text)}"
            for outlier in fleet.outliers]
    return _section("GPUs that differ from others of the product", _limited(rows, MAX_ITEMS, "difference"))


def _products(fleet: Fleet) -> list[str]:
    rows = [_product(group) for group in products(fleet)]
    return _section("Products", _table(("Product", "GPUs", "Hosts", "Drivers", "Memory"), rows, MAX_ITEMS, "product",
                                       numbers=(1, 2)))


def _product(group: ProductGroup) -> tuple[str, ...]:
    return (escape(group.product), str(group.gpus), str(group.hosts), _counted(group.drivers),
            _counted([(human_size(size), count) for size, count in group.memory]))


def _hosts(fleet: Fleet) -> list[str]:
    """One row a host, the worst outcome first."""
    worst_first = sorted(fleet.records, key=lambda record: OUTCOMES.index(record.outcome))
    old = {record.host for record in fleet.old}
    rows = [_host(record, record.host in old) for record in worst_first]
    return _section("Hosts", _table(("Host", "Outcome", "Kernel", "GPUs", "Verdict", "Memory", "Seconds"), rows,
                                    MAX_HOSTS, "host", numbers=(6,)))


def _host(record: Record, old: bool) -> tuple[str, ...]:
    memory = [human_size(gpu.verified.memory_seen) for gpu in record.gpus
              if gpu.verified and gpu.verified.memory_seen is not None]
    return (escape(record.host), f"{record.outcome}, old" if old else record.outcome, escape(record.kernel),
            _counted(Counter(gpu.product for gpu in record.gpus).most_common()), _verdicts(record.gpus),
            _counted(Counter(memory).most_common()), "" if record.seconds is None else f"{record.seconds:.1f}")


def _verdicts(gpus: Sequence[Gpu]) -> str:
    return _counted(Counter(gpu.verdict for gpu in gpus).most_common())


def _timings(fleet: Fleet) -> list[str]:
    rows = [(timing.stage, str(timing.hosts), f"{timing.median:.1f}", f"{timing.longest:.1f}", escape(timing.slowest))
            for timing in timings(fleet)]
    return _section("Seconds of the stages", _table(("Stage", "Hosts", "Median", "Longest", "Slowest host"), rows,
                                                    MAX_ITEMS, "stage", numbers=(1, 2, 3)))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines] if lines else []


def _limited(rows: Sequence[str], most: int, what: str) -> list[str]:
    return [*rows[:most], *(f"- {line}" for line in _rest(len(rows) - most, what))]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], most: int, what: str,
           numbers: Iterable[int] = ()) -> list[str]:
    """Nothing without rows; ``numbers`` are the columns to align at the right."""
    if not rows:
        return []
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows[:most])]
    return lines + [line for rest in _rest(len(rows) - most, what) for line in ("", rest)]


def _rest(number: int, what: str) -> list[str]:
    return [f"and {_count(number, what)} more"] if number > 0 else []


def _names(names: Sequence[str], what: str) -> str:
    """The number and the first few."""
    shown = ", ".join(escape(name) for name in names[:MAX_NAMES])
    rest = len(names) - MAX_NAMES
    return f"{_count(len(names), what)}: {shown}{f' and {rest} more' if rest > 0 else ''}"


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    """What more than one has, with their number."""
    return ", ".join(f"{count} x {escape(text)}" if count > 1 else escape(text) for text, count in counts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _age(age: timedelta) -> str:
    hours = int(age.total_seconds()) // 3600
    return _count(hours, "hour") if hours < 48 else _count(hours // 24, "day")
