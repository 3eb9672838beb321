"""A text console's viewers, in this process (see `test_terminals` for where it runs on a host)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from domzero.host.console.line import Line, SocketLine
from domzero.host.console.lines import connect
from domzero.host.console.picture import take
from domzero.host.console.text_screen import TextScreen
from domzero.wire.rfb_picture import Picture
from tests.host.console.machine import Machine


@pytest.fixture
async def screen(machine: Machine) -> AsyncIterator[TextScreen]:
    screen = TextScreen(SocketLine(*await connect(machine.path)), "a machine", 0)
    yield screen
    screen.close()


async def look(screen: TextScreen) -> Picture:
    line = screen.join()
    try:
        return await take(line, 10)
    finally:
        line.close()


async def greeted(line: Line) -> Line:
    """A viewer in the middle of its visit."""
    await line.read()
    await line.write(b"RFB 003.003\n\x01")
    received = b""
    while b"a machine" not in received:
        received += await line.read()
    return line


async def test_what_the_machine_writes_is_shown(machine: Machine, screen: TextScreen) -> None:
    now = empty = await look(screen)
    await machine.say(b"\x1b[44mwritten")
    for _ in range(500):
        if now != empty:
            break
        await asyncio.sleep(0.01)
        now = await look(screen)
    assert (now.width, now.height) == (640, 384)
    assert bytes((0, 0, 238, 0)) in now.pixels


async def test_the_first_picture_shows_all_of_the_past(machine: Machine) -> None:
    """Also to whoever looks but once, as for a picture."""
    past = b"long ago\r\n" * 1000 + b"\x1b[44mlatest"
    screen = TextScreen(SocketLine(*await connect(machine.path)), "a machine", len(past))
    taking = asyncio.ensure_future(look(screen))
    for at in range(0, len(past), 700):
        await machine.say(past[at : at + 700])
        await asyncio.sleep(0)
    assert bytes((0, 0, 238, 0)) in (await taking).pixels
    screen.close()


async def test_keys_reach_the_machine(machine: Machine, screen: TextScreen) -> None:
    line = await greeted(screen.join())
    control, c, up = 0xFFE3, 0x63, 0xFF52
    for down, symbol in ((1, c), (0, c), (1, control), (1, c), (0, c), (0, control), (1, c), (1, up)):
        await line.write(struct.pack(">BBxxI", 4, down, symbol))
    await machine.here.wait()
    assert await machine.reader.readexactly(6) == b"c\x03c\x1b[A"
    await machine.say(b"\x1b[?1h\x1b[6n")
    assert await machine.reader.readexactly(6) == b"\x1b[1;1R", "the terminal answers by itself, once"
    await line.write(struct.pack(">BBxxI", 4, 1, up))
    assert await machine.reader.readexactly(3) == b"\x1bOA"
    line.close()


async def test_a_machine_that_takes_no_keys(machine: Machine, screen: TextScreen) -> None:
    """Keys are dropped in the end; nobody waits and nothing grows."""
    line = await greeted(screen.join())
    press = struct.pack(">BBxxI", 4, 1, 0x61) * 1000
    async with asyncio.timeout(60):  # who waited would do so for ever
        for _ in range(100):
            await line.write(press)
    line.close()


async def test_a_viewer_that_asks_for_nothing_gets_nothing(machine: Machine, screen: TextScreen) -> None:
    line = await greeted(screen.join())
    await machine.say(b"news " * 100)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.read(), 0.2)
    await line.write(struct.pack(">BBHHHH", 3, 1, 0, 0, 640, 384))
    assert (await line.read()).startswith(b"\0")
    machine.close()
    assert await asyncio.wait_for(line.read(), 30) == b""
    line.close()
