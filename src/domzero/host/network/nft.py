"""Running `nft` in the backend's network namespace: each call one transaction of the kernel, in a bounded time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from domzero.host import process
from domzero.host.network.protocol import NetworkError
from domzero.host.network.worker import NetworkThread

SECONDS = 20.0


class Nft:
    """The `nft` program. Raises `NetworkError` when it is missing, refuses, or does not answer."""

    def __init__(self, thread: NetworkThread) -> None:
        self._thread = thread

    async def change(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """Carry out all of the commands, or none."""
        # A file that is only in memory: the rules need not be quoted, and need no name that others could use.
        descriptor = os.memfd_create("nftables", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as rules:
                rules.write(json.dumps({"nftables": list(commands)}).encode())
            await self._run(["-j", "-f", f"/proc/self/fd/{descriptor}"], descriptor)
        finally:
            os.close(descriptor)

    async def list(self, *what: str) -> dict[str, Any]:
        """What `nft -j list …` says."""
        listing: dict[str, Any] = json.loads(await self._run(["-j", "list", *what]))
        return listing

    async def _run(self, arguments: Sequence[str], *descriptors: int) -> bytes:
        try:
            done = await process.run(
                self._thread.command(["nft", *arguments]), timeout=SECONDS, pass_fds=tuple(descriptors)
            )
        except process.ProcessError as error:
            raise NetworkError(f"the packet filter cannot be set: {error}") from error
        return done.stdout
