"""A host in a network namespace of its own, and the rest of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.network.plan import NetworkPlan
from tests.host.network.stage import Host, network_namespace


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
