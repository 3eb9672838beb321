"""What blobs contain: one file each, named by the blob's uuid, in a directory of their own.

A file appears whole or not at all: it is written under another name first. Everything here blocks and belongs in a
thread.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from domzero.durable import sync

LARGEST = 128 << 20
"""Bytes that one blob may have."""
TOTAL = 1 << 30
"""Bytes that all blobs may have together, those included that are being sent."""
UNFINISHED = ".part"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class TooLargeError(Exception):
    """The content does not fit; the text says into what."""


def directory_of(state_dir: Path) -> Path:
    """Where the files are."""
    return state_dir / "blobs"


class Upload:
    """A new content on its way; `keep` makes it the blob's, `discard` forgets it."""

    def __init__(self, directory: Path, uuid: str, *, largest: int = LARGEST, total: int = TOTAL) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._target = _path(directory, uuid)
        self._path = directory / f"{uuid}.{secrets.token_hex(8)}{UNFINISHED}"
        self._largest, self._total = largest, total
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add a piece. Raises `TooLargeError`, `OSError`."""
        self.size += len(data)
        if self.size > self._largest:
            raise TooLargeError(f"a blob has at most {self._largest} bytes")
        if occupied(self._directory) - _size(self._target) + len(data) > self._total:
            raise TooLargeError(f"all blobs together have at most {self._total} bytes")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def keep(self) -> None:
        """Put the content in place of the former one, on disk when this returns. Raises `OSError`."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(self._target)
        sync(self._directory)

    def discard(self) -> None:
        """Remove what was written, if it was not kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def read(directory: Path, uuid: str) -> tuple[BinaryIO, int] | None:
    """The content, opened, with its size; None where nothing was ever sent. A later upload does not change it."""
    try:
        fd = os.open(_path(directory, uuid), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    return os.fdopen(fd, "rb"), os.fstat(fd).st_size


def sizes(directory: Path) -> dict[str, int]:
    """The bytes of every content there is, by its blob's uuid. What is named or made otherwise is not ours."""
    if not directory.is_dir():
        return {}
    with os.scandir(directory) as entries:
        return {
            entry.name: _size(Path(entry.path))
            for entry in entries
            if _UUID.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        }


def occupied(directory: Path) -> int:
    """The bytes of all files."""
    with os.scandir(directory) as entries:
        return sum(_size(Path(entry.path)) for entry in entries)


def remove(directory: Path, uuids: Collection[str], *, unfinished: bool = False) -> None:
    """Remove the contents of blobs that are gone; with `unfinished` what was being sent too."""
    if not directory.is_dir():
        return
    for uuid in uuids:
        (directory / uuid).unlink(missing_ok=True)
    if unfinished:
        for path in directory.glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)


def _path(directory: Path, uuid: str) -> Path:
    """Raises `ValueError` for what is no uuid: a database can come from elsewhere."""
    return directory / str(UUID(uuid))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
