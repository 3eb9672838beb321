"""Archives that are made while they are sent: what is in memory is one file and what is packed of it."""

from __future__ import annotations

import bz2
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol


class Packer(Protocol):
    """Makes an archive of files. Blocks for as long as compressing takes."""

    media_type: str

    def add(self, name: str, content: bytes) -> bytes:
        """Pack a file; the archive's bytes that are ready."""
        ...

    def finish(self) -> bytes:
        """The archive's last bytes."""
        ...


class TarPacker:
    """A plain tar archive."""

    media_type = "application/x-tar"

    def __init__(self, when: int) -> None:
        self._when = when

    def add(self, name: str, content: bytes) -> bytes:
        """See `Packer`."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(content), self._when, 0o600
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "replace")
        return header + content + bytes(-len(content) % tarfile.BLOCKSIZE)

    def finish(self) -> bytes:
        """See `Packer`."""
        return bytes(2 * tarfile.BLOCKSIZE)


class CompressedTarPacker:
    """A tar archive in bzip2."""

    media_type = "application/x-bzip2"

    def __init__(self, when: int) -> None:
        self._tar = TarPacker(when)
        self._compressor = bz2.BZ2Compressor()

    def add(self, name: str, content: bytes) -> bytes:
        """See `Packer`."""
        return self._compressor.compress(self._tar.add(name, content))

    def finish(self) -> bytes:
        """See `Packer`."""
        return self._compressor.compress(self._tar.finish()) + self._compressor.flush()


class _Outlet:
    """A file that can only be written to, and is emptied now and then."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ZipPacker:
    """A zip archive, whose sizes follow the files (APPNOTE.TXT, section 4.3.9)."""

    media_type = "application/zip"

    def __init__(self, when: int) -> None:
        self._when = datetime.fromtimestamp(max(when, 315_532_800), UTC).timetuple()[:6]  # zip's times begin in 1980
        self._outlet = _Outlet()
        self._archive = zipfile.ZipFile(self._outlet, "w", zipfile.ZIP_DEFLATED)  # type: ignore[call-overload]  # needs no more

    def add(self, name: str, content: bytes) -> bytes:
        """See `Packer`."""
        member = zipfile.ZipInfo(name, self._when)
        member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o100600 << 16
        self._archive.writestr(member, content)
        return self._outlet.take()

    def finish(self) -> bytes:
        """See `Packer`."""
        self._archive.close()
        return self._outlet.take()


PACKERS: Mapping[str, Callable[[int], Packer]] = {"tar.bz2": CompressedTarPacker, "tar": TarPacker, "zip": ZipPacker}
"""By the word that asks for it, and that such files end in; the first one is for whoever does not ask."""
