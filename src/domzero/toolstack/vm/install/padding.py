"""Files that were read in whole blocks, and what they were before."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from domzero.toolstack.vm.install.checksums import Digest

BLOCK = 512


def without_padding(file: Path, wanted: Digest) -> None:
    """Cut off the zeros at the file's end that keep it from having the digest, fewer than a block of them.

    A file that cannot have the digest stays as it is. Blocking. Raises `OSError`.
    """
    algorithm, digest = wanted
    size = file.stat().st_size
    with file.open("r+b") as content:
        common = hashlib.new(algorithm, usedforsecurity=False)
        for _ in range(max(0, size - BLOCK) // BLOCK):
            common.update(content.read(BLOCK))
        reached = content.tell()
        tail = content.read()
        for length in range(len(tail), max(-1, len(tail) - BLOCK), -1):
            whole = common.copy()
            whole.update(tail[:length])
            if whole.hexdigest() == digest:
                os.truncate(content.fileno(), reached + length)
                return
            if length and tail[length - 1]:
                return
