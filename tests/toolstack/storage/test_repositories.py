"""What repositories and disks are called, shared and protected from, through the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.vm.world import DISK, DRIVE, World

NAMES = [
    "a/b",
    "../../etc/passwd",
    "two\nlines\r\n",
    "/",
    "..",
    "",
    "-rf",
    "$(id)`id`;",
    "\u202e\U0001f4be",
    "x" * 5000,
]


def default_sr(host: World) -> Ref:
    return str(host.get("pool", host.stack.pool, "default_SR"))


async def new_repository(host: World, directory: Path, name: str = "second") -> Ref:
    config = {"location": str(directory)}
    return str(await host.call("SR.create", host.stack.host, config, "0", name, "", "file", "user", False, {}))


async def test_names_are_words_only(host: World, tmp_path: Path) -> None:
    """Nothing on the host is called as clients call their things; what they say is kept to the letter."""
    before = host.files()
    sr = default_sr(host)
    disks = [await host.call("VDI.create", {**DISK, "SR": sr, "name_label": name}) for name in NAMES]
    networks = [
        await host.call("network.create", {"name_label": name, "name_description": name, "other_config": {}})
        for name in NAMES
    ]
    assert [host.get("VDI", vdi, "name_label") for vdi in disks] == NAMES
    assert [host.get("network", network, "name_label") for network in networks] == NAMES
    assert set(host.files()) - set(before) == {f"{host.get('VDI', vdi, 'uuid')}.raw" for vdi in disks}
    await host.call("SR.scan", sr)
    assert [host.get("VDI", vdi, "name_label") for vdi in disks] == NAMES
    for vdi in disks:
        await host.call("VDI.destroy", vdi)
    assert set(host.files()) == set(before)


async def test_an_indestructible_repository_stays(host: World, tmp_path: Path) -> None:
    """Until its key is taken away."""
    sr = await new_repository(host, tmp_path / "second")
    await host.call("SR.add_to_other_config", sr, "indestructible", "true")
    (pbd,) = host.get("SR", sr, "PBDs")
    await host.call("PBD.unplug", pbd)
    error = await host.fails("SR.destroy", sr)
    assert error[:2] == ("SR_INDESTRUCTIBLE", sr)
    assert "destroy" not in host.get("SR", sr, "allowed_operations")
    await host.call("SR.remove_from_other_config", sr, "indestructible")
    assert "destroy" in host.get("SR", sr, "allowed_operations")
    await host.call("SR.set_other_config", sr, {"indestructible": "true"})
    assert "destroy" not in host.get("SR", sr, "allowed_operations")
    await host.call("SR.set_other_config", sr, {})
    await host.call("SR.destroy", sr)
    assert sr not in host.stack.database.refs("SR")


async def test_a_repository_with_disks_is_not_destroyed(host: World, tmp_path: Path) -> None:
    sr = await new_repository(host, tmp_path / "second")
    vdi = await host.call("VDI.create", {**DISK, "SR": sr})
    await host.call("PBD.unplug", host.get("SR", sr, "PBDs")[0])
    assert await host.fails("SR.destroy", sr) == ("SR_NOT_EMPTY",)
    assert {"forget", "destroy"} & set(host.get("SR", sr, "allowed_operations")) == {"forget"}
    await host.call("VDI.forget", vdi)
    assert "destroy" in host.get("SR", sr, "allowed_operations")


async def test_a_repository_without_a_pbd_is_only_forgotten(host: World, tmp_path: Path) -> None:
    """It says so, and that it can be destroyed again as soon as a PBD tells where it is."""
    sr = await new_repository(host, tmp_path / "second")
    (pbd,) = host.get("SR", sr, "PBDs")
    await host.call("PBD.unplug", pbd)
    config = host.get("PBD", pbd, "device_config")
    await host.call("PBD.destroy", pbd)
    assert {"forget", "destroy"} & set(host.get("SR", sr, "allowed_operations")) == {"forget"}
    assert await host.fails("SR.destroy", sr) == ("SR_HAS_NO_PBDS", sr)
    await host.call("PBD.create", {"host": host.stack.host, "SR": sr, "device_config": config})
    assert {"forget", "destroy"} <= set(host.get("SR", sr, "allowed_operations"))
    await host.call("SR.destroy", sr)


async def test_what_is_forgotten_leaves_empty_drives_and_no_figures(host: World, tmp_path: Path) -> None:
    """A machine keeps its CD drive when the library goes; a drive of a disk that is gone is none."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "disc.iso").write_bytes(bytes(4096))
    library = await host.call(
        "SR.create", host.stack.host, {"location": str(images)}, "0", "library", "", "iso", "iso", False, {}
    )
    second = await new_repository(host, tmp_path / "second")
    vm = await host.machine(disks=0, cards=0)
    (disc,) = host.get("SR", library, "VDIs")
    drive = await host.call(
        "VBD.create", {**DRIVE, "VM": vm, "VDI": disc, "type": "CD", "mode": "RO", "userdevice": "3"}
    )
    vdi = await host.call("VDI.create", {**DISK, "SR": second})
    hard = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})
    figures = host.get("VBD", hard, "metrics")
    for sr in (library, second):
        await host.call("PBD.unplug", host.get("SR", sr, "PBDs")[0])
        await host.call("SR.forget", sr)
    assert host.get("VM", vm, "VBDs") == (drive,)
    assert (host.get("VBD", drive, "empty"), host.get("VBD", drive, "VDI")) == (True, NULL_REF)
    assert host.get("VBD", drive, "allowed_operations") == ("attach", "insert")
    assert host.stack.database.find("VBD_metrics", figures) is None


async def test_saved_memory_tells_what_can_be_done_with_it(host: World) -> None:
    vm = await host.machine(disks=0, cards=0)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    image = host.get("VM", vm, "suspend_VDI")
    assert {"copy", "destroy", "forget"} <= set(host.get("VDI", image, "allowed_operations"))


async def test_what_is_not_shared_is_plugged_into_one_host(host: World) -> None:
    sr = default_sr(host)
    other = {name: host.get("host", host.stack.host, name) for name in ("name_label", "hostname")}
    with host.stack.database.transaction() as transaction:
        second = transaction.create("host", {**other, "address": "192.0.2.2"})
        pbd = transaction.create("PBD", {"host": second, "SR": sr, "device_config": {}, "other_config": {}})
    assert await host.fails("PBD.plug", pbd) == ("SR_NOT_SHARABLE", sr, second)
    assert host.get("PBD", pbd, "currently_attached") is False


@pytest.mark.parametrize("shared", [True, False])
async def test_whether_hosts_share_a_repository_can_be_said(host: World, shared: bool) -> None:
    sr = default_sr(host)
    await host.call("SR.set_shared", sr, not shared)
    await host.call("SR.set_shared", sr, shared)
    assert host.get("SR", sr, "shared") is shared


async def test_what_several_hosts_use_stays_shared(host: World) -> None:
    sr = default_sr(host)
    await host.call("SR.set_shared", sr, True)
    other = {name: host.get("host", host.stack.host, name) for name in ("name_label", "hostname")}
    with host.stack.database.transaction() as transaction:
        second = transaction.create("host", {**other, "address": "192.0.2.2"})
        transaction.create("PBD", {"host": second, "SR": sr, "device_config": {}, "other_config": {}})
    assert await host.fails("SR.set_shared", sr, False) == ("SR_HAS_MULTIPLE_PBDS", sr)
    assert host.get("SR", sr, "shared") is True
