"""The archive writer, checked against the description of the layout and by a program that reads it."""

from __future__ import annotations

from pathlib import Path

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


async def test_busybox_lists_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(cpio.archive(ENTRIES))
    listed = await process.run(["busybox", "cpio", "-t", "-v", "-F", path])
    lines = [line.split() for line in listed.stdout.decode().splitlines()]
    assert [(words[0], words[1], " ".join(words[5:])) for words in lines] == [
        ("drwxr-xr-x", "0/0", "etc"),
        ("-rw-r-----", "0/0", "etc/motd"),
        ("-rw-r--r--", "0/0", "etc/empty"),
        ("lrwxrwxrwx", "0/0", "etc/link -> motd"),
        ("crw-------", "0/0", "console"),
    ]
