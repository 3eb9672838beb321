"""The disks XML of templates, as text that anybody may have written."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.disk_plan import DISK_TYPES, PlannedDisk, parse_disk_plan, write_disk_plan

DISKS = st.builds(
    PlannedDisk,
    device=st.integers(0, 15).map(str),
    size=st.integers(1, 1 << 50),
    sr=st.sampled_from(["", "5b1a7f2e-0000-4000-8000-000000000001", "a\"b<c>&'"]),
    bootable=st.booleans(),
    type=st.sampled_from(DISK_TYPES),
)


@given(st.lists(DISKS, max_size=16, unique_by=lambda disk: disk.device))
def test_round_trip(disks: list[PlannedDisk]) -> None:
    assert parse_disk_plan(write_disk_plan(disks)) == tuple(disks)


def test_as_the_guide_writes_it() -> None:
    text = (
        '<?xml version="1.0"?>\n<provision>\n <disk device="0" size="4294967296" sr="" bootable="true"/>\n</provision>'
    )
    assert parse_disk_plan(text) == (PlannedDisk("0", 4 << 30, "", True, "system"),)


BOMB = "<!DOCTYPE p [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><provision><disk device='0' size='&b;'/></provision>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<provision>",
        "<disks/>",
        "<provision><disk device='0'/></provision>",
        "<provision><disk device='99' size='1'/></provision>",
        "<provision><disk device='0' size='-1'/></provision>",
        "<provision><disk device='0' size='0'/></provision>",
        "<provision><disk device='0' size='1e9'/></provision>",
        "<provision><disk device='0' size='٣'/></provision>",
        f"<provision><disk device='0' size='{1 << 60}'/></provision>",
        "<provision><disk device='0' size='1' bootable='perhaps'/></provision>",
        "<provision><disk device='0' size='1' type='suspend'/></provision>",
        "<provision><disk device='0' size='1'/><disk device='xvda' size='1'/></provision>",
        "<provision><disk device='0' size='1'><disk device='1' size='1'/></disk></provision>",
        "<provision>" + "<disk device='0' size='1'/>" * 17 + "</provision>",
        "<provision>" + " " * 70_000 + "</provision>",
        "<!DOCTYPE provision SYSTEM 'file:///etc/passwd'><provision/>",
        BOMB,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_disk_plan(text)
    assert caught.value.code == "INVALID_VALUE"
    assert caught.value.params[0] == "other_config:disks"


@given(st.text(max_size=200))
def test_nothing_but_its_own_error_leaves_the_parser(text: str) -> None:
    with suppress(ApiError):
        parse_disk_plan(text)
