"""Positions of drives and cards."""

from __future__ import annotations

import pytest

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.device_names import (
    choose_vbd_position,
    choose_vif_position,
    drive_name,
    free_positions,
    parse_vbd_position,
)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", 0), ("15", 15), ("16", None), ("xvda", 0), ("hdd", 3), ("sdc", 2), ("xvdp", 15), ("xvdq", None),
        ("", None), ("-1", None), ("03", None), ("xvda1", None), ("vda", None), ("autodetect", None), ("٣", None),
    ],
)  # fmt: skip
def test_drive_positions(text: str, position: int | None) -> None:
    assert parse_vbd_position(text) == position


def test_names_and_positions_agree() -> None:
    assert [parse_vbd_position(drive_name(position)) for position in range(16)] == list(range(16))


@pytest.mark.parametrize(
    ("wanted", "taken", "chosen"),
    [("autodetect", [], "0"), ("autodetect", [0, 1, 3], "2"), ("hdd", [0], "3"), ("5", [4], "5")],
)
def test_choosing_a_drive_position(wanted: str, taken: list[int], chosen: str) -> None:
    assert choose_vbd_position(wanted, taken) == chosen


@pytest.mark.parametrize(
    ("wanted", "taken", "error"),
    [
        ("nonsense", [], ("INVALID_DEVICE", "nonsense")),
        ("xvda", [0], ("DEVICE_ALREADY_EXISTS", "xvda")),
        ("autodetect", list(range(16)), ("INVALID_DEVICE", "autodetect")),
    ],
)
def test_refused_drive_positions(wanted: str, taken: list[int], error: tuple[str, ...]) -> None:
    with pytest.raises(ApiError) as caught:
        choose_vbd_position(wanted, taken)
    assert caught.value.description == error


@pytest.mark.parametrize(
    ("wanted", "error"),
    [("7", "INVALID_DEVICE"), ("eth0", "INVALID_DEVICE"), ("", "INVALID_DEVICE"), ("1", "DEVICE_ALREADY_EXISTS")],
)
def test_refused_card_positions(wanted: str, error: str) -> None:
    with pytest.raises(ApiError) as caught:
        choose_vif_position(wanted, [1])
    assert caught.value.description == (error, wanted)


def test_free_positions_are_in_order_and_start_at_zero() -> None:
    assert free_positions(7, []) == ("0", "1", "2", "3", "4", "5", "6")
    assert free_positions(4, [1, None, 9]) == ("0", "2", "3")
