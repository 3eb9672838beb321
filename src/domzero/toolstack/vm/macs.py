"""Hardware addresses of virtual network cards: generated from a machine's seed, or checked and normalised.

A blank address is filled in from the machine's `other_config:mac_seed` and the card's position alone, so the same
machine gets the same addresses again after an export and an import, and a clone, whose seed is new, gets others.
"""

from __future__ import annotations

import hashlib
import re

_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LOCALLY_ADMINISTERED = 0x02
_MULTICAST = 0x01


def generate_mac(seed: str, device: int) -> str:
    """The address of card number `device` (from 0) of a machine with this seed; never raises.

    The seed's MD5 digest is digested again until 2·device+1 rounds are done; the first four bytes of that digest
    and the second and third of the round after it make the address, marked as locally administered and unicast.
    """
    digest = seed.encode()
    for _ in range(2 * device + 1):
        digest = _md5(digest)
    following = _md5(digest)
    first = (digest[0] | _LOCALLY_ADMINISTERED) & ~_MULTICAST
    return bytes((first, *digest[1:4], *following[1:3])).hex(":")


def normalise_mac(text: str) -> str | None:
    """The address in lower case with colons, or None when it is malformed or names no single card."""
    address = text.strip().lower()
    if not _ADDRESS.fullmatch(address) or int(address[:2], 16) & _MULTICAST or address == "00:00:00:00:00:00":
        return None
    return address


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
