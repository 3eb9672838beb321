"""Where the audit's lines are kept: a file that only grows, turned over when it is full, readable by its owner alone.

Lines wait in memory for a second at most: to write each by itself would cost more than many a call does. A process that
is killed loses that second; an orderly end loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from threading import Lock

FLUSH_SECONDS = 1.0
FULL = 8 << 20
"""Bytes after which the file is turned over."""
KEPT = 8
"""Files that were turned over and are still there."""
READ_AHEAD = 64 << 10

log = logging.getLogger(__name__)


class AuditFile:
    """Collects lines for a file. Used in one event loop; `close` writes what is left.

    A disk that refuses costs lines, never calls; the log then says so, once.
    """

    def __init__(self, path: Path, *, full: int = FULL, kept: int = KEPT) -> None:
        self._path = path
        self._full = full
        self._kept = kept
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor: int | None = None
        self._size = 0
        self._lost = False
        self._turning = Lock()
        """Held while names of files change, lest a reader in another thread miss one."""

    def write(self, line: str) -> None:
        """Keep a line, which has no line break inside or at its end."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            # The lost ones may have left a part of a line behind.
            self._append("\n".join([""] * self._lost + [*lines, ""]).encode())
        except OSError as error:
            if not self._lost:
                log.error("%d lines of the audit %s are lost: %s", len(lines), self._path, error.strerror)
            self._lost = True
        else:
            self._lost = False

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self.flush()
        self._close()

    def read(self, since: str = "") -> Generator[bytes, None, None]:
        """The lines from a moment on (`YYYYMMDDTHH:MM:SSZ`), oldest first, many at a time. Blocks.

        What waits is not among them: `flush` first. Lines stay in order while the file is turned over.
        """
        opened = []
        try:
            with self._turning:
                for path in reversed(self.files()):
                    with suppress(FileNotFoundError):
                        opened.append(path.open("rb"))
            start = f'{{"time":"{since}'.encode()
            for file in opened:
                while lines := file.readlines(READ_AHEAD):
                    if kept := b"".join(line for line in lines if line >= start):
                        yield kept
        finally:
            for file in opened:
                file.close()

    def files(self) -> list[Path]:
        """Where lines may be, newest first."""
        return [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._kept + 1))]

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]
        if self._size >= self._full:
            self._turn_over()

    def _turn_over(self) -> None:
        self._close()
        files = self.files()
        with self._turning:
            for older, newer in zip(reversed(files), reversed(files[:-1]), strict=False):
                if newer.exists():
                    newer.replace(older)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
