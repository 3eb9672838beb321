"""An installer from an export of the kernel's own NFS server, fetched by QEMU's client without a mount."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.contents.qemu import QemuContents
from domzero.host.download.http import download
from domzero.toolstack.vm.install.families import FAMILIES
from domzero.toolstack.vm.install.repository import Fetcher, InstallerMissingError
from domzero.toolstack.vm.install.source import read_repository
from tests.toolstack.vm.install.repository import PLACES, repository

KERNEL, RAMDISK = b"kernel" * 1001, b"ramdisk" * 300_001
SERVER = "127.0.0.1"


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, timeout=300)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("export") / "os"
    for name, content in repository("red-hat", KERNEL, RAMDISK).items():
        place = directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for parent in (directory, *directory.parents[:3]):
        parent.chmod(0o755)
    run("systemctl", "start", "nfs-server")
    run("exportfs", "-o", "ro,no_subtree_check,insecure,fsid=79", f"{SERVER}:{directory}")
    yield str(directory)
    run("exportfs", "-u", f"{SERVER}:{directory}")


async def fetch(address: str, directory: Path) -> tuple[bytes, bytes]:
    source = read_repository(address)
    assert source is not None
    kernel, ramdisk = directory / "linux", directory / "initrd"
    fetcher = Fetcher(source, download, QemuContents(directory), lambda _share: None)
    await fetcher.fetch(FAMILIES["rhlike"].trees, kernel, ramdisk)
    return await asyncio.to_thread(kernel.read_bytes), await asyncio.to_thread(ramdisk.read_bytes)


@pytest.mark.parametrize("form", ["nfs:{}:{}", "nfs://{}{}/"])
async def test_an_installer_is_fetched_whole(export: str, tmp_path: Path, form: str) -> None:
    kernel, ramdisk = await fetch(form.format(SERVER, export), tmp_path)
    assert (kernel.rstrip(b"\0"), ramdisk.rstrip(b"\0")) == (KERNEL, RAMDISK)


async def test_what_is_not_exported_is_not_had(export: str, tmp_path: Path) -> None:
    for place in (f"{export}/nothing", "/etc"):
        with pytest.raises(InstallerMissingError, match="could not be fetched"):
            await fetch(f"nfs:{SERVER}:{place}", tmp_path)


async def test_a_file_that_is_not_that_of_the_checksum(export: str, tmp_path: Path) -> None:
    ramdisk = Path(export, PLACES["red-hat"][1])
    await asyncio.to_thread(ramdisk.write_bytes, RAMDISK[:-1] + b"?")
    with pytest.raises(InstallerMissingError, match="sha256 checksum"):
        await fetch(f"nfs:{SERVER}:{export}", tmp_path)
