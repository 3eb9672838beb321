"""What we write: `tar` and `sha1sum` take it apart, XML-RPC of the standard library reads it, and so do we."""

from __future__ import annotations

import random
import re
import subprocess
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domzero.datamodel.graph import GRAPH
from domzero.idl.records import default_value
from domzero.wire.xml_encode import XmlEncoder
from domzero.wire.xva import (
    BLOCK,
    SHA1,
    XXH64,
    ArchivedObject,
    ArchiveVersion,
    ArchiveWriter,
    BlockPlan,
    Manifest,
    Span,
    checksum,
    decode_manifest,
    encode_manifest,
    is_zero,
)
from tests.wire.xva.reading import read
from tests.xva_writer import xxh64

VERSION = ArchiveVersion("a<b", "20260101T00:00:00Z", "1.0", "domzero", "1", 1, 20, 2)
MANIFEST = Manifest(VERSION, ())


def stretches(content: bytes) -> Iterable[tuple[int, int]]:
    """Offset and length of what is not zero, as a disk tells them."""
    return (match.span() for match in re.finditer(rb"[^\0]+", content))


def written(disks: dict[str, bytes], algorithm: str = SHA1, manifest: bytes | None = None) -> bytes:
    """An archive of disks, made as an export makes it."""
    writer = ArchiveWriter()
    found = list(writer.manifest(manifest or encode_manifest(MANIFEST, XmlEncoder(GRAPH))))
    for id, content in disks.items():
        for span in spans(content):
            data = memoryview(content)[span.offset : span.offset + span.length]
            if span.required or not is_zero(data):
                found += writer.block(id, span.number, data, checksum(algorithm, data))
    return b"".join([*found, writer.end()])


def spans(content: bytes) -> list[Span]:
    plan = BlockPlan(len(content))
    found = [span for start, end in stretches(content) for span in plan.data(start, end - start)]
    return found + list(plan.finish())


def disk(*blocks: int, end: bytes = b"") -> bytes:
    """A disk of blocks that are filled with the numbers, and a shorter one."""
    return b"".join(bytes([number]) * BLOCK for number in blocks) + end


@pytest.mark.parametrize("algorithm", [SHA1, XXH64])
@pytest.mark.parametrize(
    "content",
    [b"", b"x", disk(1), disk(0), disk(0, 0, 0), disk(1, 0, 0, 2, 0), disk(0, 0, 3, 0, end=b"end"), disk(0, end=b"\0")],
)
def test_what_is_written_is_read(content: bytes, algorithm: str) -> None:
    found = read(written({"Ref:7": content, "Ref:8": b"another"}, algorithm), 100_000)
    assert found.disks["Ref:7"] == content
    assert found.sizes["Ref:7"] == len(content)
    assert all(block.checksum is not None and block.checksum.algorithm == algorithm for block in found.blocks)


def test_zeros_are_left_out_but_for_the_first_and_last_block() -> None:
    found = read(written({"Ref:7": disk(0, 0, 0, 5, 0, 0, end=bytes(100))}))
    assert [block.number for block in found.blocks] == [0, 3, 6]


def test_tar_and_sha1sum_read_it(tmp_path: Path) -> None:
    content = disk(1, 0, 2, end=b"odd end")
    (tmp_path / "a.xva").write_bytes(written({"Ref:7": content}))
    subprocess.run(["tar", "-xf", "a.xva"], cwd=tmp_path, check=True)
    blocks = ["Ref:7/00000000", "Ref:7/00000002", "Ref:7/00000003"]
    assert sorted(path.name for path in (tmp_path / "Ref:7").iterdir()) == sorted(
        name + suffix for name in ("00000000", "00000002", "00000003") for suffix in ("", ".checksum")
    )
    expected = "".join(f"{(tmp_path / (name + '.checksum')).read_text()}  {name}\n" for name in blocks)
    subprocess.run(["sha1sum", "--check", "--quiet"], input=expected.encode(), cwd=tmp_path, check=True)
    assert (tmp_path / blocks[2]).read_bytes() == b"odd end"


def test_tar_finds_nothing_to_complain_of() -> None:
    data = written({"Ref:7": disk(1, 2)})
    listed = subprocess.run(["tar", "-tvf", "-"], input=data, capture_output=True, check=True)
    assert not listed.stderr
    assert listed.stdout.decode().splitlines()[0].startswith("-r-------- root/root ")


def test_xxhash_files_are_in_capitals() -> None:
    data = written({"Ref:7": b"abc"}, XXH64)
    assert b"Ref:7/00000000.xxhash" in data
    assert f"{xxh64(b'abc'):016X}".encode() in data


@given(st.binary(max_size=200))
@example(random.Random(1).randbytes(100_000))
def test_xxh64_is_what_its_description_says(data: bytes) -> None:
    assert checksum(XXH64, data).text == f"{xxh64(data):016x}"
    assert checksum(XXH64, memoryview(data)) == checksum(XXH64, bytearray(data))


def test_blocks_out_of_order_are_a_mistake_of_the_caller() -> None:
    data, sum_ = b"x", checksum(SHA1, b"x")
    writer = ArchiveWriter()
    with pytest.raises(ValueError, match="before the manifest"):
        writer.block("Ref:1", 0, data, sum_)
    writer.manifest(b"<value/>")
    with pytest.raises(ValueError, match="one manifest"):
        writer.manifest(b"<value/>")
    with pytest.raises(ValueError, match="out of order"):
        writer.block("Ref:1", 1, data, sum_)
    writer.block("Ref:1", 0, data, sum_)
    with pytest.raises(ValueError, match="out of order"):
        writer.block("Ref:1", 0, data, sum_)
    with pytest.raises(ValueError, match="too large"):
        writer.block("Ref:1", 1, bytes(BLOCK + 1), sum_)
    writer.block("Ref:1", 2, data, sum_)
    with pytest.raises(ValueError, match="out of order"):
        writer.block("Ref:1", 1, data, sum_)


@given(st.integers(0, 9 * BLOCK), st.lists(st.tuples(st.integers(0, 9 * BLOCK), st.integers(0, 3 * BLOCK))))
def test_a_plan_has_each_block_with_data_once_and_the_outer_ones(size: int, parts: list[tuple[int, int]]) -> None:
    plan, wanted, reached = BlockPlan(size), {0, max(0, (size - 1) // BLOCK)}, 0
    found: list[Span] = []
    for offset, length in sorted(parts):
        start, end = max(reached, offset), min(size, offset + length)
        if start < end:
            found += plan.data(start, end - start)
            wanted |= set(range(start // BLOCK, (end - 1) // BLOCK + 1))
            reached = end
    found += plan.finish()
    assert [span.number for span in found] == sorted(wanted)
    for span in found:
        assert (span.offset, span.length) == (span.number * BLOCK, min(BLOCK, size - span.offset))
        assert span.required == (span.number in (0, max(wanted)))


def test_a_hole_costs_nothing() -> None:
    plan = BlockPlan(1 << 50)
    found = [*plan.data(1 << 49, 10), *plan.finish()]
    assert [span.number for span in found] == [0, 1 << 29, (1 << 30) - 1]


@given(st.binary(max_size=100), st.integers(0, 3000))
def test_zero_means_all_zeros(data: bytes, zeros: int) -> None:
    content = bytes(zeros) + data
    assert is_zero(content) == is_zero(memoryview(content)) == (not any(content))


def test_one_bit_in_a_block_is_seen() -> None:
    block = bytearray(BLOCK)
    assert is_zero(block)
    block[BLOCK // 3] = 1
    assert not is_zero(block)


def test_a_manifest_is_read_by_others_and_by_us() -> None:
    record = {field.name: default_value(field) for field in GRAPH.classes["VM"].fields}
    changes = {"name_label": "<&>\r\n€", "VBDs": ("Ref:1",), "memory_static_max": 1 << 40, "is_a_template": True}
    source = Manifest(VERSION, (ArchivedObject("VM", "Ref:0", {**record, **changes}),))
    xml = encode_manifest(source, XmlEncoder(GRAPH))
    others: Any
    (others,), _ = xmlrpc.client.loads(b"<params><param>" + xml + b"</param></params>")
    assert others["version"] == {
        "hostname": "a<b", "date": "20260101T00:00:00Z", "product_version": "1.0", "product_brand": "domzero",
        "build_number": "1", "xapi_major": 1, "xapi_minor": 20, "export_vsn": 2,
    }  # fmt: skip
    ours = decode_manifest(xml)
    assert isinstance(ours, Manifest)
    assert ours.version == VERSION
    (found,) = ours.objects
    assert (found.cls, found.id) == ("VM", "Ref:0")
    expected = {"name_label": "<&>\r\n€", "VBDs": ["Ref:1"], "memory_static_max": str(1 << 40), "is_a_template": True}
    assert {name: found.snapshot[name] for name in expected} == expected
    assert set(found.snapshot) == set(record)
