"""Starting the version that an update brought: the installed one stays, an update lies beside it and comes first.

`current.json` in the directory of updates says which update is to run. One that has not yet proven that it starts gets
one try: the second start without such a proof goes back to what ran before. `domzero.host.updates.local` writes it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from domzero import durable

DIRECTORY = "updates"
CURRENT = "current.json"
TAKEN_BACK = "taken-back.json"
INSTALLED = "installed"
VARIABLE = "DOMZERO_UPDATE"
"""Names the update that this process runs from, for its own later starts."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Current:
    """Which update is to run, and which ran before it; empty for none."""

    uuid: str = ""
    before: str = ""
    proven: bool = False
    tries: int = 0


def read_current(directory: Path) -> Current:
    """What is written there; none where that is missing or makes no sense."""
    try:
        fields = json.loads((directory / CURRENT).read_text())
        current = Current(str(fields["uuid"]), str(fields["before"]), fields["proven"] is True, int(fields["tries"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Current()
    if any(uuid and _UUID.fullmatch(uuid) is None for uuid in (current.uuid, current.before)):
        return Current()
    return current


def write_json(path: Path, value: object) -> None:
    """Replace a file as a whole; on disk when this returns. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(path, json.dumps(value).encode())


def write_current(directory: Path, current: Current) -> None:
    """Say which update is to run. Raises `OSError`."""
    write_json(directory / CURRENT, asdict(current))


def read_taken_back(directory: Path) -> list[str]:
    """The updates that were taken back and have not been installed again since."""
    try:
        found = json.loads((directory / TAKEN_BACK).read_text())
    except (OSError, ValueError):
        return []
    return [uuid for uuid in found if isinstance(uuid, str)] if isinstance(found, list) else []


def site(directory: Path, uuid: str) -> Path:
    """Where the packages of an update are."""
    return directory / INSTALLED / uuid


def choose(directory: Path) -> str:
    """The update to run now, empty for the version that was installed; tries are counted. Raises `OSError`."""
    current = read_current(directory)
    if not current.uuid:
        return ""
    if current.proven and site(directory, current.uuid).is_dir():
        return current.uuid
    if current.tries == 0 and site(directory, current.uuid).is_dir():
        write_current(directory, replace(current, tries=1))
        return current.uuid
    write_json(directory / TAKEN_BACK, [*read_taken_back(directory), current.uuid])
    before = current.before if current.before and site(directory, current.before).is_dir() else ""
    write_current(directory, Current(before, "", proven=True))
    return before


def enter(state: Path) -> None:
    """Go on as the version that is to run: this process begins anew unless it is that one already."""
    directory = state / DIRECTORY
    running = os.environ.get(VARIABLE, "")
    if not (directory / CURRENT).exists() and not running:
        return
    if running and running == read_current(directory).uuid:
        return
    try:
        chosen = choose(directory)
    except OSError as error:
        print(f"domzero: the update cannot be run: {error}", file=sys.stderr)  # noqa: T201
        return
    if chosen == running:
        return
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "PYTHONPATH")}
    if chosen:
        environment |= {VARIABLE: chosen, "PYTHONPATH": str(site(directory, chosen))}
    arguments = [sys.executable, "-P", "-m", "domzero.cli.main", *sys.argv[1:]]
    os.execve(sys.executable, arguments, environment)  # noqa: S606
