"""The positions that drives and network cards can have in a machine, and the ways of writing them.

Positions are decimal strings on the wire. Drives may also be named as Linux names them (`xvda`, `hda`, `sda`); these
names are turned into positions when the drive is created.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from domzero.engine.errors import ApiError

VBD_POSITIONS = 16
VIF_POSITIONS = 7
AUTODETECT = "autodetect"

_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")
_LINUX_NAME = re.compile(r"(?:xvd|hd|sd)([a-p])")


def parse_vbd_position(text: str) -> int | None:
    """The position that a drive's `userdevice` names, or None when it names none."""
    if _NUMBER.fullmatch(text):
        position = int(text)
        return position if position < VBD_POSITIONS else None
    if named := _LINUX_NAME.fullmatch(text):
        return ord(named[1]) - ord("a")
    return None


def parse_vif_position(text: str) -> int | None:
    """The position that a card's `device` names, or None when it names none."""
    if not _NUMBER.fullmatch(text):
        return None
    position = int(text)
    return position if position < VIF_POSITIONS else None


def free_positions(total: int, taken: Iterable[int | None]) -> tuple[str, ...]:
    """The positions below `total` that nobody has taken, lowest first, as the API writes them."""
    occupied = set(taken)
    return tuple(str(position) for position in range(total) if position not in occupied)


def choose_vbd_position(wanted: str, taken: Iterable[int | None]) -> str:
    """The position for a new drive: the one wanted, or the lowest free one for `autodetect`.

    Raises `ApiError` INVALID_DEVICE for nonsense, DEVICE_ALREADY_EXISTS when it is taken, and INVALID_DEVICE when
    `autodetect` finds nothing free.
    """
    free = free_positions(VBD_POSITIONS, taken)
    if wanted == AUTODETECT:
        if not free:
            raise ApiError("INVALID_DEVICE", wanted)
        return free[0]
    return _choose(wanted, parse_vbd_position(wanted), free)


def choose_vif_position(wanted: str, taken: Iterable[int | None]) -> str:
    """The position for a new card. Raises `ApiError` INVALID_DEVICE or DEVICE_ALREADY_EXISTS."""
    return _choose(wanted, parse_vif_position(wanted), free_positions(VIF_POSITIONS, taken))


def _choose(wanted: str, position: int | None, free: tuple[str, ...]) -> str:
    if position is None:
        raise ApiError("INVALID_DEVICE", wanted)
    if str(position) not in free:
        raise ApiError("DEVICE_ALREADY_EXISTS", wanted)
    return str(position)


def drive_name(position: int) -> str:
    """What `VBD.device` shows for an attached drive: XenServer's name of the position, whatever the guest calls it."""
    return f"xvd{chr(ord('a') + position)}"
