"""Installers fetched by HTTPS, by FTP, and by NFS with QEMU's own client, from servers on loopback."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the library has no types

from domzero.front.certificates import Certificate, ensure_certificate, tls_context
from domzero.host.contents.qemu import QemuContents
from domzero.toolstack.vm.install import repository as fetching
from tests.host.ftp import ftp_server
from tests.host.network.stage import network_namespace
from tests.host.nfs import NFS_PORT, PORTMAPPER, NfsServer, nfs_server
from tests.host.serving import serving
from tests.host.test_download import Answer, server
from tests.toolstack.vm.install.repository import ASKED, BOOT_HEADER, PLACES, repository
from tests.toolstack.vm.install.test_fetching import guest_files, machine
from tests.toolstack.vm.world import World, world

KERNEL, RAMDISK = BOOT_HEADER + b"kernel" * 1001, b"ramdisk" * 30_001
"""Neither is a whole number of sectors."""
EXPORT = "/export/os"
EVERY_LAYOUT = pytest.mark.parametrize("layout", PLACES)

on_nfs = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not list(Path("/usr/lib").glob("*/qemu/block-nfs.so")),
        reason="needs root, and QEMU's NFS client (Debian: qemu-block-extra)",
    ),
]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as running:
        running.stack.contents = QemuContents(tmp_path)
        yield running


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """This thread, and the processes that it starts, are in another network namespace for the while."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, namespace.open() as other:
        for place in (other, home):
            if libc.setns(place.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")
            if place is other:
                with IPRoute() as route:
                    route.link("set", index=1, state="up")
                yield


@pytest.fixture
def elsewhere() -> Iterator[None]:
    with network_namespace() as namespace, inside(namespace):
        yield


def exported(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{EXPORT}/{path}": content for path, content in files.items()}


async def fails(host: World, url: str, config: dict[str, Any]) -> str:
    """What is said about a machine that cannot be installed, of which nothing is left."""
    vm = await machine(host, url, config)
    code, about, why = await host.fails("VM.start", vm, False, False)
    assert (code, about) == ("BOOTLOADER_FAILED", vm)
    assert (host.power_state(vm), guest_files(host, vm)) == ("Halted", {})
    return why


# HTTPS


def holding(files: dict[str, bytes]) -> Answer:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        body = files.get(path.removeprefix("/os/"))
        status = b"404 Not Found" if body is None else b"200 OK"
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body or b""))
        writer.write(head + (body or b""))

    return answer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("certificate"), [], ["127.0.0.1"])


@EVERY_LAYOUT
async def test_each_familys_installer_comes_by_https(
    host: World, layout: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    async with server(holding(repository(layout, KERNEL, RAMDISK)), tls_context(certificate)) as url:
        vm = await machine(host, f"{url}/os/", dict(ASKED[layout]))
        await host.call("VM.start", vm, False, False)
    assert guest_files(host, vm) == {"linux": KERNEL, "initrd": RAMDISK}
    told = (await host.call("VM.get_boot_record", vm))["PV_args"]
    port = url.rpartition(":")[2]
    names_it = ("https", f"127.0.0.1:{port}", "/os") if "mirror/" in told else (f"https://127.0.0.1:{port}/os",)
    assert all(name in told for name in names_it)


async def test_an_https_repository_that_is_not_who_it_says(host: World, certificate: Certificate) -> None:
    async with server(holding(repository("red-hat", KERNEL, RAMDISK)), tls_context(certificate)) as url:
        why = await fails(host, f"{url}/os", dict(ASKED["red-hat"]))
    assert "certificate is not to be trusted" in why


# FTP


@EVERY_LAYOUT
async def test_each_familys_installer_comes_by_ftp(host: World, layout: str) -> None:
    files = {f"pub/os/{path}": content for path, content in repository(layout, KERNEL, RAMDISK).items()}
    async with ftp_server(files) as url:
        vm = await machine(host, url.replace("//", "//user:secret@") + "/pub/os/", dict(ASKED[layout]))
        await host.call("VM.start", vm, False, False)
    assert guest_files(host, vm) == {"linux": KERNEL, "initrd": RAMDISK}
    assert "secret" not in (await host.call("VM.get_boot_record", vm))["PV_args"]


async def test_what_is_wrong_with_an_ftp_repository(host: World) -> None:
    files = repository("red-hat", KERNEL, RAMDISK)
    async with ftp_server({**files, PLACES["red-hat"][1]: RAMDISK[:-1] + b"?"}) as url:
        assert "sha256 checksum" in await fails(host, url, dict(ASKED["red-hat"]))
    async with ftp_server({}) as url:
        why = await fails(host, url.replace("//", "//user:secret@"), dict(ASKED["red-hat"]))
    assert f"{url}/images/pxeboot/vmlinuz" in why
    assert "secret" not in why
    assert "refused" in (await fails(host, "ftp://127.0.0.1:9/", dict(ASKED["red-hat"]))).lower()


# NFS


class TestNfs:
    """In a network namespace of the test's own, since its servers' ports cannot be chosen."""

    pytestmark = on_nfs

    @pytest.fixture(autouse=True)
    async def _away(self, host: World, elsewhere: None) -> None:
        """All of it happens elsewhere."""

    async def started(self, host: World, address: str, layout: str, server: dict[str, bytes]) -> NfsServer:
        async with nfs_server(server) as running:
            vm = await machine(host, address, dict(ASKED[layout]))
            await host.call("VM.start", vm, False, False)
        files = guest_files(host, vm)
        assert files.keys() == {"linux", "initrd"}
        assert files["linux"].rstrip(b"\0") == KERNEL
        assert files["initrd"].rstrip(b"\0") == RAMDISK
        return running

    @EVERY_LAYOUT
    async def test_each_familys_installer(self, host: World, layout: str) -> None:
        server = await self.started(
            host, f"nfs:127.0.0.1:{EXPORT}", layout, exported(repository(layout, KERNEL, RAMDISK))
        )
        assert {f"{EXPORT}/{path}" for path in PLACES[layout]} <= set(server.asked)

    @pytest.mark.parametrize("address", [f"nfs://127.0.0.1{EXPORT}/", f"nfs:127.0.0.1:{EXPORT}/", "nfs:127.0.0.1:/"])
    async def test_each_way_to_write_an_address(self, host: World, address: str) -> None:
        files = repository("centos", KERNEL, RAMDISK)
        whole = {f"/{path}": content for path, content in files.items()} | exported(files)
        await self.started(host, address, "centos", whole)

    async def test_published_checksums_are_of_the_file_and_not_of_its_blocks(self, host: World) -> None:
        digest = hashlib.sha256(RAMDISK).hexdigest()
        files = repository("red-hat", KERNEL, RAMDISK)
        assert digest.encode() in files[".treeinfo"]
        await self.started(host, f"nfs:127.0.0.1:{EXPORT}", "red-hat", exported(files))
        files[PLACES["red-hat"][1]] = RAMDISK[:-1] + b"?"
        async with nfs_server(exported(files)):
            assert "sha256 checksum" in await fails(host, f"nfs:127.0.0.1:{EXPORT}", dict(ASKED["red-hat"]))

    async def test_what_is_not_there(self, host: World) -> None:
        address, asked = f"nfs:127.0.0.1:{EXPORT}", dict(ASKED["red-hat"])
        why = await fails(host, address, asked)
        assert f"nfs://127.0.0.1{EXPORT}/images/pxeboot/vmlinuz" in why, "nobody serves"
        async with nfs_server({"/export/other/file": b""}):
            await fails(host, address, asked)
        async with nfs_server(exported({"images/pxeboot/vmlinuz": KERNEL})):
            assert "initrd.img" in await fails(host, address, asked)

    async def test_a_server_that_keeps_silent(self, host: World, monkeypatch: pytest.MonkeyPatch) -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        monkeypatch.setattr(fetching, "PATIENCE", 1.0)
        async with serving(silence, PORTMAPPER), serving(silence, NFS_PORT), asyncio.timeout(20):
            why = await fails(host, f"nfs:127.0.0.1:{EXPORT}", dict(ASKED["suse"]))
        assert "the repository is too slow: more than 1 seconds have passed" in why

    async def test_a_file_that_is_too_large(self, host: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetching, "LARGEST_RAMDISK", len(RAMDISK) - 1000)
        async with nfs_server(exported(repository("suse", KERNEL, RAMDISK))):
            assert "larger than" in await fails(host, f"nfs:127.0.0.1:{EXPORT}", dict(ASKED["suse"]))
