"""Checksums that repositories publish, and whether a file is the one that they speak of.

They tell a broken or half-copied repository from a sound one. They protect nobody from whoever runs the repository,
nor, over http and ftp, from whoever is on the way.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

ALGORITHMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Name → length of a digest in hexadecimal digits, the weakest first."""
BY_LENGTH = {length: name for name, length in ALGORITHMS.items()}
SECTION = "checksums"
HEXADECIMAL = frozenset(string.hexdigits)
SHORTEST = min(BY_LENGTH)

Digest = tuple[str, str]
"""Algorithm and hexadecimal digest."""


def published(text: str, path: str, below: str = "") -> Digest | None:
    """The strongest checksum that a listing gives for the file, None where it has none.

    Read are `.treeinfo` (Red Hat: names of its section `checksums`), and rows of digest and name as sha256sum(1) writes
    them (Debian, Ubuntu, SUSE). `path` is the file's below the repository, and `below` what the names are relative to.
    Whatever makes no sense in a listing is passed over. It may be anything: each line is looked at once, with neither
    regular expressions nor configparser, whose work for one long line grows with the line's square.
    """
    lines = (line for line in StringIO(text) if len(line) > 1)
    if f"[{SECTION}]" in text:
        found = _from_tree_info(lines, path)
    else:
        rows = (_row(line) for line in lines if len(line) > SHORTEST)
        found = (digest for row in rows for digest, name in row if below + name == path)
    order = list(ALGORITHMS)
    return max(found, key=lambda digest: order.index(digest[0]), default=None)


def _row(line: str) -> Iterator[tuple[Digest, str]]:
    """What a row of digest and name says. SUSE's begin with `HASH` and the algorithm's name."""
    words = line.split(maxsplit=4)
    digest, name = ([*words[2:], "", ""] if words[:1] == ["HASH"] else [*words, "", ""])[:2]
    if len(digest) in BY_LENGTH and HEXADECIMAL.issuperset(digest):
        yield (BY_LENGTH[len(digest)], digest.lower()), name.removeprefix("*").removeprefix("./")


def _from_tree_info(lines: Iterator[str], path: str) -> Iterator[Digest]:
    section = ""
    for line in lines:
        name, equals, value = line.partition("=")
        if line.startswith("["):
            section = line.strip()
        elif equals and section == f"[{SECTION}]" and name.strip() == path:
            algorithm, _, digest = value.strip().lower().partition(":")
            if ALGORITHMS.get(algorithm) == len(digest):
                yield algorithm, digest


def has_digest(file: Path, wanted: Digest) -> bool:
    """Whether the file has the digest. Blocking. Raises `OSError`."""
    algorithm, digest = wanted
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest() == digest
