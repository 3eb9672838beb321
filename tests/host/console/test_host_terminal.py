"""The host's own console: programs on real pseudo terminals, one for each viewer."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.console.line import Line
from domzero.host.console.lines import Lines
from domzero.host.console.login import LoginTerminal
from domzero.host.console.serial import SerialViewer
from domzero.host.console.simulated import SimulatedTerminal
from domzero.host.console.terminals import Terminals
from domzero.wire.rfb_picture import PictureReader

SHELL = ("sh", "-c", 'echo "$$ on $(tty) as $TERM"; exec sh -i')


@pytest.fixture
async def terminal() -> AsyncIterator[LoginTerminal]:
    terminal = LoginTerminal(SHELL)
    yield terminal
    await terminal.close()


async def until(line: Line, mark: bytes) -> bytes:
    said = b""
    async with asyncio.timeout(30):
        while mark not in said:
            said += (data := await line.read())
            assert data, said
    return said


async def rest(line: Line) -> bytes:
    """All until the end."""
    said = b""
    async with asyncio.timeout(30):
        while data := await line.read():
            said += data
    return said


async def process_of(line: Line) -> int:
    """The shell's, which says its number first: a descriptor that names it for ever."""
    return os.pidfd_open(int((await until(line, b"\n")).split()[0]))


async def gone(process: int) -> None:
    """Return when the process has ended, in time."""
    ready, _, _ = await asyncio.to_thread(select.select, [process], [], [], 30)
    assert ready == [process]
    os.close(process)


async def test_everybody_has_a_terminal_of_their_own(terminal: LoginTerminal) -> None:
    lines = Lines(terminal)
    one, other = await lines.host(None), await lines.host(None)
    first, second = await until(one, b"\n"), await until(other, b"\n")
    assert b" on /dev/pts/" in first
    assert b" as vt220\r\n" in first
    assert first.split()[2] != second.split()[2]  # the name of the terminal
    await one.write(b"stty size; echo $((6 * 7)) here\n")
    assert b"24 80" in await until(one, b"42 here")
    other.close()
    one.close()


async def test_control_characters_act_on_what_runs(terminal: LoginTerminal) -> None:
    """The terminal is a controlling one: an interrupt reaches the program in front, not the shell."""
    line = await Lines(terminal).host(None)
    process = await process_of(line)
    await line.write(b"sh -c 'echo $((40 + 1)) waits; exec sleep 1000'\n")
    await until(line, b"41 waits")
    await line.write(b"\x03echo $((40 + 2)) again\n")
    await until(line, b"42 again")
    line.close()
    await gone(process)


async def test_a_viewer_that_leaves_ends_what_runs(terminal: LoginTerminal) -> None:
    line = await Lines(terminal).host(None)
    process = await process_of(line)
    line.close()
    await gone(process)


@pytest.mark.slow
async def test_a_program_that_will_not_go_is_ended() -> None:
    terminal = LoginTerminal(("sh", "-c", "trap '' HUP; echo $$; while :; do sleep 1; done"))
    line = await Lines(terminal).host(None)
    process = await process_of(line)
    line.close()
    await gone(process)
    await terminal.close()


async def test_the_end_of_the_program_is_the_end_of_the_viewing(terminal: LoginTerminal) -> None:
    line = await Lines(terminal).host(None)
    await until(line, b"\n")
    await line.write(b"echo $((40 + 2)) is all; exit\n")
    assert b"42 is all" in await rest(line)
    line.close()


async def test_a_terminal_that_is_let_go_of_for_a_moment() -> None:
    """As login(1) of util-linux does: the last one closes it, and it is opened again."""
    again = 'tty=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.3; exec <"$tty" >"$tty" 2>&1; echo back; exec cat'
    terminal = LoginTerminal(("sh", "-c", again))
    line = await Lines(terminal).host(None)
    await until(line, b"back")
    await line.write(b"heard\n")
    await until(line, b"heard")
    line.close()
    await terminal.close()


async def test_nothing_is_left_when_the_host_stops(terminal: LoginTerminal) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lines = [await Lines(terminal).host(None) for _ in range(3)]
    processes = [await process_of(line) for line in lines]
    await terminal.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):  # ended, and reaped
            signal.pidfd_send_signal(process, 0)
        os.close(process)
    for line in lines:
        await rest(line)
        line.close()
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.slow
async def test_a_viewer_that_does_not_read_holds_no_program_up(terminal: LoginTerminal, tmp_path: Path) -> None:
    line = await Lines(terminal).host(None)
    await until(line, b"\n")
    os.mkfifo(tmp_path / "told")
    await line.write(f"yes | head -c 4000000; echo done >{tmp_path / 'told'}\n".encode())
    async with asyncio.timeout(60):
        assert await asyncio.to_thread((tmp_path / "told").read_text) == "done\n"
    assert isinstance(line, SerialViewer)
    assert line.skipped > 1_000_000
    line.close()


@pytest.mark.slow
async def test_as_a_screen(terminal: LoginTerminal) -> None:
    terminals = Terminals(None)
    line = await Lines(terminal, terminals).host("this host")
    reader = PictureReader()
    async with asyncio.timeout(30):
        while reader.picture is None:
            reader.receive(await line.read())
            if output := reader.output():
                await line.write(output)
    assert (reader.picture.width, reader.picture.height) == (640, 384)
    assert len(set(reader.picture.pixels)) > 1  # what was said first is on it
    line.close()
    await terminals.close()


async def test_what_cannot_be_started() -> None:
    with pytest.raises(OSError, match="could not be started"):
        await Lines(LoginTerminal(("/nonexistent/login",))).host(None)
    with pytest.raises(ConnectionRefusedError):
        await Lines().host(None)


async def test_the_simulated_console() -> None:
    terminal = SimulatedTerminal()
    one, other = await Lines(terminal).host(None), await Lines(terminal).host(None)
    await until(one, b"simulated host\r\n")
    await one.write(b"hello\r")
    await until(one, b"hello\r\n")
    one.close()
    await terminal.close()
    assert b"hello" not in await rest(other)
    other.close()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(shutil.which("login") is None, reason="this machine has no login(1)")
async def test_the_hosts_login_asks_and_refuses() -> None:
    terminal = LoginTerminal()
    line = await Lines(terminal).host(None)
    await until(line, b"login: ")
    await line.write(b"nobody-of-that-name\r")
    await until(line, b"assword: ")
    await line.write(b"secret\r")
    said = await until(line, b"ncorrect")
    assert b"secret" not in said
    line.close()
    await terminal.close()
