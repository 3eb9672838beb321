"""The checksums of blocks: SHA-1 (what XenServer has always written and read) and XXH64 (what is written today)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping

import xxhash

from domzero.wire.xva.model import Block, Bytes, Checksum, ChecksumTable, XvaError, checksums_failed

SHA1 = "sha1"
XXH64 = "xxh64"

SUFFIXES: Mapping[str, str] = {SHA1: ".checksum", XXH64: ".xxhash"}
"""By algorithm, what is put behind the name of a block to name the file with its checksum."""
DIGITS: Mapping[str, int] = {SHA1: 40, XXH64: 16}

_MASK = (1 << 256) - 1


def _sha1(data: Bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _xxh64(data: Bytes) -> str:
    return xxhash.xxh64_hexdigest(data)


_OF_NOTHING = _sha1(b"")

_ALGORITHMS: Mapping[str, Callable[[Bytes], str]] = {SHA1: _sha1, XXH64: _xxh64}


def checksum(algorithm: str, data: Bytes) -> Checksum:
    """The checksum of bytes. Takes up to a millisecond per MiB, in which other threads can run: call it in one."""
    return Checksum(algorithm, _ALGORITHMS[algorithm](data))


class Verifier:
    """Compares the blocks of one archive with their checksums, inline or in the table at the end.

    Its memory does not grow: of blocks and rows that wait for one another only a sum is kept, which does not depend on
    their order. May be called from several threads at a time.
    """

    def __init__(self) -> None:
        self.failures = 0
        """How many blocks are not what their own checksum says."""
        self._lock = threading.Lock()
        self._blocks = self._rows = 0
        self._unchecked = self._listed = 0

    def check(self, block: Block) -> bool:
        """Whether the block is what it ought to be, as far as its own checksum says. Hashes: call it in a thread."""
        if block.checksum is not None:
            intact = checksum(block.checksum.algorithm, block.data) == block.checksum
            with self._lock:
                self.failures += not intact
            return intact
        if len(block.data):
            row = _row(block.name, _sha1(block.data))
            with self._lock:
                self._unchecked += 1
                self._blocks = self._blocks + row & _MASK
        return True

    def listed(self, table: ChecksumTable) -> None:
        """Take note of rows of the table at the end."""
        with self._lock:
            for name, text in table.rows:
                if text != _OF_NOTHING:  # empty blocks say nothing, whether they are listed or not
                    self._listed += 1
                    self._rows = self._rows + _row(name, text) & _MASK

    def verdict(self) -> XvaError | None:
        """What to raise, unless the import was forced, once the archive is complete.

        A block that neither a checksum of its own nor the table vouches for counts as damaged. Where every block had
        its own, the table (version 1 has both) says nothing new and is not compared.
        """
        with self._lock:
            table_agrees = not self._unchecked or (self._unchecked, self._blocks) == (self._listed, self._rows)
            return None if table_agrees and not self.failures else checksums_failed()


def _row(name: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{name}\0{text}".encode()).digest(), "big")
