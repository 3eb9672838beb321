"""What goes into the dispatcher and what comes out, on every road (XML-RPC, JSON-RPC, the command line)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from domzero.idl.types import Type


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from. A `local` one came over the Unix socket, whose peers are trusted as root."""

    address: str
    local: bool = False
    own: str = ""
    """The address of this host that the caller used; empty where that is not known."""


LOCAL = Origin("local", local=True)


@dataclass(slots=True)
class Answer:
    """A successful result and the type that says how to encode it.

    `bare` results go out without the Status envelope (`system.listMethods`).
    """

    type: Type
    value: Any
    bare: bool = False
