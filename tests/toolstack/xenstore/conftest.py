"""A simulated host with a store, and somebody within its guests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domzero.host.guest_port.sockets import PortSockets
from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.local import LocalNodes
from domzero.host.xenstore.service import XenstoreService, xenstore
from domzero.idl.types import Ref
from tests.toolstack.vm.world import World, world


class Insider(LocalNodes):
    """A program within a guest: the store as the guest sees it, with its rights and limits."""

    def __init__(self, service: XenstoreService, domid: int) -> None:
        super().__init__(Client(service.store, domid))

    def say(self, **nodes: str) -> None:
        """Write nodes; in their names `__` stands for a slash."""
        for path, value in nodes.items():
            self.write(path.replace("__", "/"), value.encode())

    def report(self, **nodes: str) -> None:
        """What an agent writes at the least, and more."""
        self.say(attr__PVAddons__MajorVersion="9", attr__PVAddons__MinorVersion="4", **nodes)
        self.say(data__updated="1")


@dataclass
class Host:
    """A world with a store."""

    world: World
    service: XenstoreService
    insiders: list[Insider] = field(default_factory=list)

    def insider(self, vm: Ref) -> Insider:
        """Somebody in the machine's present domain."""
        insider = Insider(self.service, self.world.get("VM", vm, "domid"))
        self.insiders.append(insider)
        return insider

    async def started(self, **fields: object) -> Ref:
        """A machine that runs."""
        vm = await self.world.machine(**fields)  # type: ignore[arg-type]  # fields of VM.create
        await self.world.call("VM.start", vm, False, False)
        return vm

    def seen(self, path: str) -> str:
        """What the store says."""
        return self.service.local.read(path).decode()

    def metrics(self, vm: Ref) -> dict[str, object] | None:
        """The machine's guest metrics."""
        found = self.world.stack.database.find("VM_guest_metrics", self.world.get("VM", vm, "guest_metrics"))
        return dict(found.record) if found else None

    async def a_second(self) -> None:
        """Within which the rows follow."""
        await self.world.clock.advance(1.0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until something holds."""
        for _ in range(50):
            await self.world.settle()
            if condition():
                return
            await self.world.clock.advance(0.1)
        raise AssertionError("it does not come to that")


@asynccontextmanager
async def with_store(running: World, directory: Path) -> AsyncIterator[Host]:
    """The store of a world that has no machines yet, opened and followed."""
    async with xenstore(directory / "xenstore", running.clock) as service:
        ports = PortSockets(service.server, running.clock)
        running.stack.guests.open(service.local, ports)
        listening = asyncio.ensure_future(running.stack.guests.listen())
        try:
            yield Host(running, service)
        finally:
            await running.settle()  # owners of machines have heard of their ends
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await ports.close()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with world(tmp_path) as running, with_store(running, tmp_path) as host:
        yield host
