"""The archive writer, checked by reading back what it writes, with the cpio program where the machine has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from domzero.host import process
from domzero.host.guest_image import cpio

ENTRIES = [
    cpio.directory("etc"),
    cpio.file("etc/motd", b"hello", 0o640),
    cpio.file("etc/empty", b""),
    cpio.symlink("etc/link", "motd"),
    cpio.character_device("console", 5, 1),
]


def test_layout_follows_the_kernels_description() -> None:
    data = cpio.archive([cpio.file("ab", b"xyz")])
    assert data[:6] == b"070701"
    fields = [int(data[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
    inode, mode, uid, gid, links, mtime, size, _, _, _, _, name_size, check = fields
    assert (mode, uid, gid, links, mtime, size, name_size, check) == (0o100644, 0, 0, 1, 0, 3, 3, 0)
    assert inode > 0
    # The name begins at 110 and is padded with the header to a multiple of four; so is the content.
    assert data[110:113] == b"ab\0"
    assert data[116:119] == b"xyz"
    assert data[120:126] == b"070701"
    assert len(data) % 512 == 0


def test_equal_entries_give_equal_bytes() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(list(ENTRIES))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="the cpio program is not installed")
async def test_cpio_lists_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(cpio.archive(ENTRIES))
    listed = await process.run(["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet", "--file", path])
    rows = [(line.split()[0], line.split("1970 ", 1)[1]) for line in listed.stdout.decode().splitlines()]
    assert rows == [
        ("drwxr-xr-x", "etc"),
        ("-rw-r-----", "etc/motd"),
        ("-rw-r--r--", "etc/empty"),
        ("lrwxrwxrwx", "etc/link -> motd"),
        ("crw-------", "console"),
    ]
