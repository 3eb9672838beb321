"""A serial line shared by viewers who do not know of each other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domzero.host.console.lines import Lines
from domzero.host.console.serial import BACKLOG, HISTORY, replayable
from tests.host.console.machine import Machine


async def test_all_viewers_share_one_connection(machine: Machine) -> None:
    lines = Lines()
    first, second = await asyncio.gather(lines.serial(machine.path, None), lines.serial(machine.path, None))
    await machine.say(b"hello")
    assert [await first.read(), await second.read()] == [b"hello", b"hello"]
    await first.write(b"one ")
    await second.write(b"two")
    assert await machine.reader.readexactly(7) == b"one two"
    assert machine.connections == 1
    first.close()
    await machine.say(b"still")
    assert await second.read() == b"still"
    second.close()
    assert await machine.reader.read() == b"", "the line is given up with its last viewer"
    await lines.serial(machine.path, None)


async def test_a_latecomer_sees_the_past(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before anybody looked\r\n")
    lines = Lines()
    first = await lines.serial(machine.path, log)
    assert await first.read() == b"before anybody looked\r\n"
    await machine.say(b"login: ")
    assert await first.read() == b"login: "
    second = await lines.serial(machine.path, log)
    assert await second.read() == b"before anybody looked\r\nlogin: "
    for viewer in (first, second):
        viewer.close()


async def test_a_slow_viewer_loses_the_oldest(machine: Machine) -> None:
    lines = Lines()
    slow, quick = await lines.serial(machine.path, None), await lines.serial(machine.path, None)
    sent = b"".join(b"%07d\n" % number for number in range(BACKLOG // 4))
    saying = asyncio.ensure_future(machine.say(sent))
    received = b""
    while len(received) < len(sent):
        received += await quick.read()
    await saying
    assert received == sent
    kept = b""
    while len(kept) < BACKLOG:
        kept += await slow.read()
    assert kept == sent[-BACKLOG:]
    for viewer in (slow, quick):
        viewer.close()


async def test_who_types_waits_for_a_machine_that_takes_nothing(machine: Machine) -> None:
    viewer = await Lines().serial(machine.path, None)

    async def type_much() -> None:
        for _ in range(100):
            await viewer.write(bytes(1 << 16))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(type_much(), 0.2)
    viewer.close()


async def test_the_end_of_the_machine_is_everybodys(machine: Machine) -> None:
    lines = Lines()
    viewers = [await lines.serial(machine.path, None) for _ in range(3)]
    await machine.say(b"last words")
    machine.close()
    for viewer in viewers:
        assert await viewer.read() == b"last words"
        assert await viewer.read() == b""
    with pytest.raises(ConnectionError):
        await viewers[0].write(b"x")
    viewers[0].close()


async def test_nothing_answers(tmp_path: Path) -> None:
    lines = Lines()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await lines.serial(tmp_path / "nothing", None)
    with pytest.raises(FileNotFoundError):
        await lines.screen(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("past", "shown"),
    [
        (b"plain \x1b[31mred\x1b[0m", b"plain \x1b[31mred\x1b[0m"),
        (b"where am I?\x1b[6n and who\x1b[c\x1b[>0c\x1bZ\x05", b"where am I? and who"),
        (b"colour\x1b]11;?\x07\x1b]10;?\x1b\\ and \x1bP$q?\x1b\\", b"colour and "),
        (b"a\n" + b"b" * HISTORY, b"b" * HISTORY),
        (b"a\n" + b"b" * (HISTORY - 4) + b"\nend", b"end"),
    ],
)
def test_the_past_asks_no_questions(past: bytes, shown: bytes) -> None:
    """A terminal would answer them, and type the answers into whatever runs now."""
    assert replayable(past) == shown
