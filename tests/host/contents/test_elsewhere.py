"""Disks that are not files: on devices of the host, and on servers that want a password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host.contents.protocol import ContentError
from domzero.host.contents.qemu import QemuContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent, RemoteImage
from tests.host.contents.conftest import DATA, MIB, children, open_files
from tests.host.storage.iscsi_target import IQN, needs_tgt, running_target
from tests.host.storage.loops import loop_device

PASSWORD = "open-sesame-open"
needs_loops = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)


def shown() -> str:
    """What everybody can see of the tool."""
    (pid,) = (pid for pid, name in children().items() if name.startswith("qemu-storage"))
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ"))


@needs_loops
@pytest.mark.root
@pytest.mark.slow
async def test_a_device_and_a_part_of_it(tmp_path: Path, runtime: Path) -> None:
    """A logical volume is a link to a device, or an extent of one."""
    contents = QemuContents(runtime)
    with loop_device(tmp_path / "medium", 32 * MIB) as device:
        link = tmp_path / "volume"
        link.symlink_to(device)
        whole = DiskSource(link, DiskFormat.RAW)
        part = DiskSource(Extent(device, 8 * MIB, 8 * MIB), DiskFormat.RAW)
        async with contents.writing(part) as disk:
            assert disk.size == 8 * MIB
            await disk.write(MIB, DATA)
            with pytest.raises(ContentError, match="not within"):
                await disk.write(8 * MIB, b"x")
            await disk.flush()
        async with contents.writing(whole) as disk:
            assert disk.size == 32 * MIB
            await disk.zero(9 * MIB, 512)
            await disk.write(31 * MIB, b"end")
            await disk.flush()
        async with contents.reading(part) as one, contents.reading(whole) as other:
            assert await one.read(MIB, len(DATA)) == await other.read(9 * MIB, len(DATA))
            assert await one.read(MIB, len(DATA)) == bytes(512) + DATA[512:]
            assert sum([stretch.length async for stretch in other.stretches()]) == 32 * MIB
            assert await other.read(31 * MIB, 3) == b"end"


@needs_tgt
@pytest.mark.slow
async def test_a_server_that_wants_a_password(tmp_path: Path, runtime: Path) -> None:
    image, contents, before = tmp_path / "image", QemuContents(runtime), open_files()
    image.write_bytes(bytes(16 * MIB))
    with running_target(tmp_path / "log") as target:
        target.add(1, image)
        target.want("guest", PASSWORD)

        def disk_with(password: str) -> DiskSource:
            named: dict[str, str | int | bool] = {
                "transport": "tcp", "portal": f"127.0.0.1:{target.port}", "target": IQN, "lun": 1, "user": "guest",
                "initiator-name": "iqn.2026-01.test:host",
            }  # fmt: skip
            return DiskSource(RemoteImage("iscsi", tuple(named.items()), "password-secret", password), DiskFormat.RAW)

        async with contents.writing(disk_with(PASSWORD)) as disk:
            assert disk.size == 16 * MIB
            assert PASSWORD not in shown()
            await disk.write(5 * MIB, DATA)
            await disk.flush()
        async with contents.reading(disk_with(PASSWORD)) as reader:
            assert await reader.read(5 * MIB, len(DATA)) == DATA
        with pytest.raises(ContentError, match="iSCSI"):
            async with contents.reading(disk_with("wrong-wrong-wrong")):
                pytest.fail("it was opened")
    assert not children()
    assert open_files() == before
