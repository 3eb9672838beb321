"""A host in a network namespace of its own, and the rest of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.network.plan import NetworkPlan
from tests.host.network.stage import Host, network_namespace
from tests.host.network.switched import SwitchedHost, far_ends, host_with_cables


@pytest.fixture
def namespace() -> Iterator[Path]:
    with network_namespace() as path:
        yield path


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    with network_namespace() as path:
        yield path


@pytest.fixture
async def host(namespace: Path, elsewhere: Path, tmp_path: Path) -> AsyncIterator[Host]:
    """The other ends of its cables are to be there until it is gone: hence `elsewhere`."""
    host = Host(namespace, tmp_path)
    await host.thread.open()
    await host.backend.open()
    yield host
    await host.backend.apply(NetworkPlan())
    await host.backend.close()
    await host.thread.close()


@pytest.fixture
async def switched(namespace: Path, elsewhere: Path, tmp_path: Path) -> AsyncIterator[SwitchedHost]:
    """A host of Open vSwitch with two cables."""
    async with host_with_cables(namespace, elsewhere, tmp_path) as host:
        yield host


@pytest.fixture
async def wires(switched: SwitchedHost, elsewhere: Path, tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """The other ends of both cables."""
    async with far_ends(elsewhere, tmp_path / "elsewhere") as ends:
        yield ends
