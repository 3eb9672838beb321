"""A host in a network namespace of its own, and the rest of the world."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.network.plan import NetworkPlan
from tests.host.network.stage import Host, network_namespace
from tests.host.network.switched import FIRST_MAC, SECOND_MAC, SwitchedHost, cable_end, switched_host


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
    """A host of Open vSwitch with two interfaces; the first has addresses and a route that an operator gave it."""
    async with switched_host(namespace, tmp_path) as host:
        await host.interface("eth1", elsewhere, FIRST_MAC, "203.0.113.5/24", "2001:db8:5::5/64")
        await host.interface("eth2", elsewhere, SECOND_MAC)
        await host.kernel("route", "add", dst="default", gateway="203.0.113.1", oif="eth1")
        yield host


@pytest.fixture
async def wires(switched: SwitchedHost, elsewhere: Path, tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """The other ends of both cables, as machines' taps are."""
    outside = Host(elsewhere, tmp_path / "elsewhere")
    await outside.thread.open()
    ends = [await cable_end(outside, f"far-eth{number}") for number in (1, 2)]
    yield ends[0], ends[1]
    for end in ends:
        os.close(end)
    await outside.thread.close()
