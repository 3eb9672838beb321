"""A host per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.toolstack.vm.world import World, world


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as running:
        yield running
