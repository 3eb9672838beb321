"""What LVM's tools say in their JSON reports, read into values. Pure. Sizes are bytes.

Names and tags may have been given by anybody; only what a report says of lengths and places is relied upon, after a
look whether it can be true. Raises `StorageError` 181 where it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError

VOLUME_COLUMNS = "lv_name,lv_size,lv_tags,lv_active,lv_device_open,segtype,seg_start,seg_size,seg_pe_ranges"
GROUP_COLUMNS = "vg_name,vg_size,vg_free,vg_extent_size,vg_missing_pv_count"
DEVICE_COLUMNS = "pv_name,pe_start,vg_name"

RANGE = re.compile(r"(\S+):([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Piece:
    """Extents of one physical volume that follow each other, `first` to `last`."""

    device: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume. `pieces` are in the volume's order; None where it is more than extents side by side."""

    name: str
    size: int
    tags: frozenset[str]
    pieces: tuple[Piece, ...] | None
    active: bool = False
    """Whether the kernel has it as a device."""
    opened: bool = False
    """Whether somebody has that device open."""


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group. `missing` counts the physical volumes that are not there."""

    name: str
    size: int
    free: int
    extent_size: int
    missing: int


@dataclass(frozen=True, slots=True)
class Physical:
    """A physical volume: its device, where its first extent begins, and its group, if it has one."""

    device: str
    data_start: int
    group: str


def volumes(report: bytes) -> list[Volume]:
    """The answer to `lvs --segments -o VOLUME_COLUMNS`, by name."""
    rows = sorted(_rows(report, "seg"), key=lambda row: (_text(row, "lv_name"), _number(row, "seg_start")))
    return [_volume(name, list(segments)) for name, segments in groupby(rows, lambda row: _text(row, "lv_name"))]


def groups(report: bytes) -> list[Group]:
    """The answer to `vgs -o GROUP_COLUMNS`."""
    return [
        Group(
            _text(row, "vg_name"),
            _number(row, "vg_size"),
            _number(row, "vg_free"),
            _positive(row, "vg_extent_size"),
            _number(row, "vg_missing_pv_count"),
        )
        for row in _rows(report, "vg")
    ]


def devices(report: bytes) -> list[Physical]:
    """The answer to `pvs -o DEVICE_COLUMNS`; those that are missing are left out."""
    found = (
        Physical(_text(row, "pv_name"), _number(row, "pe_start"), _text(row, "vg_name")) for row in _rows(report, "pv")
    )
    return [physical for physical in found if physical.device.startswith("/")]


def _volume(name: str, segments: list[dict[str, Any]]) -> Volume:
    first = segments[0]
    tags = frozenset(tag for tag in _text(first, "lv_tags").split(",") if tag)
    plain = all(_text(row, "segtype") in ("linear", "striped") for row in segments)
    pieces = list(_pieces(segments)) if plain else [None]
    kept = tuple(piece for piece in pieces if piece is not None)
    return Volume(
        name,
        _number(first, "lv_size"),
        tags,
        tuple(_joined(kept)) if len(kept) == len(pieces) else None,
        active=_text(first, "lv_active") == "active",
        opened=_text(first, "lv_device_open") == "open",
    )


def _pieces(segments: list[dict[str, Any]]) -> Iterator[Piece | None]:
    """One for each segment, None for one that is striped over several devices."""
    for row in segments:
        ranges = _text(row, "seg_pe_ranges").split()
        found = RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
        if found is None or int(found[3]) < int(found[2]):
            yield None
        else:
            yield Piece(found[1], int(found[2]), int(found[3]))


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    held: Piece | None = None
    for piece in pieces:
        if held is not None and held.device == piece.device and held.last + 1 == piece.first:
            held = Piece(held.device, held.first, piece.last)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


def _rows(report: bytes, kind: str) -> list[dict[str, Any]]:
    try:
        parts = orjson.loads(report)["report"]
        rows = [row for part in parts for row in part.get(kind, [])]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(numbers.LVM_METADATA, f"LVM's report cannot be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise StorageError(numbers.LVM_METADATA, "LVM's report cannot be read: a row has no columns")
    return rows


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise StorageError(numbers.LVM_METADATA, f"LVM's report says nothing of {column}")
    return value


def _number(row: dict[str, Any], column: str) -> int:
    text = _text(row, column)
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
        raise StorageError(numbers.LVM_METADATA, f"LVM's report has {text!r} for {column}")
    return int(text)


def _positive(row: dict[str, Any], column: str) -> int:
    number = _number(row, column)
    if number == 0:
        raise StorageError(numbers.LVM_METADATA, f"LVM's report has 0 for {column}")
    return number
