"""Tools that die, hang, or are cancelled, and media that are full: a `ContentError`, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.contents import tool as tool_module
from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.host.contents.qemu import QemuContents, QemuReader
from domzero.host.contents.tool import STORAGE_DAEMON
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.process import spawn
from tests.host.contents.conftest import DATA, MIB, children, contents, make, open_files, tool


def storage_daemon() -> int:
    """The process id of the one that runs."""
    (found,) = (pid for pid, name in children().items() if STORAGE_DAEMON.startswith(name))
    return found


async def test_a_killed_tool_is_noticed_at_once(tmp_path: Path, runtime: Path) -> None:
    source = make("qcow2", tmp_path)
    async with QemuContents(runtime).writing(source) as disk:
        os.kill(storage_daemon(), signal.SIGSTOP)
        waiting = [asyncio.ensure_future(disk.write(n * MIB, DATA[:MIB])) for n in range(8)]
        await asyncio.sleep(0)
        os.kill(storage_daemon(), signal.SIGKILL)
        for write in waiting:
            with pytest.raises(ContentError, match="lost"):
                await write
        for late in (disk.write(0, b"x"), disk.zero(0, MIB), disk.flush()):
            with pytest.raises(ContentError, match="lost"):
                await late
    assert not children()


async def test_a_tool_that_hangs_is_given_up(tmp_path: Path, runtime: Path) -> None:
    source = make("raw", tmp_path)
    async with QemuContents(runtime).reading(source) as disk:
        assert isinstance(disk, QemuReader)
        disk._connection._patience = 0.2  # from now on: a tool may take its time to start
        os.kill(storage_daemon(), signal.SIGSTOP)
        with pytest.raises(ContentError, match=r"did not answer within 0\.2 seconds"):
            await disk.read(0, MIB)
        with pytest.raises(ContentError, match="did not answer"):
            await anext(disk.stretches())
    assert not children()


async def test_a_tool_that_overlooks_a_signal_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As QEMU does with one that comes between its look for signals and its waiting for events."""
    monkeypatch.setattr(tool_module, "AGAIN", 0.2)
    overlooking = "trap 'trap \"exit 7\" TERM' TERM; echo ready; while :; do read -r line; done"
    process = await spawn(["bash", "-c", overlooking], stdin=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    said = asyncio.ensure_future(asyncio.sleep(60, ""))
    await tool_module._end(process, said, gently=True)
    assert process.returncode == 7


async def test_a_cancelled_reader_leaves_nothing(tmp_path: Path, runtime: Path) -> None:
    source, before = make("qcow2", tmp_path), open_files()
    reads = asyncio.Event()

    async def read_for_ever() -> None:
        async with QemuContents(runtime).reading(source) as disk:
            while True:
                reads.set()
                await asyncio.gather(*(disk.read(2 * MIB, MIB) for _ in range(4)))

    task = asyncio.ensure_future(read_for_ever())
    await reads.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()
    assert open_files() == before
    assert not os.listdir(runtime)


@pytest.mark.parametrize("turns", [1, 2, 5, 20, 60])
async def test_cancelled_while_it_opens(turns: int, tmp_path: Path, runtime: Path) -> None:
    source, before = make("raw", tmp_path), open_files()

    async def open_it() -> None:
        async with QemuContents(runtime).writing(source):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(open_it())
    for _ in range(turns):
        await asyncio.sleep(0.0001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()
    assert open_files() == before
    assert not os.listdir(runtime)


async def test_one_cancelled_request_harms_no_other(tmp_path: Path, runtime: Path) -> None:
    source = make("raw", tmp_path)
    async with QemuContents(runtime).reading(source) as disk:
        one, two = (asyncio.ensure_future(disk.read(2 * MIB, MIB)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        assert await two == DATA[:MIB]
        assert await disk.read(3 * MIB, MIB) == DATA[MIB : 2 * MIB]


ORPHAN = """
import asyncio, sys
from pathlib import Path
from domzero.host.contents.qemu import QemuContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.process import spawn
async def main():
    async with QemuContents(Path(sys.argv[1])).reading(DiskSource(Path(sys.argv[2]), DiskFormat.RAW)):
        print("open", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.slow
def test_it_dies_with_whoever_started_it(tmp_path: Path, runtime: Path) -> None:
    source = make("raw", tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", ORPHAN, runtime, source.path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout as output:
        assert output.readline() == b"open\n"
    (pid,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    with os.fdopen(os.pidfd_open(int(pid)), "rb") as process:
        holder.kill()
        holder.wait()
        assert select.select([process], [], [], 20)[0] == [process]


@pytest.fixture
def small_medium(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=4m", "none", mount)
    yield mount
    tool("umount", mount)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["file", "raw", "qcow2"])
async def test_a_full_medium(kind: str, small_medium: Path, runtime: Path) -> None:
    path = small_medium / "disk"
    format = DiskFormat.QCOW2 if kind == "qcow2" else DiskFormat.RAW
    tool("qemu-img", "create", "-q", "-f", format.value, path, "64M")
    async with contents(kind, runtime).writing(DiskSource(path, format)) as disk:
        with pytest.raises(MediumFullError, match="No space left on device"):
            await asyncio.gather(*(disk.write(n * MIB, DATA[:MIB]) for n in range(8)))
        await disk.zero(0, 64 * MIB)
        await disk.write(0, DATA[:MIB])
        await disk.flush()
    async with contents(kind, runtime).reading(DiskSource(path, format)) as reader:
        assert await reader.read(0, MIB) == DATA[:MIB]


async def test_a_body_that_fails(tmp_path: Path, runtime: Path) -> None:
    source = make("raw", tmp_path)

    async def fail() -> AsyncIterator[None]:
        async with QemuContents(runtime).writing(source):
            raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        await anext(fail())
    assert not children()


async def test_a_file_that_became_a_link(tmp_path: Path, runtime: Path) -> None:
    """Whoever else can write to the medium must not choose which of the host's files is read."""
    secret, disk = tmp_path / "secret", tmp_path / "disk"
    secret.write_bytes(b"secret".ljust(512))
    disk.symlink_to(secret)
    before = open_files()
    for how in (QemuContents(runtime).reading, QemuContents(runtime).writing):
        with pytest.raises(ContentError, match="is a link"):
            async with how(DiskSource(disk, DiskFormat.RAW)):
                pytest.fail("it was opened")
    assert open_files() == before
