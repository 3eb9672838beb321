"""A qemu-img that is killed, whichever of an operation's it is, loses no disk and leaves no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.storage import images
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import MIB, Shelf, holds, raw, uuid, write
from tests.sampling import each

VERBS = ("create", "create vhd", "clone", "clone vhd", "clone raw", "snapshot", "copy", "resize", "resize vhd")
SOURCES = {"vhd": 2, "raw": 3}


@pytest.fixture
async def stocked(shelf: Shelf) -> Shelf:
    """Disk 1 is qcow2 above a layer that snapshot 4 shares, 2 is VHD and 3 raw; each is marked with its number."""
    for number, format in enumerate(("qcow2", "vhd", "raw"), start=1):
        await shelf.driver.create_disk(shelf.repository, uuid(number), 8 * MIB, {"image-format": format})
        write(await shelf.source(number), number)
    await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(4), None)
    write(await shelf.source(1), 1, MIB)
    return shelf


async def act(shelf: Shelf, verb: str, tmp_path: Path) -> None:
    driver, here = shelf.driver, shelf.repository
    kind, _, format = verb.partition(" ")
    source = uuid(SOURCES.get(format, 1))
    if kind == "create":
        await driver.create_disk(here, uuid(9), MIB, {"image-format": format or "qcow2"})
    elif kind == "clone":
        await driver.clone_disk(here, source, uuid(9))
    elif kind == "snapshot":
        await driver.snapshot_disk(here, source, uuid(9), None)
    elif kind == "copy":
        content = raw(tmp_path / "content", 8 * MIB, b"\7" * MIB)
        vhd = Repository(here.uuid, here.device_config, {"image-format": "vhd"})
        await driver.copy_disk(content, vhd, uuid(9), 8 * MIB, lambda _: None)
    else:
        await driver.resize_disk(here, source, 16 * MIB)


def killed_at(tmp_path: Path, call: int) -> str:
    """A program that is qemu-img, but is killed when it is called for the n-th time, after a moment of work."""
    count, program = tmp_path / "count", tmp_path / "qemu-img"
    count.write_text("0")
    program.write_text(
        "#!/bin/sh\n"
        f"n=$(($(cat {count}) + 1)); echo $n >{count}\n"
        # It dies in any case, be its work done by then or not.
        f'if [ $n = {call} ]; then qemu-img "$@" & sleep 0.002; kill -KILL $! 2>/dev/null; kill -KILL $$; fi\n'
        'exec qemu-img "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("verb", each(4, VERBS))
async def test_a_killed_tool_undoes_the_operation(
    stocked: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    before = stocked.files()
    sizes = {disk.uuid: disk.virtual_size for disk in await stocked.driver.scan(stocked.repository)}
    killed = 0
    for call in range(1, 9):
        monkeypatch.setattr(images, "QEMU_IMG", killed_at(tmp_path, call))
        try:
            await act(stocked, verb, tmp_path)
            break
        except StorageError:
            killed += 1
        assert stocked.files() == before
        await stocked.driver.attach(stocked.repository)
        found = {disk.uuid: disk.virtual_size for disk in await stocked.driver.scan(stocked.repository)}
        # A tool that dies after its last write has grown the disk: then it is as large as was asked for.
        resized = uuid(SOURCES.get(verb.partition(" ")[2], 1))
        if verb.startswith("resize") and found[resized] == 16 * MIB:
            sizes[resized] = 16 * MIB
        assert found == sizes
    assert 1 <= killed < 8
    for number, mark in ((1, 1), (2, 2), (3, 3), (4, 1)):
        assert holds(await stocked.source(number), mark)
    assert holds(await stocked.source(1), 1, MIB)
    assert holds(await stocked.source(4), 0, MIB)
    assert await stocked.numbers() - {9} == {1, 2, 3, 4}
