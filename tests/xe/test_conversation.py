"""The host's side of the protocol against clients that are slow, wrong or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from domzero.wire import cli
from domzero.wire.cli import ProtocolError
from domzero.xe import conversation
from domzero.xe.conversation import Conversation
from domzero.xe.errors import CommandError

Client: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(directory: Path, client: Client, stall: float = 10.0) -> AsyncIterator[Conversation]:
    """A conversation with a client, over a socket."""
    arrived: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result((reader, writer))

    server = await asyncio.start_unix_server(accept, directory / "socket")
    theirs = await asyncio.open_unix_connection(directory / "socket")
    reader, writer = await arrived
    made = Conversation(reader, writer, stall)
    tasks = [asyncio.ensure_future(made.receive()), asyncio.ensure_future(client(*theirs))]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (writer, theirs[1]):
            stream.close()
        server.close()


def says(*messages: bytes) -> Client:
    """A client that says something whatever it is asked, and goes."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(messages))
        await writer.drain()
        writer.write_eof()
        await reader.read()

    return client


async def test_a_file_comes_in_pieces(tmp_path: Path) -> None:
    pieces = [cli.response(cli.OK), cli.chunk(3), b"abc", cli.chunk(0), cli.chunk(2), b"de", cli.end()]
    async with talking(tmp_path, says(*pieces)) as host:
        assert await host.load("a file") == b"abcde"


async def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    async with talking(tmp_path, says(cli.response(cli.FAILED))) as host:
        with pytest.raises(CommandError, match="a file could not be read"):
            await host.load("a file")


async def test_a_file_that_is_too_large_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MOST_UPLOADED", 10)
    large = [cli.response(cli.OK), cli.chunk(100_000), bytes(100_000), cli.end()]
    async with talking(tmp_path, says(*large, cli.response(cli.OK))) as host:
        with pytest.raises(CommandError, match="too large"):
            await host.load("a file")
        assert await host.put("other", "/page")


async def test_a_client_that_is_still_at_it_is_waited_for(tmp_path: Path) -> None:
    async with talking(tmp_path, says(cli.response(cli.WAIT), cli.response(cli.WAIT), cli.response(cli.OK))) as host:
        assert await host.fetch("a file", "/page")


async def test_an_answer_to_a_question(tmp_path: Path) -> None:
    async with talking(tmp_path, says(cli.chunk(4), "ja\xff".encode("latin-1") + b"!", cli.end())) as host:
        assert await host.ask() == "ja\N{REPLACEMENT CHARACTER}!"


@pytest.mark.parametrize(
    "said", [cli.response(cli.OK), cli.command(cli.PRINT, "x"), b"\0" * 12], ids=["response", "command", "rubbish"]
)
async def test_what_is_no_answer_is_refused(tmp_path: Path, said: bytes) -> None:
    async with talking(tmp_path, says(said)) as host:
        for _ in range(2):
            with pytest.raises((ProtocolError, ConnectionError)):
                await host.ask()


async def test_what_is_no_verdict_is_refused(tmp_path: Path) -> None:
    async with talking(tmp_path, says(cli.chunk(1), b"x")) as host:
        with pytest.raises(ProtocolError, match="a response was due"):
            await host.put("a file", "/page")


async def test_a_client_that_goes_ends_every_question(tmp_path: Path) -> None:
    async with talking(tmp_path, says()) as host:
        for question in (host.ask, host.ask):
            with pytest.raises(ConnectionError):
                await question()


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    async def sleeps(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        _reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with talking(tmp_path, sleeps, stall=0.1) as host:
        with pytest.raises(ConnectionAbortedError):
            await host.show("x" * 8_000_000)


async def test_a_client_that_talks_unasked_is_kept_from_filling_memory(tmp_path: Path) -> None:
    async def talks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(cli.response(cli.OK) * 1000)
            await writer.drain()

    async with talking(tmp_path, talks) as host:
        await asyncio.sleep(0.05)
        assert host._arrived.qsize() <= conversation.READ_AHEAD
        for _ in range(conversation.READ_AHEAD - 1):
            assert await host.put("a file", "/page")
        with pytest.raises(ProtocolError, match="says more than it was asked"):
            await host.put("a file", "/page")
