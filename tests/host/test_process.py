"""Children that leave others behind, which keep their output open."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio import base_subprocess
from pathlib import Path
from typing import Any

import pytest

from domzero.host.process import ProcessError, run
from tests.host.hurry import hurried


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A pipe by which a child's child tells its number."""
    os.mkfifo(tmp_path / "told")
    return tmp_path / "told"


def leaving_one(told: Path, end: str) -> list[str]:
    return ["sh", "-c", f"sleep 1000 & echo $! >{told}; {end}"]


async def over(call: asyncio.Future[Any]) -> None:
    """The end of a call that was cancelled comes soon."""
    await asyncio.wait({call}, timeout=30)
    assert call.done()
    assert call.cancelled()


async def test_one_that_is_cancelled_is_over_at_once(told: Path) -> None:
    call = asyncio.ensure_future(run(leaving_one(told, "exec sleep 1000"), timeout=None))
    left = int(await asyncio.to_thread(told.read_text))
    try:
        call.cancel()
        await over(call)
    finally:
        os.kill(left, signal.SIGKILL)


async def test_one_that_is_cancelled_while_it_starts_is_over_at_once(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program and what it started are there, and its pipes not connected yet."""
    connect, left = base_subprocess.BaseSubprocessTransport._connect_pipes, list[int]()

    async def later(*given: Any) -> None:
        left.append(int(await asyncio.to_thread(told.read_text)))
        call.cancel()
        await asyncio.sleep(0)
        await connect(*given)

    monkeypatch.setattr(base_subprocess.BaseSubprocessTransport, "_connect_pipes", later)
    call = asyncio.ensure_future(run(leaving_one(told, "exec sleep 1000"), timeout=None))
    try:
        await over(call)
    finally:
        os.kill(left[0], signal.SIGKILL)


@pytest.mark.parametrize("end", ["exec sleep 1000", "exit 0"])
async def test_one_that_takes_too_long_is_over_at_once(told: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has ended, and whose output has not."""
    call = asyncio.ensure_future(run(leaving_one(told, end), timeout=60))
    left = int(await asyncio.to_thread(told.read_text))
    try:
        await hurried(monkeypatch, call, 60)
        with pytest.raises(ProcessError, match="did not finish within 60 seconds"):
            await call
    finally:
        os.kill(left, signal.SIGKILL)
