"""A directory sent as an archive: `tar` reads it, and what goes wrong is said without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domzero.host.upload.http import archive, archive_size, members, upload
from domzero.host.upload.protocol import UploadError, is_sendable
from tests.host.upload.receiver import Receiver, receiver

CONTENT = bytes(range(256)) * 5003


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def crash(tmp_path: Path) -> Path:
    directory = tmp_path / "202611212128"
    directory.mkdir()
    (directory / "dump.202611212128").write_bytes(CONTENT)
    (directory / "dmesg.202611212128").write_bytes(b"panic")
    (directory / "empty").touch()
    (directory / "link").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe")
    (directory / "inner").mkdir()
    return directory


async def send(url: str, directory: Path, proxy: str = "", told: list[float] | None = None) -> None:
    await upload(url, directory, proxy=proxy, progress=(told if told is not None else []).append)


def unpack(data: bytes, directory: Path) -> None:
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", directory], input=data, check=True)


async def test_tar_unpacks_what_came(server: Receiver, crash: Path, tmp_path: Path) -> None:
    told: list[float] = []
    await send(f"http://me:pass%20word@127.0.0.1:{server.port}/in/it.tar?key=1", crash, told=told)
    await asyncio.sleep(0)
    assert server.asked == ["/in/it.tar?key=1"]
    assert server.headers[0]["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"
    assert told[-1] == 1.0
    unpack(server.bodies[0], tmp_path / "out")
    out = tmp_path / "out" / crash.name
    assert sorted(path.name for path in out.iterdir()) == ["dmesg.202611212128", "dump.202611212128", "empty"]
    assert (out / "dump.202611212128").read_bytes() == CONTENT


async def test_by_way_of_a_proxy(server: Receiver, crash: Path) -> None:
    await send("http://dumps.example/x", crash, proxy=f"http://who:what@127.0.0.1:{server.port}")
    assert server.asked == ["http://dumps.example/x"]
    assert server.headers[0]["Proxy-Authorization"] == "Basic d2hvOndoYXQ="
    assert server.headers[0]["Host"] == "dumps.example"


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_only_success_is_success(server: Receiver, crash: Path, status: int) -> None:
    server.status = status
    with pytest.raises(UploadError, match=str(status)):
        await send(f"http://me:secret@127.0.0.1:{server.port}/", crash)
    assert len(server.asked) == 1


async def test_nobody_there(crash: Path) -> None:
    with pytest.raises(UploadError) as error:
        await send("http://me:secret@127.0.0.1:1/", crash)
    assert "secret" not in str(error.value)
    with pytest.raises(UploadError, match="only http"):
        await send("file:///etc/passwd", crash)
    with pytest.raises(UploadError, match="cannot be read"):
        await send("http://127.0.0.1:1/", crash / "none")


async def test_cancelling_ends_it(server: Receiver, crash: Path) -> None:
    server.hold = threading.Event()
    (crash / "dump.202611212128").write_bytes(bytes(64 << 20))
    sending = asyncio.create_task(send(server.url, crash))
    await asyncio.to_thread(server.reached.wait, 10)
    sending.cancel()
    server.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert server.bodies == [] or len(server.bodies[0]) < 64 << 20


async def test_cancelling_ends_it_while_the_server_takes_its_time(crash: Path) -> None:
    """All was sent, and the answer comes a byte at a time, for ever."""
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(bytes(1024))
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        reached.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                writer.write(b"x")
                await writer.drain()
        writer.close()

    (crash / "dump.202611212128").write_bytes(b"x")
    async with await asyncio.start_server(drip, "127.0.0.1", 0, limit=1 << 20) as listening:
        port = listening.sockets[0].getsockname()[1]
        sending = asyncio.create_task(send(f"http://127.0.0.1:{port}/", crash))
        await reached.wait()
        began = loop.time()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert loop.time() - began < 5.0


async def test_uploads_keep_nobody_elses_thread(server: Receiver, crash: Path) -> None:
    server.hold = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    sending = asyncio.create_task(send(server.url, crash))
    with ThreadPoolExecutor(1) as other:
        assert await loop.run_in_executor(other, server.reached.wait, 10)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 5) == "done"
    server.hold.set()
    await sending


def test_the_size_is_what_was_announced_or_it_fails(crash: Path) -> None:
    found = members(crash)
    assert sum(map(len, archive(found))) == archive_size(found)
    (crash / "dump.202611212128").write_bytes(CONTENT * 2)
    assert sum(map(len, archive(found))) == archive_size(found)
    (crash / "dump.202611212128").write_bytes(b"")
    with pytest.raises(UploadError, match="shrank"):
        list(archive(found))
    (crash / "dump.202611212128").unlink()
    (crash / "dump.202611212128").symlink_to("/etc/passwd")
    with pytest.raises(UploadError, match="cannot be read"):
        list(archive(found))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "dumps.example",
        "ftp://dumps.example/",
        "file:///etc",
        "http://",
        "http://x:y/",
        "http://a\r\nb/",
        "http://é/",
        "http://a b/",
    ],
)
def test_odd_addresses(url: str) -> None:
    assert not is_sendable(url)
