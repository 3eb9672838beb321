"""Installing from a repository on the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.installer import FAMILIES, ROUND, boot_overrides, discard, installer_of, record_installing
from tests.host.test_download import server
from tests.toolstack.vm.world import World

DEBIAN = {
    "install-repository": "http://deb.example/debian/",
    "install-distro": "debianlike",
    "debian-release": "bookworm",
}


def machine(**config: str) -> dict[str, Any]:
    return {"other_config": config, "PV_args": "auto=true"}


def test_where_debian_keeps_its_installer() -> None:
    installer = installer_of("vm", machine(**{**DEBIAN, "install-args": "priority=low"}))
    assert installer is not None
    base = "http://deb.example/debian/dists/bookworm/main/installer-amd64/current/images/netboot/debian-installer/amd64"
    assert (installer.kernel, installer.ramdisk) == (f"{base}/linux", f"{base}/initrd.gz")
    assert installer.arguments == "console=ttyS0 priority=low auto=true"


def test_installers_that_are_told_their_repository() -> None:
    for distro in ("rhlike", "sleslike"):
        installer = installer_of(
            "vm", machine(**{"install-repository": "https://r.example/os", "install-distro": distro})
        )
        assert installer is not None
        assert "=https://r.example/os " in installer.arguments
        assert installer.kernel.startswith("https://r.example/os/")


@pytest.mark.parametrize(
    "config",
    [{}, {"install-repository": "cdrom"}, {"install-repository": "file:///etc"}, {**DEBIAN, ROUND: "2"}],
)
def test_machines_that_are_not_installed_from_the_network(config: dict[str, str]) -> None:
    assert installer_of("vm", machine(**config)) is None


@pytest.mark.parametrize(
    "config",
    [
        {**DEBIAN, "install-distro": "windowslike"},
        {**DEBIAN, "debian-release": "../.."},
        {**DEBIAN, "debian-release": ""},
    ],
)
def test_installers_nobody_knows(config: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="BOOTLOADER_FAILED"):
        installer_of("vm", machine(**config))


@asynccontextmanager
async def mirror(files: dict[str, bytes]) -> AsyncIterator[str]:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        body = files.get(path.lstrip("/"))
        head = b"404 Not Found" if body is None else b"200 OK"
        body = body or b""
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (head, len(body), body))

    async with server(answer) as url:
        yield url


async def test_an_installer_is_fetched_for_one_boot(host: World) -> None:
    family = FAMILIES["rhlike"]
    async with mirror({family.kernel: b"kernel", family.ramdisk: b"ramdisk"}) as url:
        config = {"install-repository": url, "install-distro": "rhlike", "mac_seed": "s"}
        vm = await host.machine(disks=0, cards=0, other_config=config)
        fields = await boot_overrides(host.stack, vm)
    directory = host.stack.settings.state_dir / "guest" / host.get("VM", vm, "uuid")
    assert (fields["PV_kernel"], fields["PV_ramdisk"]) == (str(directory / "linux"), str(directory / "initrd"))
    assert (directory / "linux").read_bytes() == b"kernel"
    assert (directory / "initrd").read_bytes() == b"ramdisk"
    assert (fields["domain_type"], fields["HVM_boot_policy"], fields["PV_bootloader"]) == ("pv", "", "")
    record_installing(host.stack, vm)
    assert await boot_overrides(host.stack, vm) == {}
    await discard(host.stack, host.get("VM", vm, "uuid"))
    assert not directory.exists()


async def test_a_repository_without_an_installer(host: World) -> None:
    async with mirror({}) as url:
        config = {"install-repository": url, "install-distro": "rhlike", "mac_seed": "s"}
        vm = await host.machine(disks=0, cards=0, other_config=config)
        with pytest.raises(ApiError, match="BOOTLOADER_FAILED"):
            await boot_overrides(host.stack, vm)
