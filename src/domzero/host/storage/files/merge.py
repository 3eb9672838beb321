"""Keeping chains of layers short, so that a machine can be snapshotted and its snapshots destroyed without end.

A machine may have the layers open. It keeps the files that it has, whose content stays true; whoever opens the disk
later finds the merged one. The layer that is no longer needed goes with the next `scan`.
"""

from __future__ import annotations

import logging

from domzero.host.storage.files import layers
from domzero.host.storage.files import place as places
from domzero.host.storage.files.layers import BASE_NAME, Layer, new_name
from domzero.host.storage.files.place import Place
from domzero.host.storage.images import rebase_image
from domzero.host.storage.numbers import from_os
from domzero.host.storage.sparse import copy_sparse

log = logging.getLogger(__name__)


async def merge_layers(place: Place, chain: list[Layer]) -> bool:
    """Make two bases of a chain into one, where that can be. Raises `StorageError`; then nothing has changed.

    The upper one is copied under another name, takes in what the lower one has, and then the upper one's place.
    """
    async with place.merging:
        try:
            found = await place.run(layers.survey, place.directory)
        except OSError as error:
            raise from_os(error) from error
        chosen = layers.best_merge(chain, found, place.busy)
        if chosen is None:
            return False
        upper, lower = chosen
        match, below = BASE_NAME.fullmatch(upper.name), lower.header.backing
        if match is None or below is None:
            return False
        merged = new_name(match[1])
        async with place.making([merged]):
            path = place.directory / merged
            try:
                await place.run(places.make_blank, path)
                await copy_sparse(place.directory / upper.name, path, lambda _: None, place.run)
                place.step("layer copied")
                await rebase_image(path, below)
                await place.seal(path, full=True)
                place.step("layers merged")
                await place.run(places.rename, place.directory, merged, upper.name)
            except BaseException:
                await place.run(places.remove, place.directory, merged)
                raise
        place.step("merged layer in place")
        log.info("layer %s took in %s of %d bytes", upper.name, lower.name, lower.used)
        return True
