"""Tests of this room need the lab; elsewhere they are left out, and `script/lab test` says what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this room, and leave it out where there is no lab."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(1200))
            if not os.environ.get("DOMZERO_LAB"):
                item.add_marker(pytest.mark.skip(reason="runs in the lab only: script/lab test"))
