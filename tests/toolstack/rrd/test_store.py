"""Archives in files: they come back as they were, and nothing in a file can do harm."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.host.clock import ManualClock
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.archives import SAVE_EVERY, Archives
from domzero.toolstack.rrd.columns import EXTREMES
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.packing import MAGIC, SIZE_MOST, DamagedError, deflate, pack, unpack
from domzero.toolstack.rrd.sources import Kind, Source
from domzero.toolstack.rrd.store import ArchiveStore

LAYOUT = (Source("a", "what", "B"), Source("b", "", "", Kind.DERIVE, maximum=1.0), Source("c", "", "", standard=False))


def owner(number: int, kind: str = "vm") -> Owner:
    return Owner(kind, str(UUID(int=number)))


def filled(readings: int = 1000, begin: float = 1_700_000_000) -> Archive:
    archive = Archive(EXTREMES)
    for number in range(readings):
        archive.add(begin + 5.01 * number, LAYOUT, (number, number * 0.3, 1))
    return archive


SAVED = deflate(pack(filled()))


def test_an_archive_comes_back_and_goes_on_as_before() -> None:
    archive = filled()
    archive.forget("a")
    archive.record("c")
    back = unpack(deflate(pack(archive)))
    assert deflate(pack(back)) == deflate(pack(archive))
    for one in (archive, back):
        for number in range(1000, 2000):
            one.add(1_700_000_000 + 5.01 * number, LAYOUT, (number, number * 0.3, 1))
    assert deflate(pack(back)) == deflate(pack(archive))
    assert [(it.source.name, it.recorded) for it in back.measured()] == [("a", False), ("b", True), ("c", True)]


def test_one_that_was_never_filled() -> None:
    back = unpack(deflate(pack(Archive())))
    assert (back.sources, back.last != back.last) == ([], True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SAVED) - 1), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_refused_or_not_damaged_in_truth(at: int, change: int, cut: bool) -> None:
    data = SAVED[:at] if cut else SAVED[:at] + bytes([SAVED[at] ^ change]) + SAVED[at + 1 :]
    try:
        found = unpack(data)
    except DamagedError:
        return
    # A few bits of the file mean nothing: those that fill the last byte before the checksum.
    assert not cut
    assert deflate(pack(found)) == SAVED


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_well_packed_rubbish_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedError):
        unpack(MAGIC + zlib.compress(content))


@pytest.mark.parametrize(
    "head",
    [b"[]", b"{}", b'{"byteorder":"little","functions":["LAST"],"steps_done":0,"chosen":{},"sources":[]}',
     b'{"byteorder":"little","functions":["AVERAGE"],"steps_done":-1,"chosen":{},"sources":[]}',
     b'{"byteorder":"little","functions":["AVERAGE"],"steps_done":0,"chosen":{},"sources":[["x"]]}',
     b'{"byteorder":"little","functions":["AVERAGE"],"steps_done":5,"chosen":{},"sources":[]}',
     b'{"byteorder":"little","functions":["AVERAGE"],"steps_done":0,"chosen":[],"sources":[]}'],
)  # fmt: skip
def test_a_head_that_makes_no_sense(head: bytes) -> None:
    with pytest.raises(DamagedError):
        unpack(MAGIC + zlib.compress(len(head).to_bytes(4, "little") + head + bytes(8)))


ODD = st.one_of(st.none(), st.integers(-1, 5), st.text(max_size=3), st.just([]), st.just({}), st.just([["x"] * 6]))
HEADS = st.fixed_dictionaries(
    {
        "byteorder": st.just("little"),
        "functions": st.one_of(st.just(["AVERAGE"]), ODD),
        "steps_done": st.one_of(st.just(0), ODD),
        "chosen": st.one_of(st.just({"a": True}), st.just({"a" * 2000: 1}), ODD),
        "sources": st.one_of(
            st.lists(st.tuples(ODD, st.just(""), ODD, st.sampled_from(["GAUGE", "x"]), ODD, st.booleans())), ODD
        ),
    }
)


@settings(max_examples=200, deadline=None)
@given(HEADS, st.integers(0, 40))
def test_a_head_that_is_nearly_right_is_refused_or_makes_an_archive(head: dict[str, Any], numbers: int) -> None:
    text = json.dumps(head).encode()
    try:
        found = unpack(MAGIC + zlib.compress(len(text).to_bytes(4, "little") + text + bytes(8 * numbers)))
    except DamagedError:
        return
    found.add(5.0, LAYOUT, (1, 2, 3))
    assert unpack(deflate(pack(found))).sources == found.sources


def test_what_follows_the_end_is_noticed() -> None:
    with pytest.raises(DamagedError):
        unpack(SAVED + b"x")


def test_a_bomb_is_not_inflated() -> None:
    bomb = MAGIC + zlib.compress(bytes(SIZE_MOST + 1), level=1)
    with pytest.raises(DamagedError, match="longer"):
        unpack(bomb)


def test_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ArchiveStore(tmp_path / "rrd")
    assert store.load(owner(1)) is None
    store.save(owner(1), SAVED)
    store.save(owner(1), SAVED)
    loaded = store.load(owner(1))
    assert loaded is not None
    assert deflate(pack(loaded)) == SAVED
    (file,) = (tmp_path / "rrd").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(SAVED[:-5])
    with caplog.at_level(logging.WARNING):
        assert store.load(owner(1)) is None
    assert "put aside" in caplog.text
    assert [path.name for path in (tmp_path / "rrd").iterdir()] == [f"{file.name}.damaged"]
    assert store.load(owner(1)) is None
    store.remove(owner(1))
    assert list((tmp_path / "rrd").iterdir()) == []


@pytest.mark.parametrize("uuid", ["../../../etc/passwd", "", "x" * 36, f"{UUID(int=1)}/"])
def test_names_that_are_no_uuids(tmp_path: Path, uuid: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        ArchiveStore(tmp_path).save(Owner("vm", uuid), b"")


def test_what_is_superfluous_goes(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path, total_most=250)
    for number in range(5):
        store.save(owner(number), bytes(100))
        os.utime(store._path(owner(number)), (1000 + number, 1000 + number))
    store._path(owner(9)).with_suffix(".rrd.new").write_bytes(b"half")
    (tmp_path / "stranger").write_bytes(bytes(10_000))
    assert store.owners() == {owner(number) for number in (0, 1, 2, 3, 4, 9)}
    store.tidy({owner(3)}, {owner(0)}, leftovers=True)
    # 3 does not exist; 0 is measured now; of the others the oldest had to go.
    assert store.owners() == {owner(0), owner(4)}
    assert (tmp_path / "stranger").exists()


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def archives(directory: Path, clock: ManualClock, exists: Callable[[Owner], bool] = lambda _: True) -> Archives:
    return Archives(ArchiveStore(directory), exists, clock)


async def test_history_outlives_the_measuring(tmp_path: Path) -> None:
    clock = ManualClock()
    ours = archives(tmp_path, clock)
    archive = await ours.open(owner(1))
    archive.add(ours.now(), LAYOUT, (1, 1, 1))
    await ours.keep(lambda _: False)
    assert ours.get(owner(1)) is None
    kept = await ours.kept(owner(1))
    assert kept is not None
    assert kept.last == archive.last
    assert (await ours.open(owner(1))).last == archive.last
    assert await ours.kept(owner(2)) is None


async def test_what_is_due_is_saved_now_and_then(tmp_path: Path) -> None:
    clock = ManualClock()
    ours = archives(tmp_path, clock)
    for number in range(3):
        (await ours.open(owner(number))).add(ours.now(), LAYOUT, (1, 1, 1))
    await ours.keep(lambda _: True)
    assert files(tmp_path) == []
    await clock.advance(SAVE_EVERY)
    await ours.keep(lambda _: True)
    assert len(files(tmp_path)) == 1
    for _ in range(2):
        await ours.keep(lambda _: True)
    assert len(files(tmp_path)) == 3


async def test_what_is_gone_takes_its_file_along(tmp_path: Path) -> None:
    clock = ManualClock()
    ours = archives(tmp_path, clock, lambda it: it != owner(2))
    for number in (1, 2):
        await ours.open(owner(number))
    await ours.save_all()
    assert len(files(tmp_path)) == 2
    ours.forget(owner(1))
    await ours.keep(lambda it: it == owner(3))
    # 1 was forgotten, and 2, which is not measured any more, does not exist.
    await ours.keep(lambda _: True)
    assert files(tmp_path) == []


async def test_history_that_is_put_in_place_of_another(tmp_path: Path) -> None:
    """Of something that is measured, of something that is not, and of a former owner's uuid."""
    ours = archives(tmp_path, ManualClock())
    (await ours.open(owner(1))).add(ours.now(), LAYOUT, (1, 1, 1))
    (await ours.open(owner(3))).add(ours.now(), LAYOUT, (1, 1, 1))
    ours.forget(owner(3))
    for number in (1, 2, 3):
        archive = filled(10)
        assert await ours.put(owner(number), archive)
        assert ours.get(owner(number)) is archive
    await ours.keep(lambda it: it == owner(1))
    assert [ours.get(owner(number)) is not None for number in (1, 2, 3)] == [True, False, False]
    for number in (1, 2, 3):
        kept = await ours.kept(owner(number))
        assert kept is not None
        assert len(kept.sources) == 3


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A place where no directory can be made."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file"


async def test_history_of_a_former_owner_does_not_come_back(tmp_path: Path) -> None:
    ours = archives(tmp_path, ManualClock())
    (await ours.open(owner(1))).add(ours.now(), LAYOUT, (1, 1, 1))
    await ours.save_all()
    ours.forget(owner(1))
    assert await ours.kept(owner(1)) is None
    assert (await ours.open(owner(1))).sources == []


async def test_many_who_save_the_same_at_once(tmp_path: Path) -> None:
    ours = archives(tmp_path, ManualClock())
    archive = await ours.open(owner(1))
    archive.add(ours.now(), LAYOUT, (1, 1, 1))
    saving = asyncio.gather(*(ours.save(owner(1)) for _ in range(10)), ours.save_all())
    await asyncio.sleep(0)
    archive.record("c")
    await saving
    kept = ArchiveStore(tmp_path).load(owner(1))
    assert kept is not None
    assert kept.chosen == {"c": True}


async def test_a_full_disk_is_no_end(blocked: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = archives(blocked, ManualClock())
    await ours.open(owner(1))
    with caplog.at_level(logging.WARNING):
        await ours.keep(lambda _: False)
        await ours.keep(lambda _: False)
        await ours.save_all()
    assert ours.get(owner(1)) is not None
    assert "cannot be kept" in caplog.text


async def test_time_follows_a_clock_that_was_set(tmp_path: Path) -> None:
    clock = ManualClock()
    ours = archives(tmp_path, clock)
    before = ours.now()
    await clock.advance(7)
    assert ours.now() - before == 7
