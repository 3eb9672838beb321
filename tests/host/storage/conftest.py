"""A repository for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.storage.files.file import FileStorage
from tests.host.storage.disks import Shelf, opened


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    shelf = Shelf(FileStorage(), tmp_path / "sr")
    await opened(shelf.driver, shelf.directory)
    yield shelf
    await shelf.driver.detach(shelf.repository)
