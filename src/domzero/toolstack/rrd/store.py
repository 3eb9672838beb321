"""The files that archives are kept in: one for each owner, in one directory.

A file is replaced as a whole or not at all. One that cannot be read is put aside as `….damaged`, for a person to look
at, and history begins anew. Everything here blocks; nothing raises `OSError` but `save`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from domzero.durable import replace
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.packing import SIZE_MOST, DamagedError, unpack

log = logging.getLogger(__name__)

TOTAL_MOST = 1 << 30
"""Bytes of all files together; above that the oldest of owners that are not measured now are removed."""

_NAME = re.compile(r"(vm|host|sr)-([0-9a-f-]{36})\.rrd(\.damaged|\.new)?")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    owner: Owner
    is_damaged: bool
    size: int
    age: float


class ArchiveStore:
    """Reads and writes the files below a directory, which is made when it is first needed."""

    def __init__(self, directory: Path, total_most: int = TOTAL_MOST) -> None:
        self._directory = directory
        self._total_most = total_most

    def load(self, owner: Owner) -> Archive | None:
        """An owner's archive; None where there is none, or none that can be read."""
        path = self._path(owner)
        try:
            with path.open("rb") as file:
                data = file.read(SIZE_MOST)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the history of %s cannot be read: %s", owner, error)
            return None
        try:
            return unpack(data)
        except DamagedError as error:
            log.warning("the history of %s is damaged and was put aside: %s", owner, error)
            self._put_aside(path)
            return None

    def save(self, owner: Owner, data: bytes) -> None:
        """Replace an owner's file. Raises `OSError`; then the old one is still there."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(self._path(owner), data)

    def remove(self, owner: Owner) -> None:
        """Let an owner's history go."""
        path = self._path(owner)
        for one in (path, path.with_name(f"{path.name}.damaged")):
            _remove(one)

    def owners(self) -> set[Owner]:
        """Who has a file."""
        return {file.owner for file in self._files()}

    def tidy(self, orphans: Collection[Owner], live: Collection[Owner], *, leftovers: bool) -> None:
        """Remove the files of those orphans, and the oldest of what is not live where there is too much.

        `leftovers`: nothing is being written now, so half-written files can go too.
        """
        kept = []
        for file in self._files():
            if file.owner in orphans or (leftovers and file.path.suffix == ".new"):
                _remove(file.path)
            else:
                kept.append(file)
        total = sum(file.size for file in kept)
        for file in sorted(kept, key=lambda it: (not it.is_damaged, it.age)):
            if total <= self._total_most:
                return
            if file.is_damaged or file.owner not in live:
                _remove(file.path)
                total -= file.size

    def _files(self) -> list[_File]:
        found = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    name = _NAME.fullmatch(entry.name)
                    if name is not None and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        owner = Owner(name[1], name[2])
                        damaged = name[3] == ".damaged"
                        found.append(_File(Path(entry.path), owner, damaged, status.st_size, status.st_mtime))
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("kept history cannot be listed: %s", error)
        return found

    def _path(self, owner: Owner) -> Path:
        name = f"{owner.kind}-{owner.uuid}.rrd"
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{owner} is no owner of history")
        return self._directory / name

    def _put_aside(self, path: Path) -> None:
        try:
            path.replace(path.with_name(f"{path.name}.damaged"))
        except OSError as error:
            log.warning("%s cannot be put aside: %s", path, error)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
