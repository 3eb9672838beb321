"""Archives that others wrote: what is in them is found, and what is wrong with them gets its own error."""

from __future__ import annotations

import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.xva import Appliance, ArchiveReader, DiskEnd, LegacyData, Manifest, XvaError
from tests.sampling import each
from tests.wire.xva.reading import Found, read, refusal
from tests.xva_broken import BROKEN
from tests.xva_writer import BLOCK, Form, Machine, legacy, machine, parts, tar, xva

CONTENT = b"\x01" * BLOCK + bytes(3 * BLOCK) + b"\x02" * BLOCK + bytes(BLOCK) + b"\x03" * 700
SMALL = machine(disks={"0": b"content"})
KINDS: tuple[Literal["sha1", "xxhash"], ...] = ("sha1", "xxhash")
FORMS = [Form(vsn, kind, keep_alive=keep_alive) for vsn in range(3) for kind in KINDS for keep_alive in (False, True)]


@pytest.mark.parametrize("form", each(4, FORMS), ids=str)
def test_disks_are_read_bit_for_bit(form: Form) -> None:
    source = machine(disks={"0": CONTENT, "1": b"small"})
    found = read(xva(source, form))
    assert found.disks == source.disks
    assert found.sizes == {id: len(content) for id, content in source.disks.items()}
    assert isinstance(found.manifest, Manifest)
    assert found.manifest.version.export_vsn == form.export_vsn
    assert [(item.cls, item.id) for item in found.manifest.objects] == [(cls, id) for cls, id, _ in source.objects]
    assert [dict(item.snapshot) for item in found.manifest.objects] == [snapshot for _, _, snapshot in source.objects]


def test_empty_members_move_no_later_block() -> None:
    with_them = read(xva(machine(disks={"0": CONTENT}), keep_alive=True))
    assert [(block.number, block.offset // BLOCK, len(block.data)) for block in with_them.blocks] == [
        (0, 0, BLOCK), (1, 1, 0), (3, 2, 0), (5, 3, 0), (7, 4, BLOCK), (8, 5, 0), (10, 6, 700),
    ]  # fmt: skip


@given(st.integers(1, 3000))
def test_the_size_of_pieces_does_not_matter(size: int) -> None:
    data = xva(SMALL)
    assert read(data, size).disks == SMALL.disks


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_flavour_of_tar_is_read(form: int) -> None:
    assert read(xva(SMALL, tar_format=form)).disks == SMALL.disks


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_an_archive_packed_again_by_tar_is_read(tmp_path: Path, form: str) -> None:
    source = tmp_path / "in.xva"
    source.write_bytes(xva(SMALL))
    subprocess.run(["tar", "-xf", source, "-C", tmp_path], check=True)
    (disk,) = SMALL.disks
    command = ["tar", f"--format={form}", "--sort=name", "-cf", "out.xva", "./ova.xml", f"./{disk}"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert read((tmp_path / "out.xva").read_bytes()).disks == SMALL.disks


def test_gzip_is_read() -> None:
    source = machine(disks={"0": CONTENT})
    assert read(xva(source, compress="gzip"), 1000).disks == source.disks


def test_a_machine_without_disks_is_read() -> None:
    assert read(xva(machine(disks={}))).disks == {}


def test_an_empty_disk_is_read() -> None:
    assert list(read(xva(machine(disks={"0": b""}))).sizes.values()) == [0]


def test_legacy_archives_are_read() -> None:
    found = read(legacy("old & <new>".replace("&", "&amp;").replace("<", "&lt;"), {"xvda": CONTENT, "xvdb": b"x"}))
    assert found.disks == {"xvda": CONTENT, "xvdb": b"x"}
    assert isinstance(found.manifest, Appliance)
    (vm,) = found.manifest.vms
    assert (vm.label, vm.memory, vm.vcpus, vm.is_hvm) == ("old & <new>", 256 << 20, 1, False)
    assert vm.kernel_boot_cmdline == "root=/dev/xvda ro"
    assert vm.settings == {"distrib": "debian"}
    assert [(vbd.device, vbd.function, vbd.writable) for vbd in vm.vbds] == [
        ("xvda", "root", True), ("xvdb", "other", True),
    ]  # fmt: skip
    assert [(vdi.directory, vdi.size) for vdi in found.manifest.vdis] == [("xvda", len(CONTENT)), ("xvdb", 1)]


def test_chunks_of_a_legacy_disk_follow_one_another() -> None:
    data = legacy("old", {"xvda": CONTENT}, chunk=1_000_000)
    assert read(data, 4096).disks == {"xvda": CONTENT}


def test_what_a_table_does_not_vouch_for_is_not_believed() -> None:
    found = parts(SMALL, Form(export_vsn=0))
    found[-1] = parts(machine(disks={}), Form(export_vsn=0))[-1]
    with pytest.raises(XvaError, match="SOME_CHECKSUMS_FAILED"):
        read(tar(found))


def test_the_other_rows_of_two_tables_do_not_add_up() -> None:
    found = parts(Machine(SMALL.objects, {"Ref:6": b"a" * BLOCK + b"b"}), Form(export_vsn=0))
    found[1], found[2] = (found[1][0], found[2][1]), (found[2][0], found[1][1])
    with pytest.raises(XvaError, match="SOME_CHECKSUMS_FAILED"):
        read(tar(found))


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_what_is_wrong_gets_its_own_error(what: str) -> None:
    broken = BROKEN[what]()
    assert refusal(broken.data, 1 << 16) in (broken.code, None if broken.readable else broken.code)


def test_the_error_names_what_was_expected_and_what_was_found() -> None:
    with pytest.raises(XvaError) as caught:
        read(BROKEN["another first member"]().data)
    assert caught.value.parameters == ("ova.xml", "Ref:6/00000000")
    with pytest.raises(XvaError) as caught:
        read(BROKEN["blocks in another order"]().data)
    assert caught.value.parameters == ("Ref:6/00000000", "Ref:6/00000001")


@given(st.data())
def test_a_damaged_archive_raises_nothing_but_the_own_error(data: st.DataObject) -> None:
    whole = bytearray(xva(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        piece = data.draw(st.binary(max_size=20))
        whole[at : at + len(piece)] = piece
    code = refusal(bytes(whole[: data.draw(st.integers(0, len(whole)))]), 4096)
    assert code is None or code.startswith("IMPORT_")


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_garbage_raises_nothing_but_the_own_error(garbage: bytes, size: int) -> None:
    with pytest.raises(XvaError):
        read(garbage, size)


def test_reading_takes_no_more_room_than_a_block() -> None:
    """In pieces of one byte, for a part of it: views of small pieces would take more room than the bytes."""
    reader, data = ArchiveReader(), xva(machine(disks={"0": b"\x01" * (3 * BLOCK)}))
    tracemalloc.start()
    try:
        for start in range(12_000):
            for _ in reader.feed(data[start : start + 1]):
                pass
        for start in range(12_000, len(data), 65536):
            for _ in reader.feed(data[start : start + 65536]):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * BLOCK + (1 << 19)


def test_a_bomb_of_a_chunk_comes_in_small_pieces() -> None:
    bomb = legacy("bomb", {"xvda": bytes(64 << 20)})
    assert len(bomb) < 1 << 20
    reader, size = ArchiveReader(), 0
    tracemalloc.start()
    try:
        for event in reader.feed(bomb):
            if isinstance(event, LegacyData):
                size += len(event.data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 4 << 20


def test_what_follows_the_end_is_not_looked_at() -> None:
    data = xva(SMALL)
    reader, found = ArchiveReader(), Found()
    for event in reader.feed(data + b"anything"):
        found.take(event)
    assert reader.ended
    assert [type(event) for event in reader.finish()] == [DiskEnd]


@pytest.mark.parametrize("size", each(3, [1, 511, 512, 513, 1023, 1025]))
def test_one_empty_block_ends_an_archive_too(size: int) -> None:
    whole = xva(SMALL)
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    assert read(whole[: end + 512], size).disks == SMALL.disks
    with pytest.raises(XvaError, match="PREMATURE_EOF"):
        read(whole[:end], size)
