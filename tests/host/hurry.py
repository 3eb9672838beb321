"""Deadlines that pass when a test says so, however busy the machine is."""

from __future__ import annotations

import asyncio

import pytest


def hurry(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let that much time pass for whatever waits in the running loop. Called by a task of that loop."""
    loop = asyncio.get_running_loop()
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + seconds)
