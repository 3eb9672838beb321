"""Merges in the background: which are possible, what they do, and how they make way."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskSource, LayerPull
from domzero.host.storage import images
from domzero.host.storage.files import coalesce, layers
from domzero.host.storage.files.coalesce import possible_merges, pushes_down
from domzero.host.storage.files.layers import Layer, Survey
from domzero.host.storage.files.qcow2 import Header
from domzero.host.storage.protocol import LiveMerge, Merge, Progress, StorageError
from tests.host.storage.disks import MIB, Shelf, holds, refused, tool, uuid, write
from tests.host.storage.test_file_copies import machine_with
from tests.sampling import each

BLOCK = 65536
A, B = layers.disk_name(uuid(1)), layers.disk_name(uuid(2))
TOP, MIDDLE, BOTTOM = (layers.base_name(uuid(number)) for number in (11, 12, 13))


def survey(*rows: tuple[str, str | None], unreadable: bool = False, merging: str = "") -> Survey:
    found = {name: Layer(name, 0, 100, Header(MIB, backing, "qcow2", 0, 0)) for name, backing in rows}
    note = {merging: MIDDLE} if merging else {}
    return Survey(found, (), {"x": "broken"} if unreadable else {}, merging=note)


CHAIN = ((A, TOP), (TOP, MIDDLE), (MIDDLE, BOTTOM), (BOTTOM, None))
BOTH = (uuid(1), uuid(2))


@pytest.mark.parametrize(
    ("found", "busy", "expected"),
    [
        (survey((A, None)), set(), []),
        (survey(*CHAIN), set(), [(TOP, MIDDLE), (MIDDLE, BOTTOM), (A, TOP)]),
        (survey(*CHAIN, (B, TOP)), set(), [(TOP, MIDDLE), (MIDDLE, BOTTOM)]),
        (survey(*CHAIN, (B, MIDDLE)), set(), [(MIDDLE, BOTTOM), (A, TOP)]),
        (survey(*CHAIN), {MIDDLE}, [(A, TOP)]),
        (survey(*CHAIN, merging=TOP), set(), [(MIDDLE, BOTTOM)]),
        (survey(*CHAIN, (layers.next_name(uuid(2)), BOTTOM)), set(), [(TOP, MIDDLE), (A, TOP)]),
        (survey(*CHAIN, unreadable=True), set(), []),
        (survey((A, TOP)), set(), []),
    ],
)
def test_what_can_be_merged(found: Survey, busy: set[str], expected: list[tuple[str, str]]) -> None:
    merges = possible_merges(found, busy)
    assert sorted((merge.upper, merge.lower) for merge in merges) == sorted(expected)
    assert all(merge.cost == 100 for merge in merges)
    shared = [merge for merge in merges if B in found.layers and merge.upper != A]
    assert {merge.disks for merge in shared} <= {BOTH}
    assert {merge.disks for merge in merges if merge not in shared} <= {(uuid(1),)}


def test_long_chains_come_first_and_then_cheap_merges() -> None:
    found = survey(*CHAIN, (B, layers.base_name(uuid(21))), (layers.base_name(uuid(21)), None))
    for name in (MIDDLE, BOTTOM):
        found.layers[name] = dataclasses.replace(found.layers[name], used=7)
    merges = [(merge.lower, merge.cost) for merge in possible_merges(found, set())]
    assert merges[0] == (BOTTOM, 7)
    assert merges[-1] == (layers.base_name(uuid(21)), 100)


@pytest.mark.parametrize(
    ("above", "below", "bottom", "pushed"),
    [(5, 10, False, True), (10, 5, False, False), (10, 5, True, True), (1 << 30, 5, True, False)],
)
def test_the_way_that_moves_less_is_taken(above: int, below: int, bottom: bool, pushed: bool) -> None:
    upper = Layer("u", 0, above, Header(1 << 30, "l", "qcow2", 0, 0))
    lower = Layer("l", 0, below, Header(1 << 30, None if bottom else "b", "qcow2", 0, 0))
    assert pushes_down(upper, lower) == pushed


# On a medium


async def chained(shelf: Shelf, depth: int) -> None:
    """Disk 1 with that many layers, each with a mark of its own at an offset of its own, and a common one at 0."""
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    for number in range(1, depth + 1):
        write(await shelf.source(1), number, number * BLOCK)
        write(await shelf.source(1), number)
        if number < depth:
            await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(100 + number), None)
            await shelf.driver.destroy_disk(shelf.repository, uuid(100 + number))


async def is_whole(shelf: Shelf, number: int, depth: int) -> bool:
    source = await shelf.source(number)
    marks = [holds(source, mark, mark * BLOCK) for mark in range(1, depth + 1)]
    return all(marks) and holds(source, depth) and holds(source, 0, 3 * MIB)


async def merge_all(shelf: Shelf, live: LiveMerge | None = None) -> int:
    """How many merges there were."""
    for count in range(100):
        possible = await shelf.driver.merges(shelf.repository)
        if not possible:
            return count
        await shelf.driver.merge(shelf.repository, possible[0], lambda _: None, live)
    raise AssertionError("there is no end of merges")


@pytest.mark.parametrize("push", each(2, [True, False]))
async def test_a_chain_becomes_one_layer(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, push: bool) -> None:
    monkeypatch.setattr(coalesce, "pushes_down", lambda upper, lower: push)
    await chained(shelf, 4)
    assert shelf.bases() == 3
    assert await merge_all(shelf) == 3
    assert shelf.files() == [f"{uuid(1)}.qcow2"]
    assert await is_whole(shelf, 1, 4)
    tool("qemu-img", "check", "-q", shelf.directory / f"{uuid(1)}.qcow2")


@pytest.mark.slow
async def test_layers_of_several_disks_stay_right(shelf: Shelf) -> None:
    await chained(shelf, 3)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    write(await shelf.source(2), 9, 2 * MIB)
    await shelf.driver.resize_disk(shelf.repository, uuid(2), 8 * MIB)
    assert await merge_all(shelf) == 2
    assert shelf.bases() == 1
    for number in (1, 2):
        assert await is_whole(shelf, number, 3)
    assert holds(await shelf.source(2), 9, 2 * MIB)
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert await merge_all(shelf) == 1
    assert shelf.files() == [f"{uuid(2)}.qcow2"]
    assert await is_whole(shelf, 2, 3)
    assert (await shelf.driver.update_disk(shelf.repository, uuid(2))).virtual_size == 8 * MIB


async def test_a_machine_that_runs_pulls_by_itself(shelf: Shelf) -> None:
    await chained(shelf, 3)
    told: list[LayerPull] = []

    async def pull(wanted: LayerPull, progress: Progress) -> None:
        told.append(wanted)
        below = ["-F", "qcow2", "-b", wanted.backing_name] if wanted.backing_name else ["-b", ""]
        tool("qemu-img", "rebase", "-q", "-f", "qcow2", *below, wanted.upper)
        progress(1.0)

    assert await merge_all(shelf, LiveMerge(pull, 1000)) == 2
    assert [pull.speed for pull in told] == [1000, 1000]
    assert {pull.below is None for pull in told} == {pull.backing_name is None for pull in told}
    assert shelf.files() == [f"{uuid(1)}.qcow2"]
    assert await is_whole(shelf, 1, 3)


async def test_a_machine_that_fails_or_only_claims_to_pull_loses_nothing(shelf: Shelf) -> None:
    await chained(shelf, 2)
    before = shelf.files()

    async def fail(wanted: LayerPull, progress: Progress) -> None:
        raise RuntimeError("the machine would not")

    async def lie(wanted: LayerPull, progress: Progress) -> None:
        progress(1.0)

    (possible,) = await shelf.driver.merges(shelf.repository)
    with pytest.raises(RuntimeError):
        await shelf.driver.merge(shelf.repository, possible, lambda _: None, LiveMerge(fail))
    await shelf.driver.merge(shelf.repository, possible, lambda _: None, LiveMerge(lie))
    assert shelf.files() == before
    assert await is_whole(shelf, 1, 2)


async def test_what_does_not_hold_any_more_is_left_alone(shelf: Shelf) -> None:
    await chained(shelf, 2)
    (possible,) = await shelf.driver.merges(shelf.repository)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    before = shelf.files()
    await shelf.driver.merge(shelf.repository, possible, lambda _: None, None)
    wrong = Merge("../../etc/passwd", "base", (uuid(1),), 0)
    await shelf.driver.merge(shelf.repository, wrong, lambda _: None, None)
    assert shelf.files() == before
    assert await is_whole(shelf, 2, 2)


async def test_a_medium_without_room_is_said_before(shelf: Shelf) -> None:
    await chained(shelf, 2)
    (possible,) = await shelf.driver.merges(shelf.repository)
    vast = dataclasses.replace(possible, cost=1 << 60)
    await refused(44, shelf.driver.merge(shelf.repository, vast, lambda _: None, None))


async def test_a_layer_that_a_machine_has_open_is_not_merged_offline(shelf: Shelf) -> None:
    await chained(shelf, 2)
    (possible,) = await shelf.driver.merges(shelf.repository)
    with machine_with((await shelf.source(1)).path):
        await refused(24, shelf.driver.merge(shelf.repository, possible, lambda _: None, None))
    assert await is_whole(shelf, 1, 2)
    assert await merge_all(shelf) == 1


# Making way


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Tools in the background tell a pipe that they have begun and then wait until they are killed."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    script = 'echo begun > "$0"; exec sleep 1000'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MODEST", ("sh", "-c", script, str(begun)))
        yield begun


VERBS = ("source", "clone", "snapshot", "destroy", "resize")


async def act(shelf: Shelf, verb: str) -> None:
    driver, here = shelf.driver, shelf.repository

    async def switch(source: DiskSource) -> None:
        write(source, 50, 2 * MIB)

    if verb == "source":
        await driver.source(here, uuid(1))
    elif verb == "clone":
        await driver.clone_disk(here, uuid(1), uuid(2))
    elif verb == "snapshot":
        await driver.snapshot_disk(here, uuid(1), uuid(2), switch)
    elif verb == "destroy":
        await driver.destroy_disk(here, uuid(1))
    else:
        await driver.resize_disk(here, uuid(1), 8 * MIB)


@pytest.mark.parametrize("verb", each(4, VERBS))
async def test_a_merge_makes_way(shelf: Shelf, held: Path, verb: str) -> None:
    await chained(shelf, 2)
    (possible,) = await shelf.driver.merges(shelf.repository)
    merge = asyncio.ensure_future(shelf.driver.merge(shelf.repository, possible, lambda _: None, None))
    assert await asyncio.to_thread(held.read_text) == "begun\n"
    assert await shelf.driver.merges(shelf.repository) == []
    await asyncio.wait_for(act(shelf, verb), 60)
    await asyncio.wait_for(merge, 60)
    if verb != "destroy":
        assert await is_whole(shelf, 1, 2)
    assert (shelf.files() == []) == (verb == "destroy")


@pytest.mark.parametrize(("verb", "ends"), each(4, [(verb, verb != "source") for verb in VERBS]))
async def test_a_pull_in_a_machine_makes_way_for_changes_only(shelf: Shelf, verb: str, ends: bool) -> None:
    await chained(shelf, 2)
    (possible,) = await shelf.driver.merges(shelf.repository)
    begun, cancelled, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pull(wanted: LayerPull, progress: Progress) -> None:
        begun.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    live = LiveMerge(pull)
    merge = asyncio.ensure_future(shelf.driver.merge(shelf.repository, possible, lambda _: None, live))
    await begun.wait()
    await asyncio.wait_for(act(shelf, verb), 60)
    assert cancelled.is_set() == ends
    go_on.set()
    await asyncio.wait_for(merge, 60)


async def test_a_cancelled_merge_ends_its_tool(shelf: Shelf, held: Path) -> None:
    await chained(shelf, 2)
    before = shelf.files()
    (possible,) = await shelf.driver.merges(shelf.repository)
    merge = asyncio.ensure_future(shelf.driver.merge(shelf.repository, possible, lambda _: None, None))
    await asyncio.to_thread(held.read_text)
    merge.cancel()
    with pytest.raises(asyncio.CancelledError):
        await merge
    assert shelf.files() == before
    assert await is_whole(shelf, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("push", [True, False])
async def test_a_killed_tool_does_no_harm(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, push: bool) -> None:
    monkeypatch.setattr(coalesce, "pushes_down", lambda upper, lower: push)
    here, driver = shelf.repository, shelf.driver
    size = 64 * MIB
    await driver.create_disk(here, uuid(1), size)
    for mark in (1, 2):
        tool("qemu-io", "-f", "qcow2", "-c", f"write -q -P {mark} {mark * 8}M 32M", (await shelf.source(1)).path)
        if mark == 1:
            await driver.snapshot_disk(here, uuid(1), uuid(2), None)
            await driver.destroy_disk(here, uuid(2))
    kills = 0
    for turn in range(50):
        possible = await driver.merges(here)
        if not possible:
            break
        monkeypatch.setattr(images, "MODEST", ("timeout", "-s", "KILL", f"{0.004 * 1.2**turn:.4f}"))
        try:
            await driver.merge(here, possible[0], lambda _: None, None)
        except StorageError:
            kills += 1
        source = await shelf.source(1)
        assert holds(source, 1, 8 * MIB)
        assert holds(source, 2, 16 * MIB)
        assert holds(source, 2, 48 * MIB - BLOCK)
        assert holds(source, 0, 60 * MIB)
    assert kills > 0
    assert shelf.files() == [f"{uuid(1)}.qcow2"]
