"""Rows that have lost what they belong to: found by a pure function, removed now and then.

Calls remove what belongs to an object together with it; what is left here comes from hosts that are gone, objects made
by generic constructors, and imports that were cut short.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from domzero.engine.row import Row
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

Rows: TypeAlias = Callable[[str], Mapping[Ref, Row]]
"""The rows of a class, as `Database.rows` gives them."""

ROUNDS = 4
"""Garbage that hangs on garbage goes in the next round; chains are three long at most."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """An object of `cls` is nothing without the `owner` that its `field` refers to.

    `optional`: a null reference is in order, only one to a vanished object is not.
    """

    cls: str
    field: str
    owner: str
    optional: bool = False


BELONGINGS = (
    Belonging("VBD", "VM", "VM"),
    Belonging("VIF", "VM", "VM"),
    Belonging("VIF", "network", "network", optional=True),
    Belonging("VTPM", "VM", "VM"),
    Belonging("VUSB", "VM", "VM"),
    Belonging("VGPU", "VM", "VM"),
    Belonging("console", "VM", "VM"),
    Belonging("crashdump", "VM", "VM"),
    Belonging("crashdump", "VDI", "VDI"),
    Belonging("VDI", "SR", "SR"),
    Belonging("PBD", "SR", "SR"),
    Belonging("PBD", "host", "host"),
    Belonging("PIF", "host", "host"),
    Belonging("host_cpu", "host", "host"),
    Belonging("host_crashdump", "host", "host"),
    Belonging("host_patch", "host", "host"),
)

FIGURES = (
    ("VM_metrics", "VM", "metrics"),
    ("VM_guest_metrics", "VM", "guest_metrics"),
    ("VBD_metrics", "VBD", "metrics"),
    ("VIF_metrics", "VIF", "metrics"),
    ("PIF_metrics", "PIF", "metrics"),
    ("host_metrics", "host", "metrics"),
)
"""Class of figures, and the class and field that refer to them."""


@dataclass(frozen=True, slots=True)
class Removal:
    """This row has to go."""

    cls: str
    ref: Ref


@dataclass(frozen=True, slots=True)
class Emptying:
    """This CD drive's disc has vanished."""

    vbd: Ref


def find_garbage(rows: Rows) -> list[Removal | Emptying]:
    """What has to be done, each object once; nothing is changed."""
    found = dict.fromkeys(item for look in LOOKS for item in look(rows))
    return [item for item in found if not (isinstance(item, Emptying) and Removal("VBD", item.vbd) in found)]


def _without_owner(belonging: Belonging, rows: Rows) -> Iterator[Removal]:
    owners = rows(belonging.owner)
    for ref, row in rows(belonging.cls).items():
        owner = row.record[belonging.field]
        if owner not in owners and not (belonging.optional and owner == NULL_REF):
            yield Removal(belonging.cls, ref)


def _unread_figures(figures: str, cls: str, field: str, rows: Rows) -> Iterator[Removal]:
    read = {row.record[field] for row in rows(cls).values()}
    yield from (Removal(figures, ref) for ref in rows(figures) if ref not in read)


def _vanished_media(rows: Rows) -> Iterator[Removal | Emptying]:
    present = rows("VDI")
    for ref, row in rows("VBD").items():
        drive = row.record
        if drive["VDI"] == NULL_REF or drive["VDI"] in present or drive["currently_attached"]:
            continue
        yield Removal("VBD", ref) if drive["type"] == "Disk" else Emptying(ref)


Look: TypeAlias = Callable[[Rows], Iterable[Removal | Emptying]]
LOOKS: tuple[Look, ...] = (
    *(partial(_without_owner, belonging) for belonging in BELONGINGS),
    *(partial(_unread_figures, *figures) for figures in FIGURES),
    _vanished_media,
)
"""What `find_garbage` is made of: each look passes over one class or two."""


async def collect_garbage(stack: Stack) -> int:
    """Remove what `find_garbage` finds, and what that leaves without an owner; how much it was.

    Between the looks others have their turn: with ten thousand machines all looks together would hold them up.
    """
    total = 0
    for _ in range(ROUNDS):
        before = total
        for look in LOOKS:
            found = list(look(stack.database.rows))
            if found:
                _clear(stack, found)
            total += len(found)
            await asyncio.sleep(0)
        if total == before:
            break
    if total:
        log.info("%d rows had lost what they belonged to", total)
    return total


def _clear(stack: Stack, found: list[Removal | Emptying]) -> None:
    emptied: dict[str, Any] = {"VDI": NULL_REF, "empty": True}
    with stack.database.transaction() as transaction:
        for item in found:
            if isinstance(item, Removal):
                transaction.destroy(item.cls, item.ref)
            else:
                transaction.update("VBD", item.vbd, **emptied)
    for item in found:
        if isinstance(item, Emptying) and stack.database.find("VBD", item.vbd) is not None:
            stack.gates["VBD"].refresh(item.vbd)
