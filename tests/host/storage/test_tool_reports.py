"""What storage tools print, when it is not what they should print: all that comes of it is the storage's own error.

Names, tags and serial numbers in it are whatever somebody wrote onto a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.storage.lvm import report as lvm
from domzero.host.storage.lvm.devices import read_list
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.rbd import report as rbd

KEYS = st.sampled_from(
    ["report", "seg", "vg", "pv", "lv_name", "lv_size", "seg_start", "lv_tags", "segtype", "seg_pe_ranges", "lv_active",
     "lv_device_open", "vg_name", "vg_size", "vg_free", "vg_extent_size", "vg_missing_pv_count", "pv_name", "pe_start",
     "blockdevices", "children", "type", "size", "ro", "mountpoints", "path", "vendor", "serial", "name", "image",
     "snapshot", "images", "provisioned_size", "used_size", "watchers", "pools", "stats", "stored", "max_avail"],
)  # fmt: skip
ONES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["disk", "linear", "/dev/sda:1-2", "/dev/sda:9-2", "0", "4194304", "pool", "open"]),
    st.text(st.characters(codec="utf-8"), max_size=4),
)  # fmt: skip
JSON = st.recursive(
    ONES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=6)), max_leaves=20
)
SAID = st.one_of(
    st.binary(max_size=40),
    JSON.map(orjson.dumps),
    st.dictionaries(st.sampled_from(["report", "blockdevices", "images", "pools"]), JSON, min_size=1).map(orjson.dumps),
)
READERS: tuple[Callable[[bytes], Any], ...] = (
    lvm.volumes, lvm.groups, lvm.devices, lambda said: list(read_list(said)), rbd.names_in, rbd.images_in, rbd.usage_in,
    rbd.size_in, rbd.is_watched, lambda said: rbd.room_in(said, "pool"),
)  # fmt: skip


@pytest.mark.slow
@given(SAID)
def test_whatever_a_tool_prints(said: bytes) -> None:
    for read in READERS:
        try:
            read(said)
        except StorageError:
            continue


@pytest.mark.parametrize("stored", ["much", ["x"], {"x": 1}])
def test_room_that_is_no_number(stored: Any) -> None:
    with pytest.raises(StorageError):
        rbd.room_in(orjson.dumps({"pools": [{"name": "pool", "stats": {"stored": stored, "max_avail": 1}}]}), "pool")
