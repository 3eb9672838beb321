"""Parts of a disk in any order, over each other, with zeros among them: the disk is then what a model of it is."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.host.contents.files import FileContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.toolstack.transfer.pace import GRAIN
from domzero.toolstack.transfer.raw_vdi_import import TURNS, Filler, Stream, TooLongError
from domzero.wire.disk_parts import Blank, Decoder
from tests.toolstack.transfer.peers import MemoryPeer

SIZE = 2 << 20
PIECES = st.tuples(
    st.integers(0, SIZE),
    st.sampled_from([1, 512, 4096, GRAIN - 1, GRAIN, 3 * GRAIN + 5, 1 << 19, 1 << 20]),
    st.sampled_from([None, b"\0", b"\1", b"\0\0\0\2", b"\3" * GRAIN + bytes(GRAIN)]),
)
"""Offset, length, and what is repeated there; None for a part that is said to be blank."""


@settings(max_examples=25, deadline=None)
@given(st.lists(PIECES, max_size=12))
def test_parts(pieces: list[tuple[int, int, bytes | None]]) -> None:
    model = bytearray(b"\xee" * SIZE)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "disk")
        path.write_bytes(model)

        async def fill() -> None:
            async with FileContents().writing(DiskSource(path, DiskFormat.RAW)) as writer:
                filler = Filler(writer, SIZE, is_blank=False)
                for offset, wanted, pattern in pieces:
                    length = min(wanted, SIZE - offset)
                    content = ((pattern or b"\0") * (length // len(pattern or b"\0") + 1))[:length]
                    model[offset : offset + length] = content
                    if pattern is None:
                        await filler.blank(offset, length)
                    else:
                        await filler.put(offset, content)
                await filler.settle()
                await filler.close()

        asyncio.run(fill())
        assert path.read_bytes() == model


async def test_others_have_turns_between_parts_that_cost_nothing(tmp_path: Path) -> None:
    path, turns, seen = tmp_path / "disk", 0, list[int]()
    nobody: Any = MemoryPeer()
    path.touch()
    os.truncate(path, SIZE)

    def parts() -> Decoder:
        for _ in range(20 * TURNS):
            yield Blank(0, 512)
        seen.append(turns)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with FileContents().writing(DiskSource(path, DiskFormat.RAW)) as writer:
        beside = asyncio.ensure_future(others())
        filler = Filler(writer, SIZE, is_blank=True)
        await Stream(parts(), nobody, lambda _: None).fill(filler)
        await filler.close()
        beside.cancel()
    assert seen[0] >= 19


async def test_what_is_blank_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    async with FileContents().writing(DiskSource(path, DiskFormat.RAW)) as writer:
        filler = Filler(writer, SIZE, is_blank=True)
        await filler.put(0, bytes(1 << 19))
        await filler.blank(1 << 19, 1 << 20)
        await filler.put(SIZE - 3 * GRAIN, bytes(GRAIN) + b"x" + bytes(GRAIN - 1) + bytes(GRAIN))
        await filler.settle()
        for offset, length in ((SIZE, 1), (SIZE - 1, 2), (1 << 60, 1)):
            with pytest.raises(TooLongError):
                await filler.put(offset, bytes(length))
            with pytest.raises(TooLongError):
                await filler.blank(offset, length)
        await filler.close()
    assert path.stat().st_blocks * 512 <= GRAIN
