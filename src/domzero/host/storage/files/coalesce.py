"""Merging layers that nobody needs apart any more, in the background, so that chains stay short.

`upper` takes over what `lower`, whose only child it is, holds. While no machine has them open that is done by the way
that moves less: pushing upper's data down (`qemu-img commit`), after which lower takes upper's name in one step; or
pulling lower's data up (`qemu-img rebase`), after which lower is a base that nobody uses. A machine that runs pulls.

QEMU changes upper's header at the end of a pull before everything that it has copied is on the medium. So a note is
kept beside it until that is sure, and lower as long as the note: until `qemu-img` has ended well, or upper's tables in
the file are seen to have all that lower has, which with a machine that runs takes until it flushes its disk. Where a
machine died before that, upper's header is made to name lower again: with lower below it, upper's content is right
however much was copied. Pushing needs none of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

from domzero.host.hypervisor.spec import LayerPull
from domzero.host.storage import numbers
from domzero.host.storage.files import layers
from domzero.host.storage.files import place as places
from domzero.host.storage.files.coverage import covers
from domzero.host.storage.files.layers import Layer, Survey, merging_name
from domzero.host.storage.files.place import Place, Run
from domzero.host.storage.files.qcow2 import BadImageError
from domzero.host.storage.images import commit_image, rebase_image, restore_backing
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import LiveMerge, Merge, Progress, StorageError
from domzero.host.storage.worker import LONG, in_own_thread

log = logging.getLogger(__name__)

SKIMMING = 10
"""Bytes of a hole that `qemu-img rebase` passes in the time in which it copies one; it reads them, having no layer
further down to compare with."""


def possible_merges(found: Survey, busy: AbstractSet[str]) -> list[Merge]:
    """Every merge that could be done now: those of the longest chains first, then those with the least to copy.

    While any layer cannot be read there is none, since the unread one may be another child.
    """
    if found.unreadable:
        return []
    children = Counter(layer.header.backing for layer in found.layers.values())
    disks: dict[str, list[str]] = defaultdict(list)
    depth: Counter[str] = Counter()
    for uuid, disk in found.disks().items():
        chain = _chain(found, disk)
        for layer in chain:
            disks[layer.name].append(uuid)
            depth[layer.name] = max(depth[layer.name], len(chain))
    merges = [
        (-depth[upper.name], max(upper.used, lower.used), upper.name, lower.name)
        for upper in found.layers.values()
        if disks[upper.name]
        and (lower := found.layers.get(upper.header.backing or "")) is not None
        and children[lower.name] == 1
        and not {upper.name, lower.name} & (busy | found.merging.keys())
    ]
    return [Merge(upper, lower, tuple(sorted(disks[upper])), cost) for _, cost, upper, lower in sorted(merges)]


def pushes_down(upper: Layer, lower: Layer) -> bool:
    """Whether writing upper's data into lower is less work than the other way."""
    skimmed = 0 if lower.header.backing else upper.header.virtual_size // SKIMMING
    return upper.used <= lower.used + skimmed


async def merge_offline_or_live(place: Place, merge: Merge, progress: Progress, live: LiveMerge | None) -> bool:
    """Carry out a merge unless it does not hold any more or somebody wants one of its disks; says whether it did.

    Raises `StorageError`; then nothing has changed.
    """
    run = Run(frozenset(merge.disks), yields=live is None or len(merge.disks) > 1)
    place.runs.append(run)
    try:
        async with place.hold(*merge.disks), place.merging:
            layers_now = await _still_holds(place, merge)
            if layers_now is None or run.stop.is_set():
                return False
            async with place.making([merge.upper, merge.lower]):
                await place.run(places.need_room, place.directory, merge.cost)
                return await _until(run, _work(place, *layers_now, progress, live))
    finally:
        place.runs.remove(run)
        run.done.set()


async def _still_holds(place: Place, merge: Merge) -> tuple[Layer, Layer] | None:
    async with place.gate:
        try:
            found = await place.run(layers.survey, place.directory)
        except OSError as error:
            raise from_os(error) from error
        now = next((each for each in possible_merges(found, place.busy) if each.upper == merge.upper), None)
    if now is None or now.lower != merge.lower or now.disks != merge.disks:
        return None
    return found.layers[now.upper], found.layers[now.lower]


async def _until(run: Run, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless the run is to stop before it is done; then it is cancelled. Says whether it was done."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(run.stop.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return True


async def settle(place: Place) -> None:
    """Look after layers that were taking over another one (`place.doubtful`): have they, or are they to be put back?

    One that a machine has open, and that does not hold everything yet, stays as it is.
    """
    for upper, lower in place.doubtful:
        path = place.directory / upper
        try:
            if not await place.run(_covers, place.directory, upper, lower):
                await place.workers.attend(partial(restore_backing, path, lower))
                place.step("layer restored")
                log.warning("layer %s stays above %s: a merge was cut short", upper, lower)
        except StorageError as error:
            level = logging.INFO if error.number == numbers.DISK_IN_USE else logging.ERROR
            log.log(level, "whether layer %s needs %s is seen later: %s", upper, lower, error)
            continue
        await _forget(place, upper)


def _covers(directory: Path, upper: str, lower: str) -> bool:
    try:
        return covers(directory, upper, lower)
    except (OSError, BadImageError) as error:
        raise StorageError(numbers.DISK_UNREADABLE, str(error)) from error


async def _forget(place: Place, upper: str) -> None:
    """Put a layer on the medium, and then remove the note beside it."""
    path = place.directory / upper
    await place.workers.attend(lambda: in_own_thread(places.sync_file, path), place.workers.patience * LONG)
    await place.run(places.remove, place.directory, merging_name(upper))


async def _work(place: Place, upper: Layer, lower: Layer, progress: Progress, live: LiveMerge | None) -> None:
    if live is None and pushes_down(upper, lower):
        await _push(place, upper, lower, progress)
    else:
        await _pull(place, upper, lower, progress, live)
    place.step("layers are one")
    log.info("layers %s and %s of %d and %d bytes are one", upper.name, lower.name, upper.used, lower.used)


async def _push(place: Place, upper: Layer, lower: Layer, progress: Progress) -> None:
    below = place.directory / lower.name
    await commit_image(place.directory / upper.name, below, progress)
    place.step("layer pushed")
    await place.seal(below, full=True)
    await place.run(places.rename, place.directory, lower.name, upper.name)


async def _pull(place: Place, upper: Layer, lower: Layer, progress: Progress, live: LiveMerge | None) -> None:
    above, backing = place.directory / upper.name, lower.header.backing
    await place.run(places.note, place.directory, merging_name(upper.name), lower.name)
    place.step("pull noted")
    if live is not None:
        await live.pull(LayerPull(above, place.directory / backing if backing else None, backing, live.speed), progress)
        place.step("layer pulled")
        return
    await rebase_image(above, backing, progress)
    place.step("layer pulled")
    await _forget(place, upper.name)


def _chain(found: Survey, disk: Layer) -> list[Layer]:
    chain: list[Layer] = []
    layer: Layer | None = disk
    while layer is not None and len(chain) <= 2 * layers.CHAIN_LIMIT:
        chain.append(layer)
        layer = found.layers.get(layer.header.backing or "")
    return chain
