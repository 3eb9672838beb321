"""The xenstore wire protocol, without I/O: messages, their payloads, paths, permissions, names of errors.

Source: Xen's public documents `docs/misc/xenstore.txt` and `xen/include/public/io/xs_wire.h`. Numbers in headers have
the byte order of the machine, as both sides live on one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

PAYLOAD_MAX = 4096
"""Bytes after a header, in both directions; who sends more is cut off."""
ABSOLUTE_PATH_MAX = 3072
RELATIVE_PATH_MAX = 2048
DOMID_LIMIT = 0x7FF0
"""Domain ids from here on are reserved (`DOMID_FIRST_RESERVED`)."""
DONE = b"OK\0"
"""The payload of a success that has nothing else to say."""
INTRODUCED = "@introduceDomain"
RELEASED = "@releaseDomain"

_HEADER = Struct("=IIII")
HEADER_SIZE = _HEADER.size
_ABSOLUTE = re.compile(rb"/|(?:/[A-Za-z0-9_@-]+)+")
_RELATIVE = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_@-]*(?:/[A-Za-z0-9_@-]+)*")
_SPECIAL = re.compile(rb"@[A-Za-z0-9_@/-]+")
_PERMISSION = re.compile(rb"([nrwb])([0-9]{1,5})")
_NUMBER = re.compile(rb"-?[0-9]{1,20}")


class Operation(IntEnum):
    """What a message is: a request and its reply share a number."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


ERRORS = frozenset(
    ("EINVAL", "EACCES", "EEXIST", "ENOENT", "ENOSPC", "ENOSYS", "EBUSY", "EAGAIN", "E2BIG", "EPERM"),
)
"""The names of errors that are answered; clients know some more, and take all others for EINVAL."""


class XenstoreError(Exception):
    """A request is refused. `code` is one of `ERRORS`."""

    def __init__(self, code: str) -> None:
        assert code in ERRORS, code
        super().__init__(code)
        self.code = code


class FramingError(Exception):
    """The peer announced a longer message than there may be: where the next one begins is not known any more."""


class Access(IntFlag):
    """What a domain may do with a node."""

    NONE = 0
    READ = 1
    WRITE = 2
    BOTH = 3


class Permission(NamedTuple):
    """One entry of a node's permissions. The first names the owner, who may do all, and what those not named may do."""

    domid: int
    access: Access


Permissions = tuple[Permission, ...]

_LETTERS = {Access.NONE: "n", Access.READ: "r", Access.WRITE: "w", Access.BOTH: "b"}
_ACCESS = {letter.encode(): access for access, letter in _LETTERS.items()}


class Message(NamedTuple):
    """A message as it stands on the wire; `operation` may be a number that means nothing."""

    operation: int
    request: int
    transaction: int
    payload: bytes


class Decoder:
    """Cuts a stream of bytes into messages. It holds no more than it was fed, and never what it could hand out."""

    def __init__(self) -> None:
        self._data = b""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._data = self._data[self._position :] + data if self._position < len(self._data) else data
        self._position = 0

    def next(self) -> Message | None:
        """The next message, None when it has not come whole yet. Raises `FramingError`, then for ever."""
        data, begin = self._data, self._position + HEADER_SIZE
        if begin > len(data):
            return None
        operation, request, transaction, length = _HEADER.unpack_from(data, self._position)
        if length > PAYLOAD_MAX:
            raise FramingError(f"a message of {length} bytes")
        end = begin + length
        if end > len(data):
            return None
        self._position = end
        return Message(operation, request, transaction, data[begin:end])

    def reset(self) -> None:
        """Forget what has come: another program begins at the other end."""
        self._data, self._position = b"", 0

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not handed out."""
        return len(self._data) - self._position


def encode(operation: int, request: int, transaction: int, payload: bytes) -> bytes:
    """A message's bytes. Raises `XenstoreError` (E2BIG) for a payload that is too long to be sent."""
    if len(payload) > PAYLOAD_MAX:
        raise XenstoreError("E2BIG")
    return _HEADER.pack(operation, request, transaction, len(payload)) + payload


def text(payload: bytes) -> bytes:
    """The one string that is the whole payload. Raises `XenstoreError` (EINVAL)."""
    if payload.find(b"\0") != len(payload) - 1 or not payload:
        raise XenstoreError("EINVAL")
    return payload[:-1]


def texts(payload: bytes, count: int) -> list[bytes]:
    """The strings of a payload, exactly that many. Raises `XenstoreError` (EINVAL)."""
    if not payload.endswith(b"\0") or payload.count(b"\0") != count:
        raise XenstoreError("EINVAL")
    return payload[:-1].split(b"\0")


def text_and_rest(payload: bytes) -> tuple[bytes, bytes]:
    """A string, and all that follows it, whatever it is. Raises `XenstoreError` (EINVAL)."""
    first, end, rest = payload.partition(b"\0")
    if not end:
        raise XenstoreError("EINVAL")
    return first, rest


def number(data: bytes) -> int:
    """A decimal number. Raises `XenstoreError` (EINVAL)."""
    if not _NUMBER.fullmatch(data):
        raise XenstoreError("EINVAL")
    return int(data)


def domain_id(data: bytes) -> int:
    """The id of a real domain, 0 among them. Raises `XenstoreError` (EINVAL)."""
    domid = number(data)
    if not 0 <= domid < DOMID_LIMIT:
        raise XenstoreError("EINVAL")
    return domid


def home(domid: int) -> str:
    """Where a domain's relative paths begin."""
    return f"/local/domain/{domid}"


def absolute(path: bytes, base: str) -> str:
    """A path as a client gave it, made absolute. Raises `XenstoreError` (EINVAL) for a bad or too long one."""
    if path.startswith(b"/"):
        if len(path) > ABSOLUTE_PATH_MAX or not _ABSOLUTE.fullmatch(path):
            raise XenstoreError("EINVAL")
        return path.decode("ascii")
    if len(path) > RELATIVE_PATH_MAX or not _RELATIVE.fullmatch(path):
        raise XenstoreError("EINVAL")
    return f"{base}/{path.decode('ascii')}"


def special(path: bytes) -> str:
    """The name of an event that is no node's, such as `@releaseDomain`. Raises `XenstoreError` (EINVAL)."""
    if len(path) > RELATIVE_PATH_MAX or not _SPECIAL.fullmatch(path):
        raise XenstoreError("EINVAL")
    return path.decode("ascii")


def ancestors(path: str) -> list[str]:
    """The paths that a node is beneath, its own too, the root first."""
    if path == "/":
        return ["/"]
    found = [path]
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        found.append(path)
    found.append("/")
    found.reverse()
    return found


def encode_permissions(permissions: Iterable[Permission]) -> bytes:
    """As in payloads."""
    return b"".join(f"{_LETTERS[access]}{domid}\0".encode() for domid, access in permissions)


def decode_permissions(parts: Sequence[bytes]) -> Permissions:
    """At least one entry. Raises `XenstoreError` (EINVAL)."""
    found = [_PERMISSION.fullmatch(part) for part in parts]
    if not found:
        raise XenstoreError("EINVAL")
    permissions = []
    for match in found:
        if match is None or int(match[2]) >= DOMID_LIMIT:
            raise XenstoreError("EINVAL")
        permissions.append(Permission(int(match[2]), _ACCESS[match[1]]))
    return tuple(permissions)
