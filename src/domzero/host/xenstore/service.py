"""The host's xenstore, put together: what was left of it is read, changes are kept, sockets are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from domzero.host.clock import Clock
from domzero.host.xenstore.journal import Journal
from domzero.host.xenstore.limits import DEFAULT, Limits
from domzero.host.xenstore.local import LocalXenstore
from domzero.host.xenstore.server import XenstoreServer
from domzero.host.xenstore.store import Store

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class XenstoreService:
    """One host's store. `local` is the daemon's own way into it, `server` everybody else's."""

    local: LocalXenstore
    server: XenstoreServer
    store: Store
    journal: Journal

    async def keep(self) -> None:
        """Keep the file in which changes are recorded short. Goes on until it is cancelled."""
        await self.journal.keep_short(lambda: self.store.state)


@asynccontextmanager
async def serving(kept: Path, listening: socket.socket, path: Path, clock: Clock) -> AsyncIterator[XenstoreService]:
    """The store that is kept in a file, served to the host's own programs on a socket that listens at a path.

    The socket is closed, and its file removed, at the end. Raises `OSError`.
    """
    async with xenstore(kept, clock) as service:
        await service.server.serve(listening)
        try:
            yield service
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


@asynccontextmanager
async def xenstore(path: Path, clock: Clock, limits: Limits = DEFAULT) -> AsyncIterator[XenstoreService]:
    """The store that is kept in a file, as the last daemon of this boot left it. Raises `OSError`."""
    boot = await asyncio.to_thread(_BOOT.read_text)
    journal = Journal(path, boot.strip(), clock)
    state = await journal.open()
    try:
        store = Store(clock.monotonic, limits, state, journal)
        server = XenstoreServer(store, clock)
        try:
            yield XenstoreService(LocalXenstore(store), server, store, journal)
        finally:
            server.close()
    finally:
        journal.close()
