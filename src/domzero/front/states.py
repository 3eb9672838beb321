"""What a connection can be in the middle of."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """What the connection does with the bytes that come in."""

    READING = "reading requests"
    BUSY = "waiting for the outcome of one"
    LINGERING = "refused; input is dropped until the peer has read why"
    CLOSING = "closing once everything is written"
    HANDED = "in the hands of a raw handler"
    CLOSED = "closed"


class Phase(Enum):
    """Which deadlines hold while reading."""

    NEW = "no byte came yet"
    HEAD = "in the middle of a head"
    BODY = "in the middle of a body"
    IDLE = "between two requests"


# For the paths that every call takes: Python 3.11 looks a member up in its class slowly.
READING: Final = State.READING
BUSY: Final = State.BUSY
LINGERING: Final = State.LINGERING
CLOSING: Final = State.CLOSING
IDLE: Final = Phase.IDLE
