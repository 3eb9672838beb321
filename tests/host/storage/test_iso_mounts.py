"""Mounting within bounded time, and what the kernel's list says."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host import process
from domzero.host.storage import mounts
from domzero.host.storage.iso.driver import IsoStorage
from domzero.host.storage.mounts import Mounted, MountRequest, mount_arguments, mounted_at, mounts_in
from domzero.host.storage.protocol import Repository
from domzero.host.storage.worker import Workers
from tests.host.storage.disks import REPOSITORY, refused

LIST = r"""
25 1 0:22 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 25 0:30 / /mnt/a\040b rw,nosuid - nfs4 filer:/with\040space rw,vers=4.2
41 25 0:31 / /mnt/s rw - cifs //filer/s rw,username=ann
42 25 0:32 / /mnt/s rw - tmpfs top rw
broken line
"""


def test_the_list_of_mounts() -> None:
    found = mounts_in(LIST)
    assert found[Path("/mnt/a b")] == Mounted("filer:/with space", "nfs4", Path("/mnt/a b"))
    assert found[Path("/mnt/s")].source == "top"
    assert len(found) == 3


def test_a_source_is_never_taken_for_an_option() -> None:
    argv = mount_arguments(MountRequest("nfs", "-osuid:/x", ("ro", "soft")), Path("/m"))
    assert argv == ["mount", "-t", "nfs", "-o", "ro,soft", "--", "-osuid:/x", Path("/m")]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs are found first."""
    directory = tmp_path / "bin"
    directory.mkdir()
    path = {**process.ENVIRONMENT, "PATH": f"{directory}:{process.ENVIRONMENT['PATH']}"}
    monkeypatch.setattr(process, "ENVIRONMENT", path)
    return directory


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


def program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


async def test_a_server_that_does_not_answer_costs_bounded_time(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "mount", "exec sleep 60")
    monkeypatch.setattr(mounts, "PATIENCE", 0.2)
    begun = time.monotonic()
    driver = IsoStorage(tmp_path / "mounts")
    there = Repository(REPOSITORY, {"location": "filer:/iso"})
    await refused(73, driver.attach(there))
    assert time.monotonic() - begun < 30
    await driver.detach(there)
    assert not is_there(tmp_path / "mounts" / REPOSITORY)


async def test_a_password_goes_by_descriptor(programs: Path, tmp_path: Path) -> None:
    program(
        programs,
        "mount",
        f'echo "$@" >{tmp_path}/argv; head -n 1 /proc/self/fd/$PASSWD_FD >{tmp_path}/password; exit 32',
    )
    driver = IsoStorage(tmp_path / "mounts")
    config = {"location": "//filer/iso", "username": "ann", "cifspassword": "hunter2"}
    said = await refused(111, driver.attach(Repository(REPOSITORY, config)))
    assert (tmp_path / "password").read_text() == "hunter2"
    assert "hunter2" not in (tmp_path / "argv").read_text() + said


@pytest.mark.root
class TestMounted:
    """With a file system that every kernel has."""

    @pytest.fixture
    async def point(self, tmp_path: Path) -> AsyncIterator[Path]:
        yield tmp_path / "mounts" / "x"
        await mounts.unmount(tmp_path / "mounts" / "x")

    async def test_mounting_and_letting_go_twice_is_no_error(self, point: Path) -> None:
        workers = Workers("test")
        request = MountRequest("tmpfs", "one", ("nosuid", "nodev"))
        for _ in range(2):
            await mounts.mount(request, point, workers)
        (point / "link").symlink_to("/etc/hostname")
        await mounts.forbid_links(point, workers, request.options)
        assert mounted_at(point) == Mounted("one", "tmpfs", point)
        with pytest.raises(OSError, match="symbolic links"):
            os.open(point / "link", os.O_RDONLY)
        await mounts.mount(MountRequest("tmpfs", "two", ()), point, workers)
        assert [each.source for each in mounts_in(mounts.MOUNT_LIST.read_text()).values() if each.point == point] == [
            "two"
        ]
        for _ in range(2):
            await mounts.unmount(point)
        assert not is_there(point)

    async def test_what_is_in_use_stays(self, point: Path) -> None:
        await mounts.mount(MountRequest("tmpfs", "one", ()), point, Workers("test"))
        descriptor = os.open(point, os.O_RDONLY)
        try:
            await refused(53, mounts.release(point))
            assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    async def test_what_hangs_is_taken_off_its_directory(
        self, point: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await mounts.mount(MountRequest("tmpfs", "one", ()), point, Workers("test"))
        program(programs, "umount", 'test "$1" = -f && exec /usr/bin/umount "$@"; exec sleep 60')
        monkeypatch.setattr(mounts, "UNMOUNT_PATIENCE", 0.5)
        async with asyncio.timeout(30):
            await mounts.unmount(point)
        assert mounted_at(point) is None

    async def test_what_cannot_be_mounted_leaves_nothing(self, point: Path) -> None:
        await refused(73, mounts.mount(MountRequest("nosuchtype", "x", ()), point, Workers("test"), 73))
        assert not is_there(point)
