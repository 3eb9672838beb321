"""What makes the store outlive the daemon: a file to which every change is appended before anybody hears of it.

It outlives the daemon, killed or not, since what was written to a file is the kernel's from then on. It need not
outlive the machine, whose domains do not either: nothing waits for a disk, and what another boot left is not read. When
much of the file is past, one that holds only the present takes its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from domzero.finish import finish
from domzero.host.clock import Clock
from domzero.host.xenstore import frames
from domzero.host.xenstore.frames import Entry, Kind
from domzero.host.xenstore.store import State
from domzero.host.xenstore.tree import Cause, Change
from domzero.wire.xenstore import Permissions

log = logging.getLogger(__name__)

SHORTEST = 4 << 20
"""Bytes that a file may always have before it is written anew; beyond them, three times what it began with."""
RETRY = 30.0
"""Seconds until a file that could not be written is tried again."""


class Journal:
    """The file, and `store.Recorder`.

    A change that cannot be written (the file system is full) stays in the store all the same, and is told in the log:
    guests go on, and the file is written anew as soon as that works.
    """

    def __init__(self, path: Path, boot: str, clock: Clock) -> None:
        self._path = path
        self._header = f"domzero xenstore 1 {boot}\n".encode()
        self._clock = clock
        self._file = -1
        self._size = self._began = 0
        self._due = asyncio.Event()
        self._meanwhile: list[bytes] | None = None

    async def open(self) -> State:
        """What the last daemon of this boot left. Raises `OSError`."""
        state = await asyncio.to_thread(self._read)
        await finish(self._renew(lambda: state))
        return state

    async def keep_short(self, state: Callable[[], State]) -> None:
        """Write the file anew whenever it has grown long. Goes on until it is cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await finish(self._renew(state))
            except OSError as error:
                log.error("xenstore: %s cannot be written: %s; a restart would lose changes", self._path, error)
                await self._clock.sleep(RETRY)
                self._due.set()

    def close(self) -> None:
        """Nothing is recorded any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def nodes(self, changes: Iterable[Change]) -> None:
        """Nodes changed, all at once or not at all."""
        self._append(
            [
                frames.node(change.path, change.after) if change.after else Entry(Kind.GONE, change.path)
                for change in changes
                if change.cause is not Cause.REMOVED_WITH
            ]
        )

    def domain(self, domid: int, target: int | None) -> None:
        """A domain was introduced, or got a target."""
        self._append([frames.domain(domid, target)])

    def released(self, domid: int) -> None:
        """A domain is gone."""
        self._append([Entry(Kind.RELEASED, str(domid))])

    def special(self, name: str, permissions: Permissions) -> None:
        """Others may watch for an event that is no node's."""
        self._append([Entry(Kind.SPECIAL, name, permissions)])

    def _append(self, entries: list[Entry]) -> None:
        if not entries:
            return
        frame = frames.encode(entries)
        if self._meanwhile is not None:
            self._meanwhile.append(frame)
        if self._file < 0:
            return
        try:
            _write(self._file, frame)
        except OSError as error:
            # What follows half a frame would not be found.
            log.error("xenstore: %s cannot be written: %s", self._path, error)
            self.close()
            self._due.set()
            return
        self._size += len(frame)
        if self._meanwhile is None and self._size > max(SHORTEST, 3 * self._began):
            self._due.set()

    async def _renew(self, state: Callable[[], State]) -> None:
        """Put a file with just the present, and what happens until it is written, in the place of the file."""
        present, self._meanwhile = state(), []
        fresh = self._path.with_name(f".{self._path.name}.new")
        file = -1
        try:
            file, size = await asyncio.to_thread(self._snapshot, fresh, present)
            for frame in self._meanwhile:
                _write(file, frame)
                size += len(frame)
            fresh.rename(self._path)
        except BaseException:
            if file >= 0:
                os.close(file)
            with suppress(FileNotFoundError):
                fresh.unlink()
            raise
        finally:
            self._meanwhile = None
        self.close()
        self._file, self._size, self._began = file, size, size

    def _snapshot(self, fresh: Path, state: State) -> tuple[int, int]:
        with suppress(FileNotFoundError):
            fresh.unlink()
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = _write(file, self._header)
            for frame in frames.whole(state):
                size += _write(file, frame)
        except BaseException:
            os.close(file)
            raise
        return file, size

    def _read(self) -> State:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return State()
        if not content.startswith(self._header):
            log.info("xenstore: %s is of another boot", self._path)
            return State()
        state, left = frames.decode(content[len(self._header) :])
        if left:
            log.warning("xenstore: the last %d bytes of %s are not whole and count for nothing", left, self._path)
        return state


def _write(file: int, data: bytes) -> int:
    """Write all of it; how much that was."""
    done = 0
    while done < len(data):
        done += os.write(file, data[done:])
    return done
