"""A text console's viewers, without any front."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.console.lines import Line, Lines
from domzero.host.console.picture import take
from domzero.wire.rfb_picture import Picture
from tests.host.console.machine import Machine


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path / "serial")
    await machine.open()
    yield machine
    machine.close()


async def look(lines: Lines, machine: Machine) -> Picture:
    line = await lines.text(machine.path, None, "a machine")
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


async def test_what_the_machine_writes_is_shown(machine: Machine) -> None:
    lines = Lines()
    line = await lines.text(machine.path, None, "a machine")
    empty = await look(lines, machine)
    await machine.say(b"\x1b[44mwritten")
    now = empty
    for _ in range(500):
        if now != empty:
            break
        await asyncio.sleep(0.01)
        now = await look(lines, machine)
    assert (now.width, now.height) == (640, 384)
    assert bytes((0, 0, 238, 0)) in now.pixels
    line.close()
    assert await machine.reader.read() == b"", "the line is given up with the last viewer"


async def test_the_first_picture_shows_all_of_the_past(machine: Machine, tmp_path: Path) -> None:
    """Also to whoever looks but once, as for a picture."""
    (tmp_path / "log").write_bytes(b"long ago\r\n" * 5000 + b"\x1b[44mlatest")
    line = await Lines().text(machine.path, tmp_path / "log", "a machine")
    try:
        assert bytes((0, 0, 238, 0)) in (await take(line, 10)).pixels
    finally:
        line.close()


async def test_keys_reach_the_machine(machine: Machine) -> None:
    line = await greeted(await Lines().text(machine.path, None, "a machine"))
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


async def test_a_machine_that_takes_no_keys(machine: Machine) -> None:
    """Keys are dropped in the end; nobody waits and nothing grows."""
    line = await greeted(await Lines().text(machine.path, None, "a machine"))
    press = struct.pack(">BBxxI", 4, 1, 0x61) * 1000
    begun = time.monotonic()
    for _ in range(100):
        await line.write(press)
    assert time.monotonic() - begun < 5
    line.close()


@pytest.mark.slow
async def test_a_machine_that_writes_without_end(machine: Machine) -> None:
    """The event loop stays free, and what is shown at last is the latest."""
    lines = Lines()
    line = await lines.text(machine.path, None, "a machine")
    saying = asyncio.ensure_future(machine.say(b"y\r\n" * 300_000 + b"\x1b[2J\x1b[H\x1b[41mlast"))
    longest = 0.0
    shown = b""
    while bytes((205, 0, 0, 0)) not in shown:
        begun = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - begun)
        shown = (await look(lines, machine)).pixels
    await saying
    assert longest < 2
    line.close()


async def test_a_viewer_that_asks_for_nothing_gets_nothing(machine: Machine) -> None:
    line = await greeted(await Lines().text(machine.path, None, "a machine"))
    await machine.say(b"news " * 100)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.read(), 0.2)
    await line.write(struct.pack(">BBHHHH", 3, 1, 0, 0, 640, 384))
    assert (await line.read()).startswith(b"\0")
    machine.close()
    assert await asyncio.wait_for(line.read(), 5) == b""
    line.close()
