"""Checksums that repositories publish, and whether a file is the one that they speak of.

They tell a broken or half-copied repository from a sound one. They protect nobody from whoever runs the repository,
nor, over http and ftp, from whoever is on the way.
"""

from __future__ import annotations

import configparser
import hashlib
import re
from pathlib import Path

ALGORITHMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Name → length of a digest in hexadecimal digits, the weakest first."""
BY_LENGTH = {length: name for name, length in ALGORITHMS.items()}
SECTION = "checksums"
_ROW = re.compile(r"(?:HASH\s+\w+\s+)?([0-9a-fA-F]{32,128})\s+\*?(\S+)")
BLOCK = 512
CHUNK = 1 << 20

Digest = tuple[str, str]
"""Algorithm and hexadecimal digest."""


def published(text: str, path: str, below: str = "") -> Digest | None:
    """The strongest checksum that a listing gives for the file, None where it has none.

    Read are `.treeinfo` (Red Hat: names of its section `checksums`), and rows of digest and name as sha256sum(1) writes
    them (Debian, Ubuntu, SUSE). `path` is the file's below the repository, and `below` what the names are relative to.
    Whatever makes no sense in a listing is passed over.
    """
    if f"[{SECTION}]" in text:
        found = _from_tree_info(text, path)
    else:
        found = [
            (BY_LENGTH[len(digest)], digest.lower())
            for digest, name in _ROW.findall(text)
            if len(digest) in BY_LENGTH and below + name.removeprefix("./") == path
        ]
    order = list(ALGORITHMS)
    return max(found, key=lambda digest: order.index(digest[0]), default=None)


def _from_tree_info(text: str, path: str) -> list[Digest]:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
    try:
        parser.read_string(text)
        listed = parser.get(SECTION, path, fallback="")
    except configparser.Error:
        return []
    algorithm, colon, digest = listed.strip().lower().partition(":")
    return [(algorithm, digest)] if colon and ALGORITHMS.get(algorithm) == len(digest) else []


def has_digest(file: Path, wanted: Digest) -> bool:
    """Whether the file has the digest. Blocking. Raises `OSError`."""
    algorithm, digest = wanted
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest() == digest
