"""Text screens in processes of their own: their life, and what shuts them in."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.console.line import Line
from domzero.host.console.lines import Lines
from domzero.host.console.picture import take
from domzero.host.console.terminals import PROGRAM, Prison, Terminals
from domzero.wire.rfb_picture import Picture
from tests.host.children import arguments, children, status
from tests.host.console.machine import Machine

pytestmark = pytest.mark.slow

IS_ROOT = os.geteuid() == 0
USERS = range(0x7CFF0000, 0x7CFF0002) if IS_ROOT else None
"""Nobody's."""
BLUE, RED = bytes((0, 0, 238, 0)), bytes((205, 0, 0, 0))


@pytest.fixture
async def terminals(tmp_path: Path) -> AsyncIterator[Terminals]:
    terminals = Terminals(Prison(tmp_path / "empty", USERS))
    yield terminals
    await terminals.close()
    assert processes() == []


@pytest.fixture
def lines(terminals: Terminals) -> Lines:
    return Lines(None, terminals)


def processes() -> list[int]:
    """Those of text screens that this process has started."""
    return [pid for pid in children() if PROGRAM.encode() in arguments(pid)]


def limits(pid: int) -> dict[str, list[str]]:
    """What a process may use up: by name, the soft limit, the hard one and the unit."""
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {row[:25].strip(): row[25:].split() for row in rows}


async def look(lines: Lines, machine: Machine, log: Path | None = None) -> Picture:
    line = await lines.text(machine.path, log, "a machine")
    try:
        return await take(line, 30)
    finally:
        line.close()


async def rest(line: Line) -> None:
    """Read to the end."""
    async with asyncio.timeout(30):
        while await line.read():
            pass  # nobody looks


async def gone(pid: int) -> None:
    """Return when the process has ended, in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = await asyncio.to_thread(select.select, [process], [], [], 30)
    os.close(process)
    assert ready == [process]


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    return [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]


async def test_the_past_is_shown_to_whoever_looks_but_once(lines: Lines, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"long ago\r\n" * 5000 + b"\x1b[44mlatest")
    picture = await look(lines, machine, tmp_path / "log")
    assert (picture.width, picture.height) == (640, 384)
    assert BLUE in picture.pixels


async def test_a_screen_has_one_process_as_long_as_it_has_viewers(lines: Lines, machine: Machine) -> None:
    first = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    await machine.say(b"\x1b[44mwritten\x1b[6n")
    assert await machine.reader.readexactly(6) == b"\x1b[1;8R", "what the terminal answers reaches the machine"
    assert BLUE in (await look(lines, machine)).pixels
    second = await lines.text(machine.path, None, "a machine")
    first.close()
    first.close()
    assert processes() == [pid]
    assert BLUE in (await take(second, 30)).pixels
    second.close()
    assert await machine.reader.read() == b"", "the line is given up with the last viewer"
    await gone(pid)
    assert machine.connections == 1


async def test_two_who_come_at_once(lines: Lines, machine: Machine) -> None:
    both = await asyncio.gather(*(lines.text(machine.path, None, "a machine") for _ in range(2)))
    await machine.say(b"\x1b[44mwritten\x1b[6n")
    await machine.reader.readexactly(6)
    for line in both:
        assert BLUE in (await take(line, 30)).pixels
    assert machine.connections == 1
    for line in both:
        line.close()


async def test_viewers_go_with_the_machine(lines: Lines, machine: Machine) -> None:
    line = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    await machine.here.wait()
    machine.close()
    await rest(line)
    line.close()
    await gone(pid)


DAEMON = """
import asyncio, sys
from pathlib import Path
from domzero.host.console.lines import Lines
from domzero.host.console.terminals import Prison, Terminals

async def main():
    terminals = Terminals(Prison(Path(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[3]) + 1)))
    line = await Lines(None, terminals).text(Path(sys.argv[1]), None, "a machine")
    print(*(shown.pid for shown in terminals._living), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root can give it a user of its own")
async def test_it_goes_with_a_daemon_that_is_killed(machine: Machine, tmp_path: Path) -> None:
    assert USERS is not None
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DAEMON, machine.path, tmp_path / "empty", str(USERS[0])),
        stdout=asyncio.subprocess.PIPE,
    )
    assert daemon.stdout is not None
    pid = int(await daemon.stdout.readline())
    assert status(pid)["Uid"].startswith(str(USERS[0]))
    # Stopped, it sees no socket close: the kernel alone ends it.
    os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    await daemon.wait()
    await gone(pid)


async def test_a_process_that_dies_is_no_harm(lines: Lines, machine: Machine) -> None:
    """Its viewers are sent away; who comes again has a new one."""
    line = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    os.kill(pid, signal.SIGKILL)
    await rest(line)
    line.close()
    await gone(pid)
    assert (await look(lines, machine)).width == 640


async def test_a_machine_that_writes_without_end(lines: Lines, machine: Machine) -> None:
    """The daemon stays free, and what is shown at last is the latest: soon, since what is long past is left out."""
    line = await lines.text(machine.path, None, "a machine")
    begun = time.monotonic()
    saying = asyncio.ensure_future(machine.say(b"y\r\n" * 300_000 + b"\x1b[2J\x1b[H\x1b[41mlast"))
    used, shown = time.process_time(), b""
    while RED not in shown:
        shown = (await look(lines, machine)).pixels
        await asyncio.sleep(0.2)
    await saying
    assert time.monotonic() - begun < 30
    assert time.process_time() - used < 5
    line.close()


async def test_nothing_that_is_written_ends_it(lines: Lines, machine: Machine) -> None:
    """Also what it would have to load something for: it cannot any more."""
    chance = random.Random(5)
    every = "".join(chr(code) for code in range(0xA0, 0x3000, 7)) + "\U0001f600\U0010ffff"
    written = [b"\x1b[%d;%dm" % (chance.randrange(100), chance.randrange(100)) for _ in range(100)]
    written += [bytes(chance.randrange(256) for _ in range(500)) for _ in range(10)]
    written += [every.encode()[at : at + 500] for at in range(0, 6000, 500)]
    line = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    for piece in written:
        await machine.say(piece)
    await machine.say(b"\x18\x1b\\\x1bc\x1b[41mlast\x1b[6n")
    said = b""
    while b"\x1b[1;5R" not in said:
        said += (data := await machine.reader.read(1024))
        assert data
    assert RED in (await take(line, 30)).pixels
    assert processes() == [pid]
    line.close()


async def test_a_viewer_that_speaks_no_rfb_is_sent_away_alone(lines: Lines, machine: Machine) -> None:
    good, bad = [await lines.text(machine.path, None, "a machine") for _ in range(2)]
    await bad.write(b"GET / HTTP/1.0\r\n\r\n")
    await rest(bad)
    bad.close()
    assert (await take(good, 30)).width == 640
    good.close()


async def test_what_confines_it(lines: Lines, machine: Machine, tmp_path: Path) -> None:
    line = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    fields = status(pid)
    assert (fields["Seccomp"], fields["NoNewPrivs"], fields["Threads"]) == ("2", "1", "1")
    targets = descriptors(pid)
    assert {target.partition(":")[0] for target in targets} <= {"/dev/null", "socket", "anon_inode"}
    assert len(targets) <= 10, "its own, the event loop's, and one for its viewer"
    for limit in ("Max file size", "Max core file size", "Max processes"):
        assert limits(pid)[limit][:2] == ["0", "0"]
    if USERS is None:
        pytest.skip("only root can give it a user of its own")
    user = str(USERS[0])
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {user}
    assert fields["Groups"].split() == []
    assert {int(fields[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert os.readlink(f"/proc/{pid}/root") == os.readlink(f"/proc/{pid}/cwd") == str(tmp_path / "empty")
    assert os.listdir(tmp_path / "empty") == []
    assert os.stat(tmp_path / "empty").st_uid == 0
    assert os.stat(tmp_path / "empty").st_mode & 0o022 == 0
    assert os.stat(f"/proc/{pid}/fd").st_uid == 0, "nobody but root may look into it: it is not dumpable"
    line.close()


async def test_what_confines_it_without_a_user_of_its_own(machine: Machine, tmp_path: Path) -> None:
    """As on a host that root does not run."""
    terminals = Terminals(Prison(tmp_path / "empty", None))
    line = await Lines(None, terminals).text(machine.path, None, "a machine")
    (pid,) = processes()
    fields = status(pid)
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
    assert set(fields["Uid"].split()) == {str(os.getuid())}
    await machine.say(b"\x1b[44mwritten")
    assert (await take(line, 30)).width == 640
    line.close()
    await terminals.close()


async def test_nothing_of_the_machines_is_in_its_arguments(lines: Lines, machine: Machine) -> None:
    line = await lines.text(machine.path, None, "a machine")
    (pid,) = processes()
    assert b"a machine" not in b" ".join(arguments(pid))
    line.close()


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root can give each a user of its own")
async def test_each_has_a_user_of_its_own(lines: Lines, terminals: Terminals, tmp_path: Path) -> None:
    assert USERS is not None
    machines = [Machine(tmp_path / name) for name in "abc"]
    for machine in machines:
        await machine.open()
    first, second = [await lines.text(machine.path, None, "a machine") for machine in machines[:2]]
    assert len({status(pid)["Uid"] for pid in processes()}) == 2
    with pytest.raises(OSError, match="no user left"):
        await lines.text(machines[2].path, None, "a machine")
    ending = next(shown for shown in terminals._living if status(shown.pid)["Uid"].startswith(str(USERS[0])))
    (first if ending is lines._text[machines[0].path] else second).close()
    await ending.gone
    again = await lines.text(machines[2].path, None, "a machine")
    assert len({status(pid)["Uid"] for pid in processes()}) == 2
    for line in (first, second, again):
        line.close()
    for machine in machines:
        machine.close()


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="without root it needs no directory")
async def test_none_that_cannot_be_shut_in(machine: Machine, tmp_path: Path) -> None:
    """It says why, and nobody is shown anything."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").touch()
    terminals = Terminals(Prison(tmp_path / "empty", USERS))
    with pytest.raises(OSError, match="is not empty"):
        await Lines(None, terminals).text(machine.path, None, "a machine")
    await terminals.close()
    assert processes() == []
