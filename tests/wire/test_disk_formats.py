"""VHD and qcow2 as streams, against `qemu-img`; every parser against damage and rubbish."""

from __future__ import annotations

import random
import struct
import subprocess
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.disk_parts import DiskFormatError, DiskSizeError, Runs, decode_chunks, decode_raw
from domzero.wire.qcow2 import Qcow2, cluster_size
from domzero.wire.vhd import BLOCK, LARGEST, DynamicVhd, Parent, decode_vhd, footer, geometry
from tests.wire.disk_streams import UNTOUCHED, ShortError, decoded, encoded

ID = UUID("11111111-2222-4333-8444-555555555555")
NOW = 1_800_000_000
KIB, MIB = 1 << 10, 1 << 20
SIZES = (512, 2 * MIB, pytest.param(37 * MIB + 512, marks=pytest.mark.slow))


def sample(size: int) -> tuple[bytes, list[tuple[int, int]]]:
    """A disk, and the parts of it that hold data."""
    chance, disk = random.Random(size), bytearray(size)
    parts = sorted((offset := chance.randrange(size), min(chance.randrange(1, 3 * MIB), size - offset)) for _ in "abc")
    for offset, length in parts:
        disk[offset : offset + length] = chance.randbytes(length)
    return bytes(disk), parts


def runs(unit: int, size: int, parts: list[tuple[int, int]]) -> Runs:
    found = Runs(unit, size)
    for offset, length in parts:
        found.add(offset, length)
    return found


@cache
def vhd(size: int) -> tuple[bytes, bytes]:
    """A disk, and a dynamic VHD with it."""
    disk, parts = sample(size)
    image = DynamicVhd(size, runs(BLOCK, size, parts), ID, NOW)
    stream = encoded(image.pieces(), disk)
    assert len(stream) == image.length
    return disk, stream


BLANK = encoded(DynamicVhd(2 * MIB, Runs(BLOCK, 2 * MIB), ID, NOW).pieces(), b"")
"""A VHD without any block."""


def same(tmp_path: Path, disk: bytes, format: str, stream: bytes) -> None:
    """QEMU finds the disk in the stream."""
    (tmp_path / "disk").write_bytes(disk)
    (tmp_path / "image").write_bytes(stream)
    argv: list[str | Path] = ["qemu-img", "compare", "-f", "raw", "-F", format, tmp_path / "disk", tmp_path / "image"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("size", SIZES)
def test_qemu_reads_our_vhd(size: int, tmp_path: Path) -> None:
    disk, stream = vhd(size)
    same(tmp_path, disk, "vpc", stream)


@pytest.mark.parametrize("size", SIZES)
def test_qemu_reads_our_qcow2(size: int, tmp_path: Path) -> None:
    disk, parts = sample(size)
    image = Qcow2(size, runs(cluster_size(size), size, parts))
    stream = encoded(image.pieces(), disk)
    assert len(stream) == image.length
    same(tmp_path, disk, "qcow2", stream)
    said = subprocess.run(["qemu-img", "check", "-f", "qcow2", tmp_path / "image"], capture_output=True, text=True)
    assert "No errors were found" in said.stdout, said


@pytest.mark.slow
def test_large_ones_are_right_as_well(tmp_path: Path) -> None:
    """Sizes at which tables have more than one cluster or entry, written as sparse files."""
    for size, unit in ((3 << 40, 128 * KIB), (1 << 40, 64 * KIB), (40 << 40, 2 * MIB)):
        assert cluster_size(size) == unit
        parts = [(0, 1), (size // 3, 9 * MIB), (size - 5, 5)]
        image, path = Qcow2(size, runs(unit, size, parts)), tmp_path / f"{size}.qcow2"
        with path.open("wb") as file:
            for piece in image.pieces():
                if isinstance(piece, bytes):
                    file.write(piece)
                else:
                    file.seek(piece.length, 1)
            file.truncate(image.length)
        said = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, text=True)
        assert "No errors were found" in said.stdout, said


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("told", [True, False])
def test_we_read_qemus_vhd(subformat: str, size: int, told: bool, tmp_path: Path) -> None:
    disk, _ = sample(size)
    (tmp_path / "disk").write_bytes(disk)
    options = ["-O", "vpc", "-o", f"subformat={subformat},force_size=on"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, tmp_path / "disk", tmp_path / "image"], check=True)
    stream = (tmp_path / "image").read_bytes()
    said, content = decoded(decode_vhd(len(stream) if told else None), stream, size)
    assert content == disk
    assert said == (size if told or subformat == "dynamic" else None)


@pytest.mark.parametrize("size", SIZES)
def test_we_read_our_own(size: int) -> None:
    disk, stream = vhd(size)
    assert decoded(decode_vhd(None), stream, size) == (size, disk)


def test_a_disk_of_nothing() -> None:
    for length in (None, len(BLANK)):
        assert decoded(decode_vhd(length), BLANK, 2 * MIB) == (2 * MIB, bytes(2 * MIB))


def test_what_differs_from_a_parent() -> None:
    """The fields are where the specification has them; the file changes a disk of the parent's content, no more."""
    parent = Parent(UUID(int=7), "parent.vhd", NOW - 60)
    disk = bytes(2 * MIB) + b"\x01" * 2 * MIB + bytes(MIB)
    changed = runs(BLOCK, len(disk), [(2 * MIB, 1)])
    image = DynamicVhd(len(disk), changed, ID, NOW, parent)
    stream = encoded(image.pieces(), disk)
    assert len(stream) == image.length
    assert stream[:512] == stream[-512:] == footer(len(disk), 4, ID, NOW)
    header = stream[512:1536]
    assert header[40:56] == parent.uuid.bytes
    assert struct.unpack(">I", header[56:60]) == (NOW - 60 - 946684800,)
    assert header[64:84] == "parent.vhd".encode("utf-16-be")
    for at, code, text in ((576, b"W2ru", ".\\parent.vhd".encode("utf-16-le")), (600, b"MacX", b"file://./parent.vhd")):
        found, room, length, _, offset = struct.unpack(">4sIIIQ", header[at : at + 24])
        assert (found, room) == (code, 512)
        assert stream[offset : offset + length] == text
    size, content = decoded(decode_vhd(None, onto_parent=True), stream, len(disk))
    assert size == len(disk)
    untouched = bytes((UNTOUCHED,))
    assert content == untouched * 2 * MIB + b"\x01" * 2 * MIB + untouched * MIB
    bitmap = stream.index(b"\xff" * 512, 3072)
    sparse = stream[:bitmap] + b"\x80" + bytes(511) + stream[bitmap + 512 :]
    _, content = decoded(decode_vhd(None, onto_parent=True), sparse, len(disk))
    assert content == untouched * 2 * MIB + b"\x01" * 512 + untouched * (3 * MIB - 512)
    with pytest.raises(DiskFormatError, match="has a parent"):
        decoded(decode_vhd(None), stream, len(disk))


def test_sectors_that_are_not_marked_are_zeros() -> None:
    disk, stream = vhd(2 * MIB)
    bitmap = stream.index(b"\xff" * 512)
    holed = bytearray(stream)
    holed[bitmap : bitmap + 512] = (b"\x0f" + b"\xff" * 511)[:512]
    _, content = decoded(decode_vhd(None), bytes(holed), 2 * MIB)
    assert content == bytes(4 * 512) + disk[4 * 512 :]


@pytest.mark.parametrize(
    ("creator", "size"),
    [(b"vpc ", 1020 * 4 * 17 * 512), (b"vs  ", 1020 * 4 * 17 * 512), (b"caml", 40 * MIB), (b"vbox", 40 * MIB)],
)
def test_whose_sizes_are_believed(creator: bytes, size: int) -> None:
    """Virtual PC wrote sizes that are too large; other programs write geometries that are too small."""
    whole = 40 * MIB
    stream = bytearray(encoded(DynamicVhd(whole, Runs(BLOCK, whole), ID, NOW).pieces(), b""))
    sectors = struct.pack(">HBB", 1020, 4, 17)
    for start in (0, len(stream) - 512):
        part = stream[start : start + 512]
        part[28:32], part[56:60], part[64:68] = creator, sectors, bytes(4)
        part[64:68] = struct.pack(">I", ~sum(part) & 0xFFFFFFFF)
        stream[start : start + 512] = part
    assert decoded(decode_vhd(None), bytes(stream), whole)[0] == size


def test_geometries() -> None:
    """The examples are what QEMU makes of these sizes (the algorithm is the specification's)."""
    assert geometry(1 << 40) == (65535, 16, 255)
    assert geometry(8 << 30) == (16644, 16, 63)
    assert geometry(512) == (0, 4, 17)


def test_limits() -> None:
    with pytest.raises(DiskSizeError) as caught:
        DynamicVhd(LARGEST + 512, Runs(BLOCK, LARGEST + 512), ID, NOW)
    assert caught.value.limit == LARGEST
    with pytest.raises(DiskSizeError):
        Qcow2((64 << 40) + 512, Runs(2 * MIB, (64 << 40) + 512))
    assert DynamicVhd(LARGEST, Runs(BLOCK, LARGEST), ID, NOW).length == 3 * 512 + 1020 * 4 * KIB + 512


def test_runs_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk in crumbs costs some holes, and nothing that holds data is lost."""
    monkeypatch.setattr(Runs, "LIMIT", 2048)
    crumbs = Runs(512, 1 << 40)
    for number in range(Runs.LIMIT + 10):
        crumbs.add(number * 2048, 512)
    found = list(crumbs)
    assert len(found) < Runs.LIMIT
    assert found[0][0] == 0
    assert sum(count for _, count in found) == crumbs.units
    at = iter(found)
    first, count = next(at)
    for number in range(0, Runs.LIMIT + 10, 100):
        while number * 4 >= first + count:
            first, count = next(at)
        assert first <= number * 4 < first + count


def test_runs_end_with_the_disk() -> None:
    few = Runs(512, 1000)
    few.add(999, 1)
    few.add(0, 0)
    assert list(few) == [(1, 1)]


def broken(place: int, data: bytes, *, header: bool = False) -> bytes:
    """Our VHD with bytes changed in its first footer or its dynamic header, and the checksum made right."""
    stream = BLANK
    start, length, sum_at = (512, 1024, 36) if header else (0, 512, 64)
    part = bytearray(stream[start : start + length])
    part[place : place + len(data)] = data
    part[sum_at : sum_at + 4] = bytes(4)
    part[sum_at : sum_at + 4] = struct.pack(">I", ~sum(part) & 0xFFFFFFFF)
    return stream[:start] + bytes(part) + stream[start + length :]


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (BLANK[:64] + b"\0\0\0\0" + BLANK[68:], "damaged"),
        (broken(60, b"\0\0\0\x04"), "has a parent"),
        (broken(60, b"\0\0\0\x02"), "another kind"),
        (broken(12, b"\0\x02\0\0"), "damaged"),
        (broken(48, bytes(8)), "0 bytes"),
        (broken(48, b"\0\0\0\0\0\0\2\1"), "513 bytes"),
        (broken(16, bytes(8)), "overlap"),
        (broken(40, b"x", header=True), "parent"),
        (broken(16, bytes(8), header=True), "overlap"),
        (broken(28, b"\xff\xff\xff\xff", header=True), "wrong length"),
        (broken(28, bytes(4), header=True), "wrong length"),
        (broken(32, b"\0\0\x10\x01", header=True), "not possible"),
        (broken(32, b"\x80\0\0\0", header=True), "not possible"),
        (broken(0, b"cxsparsX", header=True), "damaged"),
        (BLANK[:-512] + bytes(512), "no VHD"),
        (BLANK[:-512] + footer(2 * MIB, 2, ID, NOW), "do not agree"),
        (b"x" * 4096, "no VHD"),
        (b"x" * 4096 + footer(512, 2, ID, NOW), "does not fit"),
        (b"x" * 512, "no VHD"),
    ],
)
def test_damaged_vhds(stream: bytes, said: str) -> None:
    with pytest.raises(DiskFormatError, match=said):
        decoded(decode_vhd(None), stream, 4 * MIB)


def test_a_table_that_sends_us_back() -> None:
    """Two blocks at one place, and one inside of the table."""
    disk, parts = bytes(b"x" * 4 * MIB), [(0, 4 * MIB)]
    stream = bytearray(encoded(DynamicVhd(4 * MIB, runs(BLOCK, 4 * MIB, parts), ID, NOW).pieces(), disk))
    for entries in (struct.pack(">II", 4, 4), struct.pack(">II", 2, 4), struct.pack(">II", 4, 5)):
        stream[1536:1544] = entries
        with pytest.raises(DiskFormatError, match="overlap"):
            decoded(decode_vhd(None), bytes(stream), 4 * MIB)


def test_blocks_may_lie_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those have that were written to for a while: blocks are where the file ended then."""
    monkeypatch.setattr("domzero.wire.vhd.SORTED", 2)
    blocks, order = [bytes([number + 1]) * BLOCK for number in range(5)], (3, 0, 4, 1, 2)
    disk = b"".join(blocks)
    stream = bytearray(encoded(DynamicVhd(len(disk), runs(BLOCK, len(disk), [(0, len(disk))]), ID, NOW).pieces(), disk))
    placed = struct.unpack_from(">5I", stream, 1536)
    struct.pack_into(">5I", stream, 1536, *(placed[number] for number in order))
    wanted = b"".join(blocks[number] for number in order)
    assert decoded(decode_vhd(len(stream)), bytes(stream), len(disk)) == (len(disk), wanted)


def test_too_large_a_vhd_says_so() -> None:
    with pytest.raises(DiskSizeError):
        decoded(decode_vhd(None), footer(LARGEST + 512, 3, ID, NOW) + bytes(4096), 0)
    with pytest.raises(DiskSizeError):
        decoded(decode_vhd(LARGEST + 1024), b"x" * 1024, 0)
    for length in (512, 1000, 0):
        with pytest.raises((DiskFormatError, ShortError)):
            decoded(decode_vhd(length), b"x" * length, 0)


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1535, 1536, 1600, 2048, 2559, 2560, 100_000])
def test_vhds_that_end_too_soon(cut: int) -> None:
    disk, stream = vhd(2 * MIB)
    with pytest.raises((ShortError, DiskFormatError)):
        decoded(decode_vhd(None), stream[:cut], len(disk))


def test_raw() -> None:
    assert decoded(decode_raw(3), b"abc", 5) == (3, b"abc" + bytes((UNTOUCHED,)) * 2)
    assert decoded(decode_raw(None), b"", 1) == (None, bytes((UNTOUCHED,)))


def chunk(offset: int, data: bytes) -> bytes:
    return struct.pack("<QI", offset, len(data)) + data


def test_chunks() -> None:
    stream = chunk(2, b"cd") + chunk(5, b"") + chunk(0, b"ab") + chunk(1, b"B") + chunk(0, b"") + b"not read"
    assert decoded(decode_chunks(), stream, 5) == (None, b"aBcd" + bytes((UNTOUCHED,)))
    long = bytes(range(256)) * 10_000
    assert decoded(decode_chunks(), chunk(0, long) + chunk(0, b""), len(long)) == (None, long)
    with pytest.raises(ShortError):
        decoded(decode_chunks(), chunk(0, b"ab"), 5)
    with pytest.raises(DiskFormatError, match="middle"):
        decoded(decode_chunks(), chunk(0, b"ab")[:-1], 5)


SMALL = vhd(512)[1][:4096]


@given(st.integers(0, len(SMALL)), st.binary(max_size=64), st.booleans())
def test_rubbish_is_refused_or_taken(place: int, rubbish: bytes, told: bool) -> None:
    """Whatever is changed, nothing is put beyond the end of the disk that the stream announced."""
    stream = SMALL[:place] + rubbish + SMALL[place + len(rubbish) :]
    try:
        size, content = decoded(decode_vhd(len(stream) if told else None), stream, 1 << 13)
    except (DiskFormatError, ShortError):
        return
    assert size is None or content[size:] == bytes((UNTOUCHED,)) * (len(content) - size)
