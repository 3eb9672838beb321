"""Machines of a simulated host that are installed from repositories on loopback, good ones and others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from domzero.toolstack.vm.console_places import ConsolePlaces
from domzero.toolstack.vm.install import repository as fetching
from domzero.toolstack.vm.install.repository import nfs_file
from domzero.toolstack.vm.install.source import read_repository
from tests.host.test_download import Answer, server
from tests.toolstack.vm.install.repository import ASKED, BOOT_HEADER, PLACES, repository, served
from tests.toolstack.vm.world import World, world

KERNEL, RAMDISK = BOOT_HEADER + b"kernel" * 1000, b"ramdisk" * 1000


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as running:
        yield running


async def machine(host: World, url: str, config: dict[str, str], **fields: Any) -> str:
    asked = {"install-repository": url, **config}
    return await host.machine(PV_kernel="", PV_ramdisk="", PV_bootloader="eliloader", other_config=asked, **fields)


def guest_files(host: World, vm: str) -> dict[str, bytes]:
    directory = host.stack.settings.state_dir / "guest" / host.get("VM", vm, "uuid")
    return {path.name: path.read_bytes() for path in directory.glob("*")}


@pytest.mark.parametrize("layout", PLACES)
async def test_each_family_boots_its_installer_and_then_its_disk(host: World, layout: str) -> None:
    with served(repository(layout, KERNEL, RAMDISK)) as (url, asked):
        vm = await machine(host, url, dict(ASKED[layout]))
        await host.call("VM.start", vm, False, False)
        assert guest_files(host, vm) == {"linux": KERNEL, "initrd": RAMDISK}
        booted = await host.call("VM.get_boot_record", vm)
        assert booted["PV_kernel"].endswith("/linux")
        assert (host.get("VM", vm, "PV_kernel"), booted["PV_bootloader"]) == ("", "")
        fetched = len(asked)
        loaders = [host.get("VM", vm, "PV_bootloader")]
        while loaders[-1] != "pygrub":
            await host.call("VM.hard_reboot", vm)
            loaders.append(host.get("VM", vm, "PV_bootloader"))
            assert guest_files(host, vm) == {}
        await host.call("VM.hard_reboot", vm)
        assert len(asked) == fetched
    two = layout in ("red-hat-4", "suse", "suse-9")
    assert loaders == (["eliloader", "pygrub"] if two else ["pygrub"])
    assert (await host.call("VM.get_boot_record", vm))["PV_bootloader"] == "pygrub"


@pytest.mark.parametrize("vnc", ["true", "false"])
async def test_the_screen_is_the_installers_where_it_is_asked_for(host: World, vnc: str) -> None:
    with served(repository("centos", KERNEL, RAMDISK)) as (url, _):
        vm = await machine(host, url, {**ASKED["centos"], "install-vnc": vnc, "install-vncpasswd": "secret"})
        await host.call("VM.start", vm, False, False)
    booted = await host.call("VM.get_boot_record", vm)
    assert ("console=tty0" in booted["PV_args"], "secret" in booted["PV_args"]) == (vnc == "true", False)
    screen = await ConsolePlaces(host.stack).find(vm)
    assert (screen.protocol, screen.title is None) == ("rfb", vnc == "true")
    await host.call("VM.hard_reboot", vm)
    assert (await ConsolePlaces(host.stack).find(vm)).title is not None


async def test_a_suspended_installer_goes_on_and_counts_no_round(host: World) -> None:
    with served(repository("suse", KERNEL, RAMDISK)) as (url, _):
        vm = await machine(host, url, dict(ASKED["suse"]))
        await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    await host.call("VM.resume", vm, False, False)
    assert guest_files(host, vm).keys() == {"linux", "initrd"}
    assert host.get("VM", vm, "other_config")["install-round"] == "2"
    await host.call("VM.hard_shutdown", vm)
    await host.call("VM.destroy", vm)


@pytest.mark.parametrize("layout", ["debian", "red-hat", "suse"])
async def test_files_that_are_not_those_of_the_checksums(host: World, layout: str) -> None:
    files = repository(layout, KERNEL, RAMDISK)
    files[PLACES[layout][1]] = RAMDISK[:-1] + b"?"
    with served(files) as (url, _):
        vm = await machine(host, url, dict(ASKED[layout]))
        code, _, why = await host.fails("VM.start", vm, False, False)
    assert code == "BOOTLOADER_FAILED"
    assert "sha256 checksum" in why
    assert host.get("VM", vm, "PV_bootloader") == "eliloader"
    assert guest_files(host, vm) == {}


def says(text: bytes) -> Answer:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


async def in_circles(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: %sx\r\nContent-Length: 0\r\n\r\n" % path.encode())


async def byte_by_byte(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def headers_for_ever(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


HOSTILE: dict[str, tuple[Answer, str]] = {
    "missing": (says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "answered 404"),
    "refusing": (says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "answered 403"),
    "to a file": (says(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"), "302"),
    "in circles": (in_circles, "redirect"),
    "too large": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "larger than"),
    "empty": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "empty"),
    "cut off": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"), "promised 1000"),
    "rubbish": (says(b"\0\1\2" * 100), "could not be fetched"),
    "byte by byte": (byte_by_byte, "within"),
    "headers for ever": (headers_for_ever, "within"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_repositories(host: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, word = HOSTILE[kind]
    over = asyncio.Event()

    async def until_the_end(path: str, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await answer(path, writer)
        over.set()

    if word == "within":
        monkeypatch.setattr(fetching, "PATIENCE", 0.2)
    async with server(until_the_end) as url:
        vm = await machine(host, url.replace("//", "//user:secret@"), {"install-distro": "rhlike"})
        code, about, why = await host.fails("VM.start", vm, False, False)
        await asyncio.wait_for(over.wait(), 20)
    assert (code, about) == ("BOOTLOADER_FAILED", vm)
    assert f"{url}/images/pxeboot/vmlinuz" in why
    assert word in why
    assert "secret" not in why
    assert (host.power_state(vm), host.domids(), host.cards(), guest_files(host, vm)) == ("Halted", set(), set(), {})


NO_INSTALLERS = {
    "a page": (b"<html>Please log in</html>".ljust(2000), RAMDISK, "no Linux kernel"),
    "next to nothing": (b"x", RAMDISK, "no Linux kernel"),
    "no magic": (KERNEL.replace(b"HdrS", b"HdrT"), RAMDISK, "no Linux kernel"),
    "more than the machine": (KERNEL, bytes(20 << 20), "it has 21 MiB, and the machine's memory 16 MiB"),
}


MEMORY = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")


@pytest.mark.parametrize("kind", NO_INSTALLERS)
async def test_what_cannot_be_booted(host: World, kind: str) -> None:
    """Of a repository without checksums; with these it would be all the same."""
    kernel, ramdisk, why = NO_INSTALLERS[kind]
    with served(repository("red-hat-4", kernel, ramdisk)) as (url, _):
        vm = await machine(host, url, dict(ASKED["red-hat-4"]))
        host.change("VM", vm, **dict.fromkeys(MEMORY, 16 << 20))
        code, about, said = await host.fails("VM.start", vm, False, False)
    assert (code, about) == ("BOOTLOADER_FAILED", vm)
    assert said.startswith(f"the installer at {url} cannot be booted: ")
    assert why in said
    assert (host.power_state(vm), guest_files(host, vm)) == ("Halted", {})
    assert host.get("VM", vm, "PV_bootloader") == "eliloader"
    assert "install-round" not in host.get("VM", vm, "other_config")


async def test_nobody_listens(host: World) -> None:
    vm = await machine(host, "http://127.0.0.1:9/", {"install-distro": "rhlike"})
    code, _, why = await host.fails("VM.start", vm, False, False)
    assert (code, "Connection refused" in why) == ("BOOTLOADER_FAILED", True)


async def test_a_start_that_waits_for_a_repository_shows_how_far_it_is_and_can_be_cancelled(host: World) -> None:
    half = asyncio.Event()

    async def slow(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
        await writer.drain()
        await half.wait()

    async with server(slow) as url:
        vm = await machine(host, url, {"install-distro": "rhlike"})
        task = await host.call("Async.VM.start", vm, False, False)
        async with asyncio.timeout(20):
            while host.get("task", task, "progress") == 0:  # noqa: ASYNC110 - it is looked at as clients do
                await asyncio.sleep(0.01)
        assert host.get("task", task, "progress") == pytest.approx(0.09, abs=0.02)
        await host.call("task.cancel", task)
        async with asyncio.timeout(20):
            while host.get("task", task, "status") != "cancelled":  # noqa: ASYNC110 - so it is here
                await asyncio.sleep(0.01)
        half.set()
    assert host.get("task", task, "status") == "cancelled"
    assert (host.power_state(vm), guest_files(host, vm)) == ("Halted", {})


async def test_a_repository_on_nfs_is_reached_without_a_mount(host: World) -> None:
    repository = read_repository("nfs:server.example:/export/os/")
    assert repository is not None
    place = nfs_file(repository, "images/pxeboot/vmlinuz").place
    assert str(place) == ("nfs:server.type=inet,server.host=server.example,path=/export/os/images/pxeboot/vmlinuz")
    vm = await machine(host, "nfs:server.example:/export/os", {"install-distro": "rhlike"})
    code, _, why = await host.fails("VM.start", vm, False, False)
    assert (code, "nfs://server.example/export/os/images/pxeboot/vmlinuz" in why) == ("BOOTLOADER_FAILED", True)
