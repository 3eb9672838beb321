"""The packets of iSCSI (RFC 7143) that an initiator needs to look at a target. No I/O."""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

HEADER = 48
DATA_LIMIT = 1 << 18
"""Bytes of data in one packet that we announce, and take."""
NO_TAG = 0xFFFFFFFF

NOP_OUT, SCSI_COMMAND, LOGIN, TEXT, LOGOUT = 0x00, 0x01, 0x03, 0x04, 0x06
NOP_IN, SCSI_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN, REJECT = 0x20, 0x21, 0x23, 0x24, 0x25, 0x3F
IMMEDIATE = 0x40
FINAL = 0x80
CONTINUES = 0x40
HAS_STATUS = 0x01
READS = 0x40
SIMPLE = 0x01

SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3
"""Stages of a login."""


class BadReplyError(Exception):
    """What came from the target is not what the protocol allows."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, its padding and additional headers taken off."""

    header: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        """What kind it is."""
        return self.header[0] & 0x3F

    @property
    def flags(self) -> int:
        """What the second byte says, whose meaning depends on the kind."""
        return self.header[1]

    def number(self, offset: int) -> int:
        """Four bytes of the header."""
        return int.from_bytes(self.header[offset : offset + 4], "big")


def lengths(header: bytes) -> tuple[int, int]:
    """How many bytes of additional headers and of data follow a header, without padding.

    Raises `BadReplyError` for more than we announced.
    """
    data = int.from_bytes(header[5:8], "big")
    if data > DATA_LIMIT:
        raise BadReplyError(f"a packet of {data} bytes is longer than agreed")
    return header[4] * 4, data


def padding(length: int) -> int:
    """Data is filled up to a multiple of four bytes."""
    return -length % 4


def packet(first: int, flags: int, fields: Mapping[int, bytes], data: bytes = b"") -> bytes:
    """A whole packet: first byte, flags, and what stands at which offset of the header."""
    header = bytearray(HEADER)
    header[0], header[1] = first, flags
    header[5:8] = len(data).to_bytes(3, "big")
    for offset, content in fields.items():
        header[offset : offset + len(content)] = content
    return bytes(header) + data + bytes(padding(len(data)))


def word(number: int) -> bytes:
    """Four bytes of a header."""
    return struct.pack(">I", number & 0xFFFFFFFF)


def encoded_keys(keys: Mapping[str, str]) -> bytes:
    """Text keys as they stand in the data of login and text packets (section 6.1)."""
    return b"".join(f"{name}={value}".encode() + b"\0" for name, value in keys.items())


def decoded_keys(data: bytes) -> list[tuple[str, str]]:
    """Text keys in their order; a name may come more than once. Raises `BadReplyError`."""
    keys = []
    for line in data.split(b"\0"):
        if not line:
            continue
        name, equals, value = line.decode(errors="replace").partition("=")
        if not equals:
            raise BadReplyError("a text key has no value")
        keys.append((name, value))
    return keys


def chap_answer(keys: Mapping[str, str], password: str) -> str:
    """The CHAP_R for a challenge by MD5 (RFC 1994 section 4.1, RFC 7143 section 12.1.3). Raises `BadReplyError`."""
    if keys.get("CHAP_A") != "5":
        raise BadReplyError("the target offers no CHAP algorithm that we asked for")
    try:
        identifier = bytes([int(keys["CHAP_I"], 0)])
        challenge = _binary(keys["CHAP_C"])
    except (KeyError, ValueError) as error:
        raise BadReplyError("the target's CHAP challenge cannot be read") from error
    if not 1 <= len(challenge) <= 1024:
        raise BadReplyError("the target's CHAP challenge has no proper length")
    answer = hashlib.md5(identifier + password.encode() + challenge, usedforsecurity=False)  # the protocol's own choice
    return "0x" + answer.hexdigest()


def _binary(text: str) -> bytes:
    if text[:2].lower() == "0x":
        return bytes.fromhex(text[2:])
    if text[:2].lower() == "0b":
        return b64decode(text[2:], validate=True)
    raise ValueError(text)


def login_status(reply: Packet) -> tuple[int, int]:
    """Class (0 success, 1 redirection, 2 our fault, 3 the target's) and detail (section 11.13.5)."""
    return reply.header[36], reply.header[37]


LOGIN_FAILURES = {
    (2, 1): "the target refuses the CHAP name or password",
    (2, 2): "the target does not let this initiator in",
    (2, 3): "there is no such target",
    (2, 4): "the target is gone for good",
    (2, 6): "the target has too many connections",
    (3, 1): "the target is not available at the moment",
    (3, 2): "the target is out of resources",
}
"""What is said of the status of a login that failed."""
