"""Compression with the host's processors: independent programs read it, and what strangers compressed costs little."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.compression import HostCompression
from domzero.host.compression.protocol import Receive
from domzero.wire.xva import XvaError
from tests.host.children import children

KINDS = ["gzip", "zstd"]
MIB = 1 << 20
PROGRAMS = {"gzip": ["gzip", "-d", "-c"], "zstd": ["zstd", "-d", "-c", "-q"]}
TEXT = b"".join(b"%d lines of text\n" % number for number in range(60_000))


def by_program(kind: str, data: bytes, *options: str) -> bytes:
    """Compressed, or with `-d` decompressed, by the usual program."""
    return subprocess.run([kind, "-c", "-q", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def from_pieces(pieces: Iterable[bytes]) -> Receive:
    left = iter(pieces)

    async def receive() -> bytes:
        return next(left, b"")

    return receive


def cut(data: bytes, size: int) -> Receive:
    return from_pieces(data[start : start + size] for start in range(0, len(data), size))


async def compressed(kind: str, pieces: Iterable[bytes | memoryview], workers: int = 2) -> bytes:
    found = bytearray()

    async def send(data: bytes | bytearray | memoryview) -> None:
        found.extend(data)

    async with HostCompression(workers).compressing(kind, send) as write:
        for piece in pieces:
            await write(piece)
    return bytes(found)


async def decompressed(receive: Receive) -> bytes:
    async with HostCompression(2).decompressing(receive) as pieces:
        found = bytearray()
        while piece := await pieces():
            found += piece
        assert await pieces() == b""
    return bytes(found)


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("content", [b"", b"x", TEXT])
async def test_what_is_compressed_is_what_was_written(kind: str, content: bytes) -> None:
    data = await compressed(kind, [content[:1000], memoryview(content)[1000:]])
    assert await decompressed(cut(data, 70_000)) == content
    if kind != "none":
        assert by_program(kind, data, "-d") == content


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_usual_program_compressed_is_read(kind: str) -> None:
    data = by_program(kind, TEXT)
    assert await decompressed(cut(data, 1000)) == TEXT


@pytest.mark.parametrize("kind", KINDS)
async def test_several_members_are_one_stream(kind: str) -> None:
    assert await decompressed(from_pieces([by_program(kind, part) for part in (b"one ", b"", b"two")])) == b"one two"


async def test_zeros_behind_gzip_are_padding() -> None:
    assert await decompressed(from_pieces([gzip.compress(b"tape"), bytes(2000)])) == b"tape"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [5, 0.5, -1])
async def test_an_end_too_early_is_said(kind: str, left: float) -> None:
    data = by_program(kind, TEXT)
    length = int(len(data) * left) if left == 0.5 else int(left)
    with pytest.raises(XvaError) as caught:
        await decompressed(cut(data[:length], 100_000))
    assert caught.value.code == "IMPORT_ERROR_PREMATURE_EOF"


@pytest.mark.parametrize("kind", KINDS)
async def test_damage_is_said(kind: str) -> None:
    data = bytearray(by_program(kind, os.urandom(300_000)))
    data[150_000:150_010] = bytes(10)
    with pytest.raises(XvaError) as caught:
        await decompressed(cut(bytes(data), 100_000))
    assert caught.value.code == "IMPORT_ERROR"


@pytest.mark.parametrize("kind", KINDS)
async def test_something_else_behind_is_damage(kind: str) -> None:
    with pytest.raises(XvaError) as caught:
        await decompressed(from_pieces([by_program(kind, b"right"), b"and more of another kind"]))
    assert caught.value.code == "IMPORT_ERROR"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bomb_comes_in_pieces_and_can_be_left(kind: str) -> None:
    bomb = by_program(kind, bytes(24 * MIB))
    before = children()
    async with HostCompression(2).decompressing(from_pieces([bomb])) as pieces:
        for _ in range(10):
            assert 0 < len(await pieces()) <= 2 * MIB
    assert children().keys() <= before.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_window_or_header_cannot_ask_for_much(kind: str) -> None:
    """`--long=31` makes a decoder keep 2 GiB; gzip has no such thing, and what looks like it is rubbish."""
    data = by_program("zstd", bytes(MIB), "--long=31") if kind == "zstd" else b"\x1f\x8b\x08\xff" + b"\xff" * 5000
    with pytest.raises(XvaError):
        await decompressed(from_pieces([data[:4], data[4:]]))


@pytest.mark.parametrize("kind", ["none", *KINDS])
async def test_who_cannot_be_sent_to_is_noticed(kind: str) -> None:
    before = children()

    async def send(data: bytes | bytearray | memoryview) -> None:
        raise ConnectionError("gone")

    async def whole() -> None:
        async with HostCompression(2).compressing(kind, send) as write:
            for _ in range(50):
                await write(os.urandom(MIB))

    with pytest.raises(ConnectionError, match="gone"):
        await whole()
    assert children().keys() <= before.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_stops_sending_is_noticed(kind: str) -> None:
    before = children()
    data = by_program(kind, os.urandom(300_000))
    pieces = iter([data[:100_000], data[100_000:200_000]])

    async def receive() -> bytes:
        if (piece := next(pieces, None)) is None:
            raise ConnectionError("gone")
        return piece

    with pytest.raises(ConnectionError, match="gone"):
        await decompressed(receive)
    assert children().keys() <= before.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_left_of_what_is_cancelled(kind: str) -> None:
    before = children()
    stuck = asyncio.Event()

    async def send(data: bytes | bytearray | memoryview) -> None:
        stuck.set()
        await asyncio.Event().wait()

    async def export() -> None:
        async with HostCompression(2).compressing(kind, send) as write:
            while True:
                await write(os.urandom(MIB))

    async def receive() -> bytes:
        stuck.set()
        return await asyncio.Future[bytes]()

    for work in (export(), decompressed(receive)):
        stuck.clear()
        task = asyncio.create_task(work)
        await stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert children().keys() <= before.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_import_can_be_cancelled_while_it_waits_for_more(kind: str) -> None:
    before = children()
    data = by_program(kind, TEXT)
    waiting = asyncio.Event()
    pieces = iter([data[: len(data) // 2]])

    async def receive() -> bytes:
        if (piece := next(pieces, None)) is None:
            waiting.set()
            return await asyncio.Future[bytes]()
        return piece

    task = asyncio.create_task(decompressed(receive))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children().keys() <= before.keys()


@given(st.binary(max_size=200))
def test_rubbish_that_looks_like_gzip_raises_the_own_error(rest: bytes) -> None:
    with pytest.raises(XvaError):
        asyncio.run(decompressed(from_pieces([b"\x1f\x8b\x08" + rest])))


@pytest.mark.slow
@given(st.binary(max_size=200))
def test_rubbish_that_looks_like_zstd_raises_the_own_error(rest: bytes) -> None:
    with pytest.raises(XvaError):
        asyncio.run(decompressed(from_pieces([b"\x28\xb5\x2f\xfd" + rest])))


async def test_a_block_that_raises_sends_nothing_more() -> None:
    sent: list[bytes] = []

    async def send(data: bytes | bytearray | memoryview) -> None:
        sent.append(bytes(data))

    async def failing() -> None:
        async with HostCompression(2).compressing("gzip", send) as write:
            await write(b"half an archive")
            raise ValueError("the disk cannot be read")

    with pytest.raises(ValueError, match="cannot be read"):
        await failing()
    assert not sent


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="lzma"):
        HostCompression().compressing("lzma", lambda _: asyncio.sleep(0))
