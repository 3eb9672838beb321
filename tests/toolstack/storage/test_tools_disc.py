"""The disc with the guest tools: offered, marked, kept up to date, and nobody's to remove."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.idl.types import Ref
from domzero.toolstack.storage.media import replug_all, scan_all
from domzero.toolstack.storage.tools_disc import ensure_tools_disc
from tests.api.harness import InProcessHost, in_process, login
from tests.toolstack.devices.test_vdi import iso_sr
from tests.toolstack.vm.world import World, world


async def offer(host: World, disc: Path | None) -> None:
    """What a start of the daemon does."""
    host.stack.settings = replace(host.stack.settings, guest_tools=disc)
    await ensure_tools_disc(host.stack)
    await replug_all(host.stack)
    await scan_all(host.stack)


def tools(host: World) -> list[Ref]:
    return [ref for ref, row in host.stack.database.rows("SR").items() if row.record["is_tools_sr"]]


async def test_the_disc_is_offered_once_and_replaced_by_a_newer_one(tmp_path: Path) -> None:
    disc = tmp_path / "made.iso"
    disc.write_bytes(b"first".ljust(4096))
    async with world(tmp_path) as host:
        await offer(host, disc)
        (sr,) = tools(host)
        record = host.row("SR", sr)
        assert (record["name_label"], record["type"], record["content_type"]) == ("XenServer Tools", "iso", "iso")
        assert record["other_config"]["xenserver_tools_sr"] == "true"
        assert record["other_config"]["i18n-key"] == "xenserver-tools"
        (vdi,) = record["VDIs"]
        assert (host.get("VDI", vdi, "name_label"), host.get("VDI", vdi, "virtual_size")) == ("guest-tools.iso", 4096)
        assert host.get("VDI", vdi, "is_tools_iso")
        assert host.get("VDI", vdi, "read_only")

        place = host.stack.settings.state_dir / "tools" / "guest-tools.iso"
        with place.open("rb") as inserted:
            disc.write_bytes(b"second".ljust(8192))
            await offer(host, disc)
            assert inserted.read(5) == b"first", "a machine keeps the disc that is in its drive"
        assert tools(host) == [sr]
        assert host.get("SR", sr, "VDIs") == (vdi,)
        assert host.get("VDI", vdi, "virtual_size") == 8192
        assert [path.name for path in place.parent.iterdir()] == ["guest-tools.iso"]

        before = place.stat().st_ino
        await offer(host, disc)
        assert place.stat().st_ino == before


async def test_nobody_removes_the_disc_or_its_repository(tmp_path: Path) -> None:
    disc = tmp_path / "made.iso"
    disc.write_bytes(bytes(4096))
    async with world(tmp_path) as host:
        await offer(host, disc)
        (sr,) = tools(host)
        (vdi,), (pbd,) = host.get("SR", sr, "VDIs"), host.get("SR", sr, "PBDs")
        assert await host.fails("VDI.destroy", vdi) == ("SR_OPERATION_NOT_SUPPORTED", sr)
        for method in ("SR.forget", "SR.destroy"):
            assert await host.fails(method, sr) == ("SR_HAS_PBD", sr)
        await host.call("PBD.unplug", pbd)
        for method in ("SR.forget", "SR.destroy"):
            assert await host.fails(method, sr) == ("SR_INDESTRUCTIBLE", sr)
        assert {"forget", "destroy"}.isdisjoint(host.get("SR", sr, "allowed_operations"))
        await host.call("PBD.destroy", pbd)
        for method in ("SR.forget", "SR.destroy"):
            assert await host.fails(method, sr) == ("SR_INDESTRUCTIBLE", sr)


async def test_a_host_without_the_disc_has_no_repository_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as host:
        await offer(host, None)
        await offer(host, tmp_path / "never made.iso")
        assert tools(host) == []


async def test_a_disc_of_that_name_elsewhere_is_like_any_other(tmp_path: Path) -> None:
    async with world(tmp_path) as host:
        library = iso_sr(host)
        (pbd,) = host.get("SR", library, "PBDs")
        (Path(host.get("PBD", pbd, "device_config")["location"]) / "guest-tools.iso").write_bytes(bytes(2048))
        await host.call("SR.scan", library)
        (vdi,) = host.get("SR", library, "VDIs")
        assert not host.get("VDI", vdi, "is_tools_iso")


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[InProcessHost]:
    with in_process(tmp_path) as running:
        yield running


def test_a_simulated_host_has_a_stand_in(simulated: InProcessHost) -> None:
    api = login(simulated.url).xenapi
    (sr,) = [sr for sr in api.SR.get_all() if api.SR.get_is_tools_sr(sr)]
    (vdi,) = api.SR.get_VDIs(sr)
    assert api.VDI.get_is_tools_iso(vdi)
    assert api.VDI.get_name_label(vdi) == "guest-tools.iso"
