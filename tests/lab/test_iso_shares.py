"""CD images on NFS exports and SMB shares, with the kernel's clients; the servers share this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.storage.iso import driver as iso
from domzero.host.storage.iso.driver import IsoStorage
from domzero.host.storage.mounts import mounted_at
from domzero.host.storage.protocol import Repository
from tests.host.storage.disks import REPOSITORY, refused

SERVER = "127.0.0.1"
SMB_PORT = 4450
PASSWORD = "with,comma and space"

SAMBA = """
[global]
    server role = standalone server
    workgroup = LAB
    interfaces = lo
    bind interfaces only = yes
    smb ports = {port}
    map to guest = Bad User
    log file = {home}/log
    pid directory = {home}
    lock directory = {home}
    state directory = {home}
    cache directory = {home}
    private dir = {home}
    ncalrpc dir = {home}/ncalrpc
[images]
    path = {images}
    valid users = keeper
[open]
    path = {images}
    guest ok = yes
"""


def run(*argv: str | Path, say: str | None = None) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120, input=say).stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shares") / "images"
    (directory / "more").mkdir(parents=True)
    for parent in (directory, *directory.parents[:-2]):
        parent.chmod(0o755)
    (directory / "tools.iso").write_bytes(b"x" * 10000)
    (directory / "more/linux.ISO").write_bytes(b"y" * 4096)
    (directory / "link.iso").symlink_to("/etc/passwd")
    (directory / "etc").symlink_to("/etc")
    return directory


@pytest.fixture(scope="module")
def nfs(images: Path) -> Iterator[str]:
    run("systemctl", "start", "nfs-server")
    run("exportfs", "-o", "ro,no_subtree_check,insecure,fsid=78", f"{SERVER}:{images}")
    yield f"{SERVER}:{images}"
    run("exportfs", "-u", f"{SERVER}:{images}")


def answers() -> bool:
    with socket.socket() as visitor:
        return visitor.connect_ex((SERVER, SMB_PORT)) == 0


@pytest.fixture(scope="module")
def samba(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    home = tmp_path_factory.mktemp("samba")
    settings = home / "smb.conf"
    settings.write_text(SAMBA.format(home=home, images=images, port=SMB_PORT))
    run("useradd", "keeper")
    run("smbpasswd", "-c", settings, "-a", "-s", "keeper", say=f"{PASSWORD}\n{PASSWORD}\n")
    # It makes a process group of its own, and ends whatever else is in its group when it goes.
    process = subprocess.Popen(["smbd", "-F", "-s", settings])
    try:
        deadline = time.monotonic() + 60
        while not answers():
            assert time.monotonic() < deadline
            assert process.poll() is None, (home / "log").read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()
        run("userdel", "keeper")


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[IsoStorage]:
    (tmp_path / "mounts").mkdir()
    yield IsoStorage(tmp_path / "mounts")
    assert os.listdir(tmp_path / "mounts") == []


def keeper(password: str = PASSWORD, **further: str) -> Repository:
    return Repository(
        REPOSITORY,
        {
            "location": f"\\\\{SERVER}\\images",
            "type": "cifs",
            "username": "keeper",
            "cifspassword": password,
            "options": f"port={SMB_PORT}",
            **further,
        },
    )


async def used(driver: IsoStorage, here: Repository, tmp_path: Path) -> None:
    """A share is attached, read, and let go of; nothing of it leads elsewhere."""
    await driver.create(here, 0)
    assert mounted_at(tmp_path / "mounts" / REPOSITORY) is None
    await driver.attach(here)
    await driver.attach(here)
    (image,) = await driver.scan(here)
    source = await driver.source(here, "tools.iso")
    assert image.virtual_size == len(source.path.read_bytes()) == 10000
    await refused(144, driver.source(here, "link.iso"))
    point = tmp_path / "mounts" / REPOSITORY
    if (point / "etc").is_symlink():
        with pytest.raises(OSError, match="symbolic links"):
            os.open(point / "etc/passwd", os.O_RDONLY)
    with pytest.raises(OSError, match="Read-only"):
        (point / "new.iso").touch()
    again = IsoStorage(tmp_path / "mounts")
    await again.attach(here)
    assert await again.scan(here) == [image]
    await driver.destroy(here)
    assert mounted_at(point) is None


@pytest.mark.parametrize("version", ["3", "4.2", ""])
async def test_an_nfs_export(driver: IsoStorage, nfs: str, tmp_path: Path, version: str) -> None:
    config = {"location": nfs, **({"nfsversion": version} if version else {})}
    await used(driver, Repository(REPOSITORY, config), tmp_path)


@pytest.mark.parametrize("version", ["2.1", "3.1.1", ""])
async def test_an_smb_share(driver: IsoStorage, samba: subprocess.Popen[bytes], tmp_path: Path, version: str) -> None:
    await used(driver, keeper(vers=version), tmp_path)


async def test_a_share_for_everyone_and_a_directory_in_it(
    driver: IsoStorage, samba: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    options = {"location": f"//{SERVER}/open", "options": f"port={SMB_PORT}"}
    await used(driver, Repository(REPOSITORY, options), tmp_path)
    inside = Repository(REPOSITORY, {**options, "iso_path": "more"})
    await driver.attach(inside)
    assert [disk.name for disk in await driver.scan(inside)] == ["linux.ISO"]
    await driver.detach(inside)


async def test_shares_that_cannot_be_had(
    driver: IsoStorage, nfs: str, samba: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    await refused(111, driver.attach(keeper("wrong")))
    await refused(111, driver.attach(keeper(location=f"//{SERVER}/none")))
    await refused(73, driver.attach(Repository(REPOSITORY, {"location": f"{SERVER}:/no/such/export"})))
    await refused(224, driver.attach(Repository(REPOSITORY, {"location": nfs, "iso_path": "none"})))
    await refused(224, driver.attach(Repository(REPOSITORY, {"location": nfs, "iso_path": "etc"})))


@pytest.fixture
def cut() -> Iterator[list[str]]:
    """Makes both servers silent; what a test leaves of it goes."""
    run("nft", "add", "table", "inet", "iso")
    run("nft", "add", "chain", "inet", "iso", "in", "{ type filter hook input priority 0 ; }")
    yield ["nft", "add", "rule", "inet", "iso", "in", "tcp", "dport", f"{{ 2049, {SMB_PORT} }}", "drop"]
    run("nft", "delete", "table", "inet", "iso")


@pytest.mark.parametrize("kind", ["nfs", "cifs"])
async def test_a_server_that_falls_silent_hangs_nobody(
    driver: IsoStorage,
    nfs: str,
    samba: subprocess.Popen[bytes],
    tmp_path: Path,
    cut: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(iso, "SHARE_PATIENCE", 5.0)
    here = Repository(REPOSITORY, {"location": nfs}) if kind == "nfs" else keeper(options=f"port={SMB_PORT},actimeo=1")
    await driver.attach(here)
    await asyncio.sleep(2)  # what the client remembers of the directory has to grow old
    run(*cut)
    begun = time.monotonic()
    outcomes = await asyncio.gather(driver.scan(here), driver.source(here, "other.iso"), return_exceptions=True)
    assert any(getattr(outcome, "number", 0) in (47, 200, 144) for outcome in outcomes), outcomes
    await driver.detach(here)
    assert mounted_at(tmp_path / "mounts" / REPOSITORY) is None
    assert time.monotonic() - begun < 60
