"""Who may import whom: the table that the test enforces and ARCHITECTURE.md shows."""

from __future__ import annotations

import re
from collections.abc import Mapping

CONTRACTS = "host's protocols and specs"
"""Not a room: the modules of `host` that hold contracts and plain values, and never a driver."""

EVERYTHING = "everything"

MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "idl": (),
    "datamodel": ("idl",),
    "engine": ("idl", "durable"),
    "wire": ("idl",),
    "host": ("wire", "finish", "durable"),
    "toolstack": ("idl", "engine", "wire", "finish", "durable", CONTRACTS),
    "xe": ("idl", "engine", "wire"),
    "front": ("engine", "wire", "finish", "durable"),
    "pool": ("engine", "wire", CONTRACTS),
    "sdkgen": ("idl", "datamodel"),
    "client": ("idl", "datamodel", "wire"),
    "cli": ("idl", "datamodel", "wire", "client", "sdkgen", "settings", "paths", "service"),
    "settings": (),
    "paths": (),
    "places": ("paths", "settings"),
    "finish": (),
    "durable": (),
    "addresses": (),
    "service": (EVERYTHING,),
    "daemon": (EVERYTHING,),
    "hands": (EVERYTHING,),
    "manuals": (EVERYTHING,),
}
"""By room, the rooms whose modules it may import besides its own and the standard library's."""

CONTRACT_MODULE = re.compile(r"domzero\.host(\.\w+)*\.(protocol|spec|plan)")


def is_allowed(room: str, target: str) -> bool:
    """Whether a module of a room may import the module of that full name."""
    allowed = MAY_IMPORT[room]
    parts = target.split(".")
    target_room = parts[1] if len(parts) > 1 else ""
    return (
        target_room in ("", room)
        or target_room in allowed
        or EVERYTHING in allowed
        or (CONTRACTS in allowed and CONTRACT_MODULE.fullmatch(target) is not None)
    )


def as_markdown() -> str:
    """The table for ARCHITECTURE.md."""
    rows = [
        f"| `{room}` | {', '.join(_shown(name) for name in names) or 'nothing'} |" for room, names in MAY_IMPORT.items()
    ]
    return "\n".join(["| room | may import |", "|---|---|", *rows])


def _shown(name: str) -> str:
    return name if name in (CONTRACTS, EVERYTHING) else f"`{name}`"
