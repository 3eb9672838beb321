"""Headers that claim what is not so: nothing of QEMU's gets such a file, and no number in it is believed unseen."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.files import vhd
from domzero.host.storage.files.plain import opened
from domzero.host.storage.files.qcow2 import BadImageError, read_header
from tests.host.storage.disks import MIB, Shelf, raw, refused, tool, uuid
from tests.sampling import each

CREATOR, SIZE, GEOMETRY, KIND, SUM = 28, 48, 56, 60, 64
TABLE, ENTRIES, BLOCK, HEADER_SUM, PARENT = 16, 28, 32, 36, 40


def sealed(data: bytearray, start: int, length: int, place: int) -> None:
    """Put the right checksum into a footer or header."""
    data[start + place : start + place + 4] = bytes(4)
    struct.pack_into(">I", data, start + place, ~sum(data[start : start + length]) & 0xFFFFFFFF)


def footers(data: bytearray, place: int, value: bytes) -> None:
    """Change both copies of the footer."""
    for start in (0, len(data) - 512):
        data[start + place : start + place + len(value)] = value
        sealed(data, start, 512, SUM)


def header(data: bytearray, place: int, value: bytes) -> None:
    data[512 + place : 512 + place + len(value)] = value
    sealed(data, 512, 1024, HEADER_SUM)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("vhd") / "good.vhd"
    tool("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", path, "10M")
    return path.read_bytes()


LIES: dict[str, Callable[[bytearray], None]] = {
    "a parent": lambda data: footers(data, KIND, struct.pack(">I", 4)),
    "a parent's uuid": lambda data: header(data, PARENT, b"\1" * 16),
    "an unknown kind": lambda data: footers(data, KIND, struct.pack(">I", 9)),
    "no size": lambda data: footers(data, SIZE, bytes(8)),
    "a vast size": lambda data: footers(data, SIZE, struct.pack(">Q", 1 << 62)),
    "more than the table has": lambda data: footers(data, SIZE, struct.pack(">Q", 100 * MIB)),
    "a header elsewhere": lambda data: footers(data, 16, struct.pack(">Q", 1 << 60)),
    "a vast table": lambda data: header(data, ENTRIES, struct.pack(">I", 0x7FFFFFFF)),
    "a table elsewhere": lambda data: header(data, TABLE, struct.pack(">Q", 1 << 50)),
    "vast blocks": lambda data: header(data, BLOCK, struct.pack(">I", 1 << 31)),
    "odd blocks": lambda data: header(data, BLOCK, struct.pack(">I", 3 * MIB)),
    "a wrong sum": lambda data: data.__setitem__(100, 1),
    "a wrong sum of the header": lambda data: data.__setitem__(512 + 900, 1),
    "another kind at its end": lambda data: data.__setitem__(slice(-512, None), fixed_footer(data)),
}


def fixed_footer(data: bytearray) -> bytes:
    footer = bytearray(data[-512:])
    footer[KIND : KIND + 4] = struct.pack(">I", 2)
    sealed(footer, 0, 512, SUM)
    return bytes(footer)


@pytest.mark.parametrize("lie", each(3, LIES))
async def test_a_vhd_that_lies_is_refused(
    shelf: Shelf, tmp_path: Path, good: bytes, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    data = bytearray(good)
    LIES[lie](data)
    for path in (shelf.directory / f"{uuid(1)}.vhd", tmp_path / "upload"):
        path.write_bytes(data)
    assert await shelf.driver.scan(shelf.repository) == []
    assert f"{uuid(1)}.vhd is left out" in caplog.text
    await refused(65, shelf.driver.source(shelf.repository, uuid(1)))
    await refused(65, shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2)))
    await refused(43, shelf.driver.create_disk(shelf.repository, uuid(1), MIB))
    upload = DiskSource(tmp_path / "upload", DiskFormat.VPC)
    said = await refused(65, shelf.driver.copy_disk(upload, shelf.repository, uuid(2), 10 * MIB, lambda _: None))
    assert "parent" in said or "parent" not in lie
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.files() == []


async def test_a_fixed_vhd_shorter_than_its_disk_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    content = raw(tmp_path / "content", 4 * MIB).path
    path = shelf.directory / f"{uuid(1)}.vhd"
    tool("qemu-img", "convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on", "-f", "raw", content, path)
    whole = path.read_bytes()
    path.write_bytes(whole[MIB:])
    await refused(65, shelf.driver.source(shelf.repository, uuid(1)))


@pytest.mark.parametrize("creator", [b"qem2", b"tap\0", b"win ", b"d2v ", b"vpc ", b"qemu", b"vbox", b"\0\0\0\0"])
def test_sizes_are_those_that_qemu_finds(tmp_path: Path, good: bytes, creator: bytes) -> None:
    path = tmp_path / "x.vhd"
    for geometry in ((100, 4, 17), (65535, 16, 255)):
        data = bytearray(good)
        footers(data, CREATOR, creator)
        footers(data, GEOMETRY, struct.pack(">HBB", *geometry))
        path.write_bytes(data)
        with opened(path.parent, path.name) as (descriptor, _):
            size = vhd.read_virtual_size(descriptor)
        assert size == json.loads(tool("qemu-img", "info", "--output=json", "-f", "vpc", path))["virtual-size"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), max_size=4), st.integers(0, 4096), st.booleans())
def test_damaged_vhd_headers_are_refused_or_right(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int, seal: bool
) -> None:
    data = bytearray(good)
    for place, value in changes:
        data[place] = value
    if seal:
        sealed(data, 0, 512, SUM)
        sealed(data, 512, 1024, HEADER_SUM)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: len(data) - cut])
    try:
        with opened(path.parent, path.name) as (descriptor, _):
            assert 0 < vhd.read_virtual_size(descriptor) <= 2040 << 30
    except BadImageError:
        return  # refused, as it should be


# qcow2

NUMBERS = {
    "a vast size": (24, ">Q", 1 << 62),
    "tiny clusters": (20, ">I", 3),
    "vast clusters": (20, ">I", 60),
    "a vast level-1 table": (36, ">I", 0x7FFFFFFF),
    "a level-1 table elsewhere": (40, ">Q", 1 << 60),
    "vast reference counts": (56, ">I", 0x7FFFFFFF),
    "reference counts elsewhere": (48, ">Q", 1 << 61),
    "a flood of snapshots": (60, ">I", 0xFFFFFFFF),
    "encryption": (32, ">I", 2),
    "an unknown version": (4, ">I", 9),
    "an external data file": (72, ">Q", 4),
    "damage": (72, ">Q", 2),
    "unknown features": (72, ">Q", 1 << 40),
    "a vast header": (100, ">I", 0xFFFFFFF8),
    "a tiny header": (100, ">I", 8),
    "a vast backing name": (8, ">QI", (4096, 1 << 30)),
}


@pytest.mark.parametrize("lie", each(3, NUMBERS))
async def test_a_qcow2_that_lies_is_refused(shelf: Shelf, tmp_path: Path, lie: str) -> None:
    place, layout, value = NUMBERS[lie]
    path = shelf.directory / f"{uuid(1)}.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, place, *(value if isinstance(value, tuple) else (value,)))
    for file in (path, tmp_path / "upload"):
        file.write_bytes(data)
    assert await shelf.driver.scan(shelf.repository) == []
    await refused(65, shelf.driver.source(shelf.repository, uuid(1)))
    upload = DiskSource(tmp_path / "upload", DiskFormat.QCOW2)
    await refused(65, shelf.driver.copy_disk(upload, shelf.repository, uuid(2), 4 * MIB, lambda _: None))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_qcow2_headers_are_refused_or_bounded(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.qcow2"
    if not path.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4M"], check=True, timeout=30)
    whole = path.read_bytes()
    data = bytearray(whole)
    for place, value in changes:
        data[place] = value
    damaged = path.with_suffix(".damaged")
    damaged.write_bytes(data)
    try:
        with opened(damaged.parent, damaged.name) as (descriptor, _):
            found = read_header(descriptor)
            assert found.virtual_size <= 64 << 40
            assert found.l1_offset + found.l1_entries * 8 <= len(data)
            assert found.backing is None or len(found.backing) < 1024
    except BadImageError:
        return  # refused, as it should be


async def test_a_small_file_that_expands_without_end_stops_at_the_disks_size(shelf: Shelf, tmp_path: Path) -> None:
    """A source may claim 64 TiB: it does not fit into the disk that was asked for."""
    path = tmp_path / "upload"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "60T")
    upload = DiskSource(path, DiskFormat.QCOW2)
    await refused(79, shelf.driver.copy_disk(upload, shelf.repository, uuid(2), 4 * MIB, lambda _: None))
    assert shelf.files() == []


@pytest.mark.parametrize("name", [f"{uuid(1)}.raw", f"{uuid(1)}.vhd"])
async def test_plain_names_that_are_links_or_pipes_are_refused(shelf: Shelf, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    (shelf.directory / name).symlink_to(tmp_path / "secret")
    os.mkfifo(shelf.directory / name.replace(uuid(1), uuid(2)))
    assert await shelf.driver.scan(shelf.repository) == []
    for number in (1, 2):
        with pytest.raises(Exception, match=r"not used|symbolic"):
            await shelf.source(number)
