"""Kernels out of disks that guests wrote, by the real pygrub."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from domzero.host.bootloader import pygrub
from domzero.host.bootloader.protocol import FoundKernel, LoaderError, LoaderOptions
from domzero.host.bootloader.pygrub import Pygrub
from domzero.host.bootloader.sandbox import Limits, confined
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.process import Completed, run
from tests.host.bootloader.disks import KERNEL, RAMDISK, file_system, partitioned
from tests.host.children import arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(
        None in (shutil.which("pygrub"), shutil.which("bwrap")) or os.geteuid() != 0,
        reason="needs root, and pygrub and bwrap (Debian: xen-utils-4.17, bubblewrap)",
    ),
]

USER = 0x7CFFFFF0
"""Nobody's."""


@pytest.fixture
def loader(tmp_path: Path) -> Pygrub:
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    return Pygrub(runtime, USER)


def leftovers(tmp_path: Path) -> list[str]:
    """What the loader left of its work, and of its mounts."""
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts
    return os.listdir(tmp_path / "runtime")


async def find(loader: Pygrub, disk: DiskSource, tmp_path: Path, options: LoaderOptions | None = None) -> FoundKernel:
    return await loader.find(disk, options or LoaderOptions(), tmp_path / "linux", tmp_path / "initrd")


def raw(path: Path) -> DiskSource:
    return DiskSource(path, DiskFormat.RAW)


@pytest.mark.parametrize("kind", ["raw", "qcow2", "partitioned"])
async def test_what_the_menu_names_is_copied(loader: Pygrub, tmp_path: Path, kind: str) -> None:
    path = file_system(tmp_path)
    disk = raw(partitioned(path) if kind == "partitioned" else path)
    if kind == "qcow2":
        image = tmp_path / "image"
        await run(["qemu-img", "convert", "-O", "qcow2", path, image])
        disk = DiskSource(image, DiskFormat.QCOW2)
    disk.path.chmod(0o600)
    found = await find(loader, disk, tmp_path, LoaderOptions(arguments="single"))
    assert found.arguments == "root=/dev/xvda1 ro console=hvc0 single"
    assert found.ramdisk is not None
    assert (found.kernel.read_bytes(), found.ramdisk.read_bytes()) == (KERNEL, RAMDISK)
    assert leftovers(tmp_path) == []


async def test_other_entries_and_files(loader: Pygrub, tmp_path: Path) -> None:
    disk = raw(file_system(tmp_path))
    found = await find(loader, disk, tmp_path, LoaderOptions(entry="Second"))
    assert (found.kernel.read_bytes(), found.ramdisk, found.arguments) == (b"other", None, "root=/dev/xvda2")
    found = await find(loader, disk, tmp_path, LoaderOptions(kernel="/boot/other", arguments="a"))
    assert (found.kernel.read_bytes(), found.arguments) == (b"other", "a")


HOSTILE = {
    "nothing": b"",
    "rubbish": os.urandom(1 << 20),
    "a table of nowhere": (bytes(446) + b"\x80\0\0\0\x83\0\0\0" + b"\xff" * 8).ljust(510, b"\0") + b"\x55\xaa",
    "a table without end": (bytes(446) + b"\0\0\0\0\xee\0\0\0\1\0\0\0\xff\xff\xff\xff").ljust(510, b"\0")
    + b"\x55\xaa"
    + b"EFI PART".ljust(80, b"\0")
    + b"\xff\xff\xff\xff\x80\0\0\0",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_disks_without_sense(loader: Pygrub, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pygrub, "PATIENCE", 3.0)
    disk = tmp_path / "disk"
    disk.write_bytes(HOSTILE[kind].ljust(1 << 20, b"\0"))
    with pytest.raises(LoaderError, match="pygrub"):
        await find(loader, raw(disk), tmp_path)
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "linux").exists()


@pytest.mark.parametrize(
    "menu",
    [
        "menuentry 'x' {\n linux /boot/missing\n}\n",
        "menuentry 'x' {\n linux /etc/shadow\n}\n",
        "menuentry 'x' {\n linux /boot/empty\n}\n",
        "{" * 10000,
        "\0" * 10000,
        "",
    ],
)
async def test_menus_without_sense(loader: Pygrub, tmp_path: Path, menu: str) -> None:
    with pytest.raises(LoaderError):
        await find(loader, raw(file_system(tmp_path, menu)), tmp_path)
    assert leftovers(tmp_path) == []


async def test_a_broken_file_system_is_no_harm(loader: Pygrub, tmp_path: Path) -> None:
    path = file_system(tmp_path)
    content = bytearray(path.read_bytes())
    for offset in range(1024, 1 << 20, 97):
        content[offset] ^= 0xA5
    path.write_bytes(content)
    with pytest.raises(LoaderError):
        await find(loader, raw(path), tmp_path)
    assert leftovers(tmp_path) == []


def works_on(place: Path) -> bool:
    """Whether a process has to do with what is there, by its arguments."""
    return any(str(place).encode() in b"\0".join(arguments(int(pid))) for pid in os.listdir("/proc") if pid.isdecimal())


async def test_cancelling_leaves_neither_process_nor_mount(loader: Pygrub, tmp_path: Path) -> None:
    disk = raw(file_system(tmp_path))
    for wait in (0.0, 0.01, 0.03, *(0.05 + 0.004 * number for number in range(10)), 0.12, 0.15):
        task = asyncio.ensure_future(find(loader, disk, tmp_path))
        await asyncio.wait({task}, timeout=wait)
        task.cancel()
        await asyncio.wait({task})
        assert leftovers(tmp_path) == []
        assert (tmp_path / "linux").exists() != task.cancelled()
        async with asyncio.timeout(30):
            while works_on(tmp_path):  # noqa: ASYNC110 - what was killed goes when the kernel comes to it
                await asyncio.sleep(0.01)


async def test_what_is_cancelled_at_the_very_end_leaves_no_kernel(
    loader: Pygrub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, remove = threading.Event(), threading.Event(), shutil.rmtree

    def remove_later(path: Path, *, ignore_errors: bool) -> None:
        begun.set()
        assert go_on.wait(60)
        remove(path, ignore_errors=ignore_errors)

    disk = raw(file_system(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_later)
        task = asyncio.ensure_future(find(loader, disk, tmp_path))
        assert await asyncio.to_thread(begun.wait, 60)
        assert await asyncio.to_thread((tmp_path / "linux").exists)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert os.listdir(tmp_path / "runtime") == []
    assert not await asyncio.to_thread((tmp_path / "linux").exists)


async def test_without_the_programs_the_error_names_their_packages(
    loader: Pygrub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pygrub, "PACKAGES", {"no-such-program": "its-package"})
    with pytest.raises(LoaderError, match="its-package"):
        await find(loader, raw(tmp_path / "disk"), tmp_path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "disk").write_bytes(b"the disk")
    (tmp_path / "disk").chmod(0o444)
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", USER, USER)
    (tmp_path / "secret").write_text("secret")
    return tmp_path


async def inside(place: Path, *script: str, limits: Limits | None = None) -> Completed:
    argv = confined(["python3", "-c", "\n".join(script)], place / "disk", place / "out", USER, limits or Limits())
    return await run(argv, timeout=20, check=False)


async def test_the_sandbox_has_its_disk_and_its_output_and_nothing_else(place: Path) -> None:
    said = await inside(
        place,
        "import os, socket",
        "print(open('/disk').read(), os.getuid(), os.getgroups())",
        "open('/out/file', 'w').write('out')",
        "print(sorted(os.listdir('/')))",
        "print(os.path.exists('/proc/self'))",
        "print(socket.if_nameindex())",
    )
    lines = said.stdout.decode().splitlines()
    assert lines[0] == f"the disk {USER} []"
    assert set(eval(lines[1])) <= {"bin", "dev", "disk", "lib", "lib64", "out", "sbin", "tmp", "usr"}
    assert lines[2:] == ["False", "[(1, 'lo')]"]
    assert (place / "out/file").read_text() == "out"


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/disk', 'w')",
        "open('/usr/x', 'w')",
        "open('/tmp/x', 'w')",
        "open('/etc/passwd')",
        "os.setuid(0)",
        "os.chroot('/out')",
        "os.mknod('/out/sda', 0o60600, 0x800)",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "subprocess.run(['unshare', '--user', '--map-root-user', 'mount', '-t', 'tmpfs', 'x', '/tmp'], check=True)",
    ],
)
async def test_the_sandbox_holds(place: Path, attempt: str) -> None:
    said = await inside(place, "import os, socket, subprocess", f"{attempt}", "print('escaped')")
    assert b"escaped" not in said.stdout
    assert said.returncode != 0


async def test_the_sandbox_is_bounded(place: Path) -> None:
    memory = await inside(place, "x = bytearray(400 << 20)", "print('had')", limits=Limits(memory=256 << 20))
    assert b"MemoryError" in memory.stderr
    file = await inside(place, "open('/out/x', 'wb').write(bytes(2 << 20))", limits=Limits(file=1 << 20))
    assert file.returncode != 0
    assert (place / "out/x").stat().st_size <= 1 << 20
    time = await inside(place, "while True: pass", limits=Limits(seconds=1))
    assert time.returncode != 0
