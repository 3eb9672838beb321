"""Two hosts of the bridge backend, each in a network namespace, and the cables between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from domzero.host.network.layout import State
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.states import read_layout
from tests.host.network.stage import Host, network_namespace


@asynccontextmanager
async def two_hosts(directory: Path, *cables: str) -> AsyncIterator[tuple[Host, Host]]:
    """`eth1` of the first, say, is joined to `far-eth1` of the second."""
    with network_namespace() as here, network_namespace() as there:
        async with a_host(here, directory / "here") as first, a_host(there, directory / "there") as second:
            for number, cable in enumerate(cables):
                await first.interface(cable, there, f"02:00:00:00:00:{number + 0x71:02x}")
            yield first, second
            # Each host puts back what it changed while the cables are still there.
            await first.backend.apply(NetworkPlan())
            await second.backend.apply(NetworkPlan())


@asynccontextmanager
async def a_host(namespace: Path, directory: Path) -> AsyncIterator[Host]:
    """A host for as long as it is needed."""
    await asyncio.to_thread(directory.mkdir)
    host = Host(namespace, directory)
    await host.thread.open()
    await host.backend.open()
    try:
        yield host
    finally:
        await host.backend.close()
        await host.thread.close()


async def layout(host: Host) -> dict[str, State]:
    """Every interface of a host."""
    return await host.thread.run(read_layout)
