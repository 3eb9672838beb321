"""The journal's bytes: a frame is a length, a checksum, and entries that happened at once.

A frame that is not whole, and all that follows it, never happened. Lengths are in front of everything, since values
are whatever guests wrote.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from struct import Struct

from domzero.host.xenstore.store import State
from domzero.host.xenstore.tree import Node, fresh_node, names, walk
from domzero.wire.xenstore import Access, Permission, Permissions

_FRAME = Struct("<II")
_ENTRY = Struct("<BHHH")
_PERMISSION = Struct("<HB")
_AT_ONCE = 256
"""Nodes in one frame of a whole tree."""


class Kind(IntEnum):
    """What an entry says."""

    NODE = 1
    GONE = 2
    DOMAIN = 3
    RELEASED = 4
    SPECIAL = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. A domain's name is its number; its target stands where values do."""

    kind: Kind
    name: str
    permissions: Permissions = ()
    value: bytes = b""


def node(path: str, there: Node) -> Entry:
    """A node is there, whether it was before or not."""
    return Entry(Kind.NODE, path, there.permissions, there.value)


def domain(domid: int, target: int | None) -> Entry:
    """A domain was introduced, or has another target."""
    return Entry(Kind.DOMAIN, str(domid), value=b"" if target is None else b"%d" % target)


def encode(entries: Iterable[Entry]) -> bytes:
    """A frame."""
    body = b"".join(_encoded(entry) for entry in entries)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def whole(state: State) -> Iterator[bytes]:
    """Frames that make a state from nothing."""
    yield encode(Entry(Kind.SPECIAL, name, permissions) for name, permissions in state.specials.items())
    yield encode(domain(domid, target) for domid, target in state.domains.items())
    nodes = (node(path, there) for path, there in walk("/", state.root))
    while entries := list(islice(nodes, _AT_ONCE)):
        yield encode(entries)


def decode(content: bytes) -> tuple[State, int]:
    """The state after all whole frames, and how many bytes at the end belong to none."""
    state = State()
    # While it is built, a tree is changed in place; nobody else knows it yet.
    state.root = fresh_node()
    position = 0
    while position + _FRAME.size <= len(content):
        length, checksum = _FRAME.unpack_from(content, position)
        body = content[position + _FRAME.size : position + _FRAME.size + length]
        if len(body) < length or zlib.crc32(body) != checksum:
            break
        for entry in _decoded(body):
            _happen(state, entry)
        position += _FRAME.size + length
    return state, len(content) - position


def _encoded(entry: Entry) -> bytes:
    name = entry.name.encode("ascii")
    permissions = b"".join(_PERMISSION.pack(domid, access) for domid, access in entry.permissions)
    head = _ENTRY.pack(entry.kind, len(name), len(entry.permissions), len(entry.value))
    return b"".join((head, name, permissions, entry.value))


def _decoded(body: bytes) -> Iterator[Entry]:
    position = 0
    while position < len(body):
        kind, name_length, count, value_length = _ENTRY.unpack_from(body, position)
        begin = position + _ENTRY.size
        middle = begin + name_length
        end = middle + count * _PERMISSION.size
        position = end + value_length
        found = _PERMISSION.iter_unpack(body[middle:end])
        permissions = tuple(Permission(domid, Access(access)) for domid, access in found)
        yield Entry(Kind(kind), body[begin:middle].decode("ascii"), permissions, body[end:position])


def _happen(state: State, entry: Entry) -> None:
    match entry.kind:
        case Kind.NODE:
            _put(state.root, entry)
        case Kind.GONE:
            *above, name = names(entry.name)
            there = state.root
            for step in above:
                there = there.children[step]
            del there.children[name]
        case Kind.DOMAIN:
            state.domains[int(entry.name)] = int(entry.value) if entry.value else None
        case Kind.RELEASED:
            state.domains.pop(int(entry.name), None)
        case Kind.SPECIAL:
            state.specials[entry.name] = entry.permissions


def _put(root: Node, entry: Entry) -> None:
    there = root
    for name in names(entry.name):
        there = there.children.setdefault(name, fresh_node())
    there.value, there.permissions = entry.value, entry.permissions
