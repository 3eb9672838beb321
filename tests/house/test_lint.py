"""Formatting, lint and types are part of what is tested, over the whole project."""

from __future__ import annotations

import sys

import pytest

from domzero.host import process
from tests.house.sources import ROOT

CHECKS = {
    "ruff-check": ["ruff", "check", "--no-fix"],
    "ruff-format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", CHECKS)
async def test_clean(check: str) -> None:
    done = await process.run([sys.executable, "-m", *CHECKS[check]], timeout=None, check=False, directory=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
