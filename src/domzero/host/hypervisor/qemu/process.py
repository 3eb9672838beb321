"""One QEMU process, ours by birth or adopted, watched through a pidfd.

A pidfd names one process for ever: signals cannot hit another that got the same number, and it becomes readable the
moment the process ends, whoever its parent is (pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


def boot_id() -> str:
    """The identity of this boot of the host (random(4))."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def cpuinfo() -> str:
    """What the kernel says of the processors."""
    return (PROC / "cpuinfo").read_text()


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks after boot (proc(5), stat field 22); None where there is none."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def threads(pid: int) -> list[int]:
    """The threads of a process, none where it is gone."""
    try:
        return [int(entry.name) for entry in (PROC / str(pid) / "task").iterdir()]
    except FileNotFoundError:
        return []


class ThreadUse(NamedTuple):
    """Seconds of processor time (user and system), and the processor on which the thread ran last."""

    seconds: float
    processor: int


def thread_use(pid: int, thread: int) -> ThreadUse:
    """What a thread has used so far (proc(5), stat fields 14, 15 and 39); nothing where it is gone."""
    try:
        stat = (PROC / str(pid) / "task" / str(thread) / "stat").read_text()
    except OSError:
        return ThreadUse(0.0, 0)
    fields = stat.rpartition(")")[2].split()
    return ThreadUse((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(fields[36]))


def find_by_argument(argument: str) -> int | None:
    """The process that was started with exactly this argument, None where none was."""
    wanted = os.fsencode(argument)
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in arguments:
            return int(entry.name)
    return None


class WatchedProcess:
    """A process whose end is noticed at once. Used from one event loop.

    `on_exit` is called once, from the loop, after the end; not after `release`.
    """

    def __init__(self, pid: int, pidfd: int, on_exit: Callable[[], None]) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """The code, or minus the signal; None while it runs and where it was not our child."""
        self._pidfd = pidfd
        self._on_exit = on_exit
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._exited)

    @classmethod
    def watch(cls, pid: int, on_exit: Callable[[], None]) -> WatchedProcess:
        """Watch a process by number. Raises `ProcessLookupError` where there is none.

        The caller makes sure the number means the process it thinks of: a child not yet reaped, or one whose
        `start_time` is compared after this call.
        """
        return cls(pid, os.pidfd_open(pid), on_exit)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def kill(self) -> None:
        """Send SIGKILL; nothing happens where it ended."""
        if not self.ended and self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return  # it ended a moment ago: the loop will say so

    async def wait(self) -> None:
        """Return when the process has ended and, if it was our child, been reaped."""
        await self._ended.wait()

    def release(self) -> None:
        """Stop watching; the process is left alone."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _exited(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            result = None  # adopted: its parent, not we, reaps it
        if result is not None:
            self.exit_code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self.release()
        self._ended.set()
        self._on_exit()
