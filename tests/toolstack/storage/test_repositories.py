"""What repositories and disks are called, shared and protected from, through the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.idl.types import Ref
from tests.toolstack.vm.world import DISK, World

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
    await host.call("SR.destroy", sr)
    assert sr not in host.stack.database.refs("SR")


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
