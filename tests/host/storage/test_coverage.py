"""Whether one layer holds all that another holds, compared with what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domzero.host.storage.files.coverage import covers
from domzero.host.storage.files.layers import base_name, disk_name
from tests.host.storage.disks import tool, uuid

UPPER, LOWER = disk_name(uuid(1)), base_name(uuid(2))
CLUSTER = 65536
PLACES = (0, 1, 2, 8190, 8191, 8192, 8193, 16384, 40000)
"""Clusters: of the first and later level-2 tables, each of which has 8192 entries."""


def made(path: Path, clusters: set[int], zeros: set[int], *options: str) -> None:
    tool("qemu-img", "create", "-q", "-f", "qcow2", *options, path, "4G")
    commands = [f"write -q -P 7 {cluster * CLUSTER} 64k" for cluster in sorted(clusters)]
    commands += [f"write -q -z {cluster * CLUSTER} 64k" for cluster in sorted(zeros)]
    tool("qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), "-c", "length", path)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(*[st.sets(st.sampled_from(PLACES))] * 3)
def test_it_holds_if_every_cluster_is_there(over: set[int], under: set[int], zeros: set[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        made(directory / LOWER, under, zeros)
        made(directory / UPPER, over, set())
        assert covers(directory, UPPER, LOWER) == (over >= under | zeros)


def test_a_layer_covers_itself_and_an_empty_one(tmp_path: Path) -> None:
    made(tmp_path / LOWER, set(), set())
    made(tmp_path / UPPER, {1}, {2})
    assert covers(tmp_path, UPPER, LOWER)
    assert covers(tmp_path, UPPER, UPPER)
    assert not covers(tmp_path, LOWER, UPPER)


def test_what_cannot_be_told_is_not_claimed(tmp_path: Path) -> None:
    made(tmp_path / LOWER, {1}, set())
    made(tmp_path / UPPER, {1}, set(), "-o", "cluster_size=128k")
    assert not covers(tmp_path, UPPER, LOWER)
    parts = base_name(uuid(3))
    made(tmp_path / parts, {1}, set(), "-o", "extended_l2=on")
    assert not covers(tmp_path, parts, LOWER)
    assert not covers(tmp_path, LOWER, parts)
