"""Talking to the test guest (see `initramfs`) over its serial line."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_tokens = itertools.count()


async def until(check: Callable[[], Awaitable[bool]], timeout: float = 60.0) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(timeout):
        while True:
            if await check():
                return
            await asyncio.sleep(0.05)


def exists(path: Path) -> bool:
    return path.exists()


class Console:
    """A serial line. Output is kept, so nothing said since connecting is missed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.text = ""
        self._more = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(str(self._path))
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        self._writer.close()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        while chunk := await self._reader.read(65536):
            self.text += chunk.decode(errors="replace")
            self._more.set()

    async def expect(self, pattern: str, timeout: float = 60.0) -> re.Match[str]:
        """Wait until the output matches."""
        try:
            async with asyncio.timeout(timeout):
                while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} within {timeout} s; the guest said: {self.text[-2000:]}") from None
        return found

    def send(self, line: str) -> None:
        """Give the guest a command and do not wait."""
        self._writer.write(f"x{next(_tokens)} {line}\n".encode())

    async def run(self, line: str, timeout: float = 60.0) -> str:
        """Run a command and return what it printed (among the counter's lines), asserting success."""
        token = f"t{next(_tokens)}"
        # What follows is the command's, while at any moment the latest of the counter's lines may be half here.
        begin = f"BEGIN {token} "
        self._writer.write(f"{token} echo '{begin}'; {line}\n".encode())
        found = await self.expect(rf"DONE {token} (\d+)", timeout)
        said = self.text[: found.start()].rpartition(begin)[2]
        assert found[1] == "0", said
        return re.sub(r"COUNT \d+\r?\n", "", said).strip()

    async def eventually(self, line: str, timeout: float = 60.0) -> str:
        """Run a command inside the guest until it succeeds (the guest's kernel needs a moment to notice hardware)."""
        return await self.run(f"until {line}; do usleep 20000; done", timeout)

    async def count(self) -> int:
        """The next number of the guest's counter."""
        start = len(self.text)
        while True:
            numbers = re.findall(r"COUNT (\d+)\r?\n", self.text[start:])
            if numbers:
                return int(numbers[-1])
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 60)
