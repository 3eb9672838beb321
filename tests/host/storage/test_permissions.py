"""Who may do what with the files of disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.file import DirectoryMedium
from domzero.host.storage.protocol import Repository
from tests.host.storage.disks import MIB, REPOSITORY, uuid


class AskingMedium(DirectoryMedium):
    """Like a server that looks at who lengthens a file."""

    mode = 0o666


@pytest.mark.parametrize("medium", [DirectoryMedium(), AskingMedium()], ids=["own", "asking"])
async def test_files_have_the_mediums_permissions_and_nobody_gets_at_them(
    medium: DirectoryMedium, tmp_path: Path
) -> None:
    driver = DirectoryStorage(medium)
    here = Repository(REPOSITORY, {"location": str(tmp_path / "sr")})
    await driver.create(here, 0)
    await driver.attach(here)
    await driver.create_disk(here, uuid(1), MIB)
    await driver.clone_disk(here, uuid(1), uuid(2))
    await driver.create_image(here, uuid(3))
    await driver.resize_disk(here, uuid(1), 2 * MIB)
    disks = [path for path in (tmp_path / "sr").iterdir() if path.suffix in (".qcow2", ".memory")]
    assert len(disks) >= 3
    assert {path.stat().st_mode & 0o777 for path in disks} == {medium.mode}
    assert (tmp_path / "sr").stat().st_mode & 0o077 == 0
    await driver.detach(here)
