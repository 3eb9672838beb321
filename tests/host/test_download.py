"""Fetching files, from servers on loopback that behave and that do not."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest

from domzero.front.certificates import ensure_certificate, tls_context
from domzero.host.download.http import TELLING, download
from domzero.host.download.line import MOST_LINES, Redirections
from domzero.host.download.protocol import DownloadError, FileMissingError, is_fetchable
from tests.host.ftp import ftp_server
from tests.host.serving import Handler, serving

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A web server that answers each request for a path; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        await answer(request.split(b" ")[1].decode(), writer)

    async with serving(serve, tls=tls) as port:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


async def content(path: str, writer: asyncio.StreamWriter) -> None:
    body = b"x" * 1000
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def says(text: bytes) -> Answer:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


async def test_a_file_comes_whole_and_can_be_read_by_everyone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with server(content) as url:
        assert await download(f"{url}/a", path, largest=1000) == 1000
    assert path.read_bytes() == b"x" * 1000
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrubbish",
        b"rubbish",
        b"",
    ],
)
async def test_bad_servers_leave_no_file(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    async with server(says(answer)) as url:
        with pytest.raises(DownloadError):
            await download(f"{url}/a", path, largest=1000)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file"]


async def test_large_files_are_not_kept(tmp_path: Path) -> None:
    async with server(content) as url:
        with pytest.raises(DownloadError, match="larger"):
            await download(f"{url}/a", tmp_path / "file", largest=999)
    assert names(tmp_path) == []


async def test_slow_files_are_not_waited_for(tmp_path: Path) -> None:
    async with server(content) as url:
        with pytest.raises(DownloadError, match="within"):
            await download(f"{url}/a", tmp_path / "file", largest=1000, patience=-1)


async def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def slow(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + b"x" * 300000)
        asked.set()
        await release.wait()
        writer.write(b"x" * 300000)

    async with server(slow) as url:
        task = asyncio.ensure_future(download(f"{url}/a", tmp_path / "file", largest=1 << 20))
        await asked.wait()
        task.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["", "cdrom", "file:///etc/passwd", "http://", "/etc/passwd", "nfs:server:/a", "http://["]
)
async def test_addresses_that_are_not_fetched(tmp_path: Path, url: str) -> None:
    assert not is_fetchable(url)
    with pytest.raises(DownloadError):
        await download(url, tmp_path / "file", largest=10)


async def test_silent_servers_leave_the_threads_of_others_alone(tmp_path: Path) -> None:
    """The storage's blocking work is done in the loop's own threads, of which there are few."""
    go_on = asyncio.Event()

    async def silent(path: str, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await content(path, writer)

    async with server(silent) as url:
        downloads = [asyncio.ensure_future(download(f"{url}/{n}", tmp_path / f"{n}", largest=1000)) for n in range(40)]
        unwanted = asyncio.ensure_future(download(f"{url}/unwanted", tmp_path / "unwanted", largest=1000))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: 7) == 7
        unwanted.cancel()
        go_on.set()
        assert set(await asyncio.gather(*downloads)) == {1000}
        with pytest.raises(asyncio.CancelledError):
            await unwanted
    assert sorted(names(tmp_path), key=int) == [str(n) for n in range(40)]


async def test_user_and_password_are_a_header_and_stay_with_their_server(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split(" ")[1]
        seen.append((path, request.partition("Authorization: ")[2].partition("\r\n")[0]))
        if path == "/a":
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/b\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            await content(path, writer)

    elsewhere = ""
    async with serving(serve) as port:
        elsewhere = f"http://localhost:{port}"
        await download(f"http://me:p%40ss@127.0.0.1:{port}/a", tmp_path / "file", largest=1000)
    assert seen == [("/a", "Basic bWU6cEBzcw=="), ("/b", "")]


async def test_what_comes_beside_a_redirection_is_not_read(tmp_path: Path) -> None:
    """It may be endless, and would be kept in memory."""

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/b":
            await content(path, writer)
            return
        status = b"HTTP/1.1 %s Elsewhere" % path[1:].encode()
        writer.write(status + b"\r\nLocation: /b\r\nContent-Length: 99999999999\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.001)

    async with server(answer) as url:
        for code in (301, 302, 303, 307, 308):
            assert await download(f"{url}/{code}", tmp_path / "file", largest=1000, patience=5) == 1000


async def test_what_came_so_far_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with server(content) as url:
        await download(f"{url}/a", tmp_path / "file", largest=1000, progress=lambda *now: told.append(now))
        await asyncio.sleep(0)
    assert told[-1] == (1000, 1000)


async def test_many_small_pieces_are_told_of_now_and_then(tmp_path: Path) -> None:
    """Else a server could keep the loop busy with a byte at a time."""
    told: list[tuple[int, int]] = []

    async def bytewise(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n")

    async with server(bytewise) as url:
        begun = time.monotonic()
        await download(f"{url}/a", tmp_path / "file", largest=3000, progress=lambda *now: told.append(now))
        await asyncio.sleep(0)
        assert 1 <= len(told) <= 2 + (time.monotonic() - begun) / TELLING
    assert told[-1] == (3000, 0)


async def test_files_come_by_ftp(tmp_path: Path) -> None:
    async with ftp_server({"a/b/file": b"x" * 100_000}) as url:
        assert await download(f"{url}/a/b/file", tmp_path / "file", largest=100_000) == 100_000
        with pytest.raises(FileMissingError):
            await download(f"{url}/a/b/other", tmp_path / "other", largest=1)
        with pytest.raises(DownloadError, match="larger"):
            await download(f"{url}/a/b/file", tmp_path / "other", largest=1000)
    assert names(tmp_path) == ["file"]


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def welcome_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"220-hello\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_files_come_by_https_from_whom_the_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL takes the file of authorities from the environment (SSL_CTX_set_default_verify_paths(3))."""
    addresses = {"own": ["127.0.0.1"], "other": ["192.0.2.1"]}
    for name, listed in addresses.items():
        (tmp_path / name).mkdir()
        certificate = ensure_certificate(tmp_path / name, ["repository.example"], listed)
        async with server(content, tls_context(certificate)) as url:
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
            with pytest.raises(DownloadError, match="certificate is not to be trusted: self-signed"):
                await download(f"{url}/a", tmp_path / "file", largest=1000)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
            if name == "own":
                assert await download(f"{url}/a", tmp_path / name / "file", largest=1000) == 1000
                continue
            with pytest.raises(DownloadError, match=r"certificate is not to be trusted: .*127\.0\.0\.1"):
                await download(f"{url}/a", tmp_path / name / "file", largest=1000)
    assert [sorted(names(tmp_path / name)) for name in addresses] == [["file", "server.pem"], ["server.pem"]]


async def test_a_server_that_is_silent_while_tls_begins(tmp_path: Path) -> None:
    async with serving(silence) as port, asyncio.timeout(10):
        with pytest.raises(DownloadError, match="did not come within"):
            await download(f"https://127.0.0.1:{port}/a", tmp_path / "file", largest=1000, patience=0.1)


async def silence_after_the_welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")
    await reader.read()


async def many_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"220-hello\r\n" * 100)
        await writer.drain()


@pytest.mark.parametrize(
    ("conversation", "why"),
    [
        (silence, "did not come within"),
        (welcome_for_ever, "did not come within"),
        (silence_after_the_welcome, "did not come within"),
        (many_words, f"more than {MOST_LINES} lines"),
    ],
)
async def test_ftp_servers_that_keep_us_waiting_or_talk_too_much(
    tmp_path: Path, conversation: Handler, why: str
) -> None:
    patience = 5.0 if conversation is many_words else 0.1
    async with serving(conversation) as port, asyncio.timeout(10):
        with pytest.raises(DownloadError, match=why):
            await download(f"ftp://127.0.0.1:{port}/file", tmp_path / "file", largest=1000, patience=patience)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("begin", "end", "followed"),
    [
        ("http://a/", "http://b/", True),
        ("http://a/", "https://b/", True),
        ("https://a/", "https://b/", True),
        ("https://a/", "http://b/", False),
        ("https://a/", "ftp://b/", False),
    ],
)
def test_no_redirection_leaves_https(begin: str, end: str, followed: bool) -> None:
    request = Request(begin)
    target = Redirections().redirect_request(request, BytesIO(), 302, "Found", HTTPMessage(), end)
    assert (target is not None) == followed
