# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What grubby(8) documents of --info=ALL, --args and --remove-args, over the entries of a host in a directory.

usage: fake_grubby.py ROOT (--info=ALL | --update-kernel=ALL [--remove-args=...] [--args=...])
As the real one it keeps one argument of a name, edits /etc/default/grub too, and white space of an entry is its own.
An entry that says $kernelopts takes its arguments from the loader's environment, as on RHEL 8.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def change(words: list[str], remove: list[str], add: list[str]) -> list[str]:
    names = {word.split("=")[0] for word in add}
    return [word for word in words if word not in remove and word.split("=")[0] not in names] + add


def main(root: Path, options: dict[str, str]) -> None:
    entries = sorted((root / "boot/loader/entries").glob("*.conf"))
    environment = root / "boot/grub2/grubenv"
    shared = environment.read_text().partition("kernelopts=")[2].strip() if environment.exists() else ""
    remove, add = options.get("--remove-args", "").split(), options.get("--args", "").split()
    for index, path in enumerate(entries):
        fields = dict(line.split(None, 1) for line in path.read_text().splitlines() if line.strip())
        if "--info" in options:
            words = fields["options"].replace("$kernelopts", shared)
            print(f'index={index}\nkernel="/boot{fields["linux"]}"\nargs="{words}"\nid="{path.stem}"')
        elif "$kernelopts" not in fields["options"]:
            fields["options"] = " ".join(change(fields["options"].split(), remove, add))
            path.write_text("".join(f"{key} {value}\n" for key, value in fields.items()))
    if "--update-kernel" in options:
        if shared:
            environment.write_text(f"kernelopts={' '.join(change(shared.split(), remove, add))}\n")
        default = root / "etc/default/grub"
        match = re.search(r'^GRUB_CMDLINE_LINUX="(.*)"$', default.read_text(), re.MULTILINE)
        if match:
            words = " ".join(change(match.group(1).split(), remove, add))
            default.write_text(default.read_text().replace(match.group(0), f'GRUB_CMDLINE_LINUX="{words}"'))


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(option.split("=", 1) for option in sys.argv[2:]))
