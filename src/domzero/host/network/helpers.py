"""Programs that serve a network and outlive the daemon: found again by their command line, ended through a pidfd.

A helper's command line holds an argument that begins with something only it has (a directory of ours). No record of a
process id has to be kept, which a crash could lose and which could come to mean another process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from domzero.host import process
from domzero.host.descriptors import ready
from domzero.host.network import files
from domzero.host.network.protocol import NetworkError

log = logging.getLogger(__name__)

PROC = Path("/proc")
END_SECONDS = 5.0


class Helpers:
    """The helpers of one backend; `close` lets go of them without ending any."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}

    def find(self, sign: str, known: Path | None = None) -> dict[int, list[str]]:
        """The running processes that have an argument which begins with `sign`: their command lines by process id.

        Another user's process may say what it likes of itself, and counts only if its number stands in the file
        `known`, which only root writes: that is for helpers that give up their rights.
        """
        number = _number(known)
        return {
            pid: argv
            for pid, owner, argv in _processes()
            if (owner == os.geteuid() or pid == number) and any(argument.startswith(sign) for argument in argv)
        }

    def start(self, argv: Sequence[str], log_file: Path) -> None:
        """Start a program that stays in the foreground. Raises `NetworkError`."""
        try:
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                pid = process.spawn_detached(argv, output=output)
            finally:
                os.close(output)
            self._watch(pid, argv[0])
        except (OSError, process.ProcessError) as error:
            raise NetworkError(f"{Path(argv[0]).name} cannot be started: {error}") from error

    async def end(self, sign: str, known: Path | None = None) -> None:
        """End what `find` finds, by force if it does not go when asked. Raises `NetworkError` when it stays."""
        for pid in self.find(sign, known):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in self.find(sign, known):  # The number might have come to mean another one just before.
                    await _end(descriptor, pid)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Stop watching."""
        loop = asyncio.get_running_loop()
        for descriptor in self._watched.values():
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    def _watch(self, pid: int, name: str) -> None:
        """Our own children have to be reaped."""
        descriptor = os.pidfd_open(pid)
        self._watched[pid] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, pid, name)

    def _ended(self, pid: int, name: str) -> None:
        descriptor = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        result = os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
        os.close(descriptor)
        log.info("%s (process %d) has ended: %s", name, pid, result.si_status if result else "unknown")


async def _end(descriptor: int, pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        if await _gone(descriptor):
            return
    raise NetworkError(f"process {pid} cannot be ended")


async def _gone(descriptor: int) -> bool:
    """Whether the process ends in time: its descriptor becomes readable then, reaped or not."""
    watched = os.dup(descriptor)
    try:
        async with asyncio.timeout(END_SECONDS):
            await ready(watched)
    except TimeoutError:
        return False
    finally:
        os.close(watched)
    return True


def _number(path: Path | None) -> int | None:
    text = files.read(path) if path is not None else None
    return int(text) if text and text.strip().isdecimal() else None


def _processes() -> Iterator[tuple[int, int, list[str]]]:
    """Process id, owner and command line; zombies, which have none, left out."""
    for directory in PROC.iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            owner = directory.stat().st_uid
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue  # It has just ended.
        if line:
            yield int(directory.name), owner, line.decode(errors="replace").rstrip("\0").split("\0")
