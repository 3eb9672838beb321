"""One thread that does all the work of a network backend, if need be in a network namespace of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns  # type: ignore[import-untyped]  # the library has no types

from domzero.finish import finish
from domzero.host.network.links import Links
from domzero.host.network.protocol import NetworkError

T = TypeVar("T")


class NetworkThread:
    """Runs functions one after the other, so that what one has looked up still holds when it acts.

    `namespace` is a file such as `/run/netns/x`: only this thread enters it, the rest of the process stays.
    """

    def __init__(self, namespace: Path | None = None) -> None:
        self._namespace = namespace
        self._executor: ThreadPoolExecutor | None = None
        self._links: Links | None = None

    async def open(self) -> None:
        """Start the thread. Raises `NetworkError`; doing it twice is no error."""
        if self._executor is not None:
            return
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        try:
            self._links = await finish(self._submit(self._executor, self._enter))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for the work that was begun, and end the thread."""
        executor, self._executor = self._executor, None
        links, self._links = self._links, None
        if executor is not None:
            if links is not None:
                await finish(self._submit(executor, links.close))
            executor.shutdown(wait=True)

    async def run(self, work: Callable[[Links], T]) -> T:
        """Do the work in the thread. It is done to its end even when this call is cancelled."""
        if self._executor is None or self._links is None:
            raise NetworkError("the network backend is not open")
        links = self._links
        return await finish(self._submit(self._executor, lambda: work(links)))

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program where this thread works (nsenter(1) of util-linux)."""
        return [*([] if self._namespace is None else ["nsenter", f"--net={self._namespace}"]), *argv]

    async def _submit(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    def _enter(self) -> Links:
        if self._namespace is not None:
            try:
                netns.setns(str(self._namespace), flags=0)
            except OSError as error:
                raise NetworkError(f"{self._namespace} cannot be entered: {error.strerror}") from error
        return Links()
