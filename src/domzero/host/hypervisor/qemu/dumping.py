"""Writing a guest's memory as an ELF core: QEMU sends it down a pipe, and what is not zero goes into the file.

A pipe rather than the file itself: QEMU cannot be told to stop a dump, but it stops when nobody reads on, and only the
reader can leave holes and say how much is too much. QEMU writes ELF cores front to back (`dump-guest-memory` in its QMP
reference manual).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from domzero.finish import in_thread
from domzero.host.descriptors import ready
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.domain import Domain

DESCRIPTOR = "core-dump"
PIPE_SIZE = 1 << 20
TURN = 32 << 20
"""Bytes moved before the event loop has another look."""
BLOCK = 64 << 10
"""What is left out of the file where it is zero."""
ZEROS = bytes(BLOCK)
REPORT_SECONDS = 0.5
END_SECONDS = 60.0
"""How long QEMU may take to notice that nobody reads any more."""


class Sink:
    """The file, filled from a pipe."""

    def __init__(self, pipe: int, file: int, limit: int) -> None:
        self._pipe, self._file, self._limit = pipe, file, limit
        self.size = 0
        self.is_complete = False

    def drain(self) -> None:
        """Move what has come. Raises `HypervisorError` for too much, `OSError`."""
        turn = self.size + TURN
        while self.size < turn and not self.is_complete:
            try:
                data = os.read(self._pipe, BLOCK)
            except BlockingIOError:
                return
            if self.size + len(data) > self._limit:
                raise HypervisorError(f"the core has more than {self._limit} bytes")
            self._put(data)
            self.is_complete = not data

    def finish(self) -> None:
        """Give the file its length, and have it on disk. Raises `OSError`."""
        os.ftruncate(self._file, self.size)
        os.fdatasync(self._file)

    def _put(self, data: bytes) -> None:
        if data == ZEROS[: len(data)]:
            self.size += len(data)
            return
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.size)
            self.size += written
            view = view[written:]


async def dump_core(domain: Domain, core: Path, limit: int, progress: Callable[[float], None]) -> None:
    """See `Hypervisor.dump_core`. The caller holds the domain's lock."""
    with contextlib.ExitStack() as open_files:
        try:
            file = os.open(core, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            open_files.callback(os.close, file)
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise HypervisorError(f"{core}: {error.strerror}") from error
        ours = contextlib.ExitStack()
        theirs = contextlib.ExitStack()
        ours.callback(os.close, reading)
        theirs.callback(os.close, writing)
        open_files.push(ours)
        open_files.push(theirs)
        with contextlib.suppress(OSError):  # a smaller one only costs time
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.set_blocking(reading, False)
        sink = Sink(reading, file, limit)
        async with domain.held(), domain.expect(_is_over) as ended:
            await domain.monitor.with_descriptor(writing, "getfd", fdname=DESCRIPTOR)
            theirs.close()
            await _begin(domain)
            try:
                await _follow(domain, sink, reading, ended, progress)
            except BaseException:
                ours.close()
                await asyncio.shield(asyncio.wait({ended}, timeout=END_SECONDS))
                raise
        try:
            await in_thread(sink.finish)
        except OSError as error:
            raise HypervisorError(f"{core}: {error.strerror}") from error


async def _begin(domain: Domain) -> None:
    protocol = f"fd:{DESCRIPTOR}"
    try:
        await domain.monitor.execute("dump-guest-memory", paging=False, protocol=protocol, detach=True, format="elf")
    except HypervisorError:
        with contextlib.suppress(HypervisorError):  # QEMU may have taken it before it refused
            await domain.monitor.execute("closefd", fdname=DESCRIPTOR)
        raise


async def _follow(
    domain: Domain,
    sink: Sink,
    pipe: int,
    ended: asyncio.Future[tuple[str, Mapping[str, Any]]],
    progress: Callable[[float], None],
) -> None:
    """Move everything, and report. Raises `HypervisorError` when QEMU or the file fails."""
    loop = asyncio.get_running_loop()
    reported = loop.time()
    while not sink.is_complete:
        await ready(pipe)
        try:
            await in_thread(sink.drain)
        except OSError as error:
            raise HypervisorError(f"the core cannot be written: {error.strerror}") from error
        if loop.time() - reported >= REPORT_SECONDS and not ended.done():
            reported = loop.time()
            state = await domain.monitor.execute("query-dump")
            if state["total"] > 0:
                progress(min(1.0, state["completed"] / state["total"]))
    try:
        async with asyncio.timeout(END_SECONDS):
            _, data = await asyncio.shield(ended)
    except TimeoutError:
        raise HypervisorError("QEMU does not say how the dump ended") from None
    if problem := data.get("error") or (data["result"]["status"] != "completed" and data["result"]["status"]):
        raise HypervisorError(f"the memory could not be dumped: {problem}")
    progress(1.0)


def _is_over(name: str, _: Mapping[str, Any]) -> bool:
    return name == "DUMP_COMPLETED"
