"""Bytes between a viewer and a console."""

from __future__ import annotations

import asyncio

import pytest

from domzero.front.relay import End, relay


class Side:
    """One side in a test's hands: what is put into `sent` is read from it; it takes as long as `open` is clear."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.taken = bytearray()
        self.open = asyncio.Event()
        self.open.set()
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        data = await self.sent.get()
        if data == b"reset":
            raise ConnectionResetError
        return data

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        self.taken += data


def begin(viewer: Side, line: Side, **limits: float) -> tuple[asyncio.Task[End], asyncio.Event]:
    revoked = asyncio.Event()
    chosen = {"idle": 30.0, "stall": 30.0, **limits}
    return asyncio.ensure_future(relay(viewer, line, revoked, idle=chosen["idle"], stall=chosen["stall"])), revoked


@pytest.mark.parametrize(("side", "end"), [(0, End.VIEWER), (1, End.CONSOLE)])
@pytest.mark.parametrize("last", [b"", b"reset"])
async def test_until_one_side_ends(side: int, end: End, last: bytes) -> None:
    sides = Side(), Side()
    relaying, _ = begin(*sides)
    sides[0].sent.put_nowait(b"typed")
    sides[1].sent.put_nowait(b"shown")
    await asyncio.sleep(0)
    sides[side].sent.put_nowait(last)
    assert await relaying is end
    assert (bytes(sides[1].taken), bytes(sides[0].taken)) == (b"typed", b"shown")


async def test_revoked() -> None:
    relaying, revoked = begin(Side(), Side())
    revoked.set()
    assert await relaying is End.REVOKED


async def test_nothing_happens_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that the test moves: on a busy machine real time would pass by itself."""
    loop = asyncio.get_running_loop()
    time = loop.time()
    monkeypatch.setattr(loop, "time", lambda: time)
    viewer, line = Side(), Side()
    relaying, _ = begin(viewer, line, idle=10.0)
    for count in range(1, 5):
        await turns()
        time += 9
        line.sent.put_nowait(b".")
        await turns()
        assert (bytes(viewer.taken), relaying.done()) == (b"." * count, False)
    time += 9
    await turns()
    assert not relaying.done()
    time += 1.1
    await turns()
    assert relaying.done()
    assert await relaying is End.IDLE


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_side_that_takes_nothing_is_not_waited_for_for_ever() -> None:
    viewer, line = Side(), Side()
    viewer.open.clear()
    relaying, _ = begin(viewer, line, stall=0.1)
    for _ in range(10):
        line.sent.put_nowait(b"more")
    assert await relaying is End.STALLED
    assert line.reads == 1, "no more is read than can be handed on"


async def test_cancelling_it_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    relaying, _ = begin(Side(), Side())
    await asyncio.sleep(0)
    relaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaying
    assert asyncio.all_tasks() == before
