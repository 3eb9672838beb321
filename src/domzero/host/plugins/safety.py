"""Which files are plugins: only what this user or root put there, and nobody else can change."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
"""Names without any way out of the directory; hidden files are none."""


class UnsafeError(Exception):
    """Somebody else could have put their own program there; the text says where."""


def find(directory: Path, name: str) -> Path | None:
    """The plugin of that name; None where there is none. Raises `UnsafeError`. Looks at the disk.

    A plugin is an executable file of its own, no link. It, its directory and all directories above belong to root or
    this user, and can be written by nobody else; the entries of a sticky directory (/tmp) are their owners' alone.
    """
    if NAME.fullmatch(name) is None:
        return None
    try:
        place = directory.resolve(strict=True) / name
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            return None
        for path in (place, *place.parents):
            _check(path, path.lstat(), may_be_sticky=path not in (place, place.parent))
    except (OSError, RuntimeError):
        return None
    return place


def _check(path: Path, status: os.stat_result, *, may_be_sticky: bool) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise UnsafeError(f"{path} belongs to another user")
    if status.st_mode & 0o022 and not (may_be_sticky and status.st_mode & stat.S_ISVTX):
        raise UnsafeError(f"{path} can be written by others")
