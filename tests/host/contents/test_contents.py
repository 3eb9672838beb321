"""Bytes of disks of every kind, by QEMU's own tools and without, held against what `qemu-img` says."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from pathlib import Path

import pytest

from domzero.host.contents.protocol import ContentError, ContentReader, Stretch
from domzero.host.contents.qemu import QemuContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent
from tests.host.contents.conftest import (
    DATA,
    KIB,
    KINDS,
    MIB,
    SIZE,
    children,
    content,
    contents,
    make,
    open_files,
    tool,
)


async def stretches(reader: ContentReader) -> list[Stretch]:
    return [found async for found in reader.stretches()]


@pytest.mark.parametrize("kind", KINDS)
async def test_reading(kind: str, tmp_path: Path, runtime: Path) -> None:
    source = make(kind, tmp_path)
    before = open_files()
    async with contents(kind, runtime).reading(source) as disk:
        assert disk.size == SIZE
        assert await disk.read(2 * MIB, len(DATA)) == DATA
        assert await disk.read(2 * MIB + 1, 7) == DATA[1:8]
        assert await disk.read(SIZE - 3, 3) == bytes(3)
        assert await disk.read(5, 0) == b""
        together = await asyncio.gather(*(disk.read(2 * MIB + n * 100_003, 50_000) for n in range(30)))
        assert together == [DATA[n * 100_003 : n * 100_003 + 50_000] for n in range(30)]
        found = await stretches(disk)
        ends = [0, *(stretch.offset + stretch.length for stretch in found)]
        assert [stretch.offset for stretch in found] == ends[:-1]
        assert ends[-1] == SIZE
        assert all(one.data != next.data for one, next in pairwise(found))
        assert not found[-1].data
        assert 5 * MIB <= found[-1].offset <= 6 * MIB  # blocks of a VHD have 2 MiB
        for hole in (stretch for stretch in found if not stretch.data):
            assert await disk.read(hole.offset, hole.length) == bytes(hole.length)
        for offset, length in ((SIZE - 2, 3), (-1, 2), (SIZE + 1, 0), (0, -1)):
            with pytest.raises(ContentError, match="not within"):
                await disk.read(offset, length)
        assert await disk.read(2 * MIB, 1) == DATA[:1]
    assert not children()
    assert open_files() == before
    assert not os.listdir(runtime)


@pytest.mark.parametrize("kind", KINDS)
async def test_writing(kind: str, tmp_path: Path, runtime: Path) -> None:
    source = make(kind, tmp_path)
    wanted = bytearray(content(source, tmp_path))
    async with contents(kind, runtime).writing(source) as disk:
        assert disk.size == SIZE
        await asyncio.gather(*(disk.write(n * 700_001, DATA[n : n + 600_000]) for n in range(20)))
        for n in range(20):
            wanted[n * 700_001 : n * 700_001 + 600_000] = DATA[n : n + 600_000]
        await disk.zero(3 * MIB + 5, 4 * MIB)
        wanted[3 * MIB + 5 : 7 * MIB + 5] = bytes(4 * MIB)
        await disk.write(SIZE - 4, memoryview(b"last"))
        wanted[-4:] = b"last"
        await disk.write(0, bytearray(b"first"))
        wanted[:5] = b"first"
        await disk.zero(9, 0)
        with pytest.raises(ContentError, match="not within"):
            await disk.write(SIZE - 1, b"xx")
        with pytest.raises(ContentError, match="not within"):
            await disk.zero(SIZE, 1)
        await disk.flush()
    assert content(source, tmp_path) == wanted
    assert not children()
    if kind == "chain":
        assert content(DiskSource(tmp_path / "disk.qcow2", DiskFormat.QCOW2), tmp_path)[2 * MIB : 5 * MIB] == DATA
    if kind == "extent":
        with source.path.open("rb") as file:
            assert file.read(MIB) == bytes(MIB)
            file.seek(SIZE + MIB)
            assert file.read() == bytes(MIB)


async def test_what_is_written_and_not_flushed_is_there_when_all_goes_well(tmp_path: Path, runtime: Path) -> None:
    """The tool is asked to end, so that it writes its tables down."""
    source = make("qcow2", tmp_path)
    async with contents("qcow2", runtime).writing(source) as disk:
        await disk.write(20 * MIB, DATA)
    assert content(source, tmp_path)[20 * MIB : 23 * MIB] == DATA
    tool("qemu-img", "check", "-q", "-f", "qcow2", source.path)


@pytest.mark.parametrize("kind", ["file", "raw", "qcow2"])
async def test_zeros_take_no_room(kind: str, tmp_path: Path, runtime: Path) -> None:
    source = make(kind, tmp_path)
    before = source.path.stat().st_blocks * 512
    async with contents(kind, runtime).writing(source) as disk:
        await disk.zero(0, SIZE)
        await disk.flush()
    assert source.path.stat().st_blocks * 512 < before - 2 * MIB
    async with contents(kind, runtime).reading(source) as reader:
        assert await stretches(reader) == [Stretch(0, SIZE, data=False)]


async def test_a_terabyte_of_nothing_is_quickly_told(tmp_path: Path, runtime: Path) -> None:
    path = tmp_path / "large.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, "3T")
    async with QemuContents(runtime).reading(DiskSource(path, DiskFormat.QCOW2)) as disk:
        assert await stretches(disk) == [Stretch(0, 3 << 40, data=False)]


@pytest.mark.slow
async def test_large_requests_are_cut(tmp_path: Path, runtime: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(12 * len(DATA)))
    async with QemuContents(runtime).writing(DiskSource(path, DiskFormat.RAW)) as disk:
        await disk.write(7, memoryview(DATA * 11)[:-7])
    async with QemuContents(runtime).reading(DiskSource(path, DiskFormat.RAW)) as reader:
        assert await reader.read(7, 11 * len(DATA) - 7) == (DATA * 11)[:-7]


async def test_who_writes_is_alone(tmp_path: Path, runtime: Path) -> None:
    """QEMU's own lock of the file, which a machine that runs has as well."""
    source = make("qcow2", tmp_path)
    both = QemuContents(runtime)
    async with both.writing(source):
        with pytest.raises(ContentError, match="lock"):
            async with both.writing(source):
                pytest.fail("two may write")
    async with both.reading(source) as one, both.reading(source) as two:
        assert await one.read(2 * MIB, KIB) == await two.read(2 * MIB, KIB) == DATA[:KIB]


@pytest.mark.parametrize(
    ("name", "format", "said"),
    [
        ("nothing", DiskFormat.RAW, "No such file"),
        ("directory", DiskFormat.RAW, "neither a file nor a block device"),
        ("rubbish", DiskFormat.QCOW2, "not in qcow2 format"),
        ("rubbish", DiskFormat.VPC, "invalid|vpc"),
        ("stranger", DiskFormat.QCOW2, "not a file of the same repository"),
    ],
)
async def test_what_cannot_be_opened(name: str, format: DiskFormat, said: str, tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "rubbish").write_bytes(DATA)
    tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", tmp_path / "stranger", "1M")
    before = open_files()
    for how in (QemuContents(runtime).reading, QemuContents(runtime).writing):
        with pytest.raises(ContentError, match=said):
            async with how(DiskSource(tmp_path / name, format)):
                pytest.fail("it was opened")
    assert not children()
    assert open_files() == before


async def test_an_extent_that_cannot_be(tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(MIB))
    for offset, length in ((5, 512), (0, 0), (0, 2 * MIB)):
        with pytest.raises(ContentError):
            async with QemuContents(runtime).reading(
                DiskSource(Extent(tmp_path / "file", offset, length), DiskFormat.RAW)
            ):
                pytest.fail("it was opened")


async def test_a_format_is_never_guessed(tmp_path: Path, runtime: Path) -> None:
    """A guest may write an image's header onto its raw disk: it is bytes and no more."""
    inner = make("chain", tmp_path)
    outer = tmp_path / "guest.raw"
    outer.write_bytes(inner.path.read_bytes())
    os.truncate(outer, MIB)
    async with QemuContents(runtime).reading(DiskSource(outer, DiskFormat.RAW)) as disk:
        assert (await disk.read(0, 4)) == b"QFI\xfb"
        assert disk.size == MIB
