"""Deadlines that pass when a test says so, however busy the machine is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


async def hurried(monkeypatch: pytest.MonkeyPatch, work: asyncio.Future[Any], seconds: float) -> None:
    """Let that much time pass in the running loop, until the work is done; again where its deadline was set later."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    for _ in range(30):
        ahead += seconds
        done, _ = await asyncio.wait({work}, timeout=1)
        if done:
            return
    raise AssertionError("more time has passed than the work had, and it goes on")
