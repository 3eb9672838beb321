"""The xenstore protocol as a client speaks it, without I/O.

Source: Xen's public documents `docs/misc/xenstore.txt` and `xen/include/public/io/xs_wire.h`. Numbers in headers have
the byte order of the machine. Everything that comes from the host is checked: this side bounds what it keeps.
"""

import struct
from typing import NamedTuple, Optional

DIRECTORY = 1
READ = 2
WATCH = 4
UNWATCH = 5
WRITE = 11
RM = 13
WATCH_EVENT = 15
ERROR = 16

PAYLOAD_MAX = 4096

_HEADER = struct.Struct("=IIII")


class FramingError(Exception):
    """The other side announced a longer message than there may be: where the next one begins is not known any more."""


class Message(NamedTuple):
    """A message as it stands on the wire."""

    operation: int
    request: int
    payload: bytes


class Decoder:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._data += data

    def next(self) -> Optional[Message]:
        """The next message, None when it has not come whole yet. Raises `FramingError`."""
        if len(self._data) < _HEADER.size:
            return None
        operation, request, _, length = _HEADER.unpack_from(self._data)
        if length > PAYLOAD_MAX:
            raise FramingError("a message of {} bytes".format(length))
        end = _HEADER.size + length
        if len(self._data) < end:
            return None
        payload, self._data = self._data[_HEADER.size : end], self._data[end:]
        return Message(operation, request, payload)


def encode(operation: int, request: int, payload: bytes) -> bytes:
    """A request outside of transactions. The payload is at most `PAYLOAD_MAX` bytes."""
    return _HEADER.pack(operation, request, 0, len(payload)) + payload
