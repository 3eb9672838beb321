"""Debian's xenstore tools (package xenstore-utils) and PyPI's pyxs, unchanged."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pyxs
from pyxs.connection import UnixSocketConnection

from domzero.host.clock import SystemClock
from domzero.host.xenstore.limits import DEFAULT
from tests.host.xenstore.peers import PATIENCE, Host, host

debian = pytest.mark.skipif(shutil.which("xenstore-ls") is None, reason="takes Debian's xenstore-utils")


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Host]:
    async with host(tmp_path, SystemClock(), DEFAULT) as serving:
        await serving.path()
        yield serving


async def started(serving: Host, *command: str, domid: int = 0) -> asyncio.subprocess.Process:
    environment = {**os.environ, "XENSTORED_PATH": str(await serving.path(domid))}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)


async def run(serving: Host, *command: str, domid: int = 0) -> tuple[int | None, str, str]:
    """Exit code, output, complaints."""
    process = await started(serving, *command, domid=domid)
    async with asyncio.timeout(PATIENCE):
        output, complaints = await process.communicate()
    return process.returncode, output.decode(), complaints.decode()


@debian
async def test_values_are_written_listed_read_and_removed(serving: Host) -> None:
    assert await run(serving, "xenstore-write", "/vm/name", "two words", "/vm/memory", "1024") == (0, "", "")
    assert await run(serving, "xenstore-read", "-p", "/vm/name", "/vm/memory") == (
        0, "/vm/name: two words\n/vm/memory: 1024\n", "",
    )  # fmt: skip
    assert await run(serving, "xenstore-list", "/vm") == (0, "name\nmemory\n", "")
    assert await run(serving, "xenstore-ls", "-f", "/vm") == (0, '/vm/name = "two words"\n/vm/memory = "1024"\n', "")
    assert (await run(serving, "xenstore-exists", "/vm/name"))[0] == 0
    assert (await run(serving, "xenstore-rm", "/vm/name"))[0] == 0
    assert (await run(serving, "xenstore-exists", "/vm/name"))[0] == 1
    code, _, complaint = await run(serving, "xenstore-read", "/vm/name")
    assert (code, complaint) == (1, "xenstore-read: couldn't read path /vm/name\n")


@debian
async def test_permissions_are_changed_and_shown(serving: Host) -> None:
    await run(serving, "xenstore-write", "/a/b", "x", "/a/c", "y")
    assert await run(serving, "xenstore-chmod", "-r", "/a", "n1", "r2") == (0, "", "")
    assert (await run(serving, "xenstore-ls", "-fp", "/a"))[1] == (
        '/a/b = "x"   (n1,r2)\n/a/c = "y"   (n1,r2)\n'
    )  # fmt: skip
    assert (await run(serving, "xenstore-read", "/a/b", domid=2))[1] == "x\n"
    assert (await run(serving, "xenstore-write", "/a/b", "z", domid=2))[0] == 1
    assert (await run(serving, "xenstore-write", "/a/b", "z", domid=1))[0] == 0
    assert (await run(serving, "xenstore-read", "/a/b", domid=3))[0] == 1


@debian
async def test_a_watch_shows_what_changes(serving: Host) -> None:
    watching = await started(serving, "xenstore-watch", "-n", "3", "/a")
    assert watching.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await watching.stdout.readline() == b"/a\n"
        await run(serving, "xenstore-write", "/a/b", "1")
        assert await watching.stdout.readline() == b"/a/b\n"
        await run(serving, "xenstore-rm", "/a")
        assert await watching.stdout.readline() == b"/a\n"
        assert await watching.wait() == 0


@debian
async def test_lists_longer_than_a_message_are_shown_whole(serving: Host) -> None:
    names = [f"{number:060}" for number in range(200)]
    for begin in (0, 100):
        pairs = [part for name in names[begin : begin + 100] for part in (f"/long/{name}", "")]
        assert (await run(serving, "xenstore-write", *pairs))[0] == 0
    assert (await run(serving, "xenstore-list", "/long"))[1].split() == names


@debian
async def test_a_guests_tools_see_its_home_by_relative_paths(serving: Host) -> None:
    await run(serving, "xenstore-write", "/local/domain/1", "")
    await run(serving, "xenstore-chmod", "/local/domain/1", "n1")
    assert (await run(serving, "xenstore-write", "data/os_name", "Tiny Linux", domid=1))[0] == 0
    assert (await run(serving, "xenstore-ls", "data", domid=1))[1] == 'os_name = "Tiny Linux"\n'
    assert (await run(serving, "xenstore-read", "/local/domain/1/data/os_name"))[1] == "Tiny Linux\n"
    assert (await run(serving, "xenstore-ls", "/", domid=1))[0] == 1


async def test_pyxs_reads_writes_and_lists(serving: Host) -> None:
    path = str(await serving.path())

    def work() -> None:
        with pyxs.Client(router=pyxs.client.Router(UnixSocketConnection(path))) as client:
            client.write(b"/py/value", b"two words")
            assert client.read(b"/py/value") == b"two words"
            assert client.exists(b"/py")
            client.mkdir(b"/py/dir")
            assert client.list(b"/py") == [b"value", b"dir"]
            assert client.get_perms(b"/py") == [b"n0"]
            client.set_perms(b"/py", [b"b1", b"r2"])
            assert client.get_perms(b"/py") == [b"b1", b"r2"]
            assert list(client.walk(b"/py", topdown=True)) == [
                (b"/py", b"", [b"value", b"dir"]), (b"/py/value", b"two words", []), (b"/py/dir", b"", []),
            ]  # fmt: skip
            client.delete(b"/py")
            assert not client.exists(b"/py")
            with pytest.raises(pyxs.PyXSError):
                client.read(b"/py")
            assert client.get_domain_path(1) == b"/local/domain/1"
            assert client.is_domain_introduced(1)

    await asyncio.to_thread(work)


async def test_pyxs_transactions_conflict_and_are_tried_again(serving: Host) -> None:
    path = str(await serving.path())

    def work() -> None:
        with pyxs.Client(unix_socket_path=path) as one, pyxs.Client(unix_socket_path=path) as other:
            one.write(b"/counter", b"1")
            one.transaction()
            value = int(one.read(b"/counter"))
            other.write(b"/counter", b"5")
            one.write(b"/counter", b"%d" % (value + 1))
            assert one.commit() is False
            one.transaction()
            one.write(b"/counter", b"%d" % (int(one.read(b"/counter")) + 1))
            assert one.commit() is True
            assert other.read(b"/counter") == b"6"
            one.transaction()
            one.write(b"/counter", b"7")
            one.rollback()
            assert other.read(b"/counter") == b"6"

    await asyncio.to_thread(work)


async def test_pyxs_monitors(serving: Host) -> None:
    path = str(await serving.path())

    def work() -> None:
        with pyxs.Client(unix_socket_path=path) as client, pyxs.Client(unix_socket_path=path) as other:
            monitor = client.monitor()
            monitor.watch(b"/seen", b"token")
            events = monitor.wait()
            assert next(events) == (b"/seen", b"token")
            other.write(b"/seen/deep", b"x")
            assert next(events) == (b"/seen/deep", b"token")
            monitor.close()

    await asyncio.to_thread(work)
