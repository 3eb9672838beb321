"""The one place where child processes are started.

Argument lists only, never a shell. A child gets a minimal environment, and neither standard input nor open descriptors
unless they are passed on purpose. Secrets must not be arguments: pass a descriptor or a file that only its owner can
read.
"""

from __future__ import annotations

import asyncio
import os
import signal
import termios
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.finish import finish

OUTPUT_LIMIT = 4 << 20
"""Bytes of output kept per stream; a child that says more is ended."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
"""Signals that a child is to treat as usual; Python ignores the first two."""


class ProcessError(Exception):
    """A child could not be started, failed, said too much or took too long; the text quotes what it said."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished child left."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program said until it ended. `trouble` says why it was ended, and is empty when it did so by itself."""

    returncode: int
    stdout: bytes
    stderr: bytes
    trouble: str


async def run(
    argv: Sequence[str | Path],
    *,
    timeout: float | None = 60.0,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program to its end and return what it said.

    Raises `ProcessError` when it cannot be started, exceeds `timeout` seconds or `OUTPUT_LIMIT`, or, with `check`, ends
    with a code other than 0. Cancelling the call ends the child first; no child outlives the call. What the child
    started by itself may: it is not waited for, nor listened to any more.
    """
    process = await spawn(argv, environment=environment, directory=directory, pass_fds=pass_fds)
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await asyncio.gather(_drain(process.stdout, argv), _drain(process.stderr, argv))
            returncode = await process.wait()
    except TimeoutError:
        raise ProcessError(f"{Path(argv[0]).name} did not finish within {timeout} seconds") from None
    finally:
        await _end(process)
    if check and returncode != 0:
        said = (stderr or stdout).decode(errors="replace").strip()
        raise ProcessError(f"{Path(argv[0]).name} failed with code {returncode}: {said[-2000:]}")
    return Completed(returncode, stdout, stderr)


async def run_leader(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Ended:
    """Run a program that may start others, as the leader of a session of its own; what was said until it ended.

    What it leaves running when it ends by itself goes on, and is not listened to any more. A program that takes longer
    than `timeout` seconds or says more than `OUTPUT_LIMIT` bytes is killed with its whole process group; so it is when
    the call is cancelled. Raises `ProcessError` when it cannot be started.
    """
    enough = asyncio.Event()
    # Cancelled while it starts the program, asyncio would end the leader alone.
    work = asyncio.ensure_future(_lead(argv, timeout, environment, directory, enough))
    try:
        return await asyncio.shield(work)
    finally:
        enough.set()
        await finish(_over(work))


async def _over(work: asyncio.Future[Any]) -> None:
    await asyncio.wait({work})


async def _lead(
    argv: Sequence[str | Path], timeout: float, environment: Mapping[str, str] | None, directory: Path | None,
    enough: asyncio.Event,
) -> Ended:  # fmt: skip
    """`run_leader`, never cancelled: `enough` tells to end the program."""
    with closing(_Capture(enough)) as stdout, closing(_Capture(enough)) as stderr:
        process = await spawn(
            argv, environment=environment, directory=directory, stdout=stdout.theirs, stderr=stderr.theirs,
            detached=True,
        )  # fmt: skip
        waits = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(enough.wait())]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        waits[1].cancel()
        trouble = ""
        if process.returncode is None:
            trouble = f"no end within {timeout:g} seconds"
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if stdout.overflows or stderr.overflows:
            trouble = f"more than {OUTPUT_LIMIT} bytes of output"
        return Ended(await process.wait(), stdout.finished(), stderr.finished(), trouble)


async def spawn(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    detached: bool = False,
) -> asyncio.subprocess.Process:
    """Start a program and return at once. `detached` gives it a session of its own, so that it outlives the daemon.

    Raises `ProcessError` when it cannot be started. Cancelling the call ends the program.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *(os.fspath(argument) for argument in argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**ENVIRONMENT, **(environment or {})},
            cwd=directory,
            pass_fds=tuple(pass_fds),
            start_new_session=detached,
        )
    )
    try:
        # Cancelled itself, asyncio would wait for the ends of pipes that it has not connected yet: for ever, where the
        # program has started others that keep them open.
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await finish(_call_off(starting))
        raise
    except OSError as error:
        raise ProcessError(f"{argv[0]} could not be started: {error.strerror}") from error


async def _call_off(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    with suppress(OSError):  # then there is nothing to end
        await _end(await starting)


def spawn_detached(argv: Sequence[str | Path], *, output: int, pass_fds: Sequence[int] = ()) -> int:
    """Start a program that outlives the daemon, in a session of its own, and return its process id at once.

    `output` is the descriptor its standard output and error go to. Descriptors in `pass_fds` keep their numbers; it has
    no others, not even those that whoever started us left open. The caller watches the process and, as its parent, must
    reap it. Takes a millisecond, in which the loop stands still. Raises `ProcessError` when it cannot be started.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _left_open() - set(pass_fds)),
        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in pass_fds),
    ]
    try:
        return os.posix_spawnp(
            os.fspath(argv[0]),
            [os.fspath(argument) for argument in argv],
            ENVIRONMENT,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_PYTHONS_OWN,
        )
    except OSError as error:
        raise ProcessError(f"{argv[0]} could not be started: {error.strerror}") from error


def spawn_on_terminal(
    argv: Sequence[str | Path], *, columns: int, lines: int, environment: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """Start a program in a session of its own whose controlling terminal is a new pseudo terminal, and return at once.

    Its process id, and our end of the terminal, which does not block. The caller closes that, which hangs up on the
    program, watches the process and, as its parent, must reap it. Raises `ProcessError` when it cannot be started.
    """
    try:
        ours, theirs = os.openpty()
    except OSError as error:
        raise ProcessError(f"{argv[0]} gets no terminal: {error.strerror}") from error
    try:
        termios.tcsetwinsize(theirs, (lines, columns))
        os.set_blocking(ours, False)
        # The first terminal that the leader of a new session opens is its controlling one (tty_ioctl(4)).
        terminal = (os.POSIX_SPAWN_OPEN, 0, os.ttyname(theirs), os.O_RDWR, 0)
        pid = os.posix_spawnp(
            os.fspath(argv[0]),
            [os.fspath(argument) for argument in argv],
            {**ENVIRONMENT, **(environment or {})},
            file_actions=[
                terminal,
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _left_open()),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_PYTHONS_OWN,
        )
    except OSError as error:
        os.close(ours)
        raise ProcessError(f"{argv[0]} could not be started: {error.strerror}") from error
    finally:
        os.close(theirs)
    return pid, ours


class _Capture:
    """Keeps what comes through a pipe, `OUTPUT_LIMIT` bytes of it; sets `enough` when there is more."""

    def __init__(self, enough: asyncio.Event) -> None:
        self._enough = enough
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._loop.add_reader(self._ours, self._take)

    @property
    def overflows(self) -> bool:
        return len(self._kept) > OUTPUT_LIMIT

    def finished(self) -> bytes:
        """What was kept, with what lies in the pipe."""
        while not self.overflows and self._take():
            continue
        return bytes(self._kept[:OUTPUT_LIMIT])

    def close(self) -> None:
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)

    def _take(self) -> bool:
        """Take one piece; whether there may be more. Our own end for writing stays open, so that no end is seen."""
        try:
            self._kept += os.read(self._ours, 65536)
        except BlockingIOError:
            return False
        if self.overflows:
            self._loop.remove_reader(self._ours)
            self._enough.set()
        return True


def _left_open() -> set[int]:
    """Descriptors, but for the first three, that a child would inherit. Those that Python opens are none of them."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them is gone
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.add(int(name))
    return found


async def _drain(stream: asyncio.StreamReader | None, argv: Sequence[str | Path]) -> bytes:
    if stream is None:
        return b""
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk
        if len(kept) > OUTPUT_LIMIT:
            raise ProcessError(f"{Path(argv[0]).name} printed more than {OUTPUT_LIMIT} bytes")
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    # For asyncio a child has ended when its output is closed, which what it started may never do; only this has the
    # pipes.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001
    for number in (1, 2):
        pipe = transport.get_pipe_transport(number)
        if pipe is not None:
            pipe.close()
    await process.wait()
