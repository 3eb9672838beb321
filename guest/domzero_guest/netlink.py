"""Addresses of the network cards, from the kernel: route netlink (rtnetlink(7)) without any other program."""

import socket
import struct
from typing import Iterator, List, NamedTuple, Tuple

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBi")
_ATTRIBUTE = struct.Struct("=HH")
_NEWADDR, _GETADDR = 20, 22
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 1, 0x300
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NOT_YET = 0x40 | 0x08
"""IFA_F_TENTATIVE and IFA_F_DADFAILED: the address is not usable."""
_GROUPS = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
_PIECE = 65536
_PATIENCE = 5.0
_MOST_MESSAGES = 65536


class Address(NamedTuple):
    """An address of an interface. `scope` is 0 for one of the world's, larger the less far it reaches."""

    interface: int
    family: int
    scope: int
    text: str


def addresses() -> List[Address]:
    """What is configured now and usable. Raises `OSError`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asked:
        asked.settimeout(_PATIENCE)
        asked.send(_HEADER.pack(_HEADER.size + _ADDRESS.size, _GETADDR, _REQUEST | _DUMP, 1, 0) + bytes(_ADDRESS.size))
        found: List[Address] = []
        ended = False
        while not ended:
            part, ended = parsed(asked.recv(_PIECE))
            found += part
        return found


def notices() -> socket.socket:
    """A socket that becomes readable whenever a card or an address comes or goes. Raises `OSError`."""
    told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    told.bind((0, _GROUPS))
    told.setblocking(False)
    return told


def drain(told: socket.socket) -> bool:
    """Whether anything was told since; all of it is taken."""
    heard = False
    for _ in range(_MOST_MESSAGES):
        try:
            told.recv(_PIECE)
        except BlockingIOError:
            break
        except OSError:
            return True  # more was told than the kernel keeps: something has changed, no matter what
        heard = True
    return heard


def parsed(data: bytes) -> Tuple[List[Address], bool]:
    """The addresses in an answer, and whether it is the last part of it. Raises `OSError` for a refusal."""
    found: List[Address] = []
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size or position + length > len(data):
            break
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            raise OSError("the kernel does not tell addresses")
        if kind == _NEWADDR and length >= _HEADER.size + _ADDRESS.size:
            found += _address(data[position + _HEADER.size : position + length])
        position += (length + 3) & ~3
    return found, False


def _address(body: bytes) -> Iterator[Address]:
    family, _, flags, scope, index = _ADDRESS.unpack_from(body)
    values = dict(_attributes(body[_ADDRESS.size :]))
    if len(values.get(_IFA_FLAGS, b"")) == 4:
        flags = int.from_bytes(values[_IFA_FLAGS], "little" if struct.pack("=H", 1)[0] else "big")
    raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS) or b""
    if not flags & _NOT_YET and len(raw) == {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family):
        yield Address(index, family, scope, socket.inet_ntop(family, raw))


def _attributes(data: bytes) -> Iterator[Tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size or position + length > len(data):
            return
        yield kind, data[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
