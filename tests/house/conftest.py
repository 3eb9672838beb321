"""What this room reads is let go when its tests are over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.house import sources


@pytest.fixture(scope="package", autouse=True)
def _syntax_trees() -> Iterator[None]:
    """Millions of objects, which every full garbage collection of the tests after these would walk."""
    yield
    sources.forget()
