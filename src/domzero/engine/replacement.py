"""Files of the state directory that are replaced all together, at the next start, or not at all.

New files are gathered in a directory of their own. Renaming that directory to `ready` is the moment from which they
count: `apply`, which a start calls before it reads anything, then puts every one in place and begins anew if it was
interrupted. So a crash at any moment leaves all files old or all files new. What was replaced is kept aside.

    restore/incoming/…   being gathered; of no meaning, and removed by the next start
    restore/ready/…      to be put in place; `plan.json` says where the old files go
    restore/over/…       in place already; on its way out
    before-restore/MOMENT-…/…   files that were replaced, the latest few times
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from domzero.durable import sync
from domzero.engine.store import StoreError, hold

DATABASE = "state.db"
PASSWORDS = "passwords.json"
CERTIFICATE = "tls/server.pem"
REPLACEABLE = (DATABASE, PASSWORDS, CERTIFICATE)
"""Files that may be replaced, below the state directory."""
_BESIDE = {DATABASE: (f"{DATABASE}-wal",)}
"""What belongs to a file and is kept aside with it, and must never be left beside another one."""
KEPT = 3
"""How many times' old files are kept."""

SCRATCH = "scratch-"
"""What names of directories begin with that are of no use to the next start, which removes them."""

_PLAN = "plan.json"


class ReplacementError(Exception):
    """Files cannot be replaced; the text says why."""


class Replacement:
    """What is gathered for, and waits in, a state directory. Everything here blocks."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._base = state / "restore"
        self.incoming = self._base / "incoming"
        """Where new files are gathered, under their names of `REPLACEABLE`."""
        self._ready = self._base / "ready"
        self._over = self._base / "over"

    @property
    def is_ready(self) -> bool:
        """Whether the next start will replace files."""
        return self._ready.exists()

    def begin(self) -> None:
        """Make the place where files are gathered. Raises `ReplacementError` while somebody else gathers, or has."""
        if self.is_ready:
            raise ReplacementError("Another restoration waits for the restart that completes it.")
        try:
            self._base.mkdir(mode=0o700, exist_ok=True)
            self.incoming.mkdir(mode=0o700)
        except FileExistsError:
            raise ReplacementError("Another restoration is going on.") from None
        for name in REPLACEABLE:
            (self.incoming / name).parent.mkdir(mode=0o700, exist_ok=True)

    def abandon(self) -> None:
        """Remove what was gathered."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def commit(self, names: Iterable[str], aside: str) -> None:
        """From now on the gathered files of these names count; they are on disk before that. Raises `OSError`.

        `aside` names the directory of the old ones; it begins with the moment, and there was none of that name before.
        """
        names = sorted(names)
        unknown = set(names) - set(REPLACEABLE)
        if unknown:
            raise ValueError(f"{unknown} cannot be replaced")
        for name in names:
            sync(self.incoming / name)
        (self.incoming / _PLAN).write_text(json.dumps({"files": names, "aside": aside}))
        sync(self.incoming / _PLAN)
        for directory in {(self.incoming / name).parent for name in names} | {self.incoming}:
            sync(directory)
        self.incoming.rename(self._ready)
        sync(self._base)

    def apply(self) -> tuple[str, ...]:
        """Put files in place that are ready, and remove those that never were; the names of what was replaced.

        Nobody else may use the files meanwhile. Raises `StoreError` when the disk refuses, or another process is there.
        """
        scratch = list(self._state.glob(f"{SCRATCH}*"))
        if not self._base.exists() and not scratch:
            return ()
        try:
            with hold(self._state / DATABASE):
                for directory in (self.incoming, *scratch):
                    shutil.rmtree(directory, ignore_errors=True)
                replaced = self._roll_forward() if self.is_ready else ()
                shutil.rmtree(self._over, ignore_errors=True)
                return replaced
        except (OSError, ValueError) as error:
            raise StoreError(f"What was restored cannot be put in place: {error}. See {self._base}.") from error

    def _roll_forward(self) -> tuple[str, ...]:
        plan = json.loads((self._ready / _PLAN).read_text())
        names = tuple(plan["files"])
        self._keep_aside(names, str(plan["aside"]))
        for name in names:
            target = self._state / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            for beside in _BESIDE.get(name, ()):
                (self._state / beside).unlink(missing_ok=True)
            sync(target.parent)
            fresh = target.with_name(f"{target.name}.restored")
            fresh.unlink(missing_ok=True)
            os.link(self._ready / name, fresh)
            fresh.replace(target)
            sync(target.parent)
        shutil.rmtree(self._over, ignore_errors=True)
        self._ready.rename(self._over)
        sync(self._base)
        return names

    def _keep_aside(self, names: Iterable[str], aside: str) -> None:
        """Link the old files where they stay. Once the place has its name they are complete, and not touched again."""
        base = self._state / "before-restore"
        base.mkdir(mode=0o700, exist_ok=True)
        place, partial = base / aside, base / "partial"
        if place.exists():
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        for name in names:
            for one in (name, *_BESIDE.get(name, ())):
                if (self._state / one).exists():
                    (partial / one).parent.mkdir(mode=0o700, exist_ok=True)
                    os.link(self._state / one, partial / one)
        for directory in {(partial / name).parent for name in names if (partial / name).exists()} | {partial}:
            sync(directory)
        for old in sorted(base.iterdir())[: -KEPT or None]:
            if old != partial:
                shutil.rmtree(old)
        partial.rename(place)
        sync(base)
