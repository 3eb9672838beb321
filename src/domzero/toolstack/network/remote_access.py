"""What the toolstack asks of the front: whether callers from outside get in, and who of them does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from domzero.engine.calls import Origin

Witness: TypeAlias = Callable[[Origin], None]
"""Told of each call that comes in, before it is carried out."""


class RemoteAccess(Protocol):
    """The doors by which callers from outside get in. Local ones stay open whatever happens here."""

    async def close(self) -> None:
        """Let nobody in from outside any more; calls under way still answer. Closed doors are no error."""
        ...

    async def open(self) -> None:
        """Let them in again. Raises `OSError` when the door cannot be opened; open doors are no error."""
        ...

    def watch(self, witness: Witness | None) -> None:
        """Have every call told to the witness from now on, or to nobody."""
        ...


class NoRemoteAccess:
    """Implements `RemoteAccess` for a toolstack without a front: only remembers what was asked."""

    def __init__(self) -> None:
        self.is_open = True
        self.witness: Witness | None = None

    async def close(self) -> None:
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    def watch(self, witness: Witness | None) -> None:
        self.witness = witness
